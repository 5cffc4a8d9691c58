"""A run of `DataSelectingTrainer`: what it resumes, writes, refuses and counts."""

import json
import shutil
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from datasets import Dataset, IterableDataset
from trl import SFTConfig

from hf_dataselect import __version__
from hf_dataselect.runs.folder import read_selection
from hf_dataselect.selector import Card
from hf_dataselect.selectors.random import Random
from hf_dataselect.training.checkpoints import seconds_at
from hf_dataselect.training.config import DataSelectingConfig
from hf_dataselect.training.trainer import DataSelectingTrainer
from tests.rows import alpaca, layout
from tests.run_folders import as_earlier_version
from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_training import PLAIN, tiny_trainer
from tests.training.test_trainer import NO_WARMUP, losses


WANTS_TARGET = "tests.training.test_trainer_runs:WantsTarget"


@dataclass
class WantsTarget(Random):
    """A method that needs rows of the task."""

    card: ClassVar[Card] = Card(title="for a task")

    def needs(self):
        return frozenset({"target"})

    def score(self, features, ctx):
        return np.full(len(features), float(len(ctx.target)), np.float32)


def test_resuming_reads_the_rows_back(tmp_path, monkeypatch):
    options = {"save_strategy": "steps", "save_steps": 2, "selection_budget": 8, "max_steps": 4}
    whole = tiny_trainer(tmp_path, "random", **options)
    whole.train()
    shutil.rmtree(tmp_path / "run" / "checkpoint-4")  # as if it had been killed after step 2

    def score(self, features, ctx):
        raise AssertionError("selected again")

    monkeypatch.setattr(Random, "score", score)
    resumed = tiny_trainer(tmp_path, "random", **options)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.selection.indices.tolist() == whole.selection.indices.tolist()
    assert losses(resumed) == losses(whole)
    seconds = [seconds_at(tmp_path / "run" / f"checkpoint-{i}") for i in (2, 4)]
    assert 0 < seconds[0] < seconds[1], "the resumed run counts the time before the kill"


def test_a_checkpoint_whose_ranks_may_have_diverged_is_not_resumed(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "max_steps": 2}
    options |= {"eval_dataset": alpaca(4, seed=5), "selection_budget": 8}
    tiny_trainer(tmp_path, "random", **options).train()
    folder = tmp_path / "run"
    facts = json.loads((folder / "selection.json").read_text())["facts"] | {"processes": 2}
    as_earlier_version(folder, versions={"hf_dataselect": "0.1.0"}, selection={"facts": facts})
    for place in (tmp_path, tmp_path / "elsewhere"):
        with pytest.raises(ValueError, match="checkpoint-2.*averaging gradients"):
            tiny_trainer(place, "random", **options).train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    tiny_trainer(tmp_path, "random", **options).train(resume_from_checkpoint=str(folder / "checkpoint-1"))
    assert json.loads((folder / "versions.json").read_text())["hf_dataselect"] == __version__


@pytest.mark.parametrize("change", ["dataset", "options", "method", "budget", "seed", "nothing there"])
def test_resuming_with_another_selection_is_refused(tmp_path, change):
    options = {"save_strategy": "steps", "save_steps": 1, "selection_budget": 8, "max_steps": 1}
    tiny_trainer(tmp_path, "perplexity", **options).train()
    kwargs = {"keep": "top"} if change == "options" else {}
    rows = alpaca(24, seed=1) if change == "dataset" else alpaca(24)
    if change == "nothing there":
        (tmp_path / "run" / "selection.json").unlink()
    method = "length" if change == "method" else "perplexity"
    options |= {"budget": {"selection_budget": 9}, "seed": {"seed": 1}}.get(change, {})
    trainer = tiny_trainer(tmp_path, method, kwargs, train_dataset=rows, **options)
    with pytest.raises(ValueError, match="resume_from_checkpoint"):
        trainer.train(resume_from_checkpoint=True)


def test_the_run_folder_says_everything(tmp_path):
    trainer = tiny_trainer(tmp_path, "ifd", NO_WARMUP, selection_budget=6, eval_dataset=alpaca(6, seed=9))
    trainer.train()
    folder = tmp_path / "run"
    assert {"recipe.yaml", "versions.json", "selection.json", "scores.parquet", "eval.json"} <= {
        path.name for path in folder.iterdir()
    }
    stored = read_selection(folder)
    assert np.array_equal(stored.scores, trainer.selection.scores, equal_nan=True)
    assert stored.indices.tolist() == trainer.selection.indices.tolist()
    scores = Dataset.from_parquet(str(folder / "scores.parquet"))
    assert sum(scores["kept"]) == 6 and len(scores) == 24
    assert all(reason for row, reason in zip(scores, scores["reason"], strict=True) if row["score"] > 1)
    evaluation = json.loads((folder / "eval.json").read_text())
    assert len(evaluation["settings"]["answer_loss"]["examples"]) == 6 and evaluation["train_seconds"] > 0


def test_the_selected_rows_can_be_kept_and_described(tmp_path):
    trainer = tiny_trainer(tmp_path, "column", {"name": "rating"}, selection_budget=5)
    subset = trainer.selected_dataset()
    assert subset.column_names == ["instruction", "input", "output", "rating", "selection_row", "selection_score"]
    assert subset["rating"] == sorted(alpaca(24)["rating"], reverse=True)[:5]
    trainer.create_model_card()
    card = (tmp_path / "run" / "README.md").read_text()
    assert "5 of 24" in card and "selection_method: column" in card


def test_streamed_rows_are_refused_with_advice(tmp_path):
    stream = IterableDataset.from_generator(lambda: iter([{"text": "a"}]))
    with pytest.raises(TypeError, match="without `streaming=True`"):
        tiny_trainer(tmp_path, "random", train_dataset=stream)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_dataset": alpaca(24).select([])}, "no rows"),
        ({"train_dataset": Dataset.from_dict({"question": ["a"]})}, "expected one of these layouts"),
        ({"selection_budget": 25}, "more rows than the 24"),
        ({"method": "ifd", "train_dataset": layout("text")}, "needs prompts apart from the answers"),
        ({"method": "column", "kwargs": {"name": "ratings"}}, "did you mean 'rating'"),
        ({"baseline_dir": "/nowhere/bm"}, "baseline_dir"),
        ({"model": "./no/such/model"}, "does not exist"),
        ({"method": "full", "selection_budget": 0.5}, "keeps every row"),
        ({"method": "superfiltering", "kwargs": {"model": "./no/gpt2"}}, "can't be found"),
        ({"method": WANTS_TARGET}, "needs `selection_target`"),
        (
            {"method": WANTS_TARGET, "selection_target": "./none.jsonl"},
            "there is no file",
        ),
        ({"method": "ifd", "selection_cache_dir": "/proc/cache"}, "selection_cache_dir"),
        ({"processing_class": tiny_tokenizer(eos=False)}, "end-of-sequence"),
        ({"formatting_func": str, "dataset_text_field": "output"}, "dataset_text_field"),
        ({"train_dataset": Dataset.from_dict({"instruction": ["a"], "output": [None]})}, "no row that can be read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_input_is_refused_before_any_model_loads(tmp_path, monkeypatch, options, message):
    def loads(*args, **kwargs):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("trl.trainer.sft_trainer.create_model_from_path", loads)
    options = {"method": "random", "model": "some/model", **options}
    with pytest.raises(ValueError, match=message):
        tiny_trainer(tmp_path, options.pop("method"), options.pop("kwargs", None), **options)


def test_rows_that_cannot_be_used_are_counted_and_never_kept(tmp_path):
    rows = alpaca(24).to_list()
    rows[3]["output"], rows[4]["output"], rows[5]["instruction"] = None, "", None
    rows[6]["output"] = "émoji 👍 и текст 你好 " * 3
    rows[7]["output"] = "long " * 300
    rows[8]["instruction"] = "long " * 300
    rows, kwargs = Dataset.from_list(rows), NO_WARMUP | {"drop_above_one": False}
    trainer = tiny_trainer(tmp_path, "ifd", kwargs, train_dataset=rows)
    selection = trainer.select()
    assert selection.dropped == {"missing value in `instruction`": [5], "missing value in `output`": [3]}
    assert set(selection.unscorable) >= {"no answer", "the prompt fills the window"}
    assert selection.unscorable["no answer"] == [4] and selection.unscorable["the prompt fills the window"] == [8]
    assert 7 in selection.truncated["the answer is longer than the window"]
    assert np.isfinite(selection.scores[[6, 7]]).all() and np.isnan(selection.scores[[3, 4, 5, 8]]).all()
    for method in ("random", "length", "full"):
        chosen = tiny_trainer(tmp_path, method, train_dataset=rows).select()
        assert not {3, 5} & set(chosen.indices.tolist())


def test_nan_losses_are_counted_not_invented(tmp_path):
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="no row to keep.*the loss is not finite"):
        tiny_trainer(tmp_path, "perplexity", model=model).select()


def test_a_plain_config_and_no_config_are_taken(tmp_path):
    tokenizer, rows = tiny_tokenizer(), alpaca(24)
    args = SFTConfig(str(tmp_path / "run"), **PLAIN)
    trainer = DataSelectingTrainer(tiny_model(tokenizer), args, train_dataset=rows, processing_class=tokenizer)
    assert isinstance(trainer.args, DataSelectingConfig) and trainer.args.selection_method == "full"
    assert trainer.args.learning_rate == 1e-2


def test_the_dataloader_selects_first(tmp_path):
    trainer = tiny_trainer(tmp_path, "random", selection_budget=6)
    assert len(trainer.get_train_dataloader().dataset) == 6


def test_a_target_reaches_the_method(tmp_path):
    alpaca(7).to_json(tmp_path / "target.jsonl")
    trainer = tiny_trainer(tmp_path, WANTS_TARGET, selection_target=str(tmp_path / "target.jsonl"))
    assert (trainer.select().scores == 7).all()


def test_a_target_is_read_as_the_candidates_are(tmp_path, caplog):
    path = tmp_path / "target.jsonl"
    Dataset.from_list([{"q": "Why?", "a": "So."}] * 3).to_json(path)
    rows = Dataset.from_list([{"q": f"Why {i}?", "a": "So."} for i in range(9)])
    options = {"formatting_func": lambda row: f"{row['q']} {row['a']}", "selection_target": str(path)}
    trainer = tiny_trainer(tmp_path, WANTS_TARGET, train_dataset=rows, **options)
    assert trainer.context().target[0].messages == ({"role": "assistant", "content": "Why? So."},)
    options["selection_target"] = str(tmp_path / "chats.jsonl")
    alpaca(3).to_json(options["selection_target"])
    trainer = tiny_trainer(tmp_path, WANTS_TARGET, train_dataset=rows, **options)
    assert trainer.context().target.layout == "alpaca" and "read without `formatting_func`" in caplog.text


def test_fewer_rows_than_asked_for_are_said(tmp_path, caplog):
    rows = Dataset.from_list([{"text": "a", "score": None if i else 1.0} for i in range(9)])
    trainer = tiny_trainer(tmp_path, "column", {"name": "score"}, train_dataset=rows, selection_budget=4)
    assert len(trainer.select().indices) == 1
    assert "keeps 1 rows, fewer than the 4 of the budget" in caplog.text


def test_tokenized_rows_are_chosen_without_texts(tmp_path):
    rows = Dataset.from_dict({"input_ids": [[5, 6, 7, i + 8] for i in range(9)], "score": list(range(9))})
    trainer = tiny_trainer(tmp_path, "column", {"name": "score"}, train_dataset=rows, selection_budget=3)
    trainer.train()
    assert [ids[-1] for ids in trainer.train_dataset["input_ids"]] == [14, 15, 16]
    with pytest.raises(ValueError, match="untokenized"):
        tiny_trainer(tmp_path, "length", train_dataset=rows)


@dataclass
class TakesAPair(Random):
    """Options that JSON spells otherwise, or not at all."""

    pair: tuple[str, ...] = ("a", "b")
    stop_token: str = "</x>"
    api_key: str = "S3CRET"  # which no file holds


def test_resuming_elsewhere_takes_the_rows_of_the_checkpoints_own_run(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2, "selection_budget": 6}
    first = tiny_trainer(tmp_path / "a", selector=TakesAPair(), **options)
    first.train()
    tiny_trainer(tmp_path / "b", selector=TakesAPair(), **options, train_dataset=alpaca(24, seed=3)).select()
    resumed = tiny_trainer(tmp_path / "b", selector=TakesAPair(), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "run" / "checkpoint-1"))
    assert resumed.selection.indices.tolist() == first.selection.indices.tolist()
    assert read_selection(tmp_path / "b" / "run").indices.tolist() == first.selection.indices.tolist()


def test_a_selector_instance_is_in_the_recipe(tmp_path):
    trainer = tiny_trainer(tmp_path, selector=TakesAPair(), selection_budget=6)
    trainer.select()
    recipe = (tmp_path / "run" / "recipe.yaml").read_text()
    assert "selection_method: tests.training.test_trainer_runs:TakesAPair" in recipe and "pair:" in recipe


def test_evaluation_rows_that_cannot_be_read_are_left_out(tmp_path):
    rows = alpaca(4, seed=7).to_list()
    rows[1]["output"] = None
    trainer = tiny_trainer(tmp_path, eval_dataset=Dataset.from_list(rows))
    trainer.train()
    evaluation = json.loads((tmp_path / "run" / "eval.json").read_text())
    assert len(trainer.eval_dataset) == 3 and evaluation["unscorable"] == {"missing value in `output`": [1]}


def test_a_chat_with_a_missing_content_is_never_kept(tmp_path):
    rows = layout("messages").to_list()
    rows[4]["messages"][1]["content"] = None
    selection = tiny_trainer(tmp_path, "random", train_dataset=Dataset.from_list(rows), selection_budget=1.0).select()
    assert selection.dropped == {"missing content in a turn": [4]} and 4 not in selection.indices


def test_a_small_scorer_shortens_the_window(tmp_path):
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    model.config.max_position_embeddings = 16
    model.save_pretrained(tmp_path / "small")
    tokenizer.save_pretrained(tmp_path / "small")
    trainer = tiny_trainer(tmp_path, "superfiltering", {"model": str(tmp_path / "small")}, selection_budget=0.1)
    assert trainer.context().with_model(str(tmp_path / "small")).max_length == 16


def test_a_selected_dataset_can_be_selected_from(tmp_path):
    first = tiny_trainer(tmp_path, "random", selection_budget=12).selected_dataset()
    again = tiny_trainer(tmp_path, "random", train_dataset=first, selection_budget=3).selected_dataset()
    assert len(again) == 3 and max(again["selection_row"]) < 12
