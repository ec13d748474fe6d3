"""The installed package as its users have it: real numpy, safetensors and ml_dtypes, no compiler on PATH."""

import contextlib
import ctypes
import importlib.util
import json
import os
import pathlib
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
import typing

import moelora
import numpy
import pytest
from moelora import _adapter, _core
from safetensors.numpy import load_file, save_file
from small_base import LAYERS, make_base

DATA = pathlib.Path(os.environ["MOELORA_SOURCE_DIR"]) / "examples/data"
ADAPTER, ATTENTION, LONE_Q, BASE = (
    DATA / name for name in ("gpt_oss_adapter", "gpt_oss_attention", "gpt_oss_lone_q", "gpt_oss_base")
)
TINY, TINY_BASE, TOKENS = DATA / "tiny_adapter", DATA / "tiny_base", DATA / "tokens.json"
TRAINER, SERVER = DATA / "logprobs/trainer.safetensors", DATA / "logprobs/server.sglang.json"


def command(*words, status=0):
    """A command of the wheel, beside the interpreter."""
    tool = pathlib.Path(sys.prefix) / "bin" / words[0]
    done = subprocess.run([tool, *map(str, words[1:])], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout


def files(folder):
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


def config_of(folder):
    return json.loads((folder / "adapter_config.json").read_text())


def bits(array):
    return array.view(numpy.uint8) if array.dtype.name == "bfloat16" else array


# ---- the package -----------------------------------------------------------------------------------


def test_commands_of_the_same_version_lie_beside_the_interpreter():
    for tool in ("lora-convert", "lora-validate", "lora-diff"):
        assert command(tool, "--version").startswith(f"{tool} {moelora.__version__} ")


def test_nothing_heavy_is_imported_and_no_compiler_is_there():
    seen = subprocess.run(
        [sys.executable, "-c", "import moelora, sys; print([m for m in ('torch', 'ray', 'tqdm', 'fsspec') if m in sys.modules])"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert seen.stdout.strip() == "[]"
    if "MOELORA_NO_COMPILER" in os.environ:
        assert not any(map(shutil.which, ("cc", "c++", "gcc", "g++", "clang", "cmake", "ninja")))


def test_stubs_name_what_the_module_has():
    package = pathlib.Path(moelora.__file__).parent
    assert (package / "py.typed").exists()
    stub = (package / "_core.pyi").read_text()
    for name in dir(_core):
        if not name.startswith("__"):
            assert f"def {name}(" in stub or f"class {name}" in stub, name


def test_annotations_name_what_is_there():
    for name in moelora.__all__:
        one = getattr(moelora, name)
        typing.get_type_hints(one)
        for each in vars(one).values() if isinstance(one, type) else ():
            if isinstance(each, types.FunctionType):
                typing.get_type_hints(each)


def test_the_licenses_of_what_is_inside_are_there():
    text = (pathlib.Path(moelora.__file__).parent / "THIRD_PARTY_LICENSES").read_text()
    assert "---- nanobind ----" in text and "Wenzel Jakob" in text and "Thibaut Goetghebuer" in text


def test_nothing_but_the_entry_is_exported():
    for name in ("_ZN7moelora7versionEv", "_ZTISt9exception"):
        handle = ctypes.CDLL(_core.__file__)
        assert not hasattr(handle, name)


# ---- inspect and convert -----------------------------------------------------------------------------


def test_inspect_says_what_the_command_says():
    said = command("lora-convert", "inspect", ADAPTER, "--base", BASE, "--format", "json")
    assert moelora.inspect(ADAPTER, base=BASE) == json.loads(said)
    assert moelora.inspect(str(ADAPTER), base=str(BASE))["layout"] == "peft-params"


def test_convert_writes_what_the_command_writes(tmp_path):
    made = moelora.convert(ADAPTER, tmp_path / "here", to="peft-linear", base=BASE, verify=True)
    command("lora-convert", "adapter", ADAPTER, tmp_path / "there", "--to", "peft-linear", "--base", BASE)
    assert made.verified > 0 and made.layout == "peft-linear" and not made.repaired
    assert files(tmp_path / "here") == files(tmp_path / "there")
    assert made.tensors == len(load_file(tmp_path / "here/adapter_model.safetensors"))


def test_a_server_is_named_by_for_and_its_options_by_a_dict(tmp_path):
    made = moelora.convert(ADAPTER, tmp_path / "out", for_="sglang", server_options={"tp_size": 2}, base=BASE)
    assert made.layout and config_of(tmp_path / "out")["r"] == 4
    moelora.convert(
        ADAPTER, tmp_path / "numpy", for_="sglang", base=BASE,
        server_options={"tp_size": numpy.int32(2), "lora-strict-loading": numpy.True_},
    )  # fmt: skip
    options = json.loads((tmp_path / "numpy/conversion.json").read_text())["server_options"]
    assert options == ["tp-size=2", "lora-strict-loading=on"]
    report = json.loads((tmp_path / "out/conversion.json").read_text())
    assert report["for"].startswith("sglang@") and report["server_options"] == ["tp-size=2"]


def test_an_error_has_parts_and_says_python_s_words(tmp_path):
    with pytest.raises(moelora.Error) as caught:
        moelora.convert(ADAPTER, tmp_path / "out", to="peft-linaer", base=BASE)
    assert "to=" in caught.value.where or "peft-linaer" in caught.value.what
    assert "did you mean 'peft-linear'" in caught.value.what
    with pytest.raises(moelora.Error) as caught:
        moelora.convert(ADAPTER, tmp_path / "out", base=BASE)
    assert (
        caught.value.where == "to=" and "for_= ENGINE" in caught.value.hint and "--" not in str(caught.value)
    )
    assert str(caught.value).endswith("hint: " + caught.value.hint)
    assert not (tmp_path / "out").exists()
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.where, copy.what, copy.hint) == (caught.value.where, caught.value.what, caught.value.hint)


def test_a_value_of_another_type_is_a_type_error(tmp_path):
    with pytest.raises(TypeError, match="verify"):
        moelora.convert(ADAPTER, tmp_path / "out", to="stacked", base=BASE, verify="very")
    with pytest.raises(TypeError):
        moelora.convert(ADAPTER, tmp_path / "out", too="stacked")


def test_a_path_is_text_and_an_option_s_name_too(tmp_path):
    for bad in (b"bytes", os.fsencode(tmp_path), "not\udc80utf8", tmp_path / "\udcff", 5):
        for call in (
            lambda: moelora.inspect(bad),
            lambda: moelora.convert(ADAPTER, bad, to="stacked"),
            lambda: moelora.convert(ADAPTER, tmp_path / "out", to="stacked", base=bad),
            lambda: moelora.validate(bad),
            lambda: moelora.validate([ATTENTION, bad]),
            lambda: moelora.diff_weights(ADAPTER, bad),
        ):
            with pytest.raises(TypeError, match="expected str|expected a str|as UTF-8|not iterable"):
                call()
    for options in ({"server_options": {1: 2}}, {"server_options": b"tp-size=2"}):
        with pytest.raises(TypeError, match="not int|expected a str"):
            moelora.validate(ATTENTION, engines="sglang", base=BASE, **options)
    assert list(tmp_path.iterdir()) == []


def test_sizes_are_numbers_or_words(tmp_path):
    for name, size in (("a", 8000), ("b", "8KB")):
        moelora.convert(ADAPTER, tmp_path / name, to="stacked", base=BASE, max_shard_size=size)
    assert files(tmp_path / "a") == files(tmp_path / "b") and len(files(tmp_path / "a")) > 4
    with pytest.raises(moelora.Error, match="max_shard_size="):
        moelora.convert(ADAPTER, tmp_path / "c", to="stacked", base=BASE, max_shard_size="many")


def test_a_number_out_of_range_is_said_to_be(tmp_path):
    for options in ({"max_shard_size": -1}, {"threads": 2**70}):
        with pytest.raises(moelora.Error, match="=: -?[0-9]+ is out of range"):
            moelora.convert(ADAPTER, tmp_path / "out", to="stacked", base=BASE, **options)
    for options in ({"tp": 2**70}, {"gpu_memory": -1}, {"tp": numpy.uint64(2**63)}):
        with pytest.raises(moelora.Error, match="=: -?[0-9]+ is out of range"):
            moelora.validate(ATTENTION, engines="sglang", base=BASE, **options)
    for options in ({"tp": True}, {"gpu_memory": True}, {"compute_capability": True}):
        with pytest.raises(TypeError, match="cannot be a bool"):
            moelora.validate(ATTENTION, engines="sglang", base=BASE, **options)
    assert list(tmp_path.iterdir()) == []


def test_what_is_said_of_a_file_of_any_name_is_text(tmp_path):
    base = make_base(tmp_path / "in")
    for name in (b"\xff.txt", b"sub\xff"):
        path = os.path.join(os.fsencode(base), name)
        pathlib.Path(os.fsdecode(path)).write_text("a")
    os.symlink(b"/none\xff", os.path.join(os.fsencode(base), b"link\xff"))
    made = moelora.convert_base(base, tmp_path / "out", to="fused")
    assert all(os.path.exists(tmp_path / "out" / os.path.basename(each)) for each in made.files)
    for each in (*made.notes, *made.left_out, *made.warnings):
        each.encode()


def test_convert_base_writes_what_the_command_writes(tmp_path):
    base = make_base(tmp_path / "in")
    made = moelora.convert_base(base, tmp_path / "here", to="fused", verify=True)
    command("lora-convert", "base", base, tmp_path / "there", "--to", "fused")
    assert files(tmp_path / "here") == files(tmp_path / "there") and made.verified > 0
    assert (made.family, made.from_, made.to) == ("qwen3_moe", "per expert", "fused")
    assert made.expert_layers == LAYERS - 1
    assert made.tensors == len(load_file(tmp_path / "here/model.safetensors"))
    cut = moelora.convert_base(base, tmp_path / "none", to="fused", layers="0-1", dry_run=True)
    assert cut.tensors < made.tensors and not (tmp_path / "none").exists()


def test_a_part_of_a_base_is_the_one_of_the_command(tmp_path):
    base = make_base(tmp_path / "in")
    moelora.convert_base(base, tmp_path / "here", to="fused", part="2/3", max_shard_size="8KB")
    words = ["--to", "fused", "--part", "2/3", "--max-shard-size", "8KB"]
    command("lora-convert", "base", base, tmp_path / "there", *words)
    assert files(tmp_path / "here") == files(tmp_path / "there")
    assert "conversion.json" in files(tmp_path / "here")


def test_convert_base_says_python_s_words(tmp_path):
    base, out = make_base(tmp_path / "in"), tmp_path / "out"
    for options, said in {
        ("to", "fussed"): "did you mean 'fused'",
        ("to", ""): "expected per-expert or fused",
        ("part", "3/2"): "part='3/2': there is no such part",
        ("part", "3"): 'part=: "3" is not a part of so many',
        ("layers", "2-9"): f"layers=: 2-9 is not a range of the model's layers 0-{LAYERS - 1}",
    }.items():
        with pytest.raises(moelora.Error) as caught:
            moelora.convert_base(base, out, **{"to": "fused"} | dict([options]))
        assert said in str(caught.value) and "--" not in str(caught.value)
    with pytest.raises(moelora.Error) as caught:
        moelora.convert_base(base, out, to="fused", part="1/2", layers="0-1")
    assert caught.value.where == "part=" and caught.value.hint == "leave part= or layers= out"
    assert not out.exists()


# ---- validate ----------------------------------------------------------------------------------------


def test_a_report_has_the_findings_of_the_command():
    words = ["--engine", "sglang", "--base", BASE, "--format"]
    report = moelora.validate([ADAPTER, LONE_Q], engines=["sglang"], base=BASE, project=False)
    os.chdir(DATA)  # no project file there
    assert json.loads(report.to_json()) == json.loads(
        command("lora-validate", ADAPTER, LONE_Q, *words, "json", status=1)
    )
    sarif = json.loads(report.to_sarif())
    assert sarif["version"] == "2.1.0" and len(sarif["runs"][0]["results"]) == len(report) > 0
    assert not report.ok and report.outcome == "findings" and report
    assert {finding.rule for finding in report} == {each["rule"] for each in report.data["findings"]}
    assert any(finding.severity == "error" and finding.adapter == str(LONE_Q) for finding in report)
    assert "lone" in str(report) and "findings" in repr(report)


def test_a_clean_report_is_true_and_ok(tmp_path):
    moelora.convert(ADAPTER, tmp_path / "out", for_="sglang", base=BASE)
    report = moelora.validate(tmp_path / "out", engines="sglang", base=BASE)
    assert report.ok and report and not any(finding.severity == "error" for finding in report)


def test_what_fails_a_report_can_be_said():
    assert moelora.validate(LONE_Q, engines="sglang", base=BASE, fail_on=None).ok
    unjudged = moelora.validate(ATTENTION, engines="sglang")
    assert unjudged.outcome == "not judged" and not unjudged.ok


def test_what_is_asked_wrongly_is_said_before_any_work():
    for options, where in (
        ({"tp": 0}, "tp"),
        ({"max_loras": -1}, "max_loras"),
        ({"fail_on": "warn"}, "fail_on="),
        ({"compute_capability": -1}, "compute_capability="),
        ({"compute_capability": float("nan")}, "compute_capability="),
        ({"compute_capability": float("inf")}, "compute_capability="),
    ):
        with pytest.raises(moelora.Error) as caught:
            moelora.validate(ATTENTION, engines="sglang", base=BASE, **options)
        assert caught.value.where == where
    with pytest.raises(moelora.Error, match="none is named"):
        moelora.validate([], engines="sglang", base=BASE)  # nothing was looked at: not clean
    for tolerance in (-1, float("nan")):
        with pytest.raises(moelora.Error, match="tolerance="):
            moelora.diff_weights(ADAPTER, ADAPTER, base=BASE, tolerance=tolerance)
    with pytest.raises(ValueError, match="without 'logprobs'"):
        moelora.diff_logprobs({"logprob": [-1.0]}, {"logprobs": [-1.0]})


def test_the_table_of_a_notebook_is_harmless(tmp_path):
    bad = tmp_path / "<img src=x onerror=alert(1)>"
    shutil.copytree(LONE_Q, bad)
    page = moelora.validate(bad, engines="sglang", base=BASE)._repr_html_()
    assert "<img" not in page and "&lt;img" in page and "<table>" in page


def test_a_report_repairs_what_can_be_repaired(tmp_path):
    report = moelora.validate(ADAPTER, engines="sglang", base=BASE)
    assert not report.ok
    made = report.repair(tmp_path / "fixed")
    assert made is not None and moelora.validate(tmp_path / "fixed", engines="sglang", base=BASE).ok
    assert moelora.validate(tmp_path / "fixed", engines="sglang", base=BASE).repair(tmp_path / "no") is None


def test_a_pickled_report_keeps_what_it_found(tmp_path):
    report = moelora.validate([ADAPTER, LONE_Q], engines="sglang", base=BASE, project=False)
    copy = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(report))))
    for said in (str, repr, len, list, moelora.Report.to_json, moelora.Report._repr_html_):
        assert said(copy) == said(report)
    assert (copy.ok, copy.outcome, copy.data) == (report.ok, report.outcome, report.data)
    for call in (copy.to_sarif, lambda: copy.render(verbose=True), lambda: copy.repair(tmp_path / "out")):
        with pytest.raises(moelora.Error, match="was pickled"):
            call()
    assert json.loads(report.to_sarif()) and report.repair(tmp_path / "out") is not None


def test_a_pickled_comparison_keeps_what_it_found():
    found = moelora.diff_logprobs(TRAINER, SERVER, max={"k2": 5e-3})
    copy = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(found))))
    assert (str(copy), repr(copy), copy.verdict) == (str(found), repr(found), "same")
    assert (copy.same, copy.data, copy.render("json")) == (True, found.data, found.render("json"))
    with pytest.raises(moelora.Error, match="a comparison that was pickled has its text"):
        copy.render("html")
    assert "<svg" in found.render("html")
    weights = moelora.diff_weights(ADAPTER, ATTENTION, base=BASE)
    assert pickle.loads(pickle.dumps(weights)).data == weights.data


def test_a_report_needs_no_working_folder(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for project in (False, None):
        report = moelora.validate(LONE_Q, engines="sglang", base=BASE, project=project)
        assert not report.ok and "lone" in str(report) and json.loads(report.to_sarif())


def test_an_adapter_that_cannot_be_read_is_a_finding(tmp_path):
    shutil.copytree(ADAPTER, tmp_path / "bad")
    (tmp_path / "bad/adapter_model.safetensors").write_bytes(b"\x05\0\0\0\0\0\0\0{...}")
    report = moelora.validate(tmp_path / "bad", engines="sglang", base=BASE)
    assert [finding.rule for finding in report if finding.severity == "error"]


# ---- diff --------------------------------------------------------------------------------------------


def test_weights_are_the_same_in_any_layout(tmp_path):
    moelora.convert(ADAPTER, tmp_path / "linear", to="peft-linear", base=BASE)
    found = moelora.diff_weights(ADAPTER, tmp_path / "linear", base=BASE)
    assert found.same and found.data["schema"].startswith("moelora.")
    tensors = load_file(tmp_path / "linear/adapter_model.safetensors")
    name = next(each for each in tensors if "lora_B" in each)
    tensors[name] = tensors[name] * 1.5
    save_file(tensors, tmp_path / "linear/adapter_model.safetensors")
    assert not moelora.diff_weights(ADAPTER, tmp_path / "linear", base=BASE).same
    assert moelora.diff_weights(ADAPTER, tmp_path / "linear", base=BASE, tolerance=10).same


def test_scores_are_paths_or_arrays():
    by_path = moelora.diff_logprobs(TRAINER, SERVER, max={"k2": 5e-3})
    assert by_path.same is True and by_path.verdict == "same"
    assert moelora.diff_logprobs(TRAINER, SERVER).same is None
    a = numpy.log(numpy.random.default_rng(1).uniform(0.1, 0.9, (3, 40)))
    b = a + 1e-3
    found = moelora.diff_logprobs(a, b.astype(numpy.float32), max={"mean_abs": 2e-3})
    assert found.same and abs(found.metrics["mean_abs"] - 1e-3) < 1e-6 and found.metrics["n"] == 120
    assert not moelora.diff_logprobs(a, b, max={"mean_abs": 1e-4}).same
    assert "<svg" in found.render("html")


def test_sequences_may_differ_in_length_and_be_masked():
    a = [numpy.array([-1.0, -2.0, -3.0]), numpy.array([-1.0, -1.0])]
    b = [numpy.array([-1.0, -2.0, -9.0]), numpy.array([-1.0, -1.0])]
    assert moelora.diff_logprobs(a, b).metrics["max_abs"] == 6
    masked = [numpy.ma.array(a[0], mask=[False, False, True]), a[1]]
    found = moelora.diff_logprobs(masked, b)
    assert found.metrics["max_abs"] == 0 and found.metrics["n"] == 4
    tokens = [[1, 2, 3], [4, 5]]
    other = [[1, 2, 7], [4, 5]]
    same = {"logprobs": a, "tokens": tokens}
    assert moelora.diff_logprobs(same, {"logprobs": b, "tokens": tokens}).metrics["n"] == 5
    with pytest.raises(moelora.Error, match="token"):
        moelora.diff_logprobs(same, {"logprobs": b, "tokens": other})
    assert not moelora.diff_logprobs([a[1]], [numpy.array([-1.0, numpy.nan])], max={"k2": 1}).same


def test_scores_are_taken_as_exactly_as_they_are_given(tmp_path):
    torch = pytest.importorskip("torch")
    a = torch.tensor([-1.0, -2.0], dtype=torch.float64)
    assert moelora.diff_logprobs(a, a - 1e-12).metrics["max_abs"] == pytest.approx(1e-12, rel=1e-2, abs=0)
    half = a.to(torch.bfloat16)
    assert moelora.diff_logprobs([half, half], [a, a]).metrics["max_abs"] == 0
    for number in (numpy.float32, numpy.float64, numpy.array, torch.tensor):
        assert moelora.diff_logprobs(a, a, max={"k2": number(5e-3)}).same


def test_a_token_without_a_score_is_left_out(tmp_path):
    a, b = [-1.0, None, -3.0], [-1.0, -2.0, -3.5]
    pathlib.Path(tmp_path / "a.json").write_text(json.dumps(a))
    pathlib.Path(tmp_path / "b.json").write_text(json.dumps(b))
    most = {"max_abs": 0.6}  # which a NaN is not within
    expected = moelora.diff_logprobs(tmp_path / "a.json", tmp_path / "b.json", max=most)
    assert expected.same and expected.metrics["n"] == 2
    masked = numpy.ma.array(a, mask=[True, False, False], dtype=object)
    for given in (a, [a], numpy.array(a, object), numpy.array([a], object)):
        found = moelora.diff_logprobs(given, b, max=most)
        assert found.same and found.metrics == expected.metrics
    assert moelora.diff_logprobs([a, [None]], [b, [-1.0]], max=most).same
    assert moelora.diff_logprobs(masked, b).metrics["n"] == 1


def test_what_is_no_number_is_no_score_and_no_token():
    torch = pytest.importorskip("torch")
    dates = numpy.array([1, 2], "datetime64[s]")
    for bad in ([1j, 2.0], [None, "-1"], [None, 1j], dates, dates - dates, torch.tensor([1j, 2.0]),
                torch.zeros(2, device="meta")):  # fmt: skip
        with pytest.raises(TypeError, match="^a: "):
            moelora.diff_logprobs(bad, [-1.0, -2.0])
    with pytest.raises(ValueError, match="^b: .*too large"):
        moelora.diff_logprobs([-1.0], [10**400])
    with pytest.raises(ValueError, match="^k2: .*too large"):
        moelora.diff_logprobs([-1.0], [-1.0], max={"k2": 10**400})

    def with_tokens(tokens):
        side = {"logprobs": [-1.0], "tokens": tokens}
        return moelora.diff_logprobs(side, side).metrics["n"]

    for tokens in ([3], [3.0], numpy.array([3], numpy.uint64), torch.tensor([3]), [torch.tensor([3])]):
        assert with_tokens(tokens) == 1
    for tokens in ([1.2], [float("nan")], [2**63], [2**70], numpy.array([2**64 - 1], numpy.uint64)):
        with pytest.raises(ValueError, match="^a: tokens"):
            with_tokens(tokens)
    for tokens in ([None], ["1"], [1j]):
        with pytest.raises(TypeError, match="^a: tokens"):
            with_tokens(tokens)


def test_the_cuda_module_of_another_wheel_is_found(tmp_path):
    """A file that is none: what is said of it shows that it was opened."""
    moelora.convert(ADAPTER, tmp_path / "out", to="stacked", base=BASE)
    packages = pathlib.Path(moelora.__file__).parent.parent
    if importlib.util.find_spec("moelora_cuda13"):
        pytest.skip("the wheel moelora-cuda13 is installed here")
    (packages / "moelora_cuda13").mkdir()
    try:
        (packages / "moelora_cuda13/libmoelora_cuda.so").write_text("none")
        words = ["--base", BASE, "--source", ADAPTER, "--numeric", "--device", "cuda"]
        tool = pathlib.Path(sys.prefix) / "bin/lora-validate"
        done = subprocess.run([tool, tmp_path / "out", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and "moelora_cuda13/libmoelora_cuda.so" in done.stderr
        code = (
            "import moelora, sys\n"
            "moelora.validate(sys.argv[1], base=sys.argv[2], source=sys.argv[3], numeric=True, device='cuda')"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "out", BASE, ADAPTER],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (
            "moelora.Error" in done.stderr.replace("_error.", "")
            and "moelora_cuda13/libmoelora" in done.stderr
        )
    finally:
        shutil.rmtree(packages / "moelora_cuda13")


# ---- score -----------------------------------------------------------------------------------------


def scored_base(folder):
    """small_base with the norms that a forward needs."""
    base = make_base(folder)
    tensors = load_file(base / "model.safetensors")
    for layer in range(LAYERS):
        stem = f"model.layers.{layer}."
        tensors[stem + "post_attention_layernorm.weight"] = numpy.ones(16, numpy.float32)
        for name in "qk":
            tensors[f"{stem}self_attn.{name}_norm.weight"] = numpy.ones(8, numpy.float32)
    save_file(tensors, base / "model.safetensors")
    return base


def test_scores_are_those_of_the_command(tmp_path):
    base, ids = scored_base(tmp_path / "base"), numpy.array([[3, 1, 2, 7], [4, 5, 6, 0]])
    numpy.save(tmp_path / "ids.npy", ids)
    command("lora-diff", "score", tmp_path / "ids.npy", "--base", base, "--precision", "double", "--top", "2",
            "--output", tmp_path / "by_command.safetensors")  # fmt: skip
    by_command = load_file(tmp_path / "by_command.safetensors")
    for tokens in (ids, ids.tolist(), tmp_path / "ids.npy"):
        found = moelora.score(tokens, base=base, precision="double", top=2)
        assert (numpy.array(found.tokens) == ids).all() and found.logprobs[0].dtype == numpy.float64
        assert (numpy.array(found.logprobs) == by_command["logprobs"]).all()
        assert (numpy.array(found.top_tokens) == by_command["top_tokens"]).all()
        assert (numpy.array(found.top_logprobs) == by_command["top_logprobs"]).all()
    found.save(tmp_path / "by_python.safetensors")
    assert (tmp_path / "by_python.safetensors").read_bytes() == (tmp_path / "by_command.safetensors").read_bytes()
    assert found.mean == pytest.approx(by_command["logprobs"].mean()) and found.temperature == 1
    assert found.mask == [None, None] and found.prompt_lengths == [None, None]
    assert any("temperature" in note for note in found.notes)


def test_scores_of_unequal_lengths_and_other_temperatures(tmp_path):
    base = scored_base(tmp_path / "base")
    found = moelora.score([[3, 1, 2], [4, 5]], base=base, temperature=0.5)
    assert [len(each) for each in found.logprobs] == [2, 1] and found.logprobs[0].dtype == numpy.float32
    assert found.logprobs[1] != moelora.score([4, 5], base=base).logprobs[0]


def test_what_cannot_be_scored_is_refused(tmp_path):
    base = scored_base(tmp_path / "base")
    for tokens, words, what in [
        ([[3, 99]], {}, "token 99 is not in the model's vocabulary of 24"),
        ([3], {}, "has no sequence of two tokens"),
        ([3, 1], {"precision": "half"}, "unknown value 'half'"),
        ([3, 1], {"temperature": 0}, "is 0, expected more than 0"),
    ]:
        with pytest.raises(moelora.Error, match=what):
            moelora.score(tokens, base=base, **words)
    with pytest.raises(moelora.Error, match="its ending is of no kind"):
        moelora.score([3, 1], base=base).save(tmp_path / "scores.parquet")
    assert not (tmp_path / "scores.parquet").exists()


# ---- predict ---------------------------------------------------------------------------------------


def predicted(*engines, tokens=TOKENS, **words):
    return moelora.predict(tokens, base=TINY_BASE, adapter=TINY, engines=engines, **words)


def test_predictions_are_those_of_the_command():
    found = predicted("vllm@0.29", "vllm@0.33", most={"k2": 5e-3})
    by_command = command("lora-diff", "predict", TOKENS, "--base", TINY_BASE, "--adapter", TINY, "--as", "vllm@0.29",
                         "--as", "vllm@0.33", "--max", "k2=5e-3", "--format", "json", status=1)  # fmt: skip
    assert found.to_json() == by_command and found.data == json.loads(by_command)
    assert not found.ok and len(found) == 2 and [each.ok for each in found] == [False, True]
    old, new = found
    assert old.engine == "vllm@0.29" and old.not_served is None and old.verdict == "different"
    assert old.metrics["k2"] > 0.1 > 1e-9 > new.metrics["k2"]
    assert {rule for reason in old.reasons for rule in reason.rules} == {"VLM009"}
    assert all(reason.deltas > 0 and reason.without["k3"] < old.metrics["k3"] for reason in old.reasons)
    assert new.verdict == "same" and new.reasons == []


def test_predictions_are_of_ids_too_and_agree_with_another_implementation():
    ids = json.loads(TOKENS.read_text())
    found = predicted("vllm@0.29", tokens=ids, precision="double")
    assert found.data["servers"] == predicted("vllm@0.29", precision="double").data["servers"]
    assert found.ok and found.servers[0].verdict == "not judged"  # it serves, and nothing was asked for
    meant = moelora.score(ids, base=TINY_BASE, adapter=TINY, precision="double").logprobs
    answers = json.loads((DATA / "logprobs/tiny.vllm.json").read_text())
    said = [[next(iter(each.values()))["logprob"] for each in answer["prompt_logprobs"][1:]] for answer in answers]
    apart = moelora.diff_logprobs(list(meant), [numpy.array(row) for row in said]).metrics
    for name in ("k2", "k3", "max_abs"):
        assert found.servers[0].metrics[name] == pytest.approx(apart[name], rel=1e-5)


def test_a_server_that_refuses_says_so(tmp_path):
    found = predicted("sglang", "vllm@0.33", server_options={"max-lora-rank": 16})
    refused = next(iter(found))
    assert not found.ok and not refused.ok and refused.not_served.startswith("refused: ")
    assert refused.metrics == {} and refused.reasons == [] and refused.verdict == "not judged"
    shown = found._repr_html_()
    assert "vllm@0.33" in shown and shown.count("<tr>") == 3 and "<script" not in shown
    assert "refused" in str(refused) and "k2" in str(found) and repr(found).startswith("<moelora.Predictions: sglang@")
    assert "<!DOCTYPE html>" in found.render("html")
    kept = pickle.loads(pickle.dumps(found))
    assert (kept.ok, str(kept), kept.to_json()) == (found.ok, str(found), found.to_json())
    assert list(kept) == list(found)
    with pytest.raises(moelora.Error, match="a prediction that was pickled"):
        kept.render("html")


def test_what_cannot_be_predicted_is_refused():
    for words, what in [
        ({"engines": []}, "engines: are missing"),
        ({"engines": "sglan"}, "engines=.*sglan"),
        ({"most": {"k9": 1}}, "most=: unknown metric 'k9'"),
        ({"precision": "half"}, "unknown value 'half'"),
        ({"tokens": [[3, 999]]}, "token 999 is not in the model's vocabulary of 160"),
        ({"tokens": [3]}, "has no sequence of two tokens"),
        ({"server_options": {"no-such-flag": 1}}, "no-such-flag"),
    ]:
        given = {"tokens": TOKENS, "engines": "vllm@0.33", "base": TINY_BASE, "adapter": TINY} | words
        with pytest.raises(moelora.Error, match=what):
            moelora.predict(given.pop("tokens"), **given)
    with pytest.raises(TypeError, match="temperature: cannot be a bool"):
        predicted("vllm@0.33", temperature=True)


# ---- load --------------------------------------------------------------------------------------------


def test_arrays_are_views_of_the_file(tmp_path):
    moelora.convert(ADAPTER, tmp_path / "linear", to="peft-linear", base=BASE)
    adapter = moelora.load(tmp_path / "linear", base=BASE)
    tensors = load_file(tmp_path / "linear/adapter_model.safetensors")
    assert adapter.config["r"] == 4 and adapter.expert_count == len(next(iter(adapter.experts.values())))
    seen = 0
    for pair in adapter.pairs():
        for side, array in (("A", pair.a), ("B", pair.b)):
            assert not array.flags.writeable and not array.flags.owndata
            assert numpy.array_equal(array, tensors[f"base_model.model.{pair.module}.lora_{side}.weight"])
            seen += 1
    assert seen == len(tensors)


def test_deltas_are_the_same_from_any_layout(tmp_path):
    trained = moelora.load(ADAPTER, base=BASE)
    for layout in ("stacked", "peft-linear"):
        moelora.convert(ADAPTER, tmp_path / layout, to=layout, base=BASE)
        other = moelora.load(tmp_path / layout, base=BASE)
        assert trained.modules.keys() == other.modules.keys()
        for (layer, projection), experts in other.experts.items():
            assert experts.module.endswith(projection)
            for expert, pair in enumerate(experts):
                fused = trained.experts.get((layer, projection)) or trained.experts[layer, "gate_up_proj"]
                delta, whole = pair.delta(numpy.float64), fused[expert].delta(numpy.float64)
                assert delta.shape == pair.shape
                rows = {"gate_proj": whole[0::2], "up_proj": whole[1::2]}  # gpt-oss interleaves them
                expected = whole if whole.shape == delta.shape else rows[projection]
                numpy.testing.assert_allclose(delta, expected, rtol=1e-6, atol=1e-9)


def test_a_scale_is_that_of_the_config():
    pair = next(iter(moelora.load(ADAPTER, base=BASE).modules.values()))
    assert (pair.rank, pair.alpha, pair.scale) == (4, 8, 2)
    numpy.testing.assert_allclose(pair.delta(), 2 * pair.b @ pair.a, rtol=1e-6)


def test_bfloat16_is_ml_dtypes_or_float32(tmp_path, monkeypatch):
    moelora.convert(ADAPTER, tmp_path / "out", to="stacked", base=BASE, dtype="bf16")
    pair = next(iter(moelora.load(tmp_path / "out", base=BASE).modules.values()))
    assert pair.a.dtype.name == "bfloat16" and not pair.a.flags.owndata
    monkeypatch.setattr(_adapter, "_bfloat16", lambda: None)
    plain = next(iter(moelora.load(tmp_path / "out", base=BASE).modules.values()))
    assert plain.a.dtype == numpy.float32 and numpy.array_equal(plain.a, pair.a.astype(numpy.float32))


@pytest.fixture
def linear(tmp_path):
    """An adapter to write over, and what its pairs are."""
    moelora.convert(ADAPTER, tmp_path / "linear", to="peft-linear", base=BASE)
    adapter = moelora.load(tmp_path / "linear", base=BASE)
    return tmp_path / "linear", [pair.b.copy() for pair in adapter.pairs()]


def same_b(adapter, expected):
    return all(numpy.array_equal(pair.b, b) for pair, b in zip(adapter.pairs(), expected, strict=True))


def test_what_is_loaded_is_that_file_whatever_has_its_name_later(linear, tmp_path, monkeypatch):
    folder, expected = linear
    replaced = moelora.load(folder, base=BASE)
    tensors = {name: array + 1 for name, array in load_file(folder / "adapter_model.safetensors").items()}
    moelora.save(tensors, config_of(folder), folder, to="peft-linear", base=BASE, force=True)
    assert same_b(replaced, expected) and not same_b(moelora.load(folder, base=BASE), expected)
    monkeypatch.chdir(tmp_path)
    relative = moelora.load("linear", base=BASE)
    expected = [b + 1 for b in expected]
    monkeypatch.chdir("/")
    assert same_b(relative, expected)
    removed = moelora.load(folder, base=BASE)
    kept = next(removed.pairs()).a
    shutil.rmtree(folder)
    assert same_b(removed, expected)
    del removed, relative, replaced
    assert kept.sum() == kept.copy().sum()  # mapped as long as an array of it lives


def test_a_file_that_is_written_in_place_is_an_error(linear):
    file = linear[0] / "adapter_model.safetensors"
    for change in (lambda: os.truncate(file, 4000), lambda: file.write_bytes(bytes(file.stat().st_size))):
        before = file.read_bytes()
        adapter = moelora.load(linear[0], base=BASE)
        change()
        with pytest.raises(moelora.Error, match="was changed or replaced while it was read"):
            next(adapter.pairs()).a  # noqa: B018
        file.write_bytes(before)


def test_what_is_computed_of_a_file_that_was_changed_is_an_error(tmp_path):
    shutil.copytree(ADAPTER, tmp_path / "in")
    file = tmp_path / "in/adapter_model.safetensors"
    file.chmod(0o644)
    tensor = next(moelora.load(tmp_path / "in", base=BASE).pairs())._a
    os.truncate(file, 4000)
    with pytest.raises(moelora.Error, match="ends at offset"):  # below the arrays too
        tensor.read_into(numpy.empty(4 * numpy.prod(tensor.shape), numpy.uint8))


def test_a_pickled_adapter_is_loaded_again(tmp_path, monkeypatch):
    shutil.copytree(ADAPTER, tmp_path / "in/adapter")
    (tmp_path / "in/adapter/checkpoint-1").mkdir()
    (tmp_path / "in/adapter/checkpoint-1/README.md").touch()
    shutil.copytree(BASE, tmp_path / "in/base")
    monkeypatch.chdir(tmp_path / "in")
    adapter = moelora.load("adapter", base="base")
    sent = pickle.dumps(adapter)
    assert len(sent) < 4000  # no factors
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in/adapter/README.md").write_text("new")
    (tmp_path / "in/adapter/checkpoint-1/README.md").unlink()
    copy = pickle.loads(pickle.dumps(pickle.loads(sent)))
    assert copy.config == adapter.config and repr(copy) == repr(adapter)
    for one, other in zip(adapter.pairs(), copy.pairs(), strict=True):
        assert one.module == other.module and numpy.array_equal(one.delta(), other.delta())


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_pickled_adapter_that_has_changed_is_an_error(tmp_path, name):
    shutil.copytree(ADAPTER, tmp_path / "adapter")
    places = "adapter", "adapter/adapter_model.safetensors"
    sent = [pickle.dumps(moelora.load(tmp_path / each, base=BASE)) for each in places]
    file = tmp_path / "adapter" / name
    os.utime(file, ns=(1, 1))
    for each in sent:
        with pytest.raises(moelora.Error, match="has changed since") as caught:
            pickle.loads(each)
        assert caught.value.where == str(file)
    file.unlink()
    with pytest.raises(moelora.Error, match="has changed since"):
        pickle.loads(sent[0])


def test_a_pickled_pair_has_its_arrays(tmp_path):
    shutil.copytree(ADAPTER, tmp_path / "adapter")
    adapter = moelora.load(tmp_path / "adapter", base=BASE)
    pairs = [next(iter(adapter.modules.values())), next(iter(adapter.experts.values()))[1]]
    sent = pickle.dumps(pairs)
    shutil.rmtree(tmp_path / "adapter")
    for pair, copy in zip(pairs, pickle.loads(sent), strict=True):
        assert repr(copy) == repr(pair) and (copy.shape, copy.alpha) == (pair.shape, pair.alpha)
        assert numpy.array_equal(copy.a, pair.a) and numpy.array_equal(copy.delta(), pair.delta())
    for each in (adapter.experts, adapter.extras):
        with pytest.raises(TypeError, match="send the Adapter, a Pair or a copy"):
            pickle.dumps(each)


def test_a_shard_may_have_any_name(linear):
    folder, expected = linear
    name = b"w\xff.safetensors"
    os.rename(folder / "adapter_model.safetensors", os.path.join(os.fsencode(folder), name))
    assert same_b(moelora.load(folder, base=BASE), expected)


def test_an_expert_that_is_not_there_is_an_index_error():
    experts = next(iter(moelora.load(ADAPTER, base=BASE).experts.values()))
    assert experts[-1].module == experts[len(experts) - 1].module
    with pytest.raises(IndexError):
        experts[len(experts)]


# ---- save --------------------------------------------------------------------------------------------


def test_tensors_in_memory_become_what_their_folder_becomes(tmp_path):
    tensors = load_file(ADAPTER / "adapter_model.safetensors")
    for options in ({"to": "stacked", "verify": True}, {"for_": "sglang"}):
        moelora.save(tensors, config_of(ADAPTER), tmp_path / "memory", base=BASE, force=True, **options)
        moelora.convert(ADAPTER, tmp_path / "disk", base=BASE, force=True, **options)
        memory, disk = files(tmp_path / "memory"), files(tmp_path / "disk")
        assert memory.pop("conversion.json") and disk.pop("conversion.json")
        assert memory == disk


def test_any_view_of_any_type_is_saved_as_it_is(tmp_path):
    import ml_dtypes

    tensors = load_file(ATTENTION / "adapter_model.safetensors")
    changed = [
        lambda x: numpy.asfortranarray(x),
        lambda x: numpy.repeat(x, 2, axis=-1)[..., ::2],
        lambda x: numpy.ascontiguousarray(x[::-1])[::-1],
        lambda x: x,
    ]
    for dtype in (numpy.float32, numpy.float16, ml_dtypes.bfloat16):
        plain = {name: array.astype(dtype) for name, array in tensors.items()}
        views = {name: changed[i % 4](array) for i, (name, array) in enumerate(plain.items())}
        for name, given in (("plain", plain), ("views", views)):
            moelora.save(
                given, config_of(ATTENTION), tmp_path / name, to="peft-linear", base=BASE, force=True
            )
        assert files(tmp_path / "plain") == files(tmp_path / "views")
        adapter = moelora.load(tmp_path / "views", base=BASE)
        for pair in adapter.pairs():
            assert numpy.array_equal(
                bits(pair.a), bits(plain[f"base_model.model.{pair.module}.lora_A.weight"])
            )


def test_torch_tensors_are_saved_through_dlpack(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = load_file(ADAPTER / "adapter_model.safetensors")
    for dtype in (torch.float32, torch.bfloat16):
        given = {name: torch.from_numpy(array).to(dtype).requires_grad_() for name, array in tensors.items()}
        moelora.save(given, config_of(ADAPTER), tmp_path / "out", to="stacked", base=BASE, force=True)
        pair = next(moelora.load(tmp_path / "out", base=BASE).pairs())
        expected = given[f"base_model.model.{pair.module}.lora_A.weight"].detach().float().numpy()
        assert numpy.array_equal(pair.a.astype(numpy.float32), expected)


class Exporter:
    """Makes an array anew whenever it is asked for one, as a view of another library may."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **how):
        return self.array.copy().__dlpack__()

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def saved(tensors, folder, **options):
    moelora.save(tensors, config_of(ATTENTION), folder, to="peft-linear", base=BASE, force=True, **options)
    return files(folder)


def test_arrays_of_an_exporter_live_as_long_as_the_call(tmp_path):
    tensors = load_file(ATTENTION / "adapter_model.safetensors")
    expected = saved(tensors, tmp_path / "plain")
    lazy = {name: Exporter(array) for name, array in tensors.items()}
    assert saved(lazy, tmp_path / "lazy") == expected


def odd(array):
    """The same values, of a stride that is no multiple of their size."""
    out = numpy.empty(array.shape, [("value", array.dtype), ("rest", "u1")])["value"]
    out[...] = array
    return out


def test_arrays_that_dlpack_cannot_say_are_saved(tmp_path):
    tensors = load_file(ATTENTION / "adapter_model.safetensors")
    expected = saved(tensors, tmp_path / "plain")
    for change in (lambda x: x.astype(x.dtype.newbyteorder(">")), odd):
        assert saved({name: change(array) for name, array in tensors.items()}, tmp_path / "other") == expected


def test_fp8_is_saved_as_it_is(tmp_path):
    import ml_dtypes

    for dtype in ("float8_e4m3fn", "float8_e5m2"):
        tensors = {
            name: array.astype(getattr(ml_dtypes, dtype))
            for name, array in load_file(ATTENTION / "adapter_model.safetensors").items()
        }
        saved(tensors, tmp_path / "numpy")
        header = (tmp_path / "numpy/adapter_model.safetensors").read_bytes()
        assert dtype.removesuffix("fn").replace("float8", "f8").upper().encode() in header
        first = next(iter(tensors))
        assert tensors[first].tobytes() in header
        if importlib.util.find_spec("torch"):
            import torch

            given = {
                name: torch.from_numpy(array.view(numpy.uint8)).view(getattr(torch, dtype))
                for name, array in tensors.items()
            }
            assert saved(given, tmp_path / "torch") == files(tmp_path / "numpy")


def test_a_negated_view_of_torch_keeps_its_sign(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = load_file(ATTENTION / "adapter_model.safetensors")
    expected = saved({name: -array for name, array in tensors.items()}, tmp_path / "plain")
    given = {name: torch._neg_view(torch.from_numpy(array)) for name, array in tensors.items()}
    assert saved(given, tmp_path / "views") == expected


def test_a_config_may_hold_what_json_does_not_know(tmp_path):
    tensors, config = load_file(ATTENTION / "adapter_model.safetensors"), config_of(ATTENTION)
    expected = saved(tensors, tmp_path / "plain")
    other = config | {"r": numpy.int64(config["r"]), "lora_alpha": numpy.float32(config["lora_alpha"])}
    other["target_modules"] = set(config["target_modules"])
    other["rank_pattern"] = types.MappingProxyType(config["rank_pattern"])
    moelora.save(tensors, types.MappingProxyType(other), tmp_path / "other", to="peft-linear", base=BASE)
    written = config_of(tmp_path / "other")
    assert (written["r"], written["lora_alpha"], written["rank_pattern"]) == (4, 8, {})
    assert files(tmp_path / "other").keys() == expected.keys()


def test_what_is_no_adapter_is_refused(tmp_path):
    for each in (None, [numpy.zeros(3)], iter([("a", numpy.zeros(3))])):
        with pytest.raises(TypeError, match="tensors: .*, expected a dict of arrays by name"):
            moelora.save(each, config_of(ADAPTER), tmp_path / "out", to="stacked", base=BASE)
    if importlib.util.find_spec("torch"):
        import torch

        with pytest.raises(TypeError, match="a.b: a tensor on the meta device has no values"):
            moelora.save({"a.b": torch.empty(3, device="meta")}, {}, tmp_path / "out", to="stacked")
    tensors = load_file(ADAPTER / "adapter_model.safetensors")
    with pytest.raises(moelora.Error, match="hold no tensor"):
        moelora.save({}, config_of(ADAPTER), tmp_path / "out", to="stacked", base=BASE)
    with pytest.raises(TypeError, match="a tensor's name is a str, not int"):
        moelora.save({1: numpy.zeros(3)}, config_of(ADAPTER), tmp_path / "out", to="stacked", base=BASE)
    with pytest.raises(TypeError, match="has a surrogate"):
        moelora.save({"a\udc80": numpy.zeros(3)}, config_of(ADAPTER), tmp_path / "out", to="stacked")
    with pytest.raises(TypeError, match="is no array"):
        moelora.save({"a": "text"}, config_of(ADAPTER), tmp_path / "out", to="stacked", base=BASE)
    for bad in ((each for each in tensors.items()), list(tensors.items()), None):
        with pytest.raises(TypeError, match="tensors: .*expected a dict"):
            moelora.save(bad, config_of(ADAPTER), tmp_path / "out", to="stacked", base=BASE)
    with pytest.raises(moelora.Error, match='"r" is missing'):
        moelora.save(tensors, {"peft_type": "LORA"}, tmp_path / "out", to="stacked", base=BASE)
    with pytest.raises(moelora.Error, match="in memory"):
        moelora.save(
            tensors, config_of(ADAPTER), tmp_path / "out", to="sglang-pool", for_="sglang", base=BASE
        )
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_without_values_is_refused_by_name(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {"a.lora_A.weight": torch.zeros(2, device="meta")}
    with pytest.raises(TypeError, match="^a.lora_A.weight: .*meta"):
        moelora.save(tensors, config_of(ADAPTER), tmp_path / "out", to="stacked")


def test_a_config_is_any_mapping_with_scalars_of_any_kind(tmp_path):
    tensors, config = load_file(ATTENTION / "adapter_model.safetensors"), config_of(ATTENTION)
    numpy_s = config | {
        "r": numpy.int64(config["r"]), "lora_alpha": numpy.float32(config["lora_alpha"]),
        "use_rslora": numpy.False_, "target_modules": numpy.array(config["target_modules"]),
        "rank_pattern": types.MappingProxyType({}),
    }  # fmt: skip
    given = {"plain": config, "numpy": numpy_s, "mapping": types.MappingProxyType(numpy_s)}
    if "torch" in sys.modules:
        given["torch"] = config | {"r": sys.modules["torch"].tensor(config["r"])}
    for name, each in given.items():
        moelora.save(tensors, each, tmp_path / name, to="peft-linear", base=BASE)
        written, expected = config_of(tmp_path / name), config_of(tmp_path / "plain")
        assert written == expected and type(written["r"]) is int


# ---- long calls --------------------------------------------------------------------------------------


@pytest.fixture
def long_save(tmp_path):
    """A conversion that takes a second or more: 200 MB of one repeated row, cast."""
    config = config_of(ATTENTION)
    row = numpy.ones(1, numpy.float16)
    rank, width = 64, 1 << 19
    tensors = {
        f"base_model.model.model.layers.0.self_attn.{module}.lora_{side}.weight": numpy.broadcast_to(
            row, shape
        )
        for module in ("q_proj", "k_proj")
        for side, shape in (("A", (rank, width)), ("B", (64, rank)))
    }

    def start(**options):
        given = config | {"r": rank, "lora_alpha": rank, "target_modules": ["q_proj", "k_proj"]}
        return moelora.save(
            tensors, given, tmp_path / "out", to="peft-linear", dtype="f32", threads=1, **options
        )

    return start


@contextlib.contextmanager
def counting():
    """How often another thread had its turn."""
    counted, stop = [0], threading.Event()

    def count():
        while not stop.is_set():
            counted[0] += 1
            time.sleep(0.001)

    counter = threading.Thread(target=count)
    counter.start()
    try:
        yield counted
    finally:
        stop.set()
        counter.join()


def test_the_gil_is_released(long_save):
    with counting() as counted:
        long_save()
    assert counted[0] > 20  # and not one or two, before and after


def test_a_page_is_rendered_without_the_gil():
    a = numpy.log(numpy.random.default_rng(1).uniform(0.1, 0.9, 1_000_000))
    found = moelora.diff_logprobs(a, a + 1e-3)
    began = time.monotonic()
    with counting() as counted:
        found.render("html")
    assert counted[0] > 10 * (time.monotonic() - began)


def test_ctrl_c_ends_a_call_and_leaves_nothing(long_save, tmp_path):
    began = time.monotonic()
    long_save(verify=True)
    whole = time.monotonic() - began
    shutil.rmtree(tmp_path / "out")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    timer = threading.Timer(whole / 4, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        long_save(verify=True)
    assert time.monotonic() - began < whole
    assert list(tmp_path.iterdir()) == []


def test_progress_is_told_and_what_it_raises_ends_the_call(long_save, tmp_path):
    heard = []
    long_save(progress=lambda *how: heard.append((threading.current_thread(), *how)))
    assert all(each[0] is threading.main_thread() for each in heard)
    assert heard[-1][1] == "writing" and heard[-1][2] == heard[-1][3] > 0
    shutil.rmtree(tmp_path / "out")

    def stop(*how):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        long_save(progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_progress_has_a_total(long_save):
    heard = []

    def hear(stage, done, total):
        heard.append(done / total)

    long_save(progress=hear, verify=True)
    moelora.validate(ADAPTER, engines="sglang", base=BASE, source=ADAPTER, numeric=True, progress=hear)
    assert heard and all(0 <= share <= 1 for share in heard)


def test_what_progress_raises_at_the_end_hides_no_error(long_save, tmp_path):
    """The first callback cuts the file short and returns when the work has failed."""
    long_save()
    threads = len(os.listdir("/proc/self/task"))
    calls = []

    def hear(*how):
        calls.append(how)
        if len(calls) > 1:
            raise ZeroDivisionError
        file = tmp_path / "out/adapter_model.safetensors"
        os.truncate(file, file.stat().st_size - 4096)
        while len(os.listdir("/proc/self/task")) > threads:
            time.sleep(0.01)

    with pytest.raises(moelora.Error, match="ends at offset"):
        moelora.convert(
            tmp_path / "out", tmp_path / "cut", to="peft-linear", dtype="f16", threads=1, progress=hear
        )
    assert calls and not (tmp_path / "cut").exists()


AT_EXIT = """
import json, os, sys, threading, time
import moelora, numpy

adapter, base, out = json.loads(os.environ["PATHS"])

def validate():
    try:
        moelora.validate(adapter, engines="sglang", base=base, project=False)
    except Exception:
        pass

def load():
    for pair in moelora.load(adapter, base=base).pairs():
        pair.a

def save(progress=None):
    row = numpy.ones(1, numpy.float16)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight".format
    shapes = {name("A"): (64, 1 << 22), name("B"): (64, 64)}
    tensors = {name: numpy.broadcast_to(row, shape) for name, shape in shapes.items()}
    config = {"peft_type": "LORA", "r": 64, "lora_alpha": 64, "target_modules": ["q_proj"]}
    how = {"to": "peft-linear", "dtype": "f32", "threads": 1, "force": True, "sync": False}
    moelora.save(tensors, config, out, progress=progress, **how)

def blocked():
    save(lambda *how: threading.Event().wait())

def hearing():
    save(lambda *how: time.sleep(0.3))

def repeat():
    while True:
        globals()[sys.argv[1]]()

for _ in range(int(sys.argv[2])):
    threading.Thread(target=repeat, daemon=True).start()
time.sleep(0.3)
if len(sys.argv) > 3:  # a child, which has none of these threads, ends first
    child = os.fork()
    sys.exit(os.waitpid(child, 0)[1] if child else 0)
"""


@pytest.mark.parametrize(
    ("what", "words"),
    [("validate", "4"), ("load", "2"), ("save", "1"), ("hearing", "3"), ("blocked", "1"), ("save", "1 fork")],
    ids=lambda words: words.replace(" ", "-"),
)
def test_the_interpreter_may_end_while_daemon_threads_are_in_calls(tmp_path, what, words):
    adapter = ADAPTER if what == "load" else LONE_Q
    paths = json.dumps([str(adapter), str(BASE), str(tmp_path / "out")])
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT, what, *words.split()],
        env=os.environ | {"PATHS": paths},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    if what == "save":
        assert {path.name for path in tmp_path.iterdir()} <= {"out"}  # and no folder under a temporary name


def test_progress_is_a_bar_where_tqdm_is(long_save, capsys):
    pytest.importorskip("tqdm")
    long_save(progress=True)
    assert "writing" in capsys.readouterr().err


def test_calls_run_beside_each_other_and_in_forked_children():
    def judge(_=None):
        return moelora.validate(LONE_Q, engines="sglang", base=BASE).to_json()

    expected = judge()
    results = []
    threads = [threading.Thread(target=lambda: results.append(judge())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 8
    child = os.fork()
    if child == 0:
        os._exit(0 if judge() == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
