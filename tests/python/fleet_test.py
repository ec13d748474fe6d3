"""moelora.fleet: the same report from threads of one machine and from a Ray cluster whose workers and nodes die."""

import json
import math
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import types

import moelora
import pytest
from moelora import fleet
from moelora.fleet import _files, _parts, _run, _search, _units
from small_base import LAYERS, make_base, tensors_of

DATA = pathlib.Path(os.environ["MOELORA_SOURCE_DIR"]) / "examples/data"
BASE = str(DATA / "gpt_oss_base")
KINDS = ("gpt_oss_adapter", "gpt_oss_attention", "gpt_oss_lone_q")
JUDGED = {"engines": ["sglang"], "base": BASE}


def make_adapters(folder, count, corrupt=None):
    """Copies of the three bundled adapters; one with half of its weights, where it is asked for."""
    for i in range(count):
        shutil.copytree(DATA / KINDS[i % 3], folder / f"{i:04}")
    if corrupt is not None:
        weights = folder / f"{corrupt:04}/adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    return str(folder / "*")


def found_in(uris):
    return _search.adapters(uris).uris


def command(*words, **how):
    words = [sys.executable, "-m", "moelora.fleet", *map(str, words)]
    return subprocess.run(words, capture_output=True, text=True, check=False, **how)


# ---- on this machine -----------------------------------------------------------------------------------


def test_a_fleet_says_of_each_adapter_what_validate_says(tmp_path):
    pattern = make_adapters(tmp_path / "in", 7, corrupt=4)
    report = fleet.validate(pattern, address="local", **JUDGED)
    assert len(report) == 7 and not report.ok and report.exit_status == 1
    for unit in report:
        alone = moelora.validate(unit["unit"], project=False, **JUDGED)
        assert unit["outcome"] == alone.outcome and unit["findings"] == alone.data["findings"]
    rules = {rule["rule"]: rule["units"] for rule in report.by_rule()}
    assert all(
        count == len({f["adapter"] for f in report.findings if f["rule"] == rule})
        for rule, count in rules.items()
    )
    assert str(report).splitlines()[0].startswith("7 adapters: ")


def test_folders_of_adapters_are_searched(tmp_path):
    make_adapters(tmp_path / "in/run/checkpoints", 3)
    found = found_in(tmp_path / "in")
    assert found == found_in([tmp_path / "in/*", tmp_path / "in/run/checkpoints/*"])
    assert len(found) == 3 and _search.names(found) == ["0000", "0001", "0002"]
    with pytest.raises(moelora.Error, match="names no adapter"):
        fleet.validate(str(tmp_path / "none*"), address="local")


def test_weights_without_a_config_are_not_passed_over(tmp_path):
    make_adapters(tmp_path / "in", 2)
    (tmp_path / "in/0001/adapter_config.json").unlink()
    assert len(found_in(tmp_path / "in")) == 2
    report = fleet.validate(str(tmp_path / "in"), address="local", **JUDGED)
    assert not report.ok and len(report) == 2 and "0001" in str(report)


def test_a_second_run_takes_up_what_is_not_done(tmp_path):
    pattern = make_adapters(tmp_path / "in", 6)
    state = str(tmp_path / "state")
    first = fleet.validate(pattern, address="local", state=state, **JUDGED)
    again = fleet.validate(pattern, address="local", state=state, **JUDGED)
    assert (first.run["resumed"], again.run["resumed"]) == (0, 6) and again.to_json() == first.to_json()
    config = tmp_path / "in/0002/adapter_config.json"
    config.write_text(config.read_text() + "\n")
    assert fleet.validate(pattern, address="local", state=state, **JUDGED).run["resumed"] == 5
    other = fleet.validate(pattern, address="local", state=state, tp=2, **JUDGED)
    assert other.run["resumed"] == 0


def test_a_second_run_may_spell_paths_in_another_way(tmp_path, monkeypatch):
    make_adapters(tmp_path / "in", 3)
    shutil.copytree(BASE, tmp_path / "base")
    os.symlink("in", tmp_path / "link")
    (tmp_path / "below").mkdir()
    spellings = [  # where from, adapters, output, base
        ("in", "*", "../out", "../base"),
        ("in", "./*", "../below/../out/", "../in/../base"),
        (".", "in", "out", "./base"),
        (".", "link/*", "out", "base"),
        ("below", f"{tmp_path}/in", f"{tmp_path}/out", f"{tmp_path}/base"),
    ]
    for number, (here, pattern, out, base) in enumerate(spellings):
        monkeypatch.chdir(tmp_path / here)
        how = {"address": "local", "base": base, "state": tmp_path / "state"}
        made = fleet.convert(pattern, out, to="stacked", **how)
        judged = fleet.validate(pattern, engines=["sglang"], **how)
        compared = fleet.diff(pattern, out, **how)
        for report in (made, judged, compared):
            assert report.run["resumed"] == 3 * (number > 0) and report.counts.get("failed", 0) == 0
        named = [unit["unit"] for unit in made]
        assert all(map(os.path.isdir, named)) and named == [unit["unit"] for unit in judged]
        assert {finding["adapter"] for finding in judged.findings} <= {*named, None}
        assert all(os.path.isdir(unit["out"]) for unit in made)
        assert [unit["diff"]["a"]["path"] for unit in compared] == named
        assert all(unit["other"] == unit["diff"]["b"]["path"] == o["out"] for unit, o in zip(compared, made))
    assert len(os.listdir(tmp_path / "state")) == 9
    monkeypatch.chdir(tmp_path)
    shutil.copytree("in", "others")  # of the same names
    assert fleet.validate("others", engines=["sglang"], **how).run["resumed"] == 0


def test_a_record_by_its_spelling_is_taken_up(tmp_path, monkeypatch):
    make_adapters(tmp_path / "in", 1)
    monkeypatch.chdir(tmp_path / "in")
    base = os.path.realpath(BASE)  # whose spelling was compared, too
    options = {"to": "stacked", "base": base, "address": "local", "state": tmp_path / "state"}
    with monkeypatch.context() as patched:
        patched.setattr(_files, "identity", lambda uri: uri)  # as it once was
        assert fleet.convert("0000", "out", **options).ok
    again = fleet.convert("0000", "out", **options)
    assert again.ok and again.run["resumed"] == 1 and len(os.listdir(tmp_path / "state")) == 1


def test_conversions_are_done_once_each_and_whole(tmp_path):
    pattern, out = make_adapters(tmp_path / "in", 6), tmp_path / "out"
    options = {"to": "peft-linear", "base": BASE, "address": "local"}
    first = fleet.convert(pattern, str(out), **options)
    assert first.ok and first.exit_status == 0
    assert sorted(each.name for each in out.iterdir()) == [".moelora-fleet"] + [f"{i:04}" for i in range(6)]
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    shutil.rmtree(out / "0003")
    again = fleet.convert(pattern, str(out), **options)
    assert again.run["resumed"] == 5 and again.to_json() == first.to_json()
    assert {path: path.stat().st_mtime_ns for path in written if "0003" not in str(path)} == {
        path: at for path, at in written.items() if "0003" not in str(path)
    }
    same = fleet.diff(pattern, str(out), base=BASE, address="local")
    assert same.ok and len(same) == 6


def test_how_far_apart_is_still_the_same_can_be_said(tmp_path):
    make_adapters(tmp_path / "in", 2)
    shutil.copytree(tmp_path / "in", tmp_path / "out")
    config = tmp_path / "out/0001/adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 8.001'))
    options = {"base": BASE, "address": "local", "state": tmp_path / "state"}
    for how, counts in (({}, {"clean": 1, "findings": 1}), ({"tolerance": 1e-3}, {"clean": 2})):
        assert fleet.diff(tmp_path / "in", tmp_path / "out", **options, **how).counts == counts
    words = ["diff", tmp_path / "in", "--other", tmp_path / "out", "--base", BASE, "--address", "local"]
    assert command(*words).returncode == 1 and command(*words, "--tolerance", 1e-3).returncode == 0


def test_what_a_dead_worker_left_is_replaced_and_what_was_there_is_not(tmp_path):
    pattern, out = make_adapters(tmp_path / "in", 2), tmp_path / "out"
    options = {"to": "peft-linear", "base": BASE, "address": "local"}
    out.mkdir()
    moelora.convert(tmp_path / "in/0000", out / "0000", to="stacked", base=BASE)
    refused = fleet.convert(pattern, str(out), **options)
    assert refused.counts == {"clean": 1, "failed": 1} and refused.exit_status == 2
    assert str(refused).splitlines()[1:] == [
        f"failed      1 adapter; first {tmp_path}/in/0000: {out}/0000: exists already",
        "            hint: pass force= to replace it, or name another output",
    ]
    assert fleet.convert(pattern, str(out), **options).counts == refused.counts

    def begin():  # and die
        work = _units.Work(
            "convert", {"threads": 1, "to": "peft-linear", "base": BASE}, str(out / ".moelora-fleet")
        )
        _units.Record(work, _units.Unit(str(tmp_path / "in/0000"), str(out / "0000"))).begin()

    begin()  # beside what was there before: it is still nobody's of the fleet
    assert fleet.convert(pattern, str(out), **options).counts == refused.counts
    shutil.rmtree(out / "0000")
    begin()
    moelora.convert(tmp_path / "in/0000", out / "0000", to="stacked", base=BASE)
    assert fleet.convert(pattern, str(out), **options).ok
    assert not list(out.rglob("*.begun"))


def test_an_output_is_made_anew_when_its_input_changes(tmp_path):
    pattern, out = make_adapters(tmp_path / "in", 3), tmp_path / "out"
    options = {"to": "peft-linear", "base": BASE, "address": "local"}
    assert fleet.convert(pattern, out, **options).ok
    for name, change in (("0000", '"lora_alpha": 16'), ("0001", '"lora_alpha": 32')):
        config = tmp_path / "in" / name / "adapter_config.json"
        config.write_text(config.read_text().replace('"lora_alpha": 8', change))
    (out / "0001/conversion.json").write_text("{}")  # somebody's
    again = fleet.convert(pattern, out, **options)
    assert again.run["resumed"] == 1 and again.counts == {"clean": 2, "failed": 1}
    assert json.loads((out / "0000/adapter_config.json").read_text())["lora_alpha"] == 16
    assert json.loads((out / "0001/adapter_config.json").read_text())["lora_alpha"] == 8


def test_outputs_among_the_inputs_are_no_inputs(tmp_path):
    make_adapters(tmp_path, 3)
    options = {"to": "peft-linear", "base": BASE, "address": "local"}
    first = fleet.convert(tmp_path, tmp_path / "served", **options)
    again = fleet.convert(tmp_path, tmp_path / "served", **options)
    assert first.ok and len(first) == 3 and again.run["resumed"] == 3 and again.to_json() == first.to_json()


@pytest.mark.parametrize("here, out", [(".", "served"), ("*", "./served"), ("../in", "x/../served"), (".", "link"),
                                       (".", "file://{}/served"), ("file://{}", "served")])  # fmt: skip
def test_outputs_among_the_inputs_are_none_however_they_are_spelled(tmp_path, monkeypatch, here, out):
    make_adapters(tmp_path / "in", 2)
    monkeypatch.chdir(tmp_path / "in")
    for folder in ("x", "../elsewhere"):
        os.mkdir(folder)
    os.symlink("../elsewhere" if here == "*" else "served", "link")
    if out == "link":
        os.mkdir("served")
    here, out = (each.format(tmp_path / "in") for each in (here, out))
    options = {"to": "peft-linear", "base": BASE, "address": "local"}
    for resumed in (0, 2):
        made = fleet.convert(here, out, **options)
        assert made.counts == {"clean": 2} and made.run["resumed"] == resumed
        assert sorted(each.name for each in (tmp_path / "in/served").glob("*/")) == [".moelora-fleet", "0000", "0001"]
    assert len(fleet.diff(here, out, base=BASE, address="local")) == 2
    with pytest.raises(moelora.Error, match="holds all adapters that are named"):
        fleet.convert("served", out, **options)


def test_an_adapter_that_is_named_twice_is_one_unit(tmp_path, monkeypatch):
    make_adapters(tmp_path / "in", 2)
    monkeypatch.chdir(tmp_path / "in")
    os.symlink("0000", "latest")
    twice = ["0001", "./0001", "0001/", f"{tmp_path}/in/0001", "../in/0001", "*"]
    assert found_in(twice) == ["0000", "0001", "latest"]
    options = {"to": "peft-linear", "base": BASE, "address": "local"}
    made = fleet.convert([*twice, f"{tmp_path}/in/0000"], "../out", **options)
    assert made.counts == {"clean": 3}
    assert fleet.convert("0000", "../alone", **options).ok and (tmp_path / "alone/0000").is_dir()


def test_a_link_above_two_dots_is_followed(tmp_path, monkeypatch):
    make_adapters(tmp_path / "in", 1)
    make_adapters(tmp_path / "other/in", 1)
    (tmp_path / "other/in/below").mkdir()
    os.symlink("../other/in/below", tmp_path / "in/link")
    monkeypatch.chdir(tmp_path / "in")
    assert found_in(["0000", "link/../0000"]) == ["0000", "link/../0000"]
    with pytest.raises(moelora.Error, match="would have the same output"):
        fleet.convert(["0000", "link/../0000"], "../out", to="stacked", address="local")


def lock(monkeypatch, folder):
    """As chmod 0 does for all but root."""
    real = os.scandir

    def scandir(path="."):
        if not isinstance(path, int) and os.path.realpath(path) == str(folder):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


@pytest.mark.parametrize("named", ["{}/in", "{}/in/*", "{}/in/*/*", "{}/in/**/", "file://{}/in"])
def test_a_folder_that_cannot_be_listed_is_no_silence(tmp_path, monkeypatch, named):
    make_adapters(tmp_path / "in/mine", 2)
    make_adapters(tmp_path / "in/locked", 1)
    lock(monkeypatch, tmp_path / "in/locked")
    report = fleet.validate(named.format(tmp_path), address="local", base=BASE)
    assert len(report) == 3 and report.counts["failed"] == 1
    failure = report.failures()[0]
    assert failure["where"].endswith(f"{tmp_path}/in/locked") and "Permission denied" in failure["what"]
    made = fleet.convert(
        named.format(tmp_path), tmp_path / "out", to="stacked", base=BASE, address="local", root=None
    )
    assert made.counts == {"clean": 2, "failed": 1} and made.exit_status == 2 and made.run["units"] == 3


def test_a_folder_that_was_named_and_cannot_be_listed_fails(tmp_path, monkeypatch):
    make_adapters(tmp_path / "locked", 1)
    lock(monkeypatch, tmp_path / "locked")
    report = fleet.validate(tmp_path / "locked", address="local", base=BASE)
    assert report.counts == {"failed": 1} and report.exit_status == 2


def test_folders_with_a_dot_and_links_out_are_not_entered(tmp_path):
    make_adapters(tmp_path / "in", 2)
    make_adapters(tmp_path / "in/.git/x", 1)
    make_adapters(tmp_path / "else", 1)
    os.symlink("../else", tmp_path / "in/out")
    os.symlink("0000", tmp_path / "in/latest")
    for named in (str(tmp_path / "in"), f"file://{tmp_path}/in"):
        assert [each[-4:] for each in found_in(named)] == ["0000", "0001"]
        assert _search.adapters(named).linked == [named + "/out"]
    report = fleet.validate(tmp_path / "in", address="local", base=BASE)
    note = f"not entered, since it is a link out of what was named: {tmp_path}/in/out"
    assert report.notes == [note] and str(report).endswith(f"note: {note}")
    assert json.loads(report.to_json())["notes"] == [note]
    assert len(found_in([tmp_path / "in", tmp_path / "in/out", tmp_path / "in/.git"])) == 4
    (tmp_path / "links").mkdir()
    os.symlink("../else", tmp_path / "links/out")
    with pytest.raises(moelora.Error, match=r"names no adapter.*not entered.*links/out"):
        fleet.validate(tmp_path / "links", address="local")


def test_nothing_named_is_an_error(tmp_path):
    with pytest.raises(moelora.Error, match="uris=: names no adapter"):
        fleet.validate([], address="local")
    for words in (["validate"], ["convert", "--out", tmp_path / "out", "--to", "stacked"]):
        done = command(*words, "-", "--address", "local", input=" \n\n")
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr == "moelora.fleet: error: stdin: names no adapter\nhint: write one path a line\n"
    assert not (tmp_path / "out").exists()
    make_adapters(tmp_path / "in", 2)
    done = command("validate", "-", tmp_path / "in/0001", "--address", "local", input=f"{tmp_path}/in/0000")
    assert done.stdout.startswith("2 adapters: ")


def test_a_record_that_is_none_is_done_again(tmp_path):
    pattern, state = make_adapters(tmp_path / "in", 5), tmp_path / "state"
    first = fleet.validate(pattern, address="local", state=state, **JUDGED)
    records = sorted(state.iterdir())
    for record, text in zip(records, ("", "{", "[]", "{}", '"conversion"')):
        record.write_text(text)
    again = fleet.validate(pattern, address="local", state=state, **JUDGED)
    assert len(records) == 5 and again.run["resumed"] == 0 and again.to_json() == first.to_json()


def test_another_config_of_the_base_is_another_question(tmp_path):
    pattern, base = make_adapters(tmp_path / "in", 1), tmp_path / "base"
    shutil.copytree(BASE, base)
    options = JUDGED | {"base": base, "address": "local", "state": tmp_path / "state"}
    assert fleet.validate(pattern, **options).run["resumed"] == 0
    os.utime(base / "config.json", (1, 1))  # as another node's copy
    assert fleet.validate(pattern, **options).run["resumed"] == 1
    (base / "config.json").write_text((base / "config.json").read_text() + "\n")
    assert fleet.validate(pattern, **options).run["resumed"] == 0


def test_what_is_asked_wrongly_is_refused_before_any_unit(tmp_path):
    pattern = make_adapters(tmp_path / "in", 1)
    for name, value in (("cpus", 0), ("cpus", -1), ("cpus", math.inf), ("in_flight", 0), ("retries", -1)):
        with pytest.raises(moelora.Error, match=f"{name}="):
            fleet.validate(tmp_path / "none", address="local", **{name: value})  # nor is any searched for
    with pytest.raises(TypeError, match="engine"):
        fleet.validate(pattern, address="local", engine="sglang")
    with pytest.raises(TypeError, match="tp"):
        fleet.convert(pattern, tmp_path / "out", address="local", to="stacked", tp=2)
    with pytest.raises(moelora.Error, match="root"):
        fleet.convert(pattern, tmp_path / "out", address="local", to="stacked", root=tmp_path / "elsewhere")
    assert not (tmp_path / "out").exists()


WRONG = [
    ("validate", {"engines": ["nobody"]}, "engines=: unknown engine"),
    ("validate", {"engines": ["sglang"], "server_options": ["x=1"]}, "server_options=: unknown option"),
    ("validate", {"tp": 0, "engines": ["sglang"]}, "tp: is 0"),
    ("validate", {"ignore": ["nothing"]}, "ignore=: unknown rule"),
    ("validate", {"base": "/none"}, "/none: no such file"),
    ("validate", {"base": "file:///none"}, "FileNotFoundError: /none/config.json\nhint: name a model"),
    ("convert", {}, "to=: is missing"),
    ("convert", {"to": "nobody"}, "to=: unknown layout"),
    ("convert", {"for_": "nobody"}, "for_=: unknown engine"),
    ("convert", {"for_": "sglang", "to": "nobody"}, "to=: unknown layout"),
    ("convert", {"to": "stacked", "from_": "nobody"}, "from_=: unknown layout"),
    ("convert", {"to": "stacked", "server_options": ["tp-size=1"]}, "server_options=: requires an engine"),
    ("convert", {"to": "stacked", "base": "/none"}, "/none: no such file"),
    ("diff", {"base": "/none"}, "/none: no such file"),
    ("diff", {"from_": "nobody"}, "from_=: unknown layout"),
    ("diff", {"tolerance": -1}, "tolerance=: is -1"),
]


@pytest.mark.parametrize("kind, options, said", WRONG)
def test_options_that_every_unit_would_refuse_are_refused_once(tmp_path, monkeypatch, kind, options, said):
    def adapters(uris):
        raise AssertionError("adapters are listed")

    monkeypatch.setattr(_search, "adapters", adapters)
    (tmp_path / "in").mkdir()
    places = [tmp_path / "in"] if kind == "validate" else [tmp_path / "in", tmp_path / "in"]
    for address in ("local", "auto"):
        with pytest.raises(moelora.Error, match=said):
            getattr(fleet, kind)(*places, address=address, **options)
    assert not list(tmp_path.rglob("*"))[1:]


def test_options_that_some_adapter_takes_are_not_refused(tmp_path, nodes, monkeypatch):
    pattern = make_adapters(tmp_path / "in", 1)
    for number, options in enumerate((
        {"for_": "sglang"},  # an adapter's config may name its base
        {"to": "mlx"}, {"to": "sglang-pool"}, {"to": "stacked", "from_": "peft-params"},
        {"to": "stacked", "b_order": "rank-major"},
    )):  # fmt: skip
        assert len(fleet.convert(pattern, tmp_path / f"{number}", address="local", **options)) == 1
    # What only the nodes' caches hold is looked up there.
    monkeypatch.setattr(_run, "_import_ray", lambda: Nodes(1))
    assert fleet.convert(pattern, tmp_path / "there", to="stacked", base="some/body").counts == {"failed": 1}
    with pytest.raises(moelora.Error, match="some/body"):
        fleet.convert(pattern, tmp_path / "here", to="stacked", base="some/body", address="local")


def test_a_file_in_the_place_of_a_folder_is_refused_once(tmp_path):
    pattern, file = make_adapters(tmp_path / "in", 2), tmp_path / "file"
    file.touch()
    for place in (file, file / "below"):
        said = f"{place}: cannot be a folder, since {file} is a file"
        with pytest.raises(moelora.Error, match=said):
            fleet.validate(pattern, address="local", state=place)
        with pytest.raises(moelora.Error, match=said):
            fleet.convert(pattern, place, to="stacked", address="local")
        with pytest.raises(moelora.Error, match=f"{place}: is no folder"):
            fleet.diff(pattern, place, address="local")


def test_the_command_speaks_of_its_options(tmp_path):
    pattern, out = make_adapters(tmp_path / "in", 1), tmp_path / "out"
    convert = ["convert", pattern, "--out", out]
    for words, said in (
        (["validate", pattern, "--engine", "nobody"], "--engine: unknown engine 'nobody'"),
        (["validate", pattern, "--engine", "sglang", "--server-option", "x=1"], "--server-option: unknown option 'x'"),
        (["validate", pattern, "--engine", "sglang", "--max-lora-rank", 0], "--max-lora-rank: is 0"),
        (["validate", pattern, "--in-flight", 0], "--in-flight: is 0"),
        (convert, "--to: is missing: nothing says what to write\nhint: say --for ENGINE or --to LAYOUT\n"),
        ([*convert, "--to", "stacked", "--root", tmp_path / "else"], "adapters are below with --root\n"),
        (["base", make_base(tmp_path / "base"), out, "--to", "fused", "--parts", 0], "error: --parts: "),
    ):  # fmt: skip
        done = command(*words, "--address", "local")
        assert done.returncode == 2 and said in done.stderr and done.stdout == "", done.stderr
    assert not out.exists()
    shutil.copytree(DATA / KINDS[0], out / "0000")
    done = command(*convert, "--to", "stacked", "--base", BASE, "--address", "local")
    assert done.returncode == 2 and "hint: pass --force to replace it" in done.stdout


def test_a_store_that_breaks_fails_a_unit_and_stops_no_other(tmp_path, monkeypatch):
    pattern, real = make_adapters(tmp_path / "in", 3), _files.stamp

    def stamp(uri):
        if uri.endswith("0001"):
            raise RuntimeError("503 slow down")
        return real(uri)

    monkeypatch.setattr(_files, "stamp", stamp)
    report = fleet.validate(pattern, address="local", state=tmp_path / "state", **JUDGED)
    assert report.counts["failed"] == 1 and len(report) == 3
    assert report.failures() == [
        {"where": f"{tmp_path}/in/0001", "what": "RuntimeError: 503 slow down", "hint": "", "units": 1,
         "first": f"{tmp_path}/in/0001"}
    ]  # fmt: skip


def test_long_lists_of_names_are_cut_and_counted(tmp_path, monkeypatch):
    pattern = make_adapters(tmp_path / "in", 1)
    monkeypatch.setattr(_units, "_MOST_NAMES", 3)
    report = fleet.validate(pattern, address="local", **JUDGED)
    assert any(finding["count"] > 3 for finding in report.findings)
    assert all(len(finding["names"]) == min(3, finding["count"]) for finding in report.findings)


def test_progress_is_told_by_units(tmp_path):
    pattern, heard = make_adapters(tmp_path / "in", 3), []
    fleet.validate(pattern, address="local", progress=lambda *how: heard.append(how), **JUDGED)
    assert heard == [("adapters", done, 3) for done in (1, 2, 3)]


def test_an_adapter_that_is_gone_fails_alone(tmp_path):
    make_adapters(tmp_path / "in", 1)
    unit = _units.Unit(str(tmp_path / "in/none"))
    result = _units.Work("convert", {"to": "stacked", "base": BASE}, None).do(unit)
    assert result["outcome"] == "failed" and result["error"]["what"]


def test_uris_are_read_and_written_by_the_worker(tmp_path):
    pytest.importorskip("fsspec")
    make_adapters(tmp_path / "in", 3)
    uri = f"file://{tmp_path}"
    report = fleet.validate(f"{uri}/in/*", address="local", **(JUDGED | {"base": f"file://{BASE}"}))
    here = fleet.validate(f"{tmp_path}/in/*", address="local", **JUDGED)
    assert [unit["unit"] for unit in report] == [f"{uri}/in/{i:04}" for i in range(3)]
    assert [unit["outcome"] for unit in report] == [unit["outcome"] for unit in here]
    assert "moelora-" not in report.to_json()  # no name of a copy
    made = fleet.convert(f"{uri}/in/*", f"{uri}/out", to="stacked", base=BASE, address="local")
    assert made.ok and made.units[0]["out"] == f"{uri}/out/0000"
    assert fleet.diff(f"{tmp_path}/in/*", f"{tmp_path}/out", base=BASE, address="local").ok
    assert (
        fleet.convert(f"{uri}/in/*", f"{uri}/out", to="stacked", base=BASE, address="local").run["resumed"]
        == 3
    )


def test_an_output_that_a_uri_names_is_replaced_whole_or_not_at_all(tmp_path):
    pytest.importorskip("fsspec")
    make_adapters(tmp_path / "in", 2)
    uri, options = f"file://{tmp_path}", {"to": "stacked", "base": BASE, "address": "local"}
    assert fleet.convert(f"{uri}/in/*", f"{uri}/out", max_shard_size=8000, **options).ok
    (tmp_path / "out/0000/mine.txt").write_text("kept")
    refused = fleet.convert(f"{uri}/in/*", f"{uri}/out", state=f"{uri}/state", **options)
    assert refused.counts == {"failed": 2} and "exists already" in str(refused)
    assert fleet.convert(f"{uri}/in/*", f"{uri}/out", state=f"{uri}/state", force=True, **options).ok
    whole = {"adapter_config.json", "adapter_model.safetensors", "conversion.json"}
    assert {each.name for each in (tmp_path / "out/0001").iterdir()} == whole  # none of the shards
    assert {each.name for each in (tmp_path / "out/0000").iterdir()} == whole | {"mine.txt"}


def test_errors_of_a_copy_name_the_uri(tmp_path):
    pytest.importorskip("fsspec")
    make_adapters(tmp_path / "in", 1)
    (tmp_path / "in/0000/adapter_config.json").write_text("{")
    report = fleet.convert(
        f"file://{tmp_path}/in", f"file://{tmp_path}/out", to="stacked", base=BASE, address="local"
    )
    assert report.counts == {"failed": 1} and "/moelora-" not in report.to_json()
    assert not (tmp_path / "out/0000").exists()


def test_headers_alone_are_read_where_nobody_reads_values(tmp_path):
    pytest.importorskip("fsspec")
    make_adapters(tmp_path / "in", 3)
    (tmp_path / "in/0000/optimizer.pt").write_bytes(b"moments")
    uri, options = f"file://{tmp_path}/in", JUDGED | {"address": "local", "values": False}
    with _files.local(f"{uri}/0000", headers_only=True) as folder:
        there, here = (
            pathlib.Path(each) / "adapter_model.safetensors" for each in (tmp_path / "in/0000", folder)
        )
        end = 8 + int.from_bytes(there.read_bytes()[:8], "little")
        assert here.stat().st_size == there.stat().st_size
        assert here.read_bytes() == there.read_bytes()[:end] + bytes(there.stat().st_size - end)
        assert not (pathlib.Path(folder) / "optimizer.pt").exists()
    remote, local = fleet.validate(uri, **options), fleet.validate(tmp_path / "in", **options)
    assert remote.to_json().replace("file://", "") == local.to_json()


def test_uris_are_found_by_one_listing(tmp_path):
    pytest.importorskip("fsspec")
    make_adapters(tmp_path / "a/runs", 3)
    (tmp_path / "a/runs/0002/adapter_config.json").unlink()
    shutil.copytree(DATA / KINDS[0], tmp_path / "a/runs/0000/checkpoint-1")  # below an adapter: not another
    uri, runs = f"file://{tmp_path}", [f"file://{tmp_path}/a/runs/{i:04}" for i in range(3)]
    for pattern in ("/a/runs/*", "/a", "/a/runs", "/*"):
        assert found_in(uri + pattern)[-2:] == runs[-2:]
    assert found_in(uri + "/a/runs/*") == runs
    assert found_in(f"{tmp_path}/a/runs/*") == [each.removeprefix("file://") for each in runs]
    with pytest.raises(moelora.Error, match="names no adapter"):
        _search.adapters(uri + "/nothing/*")


def test_the_command_says_what_it_found(tmp_path):
    pattern = make_adapters(tmp_path / "in", 3)
    words = ["--engine", "sglang", "--base", BASE, "--address", "local"]
    done = command("validate", pattern, *words, "--format", "json")
    assert done.returncode == 1 and json.loads(done.stdout)["counts"]
    assert "3 units on 1 node in" in done.stderr
    assert json.loads(done.stdout) == json.loads(fleet.validate(pattern, address="local", **JUDGED).to_json())
    assert command("validate", tmp_path / "none", *words).returncode == 2
    for place in (tmp_path, tmp_path / "none/report"):
        refused = command("validate", pattern, *words, "--output", place)
        assert refused.returncode == 2 and f"{place}: cannot be written" in refused.stderr
    assert command("validate", pattern, *words, "--cpus", "0").returncode == 2


def test_without_ray_the_command_says_what_to_install(tmp_path):
    pattern = make_adapters(tmp_path / "in", 1)
    code = "import sys; sys.modules['ray'] = None; from moelora.fleet.__main__ import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "validate", pattern], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "pip install" in done.stderr and "moelora[ray]" in done.stderr


def test_an_array_job_comes_to_the_report_of_one_machine(tmp_path):
    """Slurm itself is not here: the script is run as its tasks would be, with what sbatch sets."""
    make_adapters(tmp_path / "in", 7, corrupt=2)
    (tmp_path / "list").write_text("".join(f"{tmp_path}/in/{i:04}\n" for i in range(7)))
    script = DATA.parent / "slurm_fleet.sh"
    words = ["--engine", "sglang", "--base", BASE]

    def task(number, count=4, **environment):
        given = {"ID": number, "MIN": 3, "COUNT": count, "STEP": 2}
        return subprocess.run(
            ["bash", script, tmp_path / "list", tmp_path / "state", "validate", *words],
            env=os.environ
            | {f"SLURM_ARRAY_TASK_{key}": str(value) for key, value in given.items()}
            | environment,
            check=False,
        ).returncode

    assert task(3, PYTHON="false") != 0  # no report is no finding
    assert [task(number, PYTHON=sys.executable) for number in (3, 5, 7, 9)] == [0] * 4
    assert task(19, count=9, PYTHON="false") == 0  # the ninth of nine tasks for seven adapters
    assert not (tmp_path / "state/task.19.txt").exists()
    done = subprocess.run(
        [sys.executable, "-m", "moelora.fleet", "validate", "-", "--state", tmp_path / "state", "--address", "local"]
        + words
        + ["--format", "json"],
        input=(tmp_path / "list").read_text(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "7 done before" in done.stderr
    assert done.stdout.strip() == fleet.validate(f"{tmp_path}/in/*", address="local", **JUDGED).to_json()
    (tmp_path / "list").write_text("\n \n")
    assert task(3, PYTHON=sys.executable) == 2


# ---- one base in parts -----------------------------------------------------------------------------------

IN_TURN = {"to": "fused", "address": "local", "in_flight": 1}


def whole_of(base, folder):
    moelora.convert_base(base, folder, to="fused")
    return tensors_of(folder)


def run_and_die(base, out, parts, after):
    """A run whose process is killed when so many parts are done."""
    code = """if True:
        import os, signal, sys
        from moelora import fleet
        from moelora.fleet import _units
        do, done = _units.Work.do, []

        def or_die(work, unit):
            if len(done) == int(sys.argv[4]):
                os.kill(os.getpid(), signal.SIGKILL)
            done.append(unit)
            return do(work, unit)

        _units.Work.do = or_die
        fleet.convert_base(*sys.argv[1:3], to="fused", parts=int(sys.argv[3]), address="local", in_flight=1)
    """
    words = [str(word) for word in (base, out, parts, after)]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not out.exists()


def shards_below(folder):
    return {path.stat().st_ino for path in folder.rglob("*.safetensors")}


def test_a_base_in_parts_is_the_one_that_one_machine_writes(tmp_path):
    base, out = make_base(tmp_path / "in"), tmp_path / "out"
    whole = moelora.convert_base(base, tmp_path / "whole", to="fused")
    report = fleet.convert_base(str(base), str(out), parts=4, verify=True, **IN_TURN)
    assert str(report) == "4 parts: 4 clean" and report.exit_status == 0
    assert [unit["unit"] for unit in report] == [f"{base}: part {number}/4" for number in range(1, 5)]
    assert sum(unit["tensors"] for unit in report) == whole.tensors
    assert sum(unit["expert_layers"] for unit in report) == whole.expert_layers == LAYERS - 1
    assert all(unit["verified"] > 0 for unit in report)
    assert tensors_of(out) == tensors_of(tmp_path / "whole")

    names = sorted(path.name for path in out.iterdir())
    assert names == ["config.json", "conversion.json"] + [
        f"model-{number:05}-of-00004.safetensors" for number in range(1, 5)
    ] + ["model.safetensors.index.json", "tokenizer.json"]
    config, expected = (json.loads((each / "config.json").read_text()) for each in (out, tmp_path / "whole"))
    assert sorted(config["moelora"].pop("files")) == names and expected["moelora"].pop("files")
    assert config == expected
    made = json.loads((out / "conversion.json").read_text())
    assert sorted(made["files"]) == names and "part" not in made
    assert list(made["tensors"]) == sorted(tensors_of(out))
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == whole.bytes
    assert len(list((tmp_path / "out.moelora-fleet").iterdir())) == 1


def test_a_base_that_was_put_together_is_read_and_replaced_like_any_other(tmp_path):
    base, out = make_base(tmp_path / "in"), tmp_path / "out"
    fleet.convert_base(str(base), str(out), parts=3, **IN_TURN)
    back = moelora.convert_base(out, tmp_path / "back", to="per-expert", verify=True)
    assert tensors_of(tmp_path / "back") == tensors_of(base) and not back.warnings
    assert not (tmp_path / "back/conversion.json").exists()
    moelora.convert_base(base, out, to="fused", force=True)
    assert not (out / "model.safetensors.index.json").exists()


@pytest.mark.parametrize("parts, options", [(1, {}), (2, {"max_shard_size": "8KB"}), (LAYERS, {})])
def test_any_number_of_parts_and_shards_holds_the_same(tmp_path, parts, options):
    base, out = make_base(tmp_path / "in"), tmp_path / "out"
    assert fleet.convert_base(str(base), str(out), parts=parts, **IN_TURN, **options).ok
    assert tensors_of(out) == whole_of(base, tmp_path / "whole")
    shards = len(list(out.glob("*.safetensors")))
    assert shards > parts if options else shards == parts
    assert (out / "model.safetensors").exists() == (parts == 1)


def test_parts_without_hard_links_are_moved(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    base, out = make_base(tmp_path / "in"), tmp_path / "out"
    assert fleet.convert_base(str(base), str(out), parts=3, **IN_TURN).ok
    assert tensors_of(out) == whole_of(base, tmp_path / "whole") and (out / "tokenizer.json").exists()


def test_a_run_after_one_that_was_killed_does_what_is_missing(tmp_path):
    base, out = make_base(tmp_path / "in"), tmp_path / "out"
    run_and_die(base, out, parts=5, after=2)
    done = shards_below(tmp_path / "out.moelora-fleet")
    again = fleet.convert_base(str(base), str(out), parts=5, **IN_TURN)
    assert again.ok and again.run["resumed"] == 2
    assert len(done) == 2 and done < shards_below(out)
    assert tensors_of(out) == whole_of(base, tmp_path / "whole")

    shards = shards_below(out)
    third = fleet.convert_base(str(base), str(out), parts=5, **IN_TURN, cpus=2)
    assert third.run["resumed"] == 5 and third.to_json() == again.to_json() and shards_below(out) == shards


def test_a_part_whose_shard_is_gone_is_done_again(tmp_path):
    base, out = make_base(tmp_path / "in"), tmp_path / "out"
    run_and_die(base, out, parts=5, after=3)
    (tmp_path / "out.moelora-fleet/parts/2-of-5/model.safetensors").unlink()
    again = fleet.convert_base(str(base), str(out), parts=5, **IN_TURN)
    assert again.run["resumed"] == 2 and tensors_of(out) == whole_of(base, tmp_path / "whole")


def test_a_part_whose_record_is_none_is_done_again(tmp_path):
    base, out, parts = make_base(tmp_path / "in"), tmp_path / "out", tmp_path / "out.moelora-fleet/parts"
    run_and_die(base, out, parts=5, after=4)
    records = sorted(parts.glob("*.json"))
    whole = json.loads(records[3].read_text())
    broken = whole | {"result": {key: value for key, value in whole["result"].items() if key != "files"}}
    for record, text in zip(records, ("", "{", "[]", json.dumps(broken))):
        record.write_text(text)
    again = fleet.convert_base(base, out, parts=5, **IN_TURN)
    assert len(records) == 4 and again.run["resumed"] == 0
    assert tensors_of(out) == whole_of(base, tmp_path / "whole")

    for record in (tmp_path / "out.moelora-fleet").glob("*.json"):
        record.write_text("{")
    with pytest.raises(moelora.Error, match="is there, and not known"):
        fleet.convert_base(base, out, parts=5, **IN_TURN)


def test_a_part_that_fails_leaves_the_others_done(tmp_path, monkeypatch):
    base, out, real = make_base(tmp_path / "in"), tmp_path / "out", moelora.convert_base

    def broken(src, dst, *, part, dry_run=False, **options):
        if not dry_run and part != "2/3":
            raise moelora.Error(dst, "no space is left", "make some")
        return real(src, dst, part=part, dry_run=dry_run, **options)

    with monkeypatch.context() as patched:
        patched.setattr(_parts._base, "convert_base", broken)
        report = fleet.convert_base(base, out, parts=3, **IN_TURN)
    assert report.exit_status == 2 and not out.exists()
    assert str(report).splitlines() == [
        "3 parts: 1 clean, 2 failed",
        f"failed      2 parts; first {base}: part 1/3: {out}.moelora-fleet/parts/1-of-3: no space is left",
        "            hint: make some",
    ]
    assert fleet.convert_base(base, out, parts=3, **IN_TURN).run["resumed"] == 1


def test_progress_is_told_by_parts(tmp_path):
    base, heard = make_base(tmp_path / "in"), []
    fleet.convert_base(base, tmp_path / "out", parts=3, progress=lambda *how: heard.append(how), **IN_TURN)
    assert heard == [("parts", done, 3) for done in (1, 2, 3)]


def test_a_source_that_changed_between_runs_is_noticed(tmp_path):
    base, out = make_base(tmp_path / "in"), tmp_path / "out"
    run_and_die(base, out, parts=4, after=2)
    make_base(base, seed=2)
    again = fleet.convert_base(str(base), str(out), parts=4, **IN_TURN)
    assert again.run["resumed"] == 0 and tensors_of(out) == whole_of(base, tmp_path / "second")

    make_base(base, seed=3)
    with pytest.raises(moelora.Error, match="is there, and not known") as caught:
        fleet.convert_base(str(base), str(out), parts=4, **IN_TURN)
    assert caught.value.where == str(out) and "remove" in caught.value.hint
    with pytest.raises(moelora.Error, match="is there, and not known"):
        fleet.convert_base(str(base), str(out), parts=4, **IN_TURN, dtype="bf16")
    assert tensors_of(out) == tensors_of(tmp_path / "second")


def test_a_source_that_changes_during_a_run_is_not_mixed(tmp_path, monkeypatch):
    base, out, do, done = make_base(tmp_path / "in"), tmp_path / "out", _units.Work.do, []

    def and_change(work, unit):
        done.append(do(work, unit))
        if len(done) == 2:
            make_base(base, seed=2)
        return done[-1]

    with monkeypatch.context() as patched:
        patched.setattr(_units.Work, "do", and_change)
        with pytest.raises(moelora.Error, match="changed while it was converted: 2 of 5 parts"):
            fleet.convert_base(str(base), str(out), parts=5, **IN_TURN)
    assert not out.exists()
    again = fleet.convert_base(str(base), str(out), parts=5, **IN_TURN)
    assert again.run["resumed"] == 3 and tensors_of(out) == whole_of(base, tmp_path / "whole")


def test_what_no_part_could_do_is_refused_at_once(tmp_path):
    base, out = make_base(tmp_path / "in"), tmp_path / "out"
    with pytest.raises(moelora.Error, match=f"the model has {LAYERS} layers") as caught:
        fleet.convert_base(str(base), str(out), parts=LAYERS + 1, **IN_TURN)
    assert f"at most {LAYERS} parts" in caught.value.hint
    with pytest.raises(moelora.Error, match="nothing to convert"):
        fleet.convert_base(str(base), str(out), parts=2, **IN_TURN | {"to": "per-expert"})
    with pytest.raises(moelora.Error, match="is a URI"):
        fleet.convert_base("s3://bucket/base", str(out), parts=2, **IN_TURN)
    with pytest.raises(moelora.Error):
        fleet.convert_base(str(tmp_path / "none"), str(out), parts=2, **IN_TURN)
    for name, value in (("cpus", 0), ("in_flight", 0), ("retries", -1)):
        with pytest.raises(moelora.Error, match=f"{name}="):
            fleet.convert_base(tmp_path / "none", out, parts=2, **IN_TURN | {name: value})
    for option in ("force", "part", "dry_run", "engines"):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{option}'"):
            fleet.convert_base(base, out, parts=2, **{option: ""}, **IN_TURN)
    out.mkdir()
    with pytest.raises(moelora.Error, match="is there, and not known"):
        fleet.convert_base(str(base), str(out), parts=2, **IN_TURN)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_the_command_converts_a_base_in_parts(tmp_path):
    base, out = make_base(tmp_path / "in"), tmp_path / "out"
    words = ["base", base, out, "--to", "fused", "--address", "local", "--verify", "--parts"]
    done = command(*words, 3)
    assert done.returncode == 0 and done.stdout == "3 parts: 3 clean\n"
    assert "3 units on 1 node in" in done.stderr
    again = command(*words, 3, "--format", "json")
    assert "3 done before" in again.stderr and json.loads(again.stdout)["counts"] == {"clean": 3}
    assert command(*words, 0).returncode == 2

    written = command(*words, 3, "--quiet", "--output", tmp_path / "report", "--format", "json")
    assert written.stdout == "" and (tmp_path / "report").read_text() == again.stdout
    refused = command(*words, 3, "--output", tmp_path / "none/report")
    assert refused.returncode == 2 and f"{tmp_path}/none/report: cannot be written" in refused.stderr
    refused = command(*words, 3, "--cpus", 0)
    assert refused.returncode == 2 and "--cpus: is 0" in refused.stderr


# ---- how units are handed out, on nodes that are none ---------------------------------------------------


class Nodes:
    """As much of Ray as the fleet calls. A unit runs when it is waited for, all that were handed out at once."""

    class exceptions:
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            pass

    def __init__(self, *sizes, deadly=()):
        self.sizes, self.deadly = dict(zip("abc", sizes)), set(deadly)
        self.most, self.handed = 0, []  # handed: (unit, node)

    def is_initialized(self):
        return True

    def nodes(self):
        return [{"NodeID": n, "Alive": True, "Resources": {"CPU": size}} for n, size in self.sizes.items()]

    def put(self, value):
        return value

    def remote(self, **options):
        def task(function):
            def options(scheduling_strategy):
                def hand_out(work, unit):
                    self.handed.append((unit.uri, scheduling_strategy))
                    return (lambda: function(work, unit)), unit.uri, scheduling_strategy

                return types.SimpleNamespace(remote=hand_out)

            return types.SimpleNamespace(options=options)

        return task

    def wait(self, refs, num_returns, timeout):
        self.most = max(self.most, len(refs))
        return refs[:num_returns], refs[num_returns:]

    def get(self, ref):
        function, unit, node = ref
        if (unit, node) in self.deadly or (unit, None) in self.deadly:
            raise self.exceptions.RayError("the worker died")
        return function()


@pytest.fixture
def nodes(monkeypatch):
    strategies = types.ModuleType("ray.util.scheduling_strategies")
    strategies.NodeAffinitySchedulingStrategy = lambda node, soft: node
    for name in ("ray", "ray.util"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "ray.util.scheduling_strategies", strategies)

    def run(made, count, **how):
        monkeypatch.setattr(_run, "_import_ray", lambda: made)
        units = [_units.Unit(str(i)) for i in range(count)]
        return _run.run(_Named("validate", {}, None), units, **HOW | how)

    return run


HOW = {"address": "auto", "cpus": 1, "in_flight": None, "retries": 3}


class _Named(_units.Work):
    def do(self, unit):
        return {"unit": unit.uri, "outcome": "clean", "error": None}


def test_no_more_is_handed_out_than_nodes_soon_have_room_for(nodes):
    made = Nodes(4, 1, 0)
    report = nodes(made, 100)
    assert report.counts == {"clean": 100} and made.most == 10
    by_node = [sum(node == n for _, node in made.handed) for n in "abc"]
    assert by_node[2] == 0 and by_node[0] > 3 * by_node[1] > 0
    for how, most in (({"cpus": 2}, 4), ({"in_flight": 3}, 3), ({"cpus": 0.5}, 20)):
        made = Nodes(4, 1)
        assert len(nodes(made, 100, **how)) == 100 and made.most == most


def test_what_dies_is_begun_again_on_another_node(nodes):
    made = Nodes(2, 2, deadly=[("3", "a"), ("3", "b")])
    report = nodes(made, 9, retries=0)
    assert report.counts == {"clean": 8, "failed": 1} and report.run["retried"] == 0
    made = Nodes(2, 2, deadly=[("5", "a")])
    report = nodes(made, 9)
    assert (
        report.counts == {"clean": 9}
        and report.run["retried"] == sum(made.handed.count(("5", n)) for n in "ab") - 1
    )
    made = Nodes(2, 2, deadly=[("5", None)])
    report = nodes(made, 9, retries=2)
    assert report.counts == {"clean": 8, "failed": 1} and report.run["retried"] == 2
    where = [node for unit, node in made.handed if unit == "5"]
    assert len(where) == 3 and where[0] != where[1] != where[2]


def test_a_unit_that_no_node_has_room_for_is_an_error(nodes, monkeypatch):
    monkeypatch.setattr(_run, "_PATIENCE", 0.1)
    monkeypatch.setattr(_run, "_LOOK_EVERY", 0.02)
    with pytest.raises(moelora.Error, match="no node has the 3 CPUs of a unit; the largest of 2 has 2"):
        nodes(Nodes(2, 1), 5, cpus=3)


class Unconnected(Nodes):
    def __init__(self):
        super().__init__(1)
        self.asked = []

    def is_initialized(self):
        return False

    def init(self, address, **how):
        self.asked.append(address)
        raise ConnectionError("Ray tried for long")


def test_an_address_where_nobody_listens_is_refused_at_once(nodes):
    made = Unconnected()
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = "127.0.0.1:{}".format(server.getsockname()[1])
        others = [here, "auto", f"ray://{here}", "ray://127.0.0.1:1", "head"]
        for address in others:
            with pytest.raises(moelora.Error, match="Ray tried for long") as caught:
                nodes(made, 1, address=address)
            assert caught.value.where == address
    for address in (here, "[::1]:1", "no.such.host.invalid:6379"):
        with pytest.raises(moelora.Error, match="no Ray cluster can be reached there: .*Errno"):
            nodes(made, 1, address=address)
    assert made.asked == others


def test_parts_are_handed_out_as_adapters_are(nodes, tmp_path, monkeypatch):
    base, out = make_base(tmp_path / "in"), tmp_path / "out"
    made = Nodes(2, 2, deadly=[(str(base), None)])
    monkeypatch.setattr(_run, "_import_ray", lambda: made)
    report = fleet.convert_base(base, out, to="fused", parts=2, retries=0)
    assert report.counts == {"failed": 2} and not out.exists()
    assert f"failed      2 parts; first {base}: part 1/2: its worker died 1 times" in str(report)
    made.deadly.clear()
    report = fleet.convert_base(base, out, to="fused", parts=2)
    assert report.ok and report.run["nodes"] == 2 and tensors_of(out) == whole_of(base, tmp_path / "whole")


# ---- on a Ray cluster of two nodes -----------------------------------------------------------------------


@pytest.fixture
def cluster():
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    made = None
    for attempt in range(4):  # Ray gives a node 30 s to start, which is little on a machine that is busy
        try:
            made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
            break
        except Exception as error:
            if attempt == 3 or "timed out during startup" not in str(error):
                raise
    made.second = made.add_node(num_cpus=1)
    made.wait_for_nodes()
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


def workers():
    """Of this cluster: processes that run units."""
    out = []
    for folder in pathlib.Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                title = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if title.startswith(b"ray::_do"):
                out.append(int(folder.name))
    return out


def kill_one_worker(killed, deadline):
    while time.monotonic() < deadline:
        for process in workers():
            os.kill(process, signal.SIGKILL)
            killed.append(process)
            return
        time.sleep(0.01)


def test_the_report_is_the_same_though_workers_and_nodes_die(cluster, tmp_path, monkeypatch):
    pattern = make_adapters(tmp_path / "in", 500, corrupt=123)
    expected = fleet.validate(pattern, address="local", **JUDGED)
    killed, begun = [], time.monotonic()
    state = tmp_path / "state"

    def disturb():
        for finished in (50, 150):  # however fast the machine is
            while not state.exists() or len(os.listdir(state)) < finished:
                time.sleep(0.01)
            kill_one_worker(killed, begun + 120)
        cluster.remove_node(cluster.second, allow_graceful=False)

    disturber = threading.Thread(target=disturb, daemon=True)
    disturber.start()
    report = fleet.validate(pattern, state=str(state), **JUDGED)
    disturber.join()
    assert len(killed) == 2 and report.run["retried"] >= 1
    assert report.to_json() == expected.to_json() and len(report) == 500
    assert len(os.listdir(state)) == 500
    again = fleet.validate(pattern, state=str(state), **JUDGED)
    assert again.run["resumed"] == 500 and again.to_json() == expected.to_json()


def test_conversions_on_a_cluster_are_those_of_one_machine(cluster, tmp_path):
    pattern = make_adapters(tmp_path / "in", 60)
    options = {"to": "peft-linear", "base": BASE}
    here = fleet.convert(pattern, str(tmp_path / "here"), address="local", **options)
    there = fleet.convert(pattern, str(tmp_path / "there"), **options)
    assert here.ok and there.ok and there.run["nodes"] == 2

    def contents(folder):
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and ".moelora-fleet" not in str(path)
        }

    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def test_a_unit_that_kills_its_workers_fails_alone(cluster, tmp_path):
    import ray.cloudpickle

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not have this file
    pattern = make_adapters(tmp_path / "in", 3)

    units = [_units.Unit(uri) for uri in found_in(pattern)] + [_units.Unit("deadly")]
    report = _run.run(_Deadly("validate", {}, None), units, **HOW | {"retries": 1})
    assert report.counts == {"clean": 3, "failed": 1} and "died 2 times" in str(report)


class _Deadly(_units.Work):
    def do(self, unit):
        if unit.uri == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        return {"unit": unit.uri, "outcome": "clean", "error": None}


def test_a_base_in_parts_survives_a_worker_that_dies(cluster, tmp_path, monkeypatch):
    import ray.cloudpickle

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    base = make_base(tmp_path / "in")
    here = fleet.convert_base(str(base), str(tmp_path / "here"), parts=4, **IN_TURN)
    monkeypatch.setattr(_parts, "Work", _DiesOnce)
    there = fleet.convert_base(str(base), str(tmp_path / "there"), to="fused", parts=4)
    assert there.ok and there.run["retried"] == 1 and there.to_json() == here.to_json()
    assert tensors_of(tmp_path / "there") == tensors_of(tmp_path / "here")
    assert len(list((tmp_path / "there.moelora-fleet").iterdir())) == 1


class _DiesOnce(_units.Work):
    """With a part that is written and not recorded."""

    def do(self, unit):
        died = pathlib.Path(self.state) / "died"
        if unit.part == "2/4" and not died.exists():
            died.parent.mkdir(parents=True, exist_ok=True)
            died.touch()
            moelora.convert_base(unit.uri, unit.other, to="fused", part=unit.part)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().do(unit)
