"""What load() says that an adapter adds to each weight, against real PEFT: its answers in tests/data, and
where torch is installed what it merges of adapters that it has just saved."""

import os
import pathlib
import shutil

import moelora
import numpy
import pytest
from safetensors.numpy import load_file

DATA = pathlib.Path(os.environ["MOELORA_SOURCE_DIR"]) / "tests/data"
# Of the largest element of a weight's delta. EXACT: both sides are computed in fp64, a few products each; a
# scale that went through fp32 would be off by 1e-8. ROUNDED: a side is fp32, which rounds each by up to 6e-8.
EXACT, ROUNDED = 1e-12, 1e-6


def check(adapter, answers, tolerance, dtype=numpy.float64):
    """That it adds what the answers say, by their names: no weight more, none less."""
    held = deltas_of(adapter, dtype)
    assert sorted(held) == sorted(answers) and len(held) > 0
    for name, answer in answers.items():
        assert held[name].shape == answer.shape, name
        worst, largest = abs(held[name] - answer).max(), abs(answer).max()
        assert worst <= tolerance * largest and largest > 0, f"{name}: off by {worst} of {largest}"


def deltas_of(adapter, dtype):
    """By the names of transformers' weights: [out, in], of experts [E, out, in]."""
    out = {f"{module}.weight": pair.delta(dtype) for module, pair in adapter.modules.items()}
    for experts in adapter.experts.values():
        out[experts.module] = numpy.stack([pair.delta(dtype) for pair in experts])
    return out


def turned(deltas):
    """gpt-oss has weights of experts as [E, in, out]."""
    return {name: delta.swapaxes(1, 2) if ".experts." in name else delta for name, delta in deltas.items()}


# ---- answers of PEFT that came with the adapters ---------------------------------------------------------


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    for family in ("gpt_oss", "mixtral"):
        shutil.unpack_archive(DATA / f"{family}.tar.xz", folder)
    return folder


GOLDENS = [
    ("gpt_oss", "attention_only", "attention_only", {}),
    ("gpt_oss", "attention_only_sharded", "attention_only", {}),
    ("gpt_oss", "attention_only_bin", "attention_only", {}),
    ("gpt_oss", "layers_subset", "layers_subset", {}),
    ("gpt_oss", "router", "router", {}),
    ("gpt_oss", "peft_patterns", "peft_patterns", {}),
    ("gpt_oss", "peft_params", "peft_params", {}),
    ("gpt_oss", "peft_params_rslora", "peft_params_rslora", {}),
    ("gpt_oss", "peft_params_bf16", "peft_params_bf16", {}),
    ("gpt_oss", "peft_params_alphabetical", "peft_params", {}),
    ("gpt_oss", "peft_params_swapped_roles", "peft_params", {}),
    ("gpt_oss", "peft_params_grouped_b", "peft_params", {}),  # marked
    ("gpt_oss", "peft_params_grouped_b_unmarked", "peft_params", {"b_order": "expert-major"}),
    ("mixtral", "all_linear", "all_linear", {}),
    ("mixtral", "peft_params", "peft_params", {}),
]


@pytest.mark.parametrize("family, name, answer, options", GOLDENS, ids=lambda each: str(each) if each else "")
def test_deltas_are_those_that_peft_answered(golden, family, name, answer, options):
    answers = load_file(golden / family / f"{answer}.expect.safetensors")
    deltas = {key[6:]: value for key, value in answers.items() if key.startswith("delta.")}
    adapter = moelora.load(golden / family / name, base=golden / family / "base", **options)
    check(adapter, turned(deltas) if family == "gpt_oss" else deltas, ROUNDED)


# ---- what PEFT merges of what it has just saved ------------------------------------------------------------

RANK, ALPHA = 3, 5
# No two sides of a weight are equal, so that one factor in the place of the other is another shape.
SIZES = {
    "hidden_size": 12, "num_hidden_layers": 2, "vocab_size": 24, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "num_experts_per_tok": 2,
}  # fmt: skip
FAMILIES = {
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 10, "intermediate_size": 20},
    "mixtral": {"num_local_experts": 4, "intermediate_size": 10},
    "gpt_oss": {"num_local_experts": 4, "intermediate_size": 10},
}


@pytest.fixture(scope="module")
def torch():
    pytest.importorskip("transformers")
    pytest.importorskip("peft")
    return pytest.importorskip("torch")


class Saved:
    """An adapter that PEFT saved of random factors, and what it makes of the weights when it loads and merges
    that again, in fp64."""

    def __init__(self, folder, make_model, **options):
        import peft
        import torch

        torch.manual_seed(7)
        adapted = peft.get_peft_model(make_model(), peft.LoraConfig(r=RANK, lora_alpha=ALPHA, **options))
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        adapted.save_pretrained(folder)
        torch.manual_seed(7)
        model = make_model().double()
        self.before = {name: each.detach().numpy().copy() for name, each in model.named_parameters()}
        merged = peft.PeftModel.from_pretrained(model, folder).merge_and_unload()
        self.after = {name: each.detach().numpy() for name, each in merged.named_parameters()}

    def deltas(self):
        changed = [n for n, each in self.before.items() if not numpy.array_equal(each, self.after[n])]
        return {name: self.after[name] - self.before[name] for name in changed}


@pytest.fixture
def save(torch, tmp_path):
    """Saves an adapter of a family's tiny model: the adapter as load() has it, and the Saved."""
    import transformers

    def save(family, **options):
        config = transformers.AutoConfig.for_model(family, **SIZES, **FAMILIES[family])
        config.save_pretrained(tmp_path / "base")
        saved = Saved(
            tmp_path / "adapter", lambda: transformers.AutoModelForCausalLM.from_config(config), **options
        )
        return moelora.load(tmp_path / "adapter", base=tmp_path / "base"), saved

    return save


ATTENTION = {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}
EXPERTS = {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}
PATTERNS = {
    "rank_pattern": {"q_proj": 5, "layers.1.self_attn.v_proj": 2},
    "alpha_pattern": {"k_proj": 9, "q_proj": 4},
}


@pytest.mark.parametrize("how", [{}, {"use_rslora": True}, PATTERNS, PATTERNS | {"use_rslora": True}],
                         ids=["plain", "rslora", "patterns", "rslora and patterns"])  # fmt: skip
def test_a_delta_is_what_peft_merges(save, how):
    adapter, saved = save("qwen3_moe", **ATTENTION, **how)
    check(adapter, saved.deltas(), EXACT)
    check(adapter, saved.deltas(), ROUNDED, numpy.float32)
    scales = {pair.scale for pair in adapter.modules.values()}
    assert len(scales) == (4 if "rank_pattern" in how else 1)  # or nothing was tried


@pytest.mark.parametrize("how", [{}, {"use_rslora": True}], ids=["plain", "rslora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_delta_of_an_expert_is_what_peft_merges(save, family, how):
    adapter, saved = save(family, **ATTENTION, **EXPERTS, **how)
    deltas = turned(saved.deltas()) if family == "gpt_oss" else saved.deltas()
    check(adapter, deltas, EXACT)
    check(adapter, deltas, ROUNDED, numpy.float32)
    assert len(adapter.experts) == 4 and all(len(experts) == 4 for experts in adapter.experts.values())


def make_numbered_experts():
    """Layers of experts that are Linears of their own, as transformers 4 had them."""
    from torch.nn import Linear, ModuleDict, ModuleList

    def expert():
        sides = {"gate_proj": (12, 10), "up_proj": (12, 10), "down_proj": (10, 12)}
        return ModuleDict({name: Linear(*each, bias=False) for name, each in sides.items()})

    def layer():
        return ModuleDict({"mlp": ModuleDict({"experts": ModuleList(expert() for _ in range(4))})})

    return ModuleDict({"model": ModuleDict({"layers": ModuleList([layer(), layer()])})})


def test_a_delta_of_an_expert_that_is_linears_is_what_peft_merges(torch, tmp_path):
    import transformers

    config = transformers.AutoConfig.for_model("qwen3_moe", **SIZES, **FAMILIES["qwen3_moe"])
    config.save_pretrained(tmp_path / "base")
    targets = {"target_modules": ["gate_proj", "up_proj", "down_proj"]}
    saved = Saved(
        tmp_path / "adapter", make_numbered_experts, alpha_pattern={"experts.2.up_proj": 9}, **targets
    )
    deltas = saved.deltas()
    adapter = moelora.load(tmp_path / "adapter", base=tmp_path / "base")
    pairs = list(adapter.pairs())
    assert len(pairs) == len(deltas) == 2 * 4 * 3 and len({pair.scale for pair in pairs}) == 2
    for pair in pairs:
        answer = deltas[f"{pair.module}.weight"]
        assert abs(pair.delta(numpy.float64) - answer).max() <= EXACT * abs(answer).max(), pair.module


def test_what_dora_makes_of_a_weight_is_told_in_parts(save):
    adapter, saved = save("qwen3_moe", **ATTENTION, use_dora=True)
    assert len(adapter.modules) == len(saved.deltas()) == 8
    for module, pair in adapter.modules.items():
        moved = saved.before[f"{module}.weight"] + pair.delta(numpy.float64)
        magnitude = adapter.extras[f"{module}.lora_magnitude_vector"].astype(numpy.float64)
        made = moved * (magnitude / numpy.linalg.norm(moved, axis=1))[:, None]
        numpy.testing.assert_allclose(made, saved.after[f"{module}.weight"], rtol=EXACT * 100, atol=EXACT)
