"""What the scripts that make adapters in other trainers' dialects share (pack_dialect_*.py).

TEST_DATA is the unpacked test data (build/release/test_data): its goldens' factors are put into the
dialect's names and axes, so that the deltas are the golden's answer.
"""
import collections
import io
import json
import os
import pickle
import sys
import types
import zipfile

import numpy as np
from safetensors.numpy import load_file, save_file

PREFIX = "base_model.model."


class Golden:
    """An adapter that PEFT saved, and its answer."""

    def __init__(self, test_data, name, roles="natural"):
        self.name, self.roles = name, roles
        folder = os.path.join(test_data, name)
        self.config = json.load(open(os.path.join(folder, "adapter_config.json")))
        self.tensors = load_file(os.path.join(folder, "adapter_model.safetensors"))
        self.answer = load_file(folder + ".expect.safetensors")
        self.base = os.path.join(os.path.dirname(name), "base")
        base = json.load(open(os.path.join(test_data, self.base, "config.json")))
        self.experts = base.get("num_local_experts") or base.get("num_experts")
        self.base_config = base
        self.scale = self.config["lora_alpha"] / self.config["r"]

    def dense(self):
        """(module, A [r, in], B [out, r]) of what is no routed expert's."""
        for name, a in self.tensors.items():
            if name.endswith(".lora_A.weight") and ".experts." not in name:
                module = name[len(PREFIX) : -len(".lora_A.weight")]
                yield module, a, self.tensors[name.replace("lora_A", "lora_B")]

    def stacks(self):
        """(experts module, "gate_up" or "down", A [E, r, in], B [E, out, r])."""
        for name in sorted(self.tensors):
            if not name.endswith("experts.lora_A.weight"):
                continue
            module = name[len(PREFIX) : -len(".lora_A.weight")]
            for which, stem in (("gate_up", module + ".base_layer"), ("down", module)):
                a = self.tensors[f"{PREFIX}{stem}.lora_A.weight"]
                b = self.tensors[f"{PREFIX}{stem}.lora_B.weight"]
                rank = a.shape[0] // self.experts
                a = a.reshape(self.experts, rank, -1)  # row e*r + k
                b = b.reshape(-1, rank, self.experts).transpose(2, 0, 1)  # column k*E + e
                if self.roles == "swapped":  # PEFT took the other axis for the input
                    a, b = b.transpose(0, 2, 1), a.transpose(0, 2, 1)
                yield module, which, a, b


def shuffled(a, b, order):
    """The same delta by other factors: ranks in another order, and a factor of two moved over."""
    return 2 * a[..., order, :], b[..., order] / 2


def plain_config(config):
    keep = ("r", "lora_alpha", "peft_type", "task_type", "target_modules", "lora_dropout", "bias")
    return {key: config[key] for key in keep if key in config}


def write_case(out, name, dialect, tensors, config, base, answer, **more):
    """more: shared_outer, files ({name: json} beside the weights), weights (their file's name), and
    answer as tensors instead of a golden's name."""
    folder = os.path.join(out, name)
    adapter = os.path.join(folder, "adapter")
    os.makedirs(adapter)
    weights = os.path.join(adapter, more.get("weights", "adapter_model.safetensors"))
    tensors = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
    if weights.endswith(".pt"):
        save_torch(tensors, weights)
    else:
        save_file(tensors, weights, metadata={"format": "pt"})
    files = dict(more.get("files", {}))
    if config is not None:
        files["adapter_config.json"] = config
    for key, value in files.items():
        json.dump(value, open(os.path.join(adapter, key), "w"), indent=2)
    case = {"dialect": dialect, "adapter": "./adapter", "base": base, "answer": answer}
    if isinstance(base, dict):
        os.makedirs(os.path.join(folder, "base"))
        json.dump(base, open(os.path.join(folder, "base", "config.json"), "w"), indent=2)
        case["base"] = "./base"
    if isinstance(answer, dict):
        save_file(answer, os.path.join(folder, "expect.safetensors"))
        case["answer"] = "./expect.safetensors"
    else:
        case["answer"] = answer + ".expect.safetensors"
    if more.get("shared_outer"):
        case["shared_outer"] = True
    json.dump(case, open(os.path.join(folder, "case.json"), "w"), indent=2)


def save_torch(tensors, path):
    """What torch.save writes of a dict of F32 tensors, without torch."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})
    utils._rebuild_tensor_v2 = lambda *args: None
    utils._rebuild_tensor_v2.__module__ = "torch._utils"
    utils._rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    sys.modules["torch"], sys.modules["torch._utils"] = torch, utils

    class Storage:
        def __init__(self, key, array):
            self.id = ("storage", torch.FloatStorage, str(key), "cpu", array.size)

    class Stored:
        def __init__(self, key, array):
            strides = tuple(step // array.itemsize for step in array.strides)
            self.args = (Storage(key, array), 0, array.shape, strides, False, collections.OrderedDict())

        def __reduce__(self):
            return utils._rebuild_tensor_v2, self.args

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return value.id if isinstance(value, Storage) else None

    pickled = io.BytesIO()
    rows = list(enumerate(tensors.items()))
    Pickler(pickled, 2).dump({name: Stored(key, array) for key, (name, array) in rows})
    stem = os.path.basename(path)[: -len(".pt")]
    entries = [("data.pkl", pickled.getvalue()), ("byteorder", b"little")]
    entries += [(f"data/{key}", array.tobytes()) for key, (_, array) in rows]
    entries += [("version", b"3\n")]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries:
            archive.writestr(zipfile.ZipInfo(f"{stem}/{name}"), data)
    del sys.modules["torch"], sys.modules["torch._utils"]
