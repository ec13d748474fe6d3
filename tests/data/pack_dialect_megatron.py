"""Adapters as trainers on Megatron write them: dialect_megatron_core, dialect_megatron_bridge and
dialect_art, each with .tar.xz. Run: pack_dialect_megatron.py TEST_DATA OUT (numpy, safetensors).

The meaning of each is a delta of a Hugging Face weight that a real peer answered (all_linear,
attention_only of the families' goldens), or one made here where no golden adapts the module. Each is
put into Megatron's weight by the formulas of the trainers' import, cut for the ranks as they cut it,
and factored; nothing here goes the way of the C++ reader, from Megatron to Hugging Face.

 - merge_qkv: Megatron-Bridge models/conversion/param_mapping.py merge_qkv_weights (its gated form
   too); the same order in mcore-bridge bridge/gpt_bridge.py _set_attn_state, whose gated q is as the
   hub has it (model/gpts/qwen3_next.py: query[:, :, ::2], gate [:, :, 1::2]).
 - linear_fc1: [gate; up], of tensor-parallel ranks [gate_r; up_r]: GatedMLPMapping.hf_to_megatron.
 - linear_in, linear_out and what ranks hold of them: Megatron-Bridge peft/utils.py
   (ParallelLinearAdapter, GroupedExpertLinearAdapter), peft/lora.py (LoRAMerge.merge).
 - weight0.. of experts: mcore-bridge tuners/lora.py (weights of a TEGroupedLinear).
 - files: verl utils/megatron_peft_utils.py; miles backends/megatron_utils/lora_utils.py.
 - manifests: OpenPipe/ART megatron/train.py (_save_lora_and_optimizer), megatron/merge.py.
"""

import io, json, os, pickle, shutil, subprocess, sys, types, zipfile

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

DATA, OUT = sys.argv[1], sys.argv[2]
ALPHA = 8
rng = np.random.default_rng(7)


# ---- what torch.save writes ----------------------------------------------------------------------

def save_torch(tensors, path):
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    def _rebuild_tensor_v2(*args): pass
    _rebuild_tensor_v2.__module__ = "torch._utils"
    class FloatStorage: pass
    FloatStorage.__module__, FloatStorage.__qualname__ = "torch", "FloatStorage"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    torch.FloatStorage, utils._rebuild_tensor_v2 = FloatStorage, _rebuild_tensor_v2
    sys.modules["torch"], sys.modules["torch._utils"] = torch, utils
    storages = []

    class Tensor:
        def __init__(self, array):
            self.key, self.array = str(len(storages)), np.ascontiguousarray(array, np.float32)
            storages.append(self)
        def __reduce__(self):
            from collections import OrderedDict
            stride = tuple(s // 4 for s in self.array.strides)
            return _rebuild_tensor_v2, (Stored(self), 0, self.array.shape, stride, False,
                                        OrderedDict())

    class Stored:
        def __init__(self, tensor): self.tensor = tensor

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, Stored):
                return ("storage", FloatStorage, value.tensor.key, "cpu", value.tensor.array.size)

    def wrapped(value):
        return {k: wrapped(v) for k, v in value.items()} if isinstance(value, dict) else Tensor(value)

    data = io.BytesIO()
    Pickler(data, protocol=2).dump(wrapped(tensors))
    del sys.modules["torch"], sys.modules["torch._utils"]
    records = [("data.pkl", data.getvalue()), ("byteorder", b"little")]
    records += [(f"data/{t.key}", t.array.tobytes()) for t in storages]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records + [("version", b"3\n")]:
            archive.writestr(zipfile.ZipInfo(f"archive/{name}", (1980, 1, 1, 0, 0, 0)), content)


# ---- deltas and factors --------------------------------------------------------------------------

def answer(name):
    file = safe_open(f"{DATA}/{name}.expect.safetensors", "np")
    return {k[len("delta."):].removesuffix(".weight"): file.get_tensor(k)
            for k in file.keys() if k.startswith("delta.")}


def config_of(base):
    return json.load(open(f"{DATA}/{base}/config.json"))


def factors(delta):
    """A [r, in], B [out, r] with ALPHA / r * B A = delta."""
    u, s, v = np.linalg.svd(delta.astype(np.float64), full_matrices=False)
    r = int((s > 1e-5 * s[0]).sum())
    root = np.sqrt(s[:r])
    return root[:, None] * v[:r], u[:, :r] * root * (r / ALPHA)


def made(out, inputs, r=2):
    return (rng.integers(-8, 8, (out, r)) / 16) @ (rng.integers(-8, 8, (r, inputs)) / 16)


def merge_qkv(q, k, v, heads, kv_heads, gated_apart=False):
    """[q of group 0, (gate of it,) k, v, q of group 1, ...]; q of a gated model [q; gate] a head."""
    size = k.shape[0] // kv_heads
    per_group = heads // kv_heads
    q = q.reshape(heads, -1, q.shape[-1])
    out = []
    for group in range(kv_heads):
        own = q[group * per_group:(group + 1) * per_group]
        if gated_apart:
            out += [own[:, :size].reshape(-1, q.shape[-1]), own[:, size:].reshape(-1, q.shape[-1])]
        else:
            out.append(own.reshape(-1, q.shape[-1]))
        out += [k[group * size:(group + 1) * size], v[group * size:(group + 1) * size]]
    return np.concatenate(out)


# ---- a model's deltas by Megatron's modules ------------------------------------------------------

MLA = {"q_a_proj": "linear_q_down_proj", "q_b_proj": "linear_q_up_proj",
       "kv_a_proj_with_mqa": "linear_kv_down_proj", "kv_b_proj": "linear_kv_up_proj"}


def by_megatron(deltas, config, gated_apart=False, canonical=False):
    """{module: (delta, kind)}; an expert's module is a list of deltas. Kinds say how ranks cut:
    column, fc1, row, whole."""
    out = {}
    heads, kv = config["num_attention_heads"], config.get("num_key_value_heads")
    for layer in range(config["num_hidden_layers"]):
        hub, own = f"model.layers.{layer}.", f"decoder.layers.{layer}."
        get = lambda name: deltas.get(hub + name)
        attention = own + "self_attention."
        if get("self_attn.k_proj") is not None:
            qkv = [get(f"self_attn.{x}_proj") for x in "qkv"]
            if canonical:
                for x, delta in zip("qkv", qkv):
                    out[attention + f"linear_qkv.adapter.adapter_{x}"] = (delta, "column")
            else:
                out[attention + "linear_qkv"] = (merge_qkv(*qkv, heads, kv, gated_apart), "column")
        if get("self_attn.o_proj") is not None:
            out[attention + "linear_proj"] = (get("self_attn.o_proj"), "row")
        for name, mla in MLA.items():
            if get("self_attn." + name) is not None:
                kind = "whole" if "down" in mla else "column"
                out[attention + mla] = (get("self_attn." + name), kind)
        for name, mla in (("in_proj_qkvz",) * 2, ("in_proj_ba",) * 2, ("out_proj",) * 2):
            if get("linear_attn." + name) is not None:
                out[attention + name] = (get("linear_attn." + name), "row")
        for path, mlp in (("mlp.", "mlp."), ("mlp.shared_experts.", "mlp.shared_experts.")):
            if get(path + "gate_proj") is not None:
                pair = [get(path + "gate_proj"), get(path + "up_proj")]
                if canonical:
                    out[own + mlp + "linear_fc1.adapter.adapter_gate"] = (pair[0], "column")
                    out[own + mlp + "linear_fc1.adapter.adapter_up"] = (pair[1], "column")
                else:
                    out[own + mlp + "linear_fc1"] = (np.concatenate(pair), "fc1")
                out[own + mlp + "linear_fc2"] = (get(path + "down_proj"), "row")
        if get("mlp.gate") is not None:
            out[own + "mlp.router"] = (get("mlp.gate"), "whole")
        if get("mlp.experts.down_proj") is not None:
            out[own + "mlp.experts.linear_fc1"] = (list(get("mlp.experts.gate_up_proj")), "fc1")
            out[own + "mlp.experts.linear_fc2"] = (list(get("mlp.experts.down_proj")), "row")
    return out


def cut(a, b, kind, rank, ranks):
    """What tensor-parallel rank `rank` holds of linear_in and linear_out."""
    part = lambda t, axis: np.split(t, ranks, axis)[rank]
    if kind == "whole" or ranks == 1:
        return a, b
    if kind == "row":
        return part(a, 1), part(b, 0)
    if kind == "fc1":
        gate, up = np.split(b, 2)
        return part(a, 0), np.concatenate([part(gate, 0), part(up, 0)])
    return part(a, 0), part(b, 0)


# ---- cases ---------------------------------------------------------------------------------------

def case(archive, name, dialect, base, expected, extra=None):
    folder = f"{OUT}/dialect_{archive}/{name}"
    os.makedirs(folder + "/adapter")
    if extra is not None:  # a peer's answer and deltas made here
        save_file({f"delta.{k}" + ("" if v.ndim == 3 else ".weight"): v.astype(np.float32)
                   for k, v in extra.items()}, folder + "/expect.safetensors")
        expected = "./expect.safetensors"
    json.dump({"dialect": dialect, "adapter": "./adapter", "base": base, "answer": expected},
              open(folder + "/case.json", "w"))
    return folder + "/adapter/"


def write_config(folder, r, targets=("linear_qkv", "linear_proj", "linear_fc1", "linear_fc2")):
    json.dump({"peft_type": "LORA", "r": r, "lora_alpha": ALPHA, "target_modules": list(targets),
               "bias": "none", "task_type": "CAUSAL_LM"},
              open(folder + "adapter_config.json", "w"))


def f32(t):
    return np.ascontiguousarray(t, np.float32)


def core(name, base, expected, prefix=""):
    tensors = {}
    for module, (delta, _) in by_megatron(answer(expected), config_of(base)).items():
        for i, one in enumerate(delta if isinstance(delta, list) else [delta]):
            number = i if isinstance(delta, list) else ""
            for side, factor in zip("AB", factors(one)):
                tensors[f"{prefix}{module}.lora_{side}.default.weight{number}"] = f32(factor)
    folder = case("megatron_core", name, "megatron-core", base, expected + ".expect.safetensors")
    save_file(tensors, folder + "adapter_model.safetensors")
    write_config(folder, min(t.shape[0] for name, t in tensors.items() if ".lora_A." in name))


def adapter_name(module):
    return module if ".adapter." in module else module + ".adapter"


def ranks_of(deltas, config, tp, ep, prefix, experts, **how):
    """{(tensor rank, expert rank): its tensors}. `experts`: grouped (3-D), local, or shared."""
    out = {(t, e): {} for t in range(tp) for e in range(ep)}
    for module, (delta, kind) in by_megatron(deltas, config, **how).items():
        for (t, e), tensors in out.items():
            if not isinstance(delta, list):
                pairs = {adapter_name(module): cut(*factors(delta), kind, t, tp)}
            else:
                local = len(delta) // ep
                own = [factors(one) for one in delta[e * local:(e + 1) * local]]
                if experts == "grouped":
                    pairs = {adapter_name(module): tuple(np.stack(side) for side in zip(*own))}
                elif experts == "shared":
                    pairs = {adapter_name(module): cut(*own[0], kind, t, tp)}
                else:
                    head, leaf = module.rsplit(".", 1)
                    pairs = {adapter_name(f"{head}.local_experts.{i}.{leaf}"): pair
                             for i, pair in enumerate(own)}
            for path, (a, b) in pairs.items():
                tensors[f"{prefix}{path}.linear_in.weight"] = f32(a)
                tensors[f"{prefix}{path}.linear_out.weight"] = f32(b)
    return out


def bridge(name, base, expected, tp, ep, file, prefix="", experts="grouped", extra=None, only=None,
           **how):
    deltas = extra if extra is not None else answer(expected)
    folder = case("megatron_bridge", name, "megatron-bridge", base,
                  f"{expected}.expect.safetensors", extra)
    for (t, e), tensors in ranks_of(deltas, config_of(base), tp, ep, prefix, experts, **how).items():
        if only is not None and (t, e) not in only:
            continue
        if file == "safetensors":
            save_file(tensors, folder + "adapter_model.safetensors")
        elif file == "verl":
            rank = f"mp_rank_{t:02d}" + (f"_{e:03d}" if ep > 1 else "")
            save_torch({"adapter_state_dict": tensors}, f"{folder}{rank}_adapter.pt")
        else:
            save_torch(tensors, f"{folder}{file.format(t=t, e=e)}")
    write_config(folder, 4)


def with_dense_mlp(deltas, config):
    """Deltas of the MLP of layer 0, and of the shared experts of layer 1."""
    h = config["hidden_size"]
    for path, width in (("model.layers.0.mlp.", config["intermediate_size"]),
                        ("model.layers.1.mlp.shared_experts.",
                         config["n_shared_experts"] * config["moe_intermediate_size"])):
        deltas[path + "gate_proj"], deltas[path + "up_proj"] = made(width, h), made(width, h)
        deltas[path + "down_proj"] = made(h, width)
    return deltas


def shared_by_rank(deltas, ep):
    """The experts of a rank of `ep` have one delta: that of its first."""
    for name, delta in deltas.items():
        if delta.ndim == 3:
            deltas[name] = np.repeat(delta[::delta.shape[0] // ep], delta.shape[0] // ep, axis=0)
    return deltas


def art(name, base, expected, ranks):
    """Attention cut by `ranks` tensor-parallel ranks, experts over as many: gate_up_proj cut in its
    two components (tensor-parallel) in layer 1, whole experts in the others."""
    folder = case("art", name, "art", base, expected + ".expect.safetensors")
    shards, manifests = [{} for _ in range(ranks)], [{} for _ in range(ranks)]

    def whole(key, tensor, rank):
        shards[rank][key] = f32(tensor)
        manifests[rank][key] = {"sharded": False, "shard_world_size": 1, "shard_rank": 0}

    def uniform(key, tensor, axis):
        for rank, part in enumerate(np.split(tensor, ranks, axis)):
            shards[rank][key] = f32(part)
            manifests[rank][key] = {"sharded": True, "shard_world_size": ranks, "shard_rank": rank,
                                    "export_shard_dim": axis, "export_shard_strategy": "uniform"}

    def componentwise(key, tensor):
        sizes = [tensor.shape[0] // 2] * 2
        for rank in range(ranks):
            parts = [np.split(part, ranks)[rank] for part in np.split(tensor, 2)]
            shards[rank][key] = f32(np.concatenate(parts))
            manifests[rank][key] = {"sharded": True, "shard_world_size": ranks, "shard_rank": rank,
                                    "export_shard_dim": 0, "component_sizes": sizes,
                                    "export_shard_strategy": "componentwise"}

    for module, delta in answer(expected).items():
        prefix = f"base_model.model.{module}"
        if delta.ndim == 3:
            stem, leaf = prefix.rsplit(".", 1)
            for e, one in enumerate(delta):
                a, b = factors(one)
                key = f"{stem}.{e}.{leaf}.lora_"
                owner = e * ranks // len(delta)
                if "layers.1." not in module:
                    whole(key + "A.weight", a, owner), whole(key + "B.weight", b, owner)
                elif leaf == "gate_up_proj":
                    whole(key + "A.weight", a, 0), componentwise(key + "B.weight", b)
                else:
                    uniform(key + "A.weight", a, 1), whole(key + "B.weight", b, 0)
            continue
        a, b = factors(delta)
        if module.endswith("o_proj"):
            uniform(prefix + ".lora_A.weight", a, 1), whole(prefix + ".lora_B.weight", b, 0)
        elif module.endswith("_proj"):
            whole(prefix + ".lora_A.weight", a, 0), uniform(prefix + ".lora_B.weight", b, 0)
        else:
            whole(prefix + ".lora_A.weight", a, 0), whole(prefix + ".lora_B.weight", b, 0)
    for rank in range(ranks):
        suffix = f"{rank + 1:02d}-of-{ranks:02d}"
        save_file(shards[rank], f"{folder}adapter_model-{suffix}.safetensors")
        json.dump(manifests[rank], open(f"{folder}adapter_manifest-{suffix}.json", "w"),
                  sort_keys=True)
    write_config(folder, 2, ("q_proj", "k_proj", "v_proj", "o_proj", "experts"))


for archive in ("megatron_core", "megatron_bridge", "art"):
    shutil.rmtree(f"{OUT}/dialect_{archive}", ignore_errors=True)

core("qwen3_moe", "qwen3_moe/base", "qwen3_moe/all_linear")
core("deepseek_v3_mla", "deepseek_v3/base", "deepseek_v3/all_linear", "base_model.model.")
core("qwen3_dense", "family_goldens/qwen3/base", "family_goldens/qwen3/all_linear")
core("qwen3_next_gated", "family_goldens/qwen3_next/base", "family_goldens/qwen3_next/attention_only")

bridge("qwen3_moe_tp1", "qwen3_moe/base", "qwen3_moe/all_linear", 1, 1, "safetensors")
glm = config_of("glm4_moe/base")
bridge("glm4_moe_verl_tp2_ep2", "glm4_moe/base", "glm4_moe/all_linear", 2, 2, "verl",
       only=[(0, 0), (1, 1)])
bridge("glm4_moe_dense_mlp_tp2", "glm4_moe/base", "glm4_moe/attention_only", 2, 1, "verl",
       extra=with_dense_mlp({}, glm))
bridge("mixtral_shared_tp2_ep2", "mixtral/base", "mixtral/all_linear", 2, 2,
       "adapter_megatron_tp{t}_pp0_ep{e}.pt", "module.module.", "shared",
       extra=shared_by_rank({k: v for k, v in answer("mixtral/all_linear").items()
                             if "layers.1.mlp.experts" in k}, 2))
bridge("mixtral_local_ep2", "mixtral/base", "mixtral/all_linear", 1, 2,
       "adapter_megatron_tp{t}_pp0_ep{e}.pt", "module.module.", "local")
bridge("qwen3_dense_tp2", "family_goldens/qwen3/base", "family_goldens/qwen3/all_linear", 2, 1,
       "adapter_megatron_tp{t}_pp0.pt", "module.module.")
bridge("qwen3_dense_canonical", "family_goldens/qwen3/base", "family_goldens/qwen3/attention_only",
       2, 1, "verl", canonical=True)
bridge("deepseek_v3_mla_tp2", "deepseek_v3/base", "deepseek_v3/attention_only", 2, 1, "verl")
gated = {k: v for k, v in answer("family_goldens/qwen3_next/attention_only").items()
         if "self_attn" in k}
bridge("qwen3_next_gated", "family_goldens/qwen3_next/base",
       "family_goldens/qwen3_next/attention_only", 1, 1, "adapter_megatron_rank0.pt",
       "module.module.", extra=gated, gated_apart=True)

art("qwen3_moe_2_ranks", "qwen3_moe/base", "qwen3_moe/all_linear", 2)

for archive in ("megatron_core", "megatron_bridge", "art"):
    subprocess.run(["tar", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner",
                    "-cJf", f"{OUT}/dialect_{archive}.tar.xz", "-C", OUT, f"dialect_{archive}"],
                   check=True)
