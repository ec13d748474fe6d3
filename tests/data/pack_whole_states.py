"""Made whole_states of the goldens beside this file, without torch.

python pack_whole_states.py TEST_DATA OUT. What trainers save of a whole PEFT model, as torch.save
writes it (a zip of data.pkl, a pickle of protocol 2 that names torch's functions, and data/N):

deepspeed: mp_rank_00_model_states.pt of ZeRO-1/2 (runtime/engine.py, _save_checkpoint): the state
  dict under "module", beside counters, None, a set and the config.
fsdp: pytorch_model_fsdp.bin of accelerate (utils/fsdp_utils.py, FULL_STATE_DICT): the dict alone.
lightning: {"state_dict": {"model." + name: ..}, ..} (trainer/connectors/checkpoint_connector.py).
zero3: zero_pp_rank_0_mp_rank_00_model_states.pt: every parameter is [0].
"""

import collections
import json
import os
import pickle
import sys
import types
import zipfile

import numpy as np
from safetensors.numpy import load_file

DATA, OUT = sys.argv[1:]


def torch_module(name):
    module = sys.modules.setdefault(name, types.ModuleType(name))
    return module


torch, utils = torch_module("torch"), torch_module("torch._utils")


def _rebuild_tensor_v2(*_):
    raise NotImplementedError


class FloatStorage:
    pass


_rebuild_tensor_v2.__module__ = "torch._utils"
utils._rebuild_tensor_v2 = _rebuild_tensor_v2
FloatStorage.__module__, FloatStorage.__qualname__ = "torch", "FloatStorage"
torch.FloatStorage = FloatStorage


class Storage:
    def __init__(self, key, numel):
        self.key, self.numel = key, numel


class Tensor:
    def __init__(self, key, array):
        self.key, self.array = key, array

    def __reduce__(self):
        a = self.array
        stride = tuple(s // a.itemsize for s in a.strides)
        return _rebuild_tensor_v2, (Storage(self.key, a.size), 0, a.shape, stride, False,
                                    collections.OrderedDict())


class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        if isinstance(obj, Storage):
            return "storage", FloatStorage, obj.key, "cpu", obj.numel
        return None


def save(path, content, arrays):
    import io
    out = io.BytesIO()
    Pickler(out, 2).dump(content)
    root = os.path.basename(path).rsplit(".", 1)[0]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        def add(name, data):
            archive.writestr(zipfile.ZipInfo(f"{root}/{name}"), data)
        add("data.pkl", out.getvalue())
        add("byteorder", b"little")
        for key, array in arrays.items():
            add(f"data/{key}", array.tobytes())
        add("version", b"3\n")


def whole_model(folder, prefix=""):
    """The state dict of the PEFT model in memory: the adapter's name in its tensors' names, the
    weights of adapted modules under base_layer, and the others."""
    arrays, out = {}, collections.OrderedDict()

    def add(name, array):
        key = str(len(arrays))
        arrays[key] = np.ascontiguousarray(array, np.float32)
        out[prefix + name] = Tensor(key, arrays[key])

    factors = load_file(f"{DATA}/{folder}/adapter_model.safetensors")
    add("base_model.model.model.embed_tokens.weight", np.ones((160, 64)))
    for name, array in factors.items():
        add(name.replace(".weight", ".default.weight"), array)
        if ".lora_B." in name:
            a = factors[name.replace(".lora_B.", ".lora_A.")]
            add(name.replace(".lora_B.weight", ".base_layer.weight"),
                np.ones((array.shape[0], a.shape[1])))
    add("base_model.model.model.norm.weight", np.ones(64))
    add("base_model.model.lm_head.weight", np.ones((160, 64)))
    return out, arrays


def config(path, folder):
    with open(f"{DATA}/{folder}/adapter_config.json") as file:
        kept = json.load(file)
    with open(f"{path}/adapter_config.json", "w") as file:
        json.dump({k: kept[k] for k in ("peft_type", "r", "lora_alpha", "target_modules")}, file)


golden = "qwen3_moe/attention_only"
module, arrays = whole_model(golden, "module.")
save(f"{OUT}/deepspeed/mp_rank_00_model_states.pt",
     {"module": module, "buffer_names": [], "optimizer": None, "param_shapes": None,
      "lr_scheduler": {"last_epoch": 3, "base_lrs": [1e-4]}, "skipped_steps": 0,
      "global_steps": 3, "dp_world_size": 2, "mp_world_size": 1, "ds_config": {"bf16": True},
      "ds_version": "0.18.3"}, arrays)
config(f"{OUT}/deepspeed", golden)
module, arrays = whole_model(golden)
save(f"{OUT}/fsdp/pytorch_model_fsdp.bin", module, arrays)
config(f"{OUT}/fsdp", golden)
module, arrays = whole_model(golden, "model.")
save(f"{OUT}/lightning/last.ckpt",
     {"epoch": 1, "global_step": 7, "pytorch-lightning_version": "2.6.0", "state_dict": module,
      "loops": {"fit_loop": {}}, "callbacks": {}, "optimizer_states": [], "lr_schedulers": []},
     arrays)
config(f"{OUT}/lightning", golden)
save(f"{OUT}/zero3/zero_pp_rank_0_mp_rank_00_model_states.pt",
     {"module": {name: Tensor("0", np.zeros(0, np.float32)) for name in module},
      "mp_world_size": 1}, {"0": np.zeros(0, np.float32)})
config(f"{OUT}/zero3", golden)
