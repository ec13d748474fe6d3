"""moelora.fleet: the same report from threads of one machine and from a Ray cluster whose workers and nodes die."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import moelora
import pytest
from moelora import fleet
from moelora.fleet import _files, _parts, _units
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


def command(*words):
    return subprocess.run(
        [sys.executable, "-m", "moelora.fleet", *map(str, words)], capture_output=True, text=True, check=False
    )


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
    found = list(_files.adapters(str(tmp_path / "in")))
    assert found == list(_files.adapters([str(tmp_path / "in/*"), str(tmp_path / "in/run/checkpoints/*")]))
    assert len(found) == 3 and _files.names(found) == ["0000", "0001", "0002"]
    with pytest.raises(moelora.Error, match="names no adapter"):
        fleet.validate(str(tmp_path / "none*"), address="local")


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


def test_what_a_dead_worker_left_is_replaced_and_what_was_there_is_not(tmp_path):
    pattern, out = make_adapters(tmp_path / "in", 2), tmp_path / "out"
    options = {"to": "peft-linear", "base": BASE, "address": "local"}
    out.mkdir()
    moelora.convert(tmp_path / "in/0000", out / "0000", to="stacked", base=BASE)
    refused = fleet.convert(pattern, str(out), **options)
    assert refused.counts == {"clean": 1, "failed": 1} and refused.exit_status == 2
    assert fleet.convert(pattern, str(out), **options).counts == refused.counts
    work = _units.Work(
        "convert", {"threads": 1, "to": "peft-linear", "base": BASE}, str(out / ".moelora-fleet")
    )
    _units.Record(work, _units.Unit(str(tmp_path / "in/0000"), str(out / "0000"))).begin()  # and died
    assert fleet.convert(pattern, str(out), **options).ok


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
    assert "moelora-" not in report.to_json().replace("moelora-base-", "")
    made = fleet.convert(f"{uri}/in/*", f"{uri}/out", to="stacked", base=BASE, address="local")
    assert made.ok and made.units[0]["out"] == f"{uri}/out/0000"
    assert fleet.diff(f"{tmp_path}/in/*", f"{tmp_path}/out", base=BASE, address="local").ok
    assert (
        fleet.convert(f"{uri}/in/*", f"{uri}/out", to="stacked", base=BASE, address="local").run["resumed"]
        == 3
    )


def test_the_command_says_what_it_found(tmp_path):
    pattern = make_adapters(tmp_path / "in", 3)
    words = ["--engine", "sglang", "--base", BASE, "--address", "local"]
    done = command("validate", pattern, *words, "--format", "json")
    assert done.returncode == 1 and json.loads(done.stdout)["counts"]
    assert "3 units on 1 nodes" in done.stderr
    assert json.loads(done.stdout) == json.loads(fleet.validate(pattern, address="local", **JUDGED).to_json())
    assert command("validate", tmp_path / "none", *words).returncode == 2


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
    for task in range(3, 7):
        given = {"SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_TASK_MIN": 3, "SLURM_ARRAY_TASK_COUNT": 4}
        subprocess.run(
            ["bash", script, tmp_path / "list", tmp_path / "state", "validate", *words],
            env=os.environ | {key: str(value) for key, value in given.items()},
            check=True,
        )
    done = subprocess.run(
        [sys.executable, "-m", "moelora.fleet", "validate", "-", "--state", tmp_path / "state", "--address", "local"]
        + words
        + ["--format", "json"],
        input=(tmp_path / "list").read_text(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "7 done before" in done.stderr
    assert done.stdout.strip() == fleet.validate(f"{tmp_path}/in/*", address="local", **JUDGED).to_json()


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
    with pytest.raises(TypeError, match="force"):
        fleet.convert_base(str(base), str(out), parts=2, force=True, **IN_TURN)
    out.mkdir()
    with pytest.raises(moelora.Error, match="is there, and not known"):
        fleet.convert_base(str(base), str(out), parts=2, **IN_TURN)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_the_command_converts_a_base_in_parts(tmp_path):
    base, out = make_base(tmp_path / "in"), tmp_path / "out"
    words = ["base", base, out, "--to", "fused", "--address", "local", "--verify", "--parts"]
    done = command(*words, 3)
    assert done.returncode == 0 and done.stdout == "3 parts: 3 clean\n"
    assert "3 units on 1 nodes" in done.stderr
    again = command(*words, 3, "--format", "json")
    assert "3 done before" in again.stderr and json.loads(again.stdout)["counts"] == {"clean": 3}
    assert command(*words, 0).returncode == 2


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

    def disturb():
        time.sleep(3)
        kill_one_worker(killed, begun + 60)
        time.sleep(2)
        kill_one_worker(killed, begun + 60)
        cluster.remove_node(cluster.second, allow_graceful=False)

    disturber = threading.Thread(target=disturb)
    disturber.start()
    state = str(tmp_path / "state")
    report = fleet.validate(pattern, state=state, **JUDGED)
    disturber.join()
    assert len(killed) == 2 and report.run["retried"] >= 1
    assert report.to_json() == expected.to_json() and len(report) == 500
    assert len(list(pathlib.Path(state).iterdir())) == 500
    again = fleet.validate(pattern, state=state, **JUDGED)
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
    from moelora.fleet import _run

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not have this file
    pattern = make_adapters(tmp_path / "in", 3)

    units = [_units.Unit(uri) for uri in _files.adapters(pattern)] + [_units.Unit("deadly")]
    report = _run.run(_Deadly("validate", {}, None), units, address="auto", cpus=1, in_flight=None, retries=1)
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
