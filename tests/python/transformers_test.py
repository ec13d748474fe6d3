"""ValidateOnSave in a training run: real transformers and PEFT, a tiny model, a few steps."""

import datetime
import json
import os
import pathlib
import shutil
import types
import warnings

import moelora
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from moelora.integrations.transformers import ValidateOnSave  # noqa: E402 (needs what was asked for above)

BASE = pathlib.Path(os.environ["MOELORA_SOURCE_DIR"]) / "examples/data/gpt_oss_base"


def train(tmp_path, callback, targets, steps=2):
    config = transformers.AutoConfig.from_pretrained(BASE)
    model = peft.get_peft_model(
        transformers.AutoModelForCausalLM.from_config(config),
        peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM"),
    )
    texts = [{"input_ids": [1, 2, 3, 4], "labels": [1, 2, 3, 4]} for _ in range(8)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "run"), max_steps=steps, save_steps=1, save_total_limit=1, report_to=[],
        per_device_train_batch_size=1, use_cpu=True,
    )  # fmt: skip
    transformers.Trainer(model=model, args=arguments, train_dataset=texts, callbacks=[callback]).train()
    return model


def test_each_checkpoint_is_checked_and_its_served_form_written_beside_it(tmp_path):
    callback = ValidateOnSave(engines=["vllm"], base=str(BASE), serve_for="vllm", on_findings="fail")
    train(tmp_path, callback, ["q_proj", "k_proj", "v_proj", "o_proj"])
    assert len(callback.reports) == 2 and all(report.ok for report in callback.reports)
    folders = sorted(each.name for each in (tmp_path / "run").iterdir())
    assert folders == ["checkpoint-2", "served-vllm-1", "served-vllm-2"]
    found = moelora.diff_weights(tmp_path / "run/checkpoint-2", tmp_path / "run/served-vllm-2", base=BASE)
    assert found.same


def test_a_finding_warns_or_ends_the_training(tmp_path):
    callback = ValidateOnSave(engines=["sglang"], base=str(BASE))
    with pytest.warns(UserWarning, match="SGL"):
        train(tmp_path / "warned", callback, ["q_proj"], steps=1)
    assert not callback.reports[0].ok
    with pytest.raises(moelora.Error, match="checkpoint-1"):
        train(
            tmp_path / "failed",
            ValidateOnSave(engines=["sglang"], base=str(BASE), on_findings="fail"),
            ["q_proj"],
        )
    with pytest.raises(ValueError, match="on_findings"):
        ValidateOnSave(on_findings="stop")


def test_an_option_that_is_wrong_is_an_error_before_the_training_begins():
    for options, said in (
        ({"engines": ["sglnag"]}, "engines=: .*sglnag"),
        ({"serve_for": "sglnag"}, "serve_for=: .*sglnag"),
        ({"engines": "vllm", "server_options": {"no-such": 1}}, "server_options=: .*no-such"),
    ):
        with pytest.raises(moelora.Error, match=said):
            ValidateOnSave(base=str(BASE), **options)
    with pytest.raises(TypeError, match="'engine'"):
        ValidateOnSave(engine="sglang")


def saved(callback, folder, adapter, step=1, first=True):
    """What a Trainer does when it has saved a checkpoint, without one."""
    if first:
        shutil.copytree(BASE.parent / adapter, folder / f"checkpoint-{step}")
    state = types.SimpleNamespace(is_world_process_zero=first, global_step=step)
    callback.on_save(types.SimpleNamespace(output_dir=str(folder)), state, None)


def test_what_is_served_is_read_as_what_was_checked(tmp_path):
    reading = {"base": BASE, "b_order": "expert-major", "from_": "peft-params"}
    saved(ValidateOnSave(serve_for="sglang", **reading), tmp_path, "gpt_oss_adapter")
    moelora.convert(tmp_path / "checkpoint-1", tmp_path / "expected", for_="sglang", **reading)
    weights = [
        (tmp_path / each / "adapter_model.safetensors").read_bytes()
        for each in ("served-sglang-1", "expected")
    ]
    assert weights[0] == weights[1]


def test_every_checkpoint_is_checked_for_engines_of_a_generator(tmp_path):
    callback = ValidateOnSave(
        engines=(each for each in ["sglang"]), base=BASE, ignore=iter(["SGL010"]),
        server_options=(each for each in ["tp-size=2"]), model_specs=iter([]),
    )  # fmt: skip
    for step in (1, 2):
        with pytest.warns(UserWarning, match="SGL002"):
            saved(callback, tmp_path, "gpt_oss_lone_q", step)
    first, second = ([str(finding) for finding in report] for report in callback.reports)
    assert first == [each.replace("checkpoint-2", "checkpoint-1") for each in second]


def one_of_two_processes(rank, folder, adapter, broken):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2,
        timeout=datetime.timedelta(seconds=60),
    )  # fmt: skip
    callback = ValidateOnSave(engines=["sglang"], base=str(BASE), on_findings="fail")
    if broken:
        moelora._validate.validate = lambda *_, **__: [][1]
    ended = "goes on"
    try:
        saved(callback, pathlib.Path(folder), adapter, first=rank == 0)
    except Exception as error:
        ended = f"{type(error).__name__}: {getattr(error, 'what', error)}"
    pathlib.Path(folder, f"ended-{rank}").write_text(ended)
    torch.distributed.destroy_process_group()


def ends_of_two_processes(folder, adapter, broken=False):
    folder.mkdir()
    torch.multiprocessing.spawn(one_of_two_processes, (str(folder), adapter, broken), nprocs=2)
    return [(folder / f"ended-{rank}").read_text() for rank in range(2)]


def test_a_finding_ends_all_processes_of_a_training(tmp_path):
    first, second = ends_of_two_processes(tmp_path / "found", "gpt_oss_lone_q")
    assert first == second and "Error: error SGL" in first
    assert ends_of_two_processes(tmp_path / "clean", "gpt_oss_attention") == ["goes on"] * 2


def test_any_exception_of_the_first_process_ends_all(tmp_path):
    first, second = ends_of_two_processes(tmp_path / "broken", "gpt_oss_attention", broken=True)
    assert first.startswith("IndexError: list") and second == f"Error: {first}"


def test_what_a_model_holds_is_saved_as_its_checkpoint_is_converted(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = train(tmp_path, ValidateOnSave(), ["q_proj", "k_proj", "v_proj", "o_proj"])
    options = {"to": "peft-linear", "base": BASE}
    moelora.save(
        peft.get_peft_model_state_dict(model), model.peft_config["default"], tmp_path / "memory", **options
    )
    moelora.convert(tmp_path / "run/checkpoint-2", tmp_path / "disk", **options)
    assert moelora.diff_weights(tmp_path / "memory", tmp_path / "disk", base=BASE, tolerance=0).same
    configs = [
        json.loads((tmp_path / each / "adapter_config.json").read_text()) for each in ("memory", "disk")
    ]
    for key in ("r", "lora_alpha", "peft_type", "task_type"):
        assert configs[0][key] == configs[1][key]


def test_trl_trains_with_it_as_transformers_do(tmp_path):
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    import tokenizers

    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<eos>": 0, "word": 1}, unk_token="word"))
    callback = ValidateOnSave(engines=["vllm"], base=str(BASE), serve_for="vllm", on_findings="fail")
    trl.SFTTrainer(
        model=transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(BASE)),
        args=trl.SFTConfig(
            output_dir=str(tmp_path / "run"), max_steps=1, save_steps=1, max_length=8, report_to=[], use_cpu=True,
            bf16=False, per_device_train_batch_size=1,
        ),
        train_dataset=datasets.Dataset.from_list([{"input_ids": [1, 1, 1, 1]}] * 4),
        processing_class=transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>"
        ),
        peft_config=peft.LoraConfig(r=4, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]),
        callbacks=[callback],
    ).train()  # fmt: skip
    assert [report.ok for report in callback.reports] == [True]
    assert (tmp_path / "run/served-vllm-1/adapter_config.json").exists()
