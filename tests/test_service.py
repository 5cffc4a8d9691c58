"""`select_dataset`: the rows of the trainer, for any trainer; and one way to load what it needs."""

import json

import numpy as np
import pytest
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments
from trl import DPOConfig, DPOTrainer

from hf_dataselect import select_dataset
from hf_dataselect.data.encoding import encode
from hf_dataselect.data.records import Records
from hf_dataselect.data.text import TextFormat
from hf_dataselect.engines.runtime.loading import load_tuned_model
from hf_dataselect.engines.store.identity import model_identity
from hf_dataselect.runs.folder import read_selection
from hf_dataselect.selectors.ifd import IFD
from tests.rows import alpaca, layout
from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_training import PLAIN, tiny_trainer


NO_WARMUP = {"warmup": "none"}


@pytest.fixture
def folder(tmp_path):
    """A model and its tokenizer."""
    tokenizer = tiny_tokenizer()
    tiny_model(tokenizer).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def preferences(n: int = 16) -> Dataset:
    """Rows of `prompt`, `chosen` and `rejected`."""
    return Dataset.from_list(
        [
            {"prompt": f"{row['instruction']}\n", "chosen": row["output"], "rejected": f"No. {row['output'][:9]}"}
            for row in alpaca(n)
        ]
    )


def loads(*args, **kwargs):
    raise AssertionError("the model was loaded")


@pytest.mark.parametrize("method, kwargs", [("ifd", NO_WARMUP), ("ifd", {"warmup_clusters": 3}), ("random", {})])
@pytest.mark.parametrize("named", [False, True], ids=["object", "by name"])
def test_its_rows_are_those_of_the_trainer(tmp_path, folder, method, kwargs, named):
    tokenizer = tiny_tokenizer()
    options = {"budget": 6, "method_kwargs": kwargs, "max_length": 128, "cache_dir": None, "dtype": "float32"}
    model = str(folder) if named else tiny_model(tokenizer)
    rows, selection = select_dataset(alpaca(24), method, model, None if named else tokenizer, **options)
    trainer = tiny_trainer(tmp_path, method, kwargs, selection_budget=6, selection_cache_dir="none")
    expected = trainer.select()
    np.testing.assert_array_equal(selection.scores, expected.scores)
    assert selection.indices.tolist() == expected.indices.tolist() == rows["selection_row"]
    assert rows.to_list() == trainer.selected_dataset().to_list()
    same = ("dataset", "chat_template", "layout", "max_length", "seed", "processes", "model_identity")
    assert [selection.facts[name] for name in same] == [expected.facts[name] for name in same]


def test_a_model_is_given_back_as_it_was():
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer).train()
    before = model_identity(model)
    select_dataset(alpaca(12), IFD(warmup_clusters=2), model, tokenizer, budget=3, cache_dir=None)
    assert (
        model_identity(model) == before and model.training and not any(p.grad is not None for p in model.parameters())
    )


def test_a_method_without_a_model_loads_none(folder, monkeypatch):
    monkeypatch.setattr("trl.trainer.utils.create_model_from_path", loads)
    rows, selection = select_dataset(alpaca(24), "length", str(folder), budget=5)
    assert len(rows) == 5 and selection.facts["model"] == str(folder)
    assert select_dataset(alpaca(24), "length", None, str(folder), 5)[1].indices.tolist() == rows["selection_row"]
    assert len(select_dataset(alpaca(24), "random", budget=0.5)[0]) == 12  # nor a tokenizer
    with pytest.raises(ValueError, match="`tokenizer` is required"):
        select_dataset(alpaca(24), "length", budget=5)
    with pytest.raises(AssertionError, match="the model was loaded"):
        select_dataset(alpaca(24), "perplexity", str(folder), budget=5)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"method": "idf"}, "did you mean 'ifd'"),
        ({"method": "ifd", "method_kwargs": {"warm": 1}}, "no option 'warm'"),
        ({"method": "ifd"}, "`ifd` needs `model`"),
        ({"method": "ifd", "model": "./no/such/model"}, "does not exist"),
        ({"method": "ifd", "dataset": layout("text")}, "needs prompts apart from the answers"),
        ({"method": "ifd", "model": "some/model", "cache_dir": "/proc/cache"}, "selection_cache_dir"),
        ({"method": "ifd", "model": "some/model", "tokenizer": tiny_tokenizer(eos=False)}, "end-of-sequence"),
        ({"method": "less", "model": "some/model"}, "needs `selection_target`"),
        ({"method": "alpagasus"}, "needs `judge`"),
        ({"budget": 25}, "more rows than the 24"),
        ({"budget": 1}, "one row or all of them"),
        ({"method": "full", "budget": 0.5}, "keeps every row"),
        ({"diversity": "fliter"}, "selection_diversity"),
        ({"method": "instag", "judge": "model:m", "diversity": {"encoder": "model"}}, "already keeps rows apart"),
        ({"judge_kwargs": {"max_call": 1}}, "did you mean 'max_calls'"),
        ({"dataset": alpaca(24).select([])}, "`dataset` has no rows"),
        ({"dataset": alpaca(24).select_columns("output")}, "expected one of these layouts"),
        ({"method": "random", "target": "./none.jsonl"}, "there is no file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_input_is_refused_before_any_model_loads(monkeypatch, options, message):
    monkeypatch.setattr("trl.trainer.utils.create_model_from_path", loads)
    given = {"dataset": alpaca(24), "method": "length", **options}
    with pytest.raises(ValueError, match=message):
        select_dataset(given.pop("dataset"), given.pop("method"), **given)


def test_a_target_may_be_rows_or_a_file(tmp_path):
    tokenizer, options = tiny_tokenizer(), {"budget": 4, "cache_dir": None, "dtype": "float32"}
    alpaca(5, seed=8).to_json(tmp_path / "target.jsonl")
    found = [
        select_dataset(alpaca(16), "rds", tiny_model(tokenizer), tokenizer, target=target, **options)[1]
        for target in (alpaca(5, seed=8), str(tmp_path / "target.jsonl"))
    ]
    np.testing.assert_array_equal(found[0].scores, found[1].scores)
    assert found[0].indices.tolist() == found[1].indices.tolist()


@pytest.mark.parametrize("by", [None, {"column": "rating", "how": "equal"}])
def test_the_folder_repeats_it(tmp_path, folder, by):
    from hf_dataselect.cli.main import main

    options = {"method_kwargs": NO_WARMUP, "cache_dir": None, "dtype": "float32", "max_length": 64}
    options |= {"budget": 6, "budget_by": by, "output_dir": tmp_path / "run"}
    _, selection = select_dataset(alpaca(24), "ifd", str(folder), **options)
    stored = read_selection(tmp_path / "run")
    assert stored.indices.tolist() == selection.indices.tolist()
    alpaca(24).to_json(tmp_path / "rows.jsonl")
    main(
        ["select", "--config", str(tmp_path / "run" / "recipe.yaml"), "--dataset_name", str(tmp_path / "rows.jsonl")]
        + ["--output_dir", str(tmp_path / "again"), "--use_cpu", "true", "--bf16", "false", "--report_to", "none"]
        + ["--selection_cache_dir", "none", "--selection_dtype", "float32"]
    )
    assert read_selection(tmp_path / "again").indices.tolist() == selection.indices.tolist()


def test_preference_rows_are_scored_on_the_answer_preferred():
    tokenizer, pairs = tiny_tokenizer(), preferences()
    turns = [
        {name: [{"role": role, "content": row[name]}] for name, role in (("prompt", "user"), ("chosen", "assistant"))}
        for row in pairs
    ]
    whole = [row["prompt"] + row["chosen"] for row in turns]
    for rows, same in (
        (pairs, pairs.remove_columns("rejected").rename_column("chosen", "completion")),
        (
            Dataset.from_list([{**row, "rejected": row["chosen"]} for row in turns]),
            Dataset.from_list([{"prompt": row["prompt"], "completion": row["chosen"]} for row in turns]),
        ),
        (
            Dataset.from_list([{"chosen": chat, "rejected": chat, "messages": chat[:1]} for chat in whole]),
            Dataset.from_list([{"messages": chat} for chat in whole]),
        ),
        (
            Dataset.from_list([{"prompt": "x", "chosen": chat, "rejected": chat} for chat in whole]),
            Dataset.from_list([{"messages": chat} for chat in whole]),
        ),
    ):
        options = {"budget": 4, "cache_dir": None, "dtype": "float32"}
        found, selection = select_dataset(rows, "perplexity", tiny_model(tokenizer), tokenizer, **options)
        expected = select_dataset(same, "perplexity", tiny_model(tokenizer), tokenizer, **options)[1]
        assert np.isfinite(selection.scores).all()
        np.testing.assert_array_equal(selection.scores, expected.scores)
        assert found.column_names == [*rows.column_names, "selection_row", "selection_score"]
        assert found[0] == {**rows[int(selection.indices[0])], **{n: found[0][n] for n in found.column_names[-2:]}}


def test_the_rows_feed_dpo(tmp_path, folder):
    kwargs = {**NO_WARMUP, "drop_above_one": False}
    rows, _ = select_dataset(preferences(), "ifd", str(folder), budget=6, method_kwargs=kwargs)
    options = {name: value for name, value in PLAIN.items() if name != "max_length"}
    trainer = DPOTrainer(str(folder), args=DPOConfig(str(tmp_path), **{**options, "max_steps": 1}), train_dataset=rows)
    trainer.train()
    assert len(trainer.train_dataset) == 6 and np.isfinite(trainer.state.log_history[0]["loss"])


def test_the_rows_feed_a_plain_trainer(tmp_path):
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    rows, _ = select_dataset(alpaca(24), "perplexity", model, tokenizer, 6)
    tokens = encode(Records(rows), TextFormat(tokenizer, max_length=64)).tokens.take(range(len(rows)))
    data = Dataset.from_list([{"input_ids": ids.tolist(), "labels": ids.tolist()} for ids, _ in tokens])
    options = {"use_cpu": True, "max_steps": 2, "report_to": "none", "save_strategy": "no", "logging_steps": 1}
    args = TrainingArguments(str(tmp_path), per_device_train_batch_size=1, disable_tqdm=True, **options)
    trainer = Trainer(model, args, train_dataset=data, data_collator=DataCollatorWithPadding(tokenizer))
    trainer.train()
    assert np.isfinite([entry["loss"] for entry in trainer.state.log_history if "loss" in entry]).all()


def test_a_model_that_lacks_weights_is_refused_everywhere(tmp_path, folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    says = "`model`: '.*model' lacks weights: model.layers.1.mlp.up_proj.weight"
    with pytest.raises(ValueError, match=says):
        select_dataset(alpaca(12), "perplexity", str(folder), budget=3)
    with pytest.raises(ValueError, match=says):
        tiny_trainer(tmp_path, "random", model=str(folder))


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    tiny_model(tiny_tokenizer()).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="has no tokenizer of its own"):
        select_dataset(alpaca(12), "perplexity", str(tmp_path / "model"), budget=3)


def test_revision_and_remote_code_reach_the_tokenizer_and_the_model(folder, monkeypatch):
    from hf_dataselect import service

    asked = []
    monkeypatch.setattr(service, "load_processing_class", lambda name, **hub: asked.append(hub) or tiny_tokenizer())
    monkeypatch.setattr(
        service, "load_tuned_model", lambda name, **kwargs: asked.append(kwargs) or load_tuned_model(name)
    )
    hub = {"revision": "main", "trust_remote_code": True}
    select_dataset(alpaca(12), "perplexity", str(folder), budget=3, model_kwargs=hub | {"dtype": "float32"})
    assert asked == [hub, hub | {"dtype": "float32"}]


@pytest.mark.parametrize("by", ["file", "model"])
def test_select_and_train_render_by_the_same_template_and_end_of_text(tmp_path, by):
    from hf_dataselect.cli.main import main
    from tests.tiny_training import write_recipe

    recipe = write_recipe(tmp_path, selection_method="length", selection_kwargs={}, bf16=False)
    other = tiny_tokenizer()
    other.chat_template = other.chat_template.replace("<|assistant|>", "Answer:")
    other.add_tokens(["<end>"])
    other.eos_token = "<end>" if by == "model" else "<|user|>"
    other.save_pretrained(tmp_path / "other")
    (tmp_path / "template.jinja").write_text(other.chat_template)
    path = {"file": tmp_path / "template.jinja", "model": tmp_path / "other"}[by]
    more = ["--chat_template_path", str(path)] + (["--eos_token", "<|user|>"] if by == "file" else [])
    selections = []
    for command in ("select", "train"):
        main([command, "--config", str(recipe), *more, "--output_dir", str(tmp_path / command)])
        selections.append(json.loads((tmp_path / command / "selection.json").read_text()))
    one, two = selections
    assert one["indices"] == two["indices"] and one["facts"]["chat_template"] == two["facts"]["chat_template"]
    saved = AutoTokenizer.from_pretrained(tmp_path / "train")
    assert "Answer:" in saved.chat_template and saved.eos_token == other.eos_token


def test_an_accelerator_with_other_settings_may_be_made_afterwards():
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    for state in (AcceleratorState, PartialState):
        state._reset_state()
    select_dataset(alpaca(12), "random", budget=3)
    try:
        assert Accelerator(mixed_precision="bf16", cpu=True).mixed_precision == "bf16"
    finally:
        for state in (AcceleratorState, PartialState):
            state._reset_state()


def test_what_can_not_be_counted_or_written_is_refused_before_anything_is_scored(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_dataselect.plan.select", None)
    rows = alpaca(12)
    with pytest.raises(ValueError, match="`budget='200 tokens'` needs `tokenizer`"):
        select_dataset(rows, "random", budget="200 tokens")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="`output_dir=.*file'` can't be written"):
        select_dataset(rows, "random", budget=3, output_dir=tmp_path / "file")


def test_preference_rows_are_formatted_as_they_are():
    rows = Dataset.from_list([{"prompt": f"Q{i}", "chosen": "a" * i, "rejected": "b"} for i in range(1, 13)])
    kept, _ = select_dataset(
        rows, "length", tokenizer=tiny_tokenizer(), budget=2, formatting_func=lambda row: row["prompt"] + row["chosen"]
    )
    assert {"prompt", "chosen", "rejected"} <= set(kept.column_names) and len(kept) == 2
