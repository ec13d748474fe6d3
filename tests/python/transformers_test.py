"""ValidateOnSave in a training run: real transformers and PEFT, a tiny model, a few steps."""

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


def test_an_option_that_is_wrong_is_an_error_though_findings_warn(tmp_path):
    with pytest.raises(moelora.Error, match="sglnag"):
        train(tmp_path, ValidateOnSave(engines=["sglnag"], base=str(BASE)), ["q_proj"], steps=1)


def one_of_two_processes(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    callback = ValidateOnSave(engines=["sglang"], base=str(BASE), on_findings="fail")
    state = types.SimpleNamespace(is_world_process_zero=rank == 0, global_step=1)
    ended = "goes on"
    try:
        callback.on_save(types.SimpleNamespace(output_dir=folder), state, None)
    except moelora.Error as error:
        ended = error.what
    pathlib.Path(folder, f"ended-{rank}").write_text(ended)
    torch.distributed.destroy_process_group()


def test_a_finding_ends_all_processes_of_a_training(tmp_path):
    for adapter, ends in (("gpt_oss_lone_q", True), ("gpt_oss_attention", False)):
        folder = tmp_path / adapter
        shutil.copytree(BASE.parent / adapter, folder / "checkpoint-1")
        torch.multiprocessing.spawn(one_of_two_processes, (str(folder),), nprocs=2)
        first, second = ((folder / f"ended-{rank}").read_text() for rank in range(2))
        assert first == second and ("SGL" in first) == ends


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
