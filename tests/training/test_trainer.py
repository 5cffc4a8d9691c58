"""The plug-in: what `DataSelectingTrainer` keeps, changes and refuses."""

import inspect
import json
import random
import shutil
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from datasets import Dataset, IterableDataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

from hf_dataselect import __version__
from hf_dataselect.engines.store.identity import model_identity
from hf_dataselect.runs.folder import read_selection
from hf_dataselect.selector import Card
from hf_dataselect.selectors.random import Random
from hf_dataselect.training.checkpoints import seconds_at
from hf_dataselect.training.config import DataSelectingConfig
from hf_dataselect.training.trainer import DataSelectingTrainer
from tests.rows import LAYOUTS, alpaca, layout
from tests.run_folders import as_earlier_version
from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_training import PLAIN, tiny_trainer


WANTS_TARGET = "tests.training.test_trainer:WantsTarget"


@dataclass
class WantsTarget(Random):
    """A method that needs rows of the task."""

    card: ClassVar[Card] = Card(title="for a task")

    def needs(self):
        return frozenset({"target"})

    def score(self, features, ctx):
        return np.full(len(features), float(len(ctx.target)), np.float32)


LORA = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
NO_WARMUP = {"warmup": "none"}


def losses(trainer: SFTTrainer) -> list[tuple[float, float]]:
    return [(entry["loss"], entry["grad_norm"]) for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("options", [{}, {"packing": True}, {"lora": True}, {"gradient_checkpointing": True}], ids=str)
@pytest.mark.parametrize("name", ["messages", "chat prompt-completion", "prompt-completion", "text"])
def test_full_trains_step_for_step_as_plain_sft(tmp_path, name, options):
    options = dict(options)
    peft_config = LORA if options.pop("lora", False) else None
    rows, tokenizer = layout(name), tiny_tokenizer()
    plain = SFTTrainer(
        tiny_model(tokenizer),
        SFTConfig(str(tmp_path / "plain"), **{**PLAIN, **options}),
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=peft_config,
    )
    plain.train()
    random_state = torch.get_rng_state()
    mine = tiny_trainer(tmp_path, train_dataset=rows, peft_config=peft_config, eval_dataset=rows, **options)
    mine.train()
    assert losses(mine) == losses(plain) and len(losses(mine)) == 3
    assert torch.equal(torch.get_rng_state(), random_state)
    for (name, one), (other_name, other) in zip(
        plain.model.named_parameters(), mine.model.named_parameters(), strict=True
    ):
        assert name == other_name and torch.equal(one, other)


@pytest.mark.parametrize("bits", [None, "load_in_4bit"])
def test_a_model_by_name_is_loaded_as_plain_sft_loads_it(tmp_path, bits):
    tokenizer = tiny_tokenizer()
    tiny_model(tokenizer).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    own = {"peft_config": LORA, "train_dataset": layout("messages")}
    own |= {"quantization_config": BitsAndBytesConfig(**{bits: True})} if bits else {}
    dtype = {"model_init_kwargs": {"dtype": "bfloat16"}}
    torch.manual_seed(0)  # up to TRL 1.14, a new adapter is drawn before the trainer sets the seed
    plain = SFTTrainer(str(tmp_path / "model"), SFTConfig(str(tmp_path / "plain"), **PLAIN, **dtype), **own)
    args = DataSelectingConfig(str(tmp_path / "mine"), **PLAIN, **dtype)
    torch.manual_seed(0)
    mine = DataSelectingTrainer(str(tmp_path / "model"), args, **own)
    for trainer in (plain, mine):
        trainer.train()
    assert losses(mine) == losses(plain) and len(losses(mine)) == 3
    assert snapshot(mine.model)["weights"] == snapshot(plain.model)["weights"]


def test_it_takes_every_argument_of_sft_trainer():
    accepted = inspect.signature(DataSelectingTrainer.__init__).parameters
    assert any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values())
    named = [name for name, p in accepted.items() if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert named == list(inspect.signature(SFTTrainer.__init__).parameters)[: len(named)]


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("method", ["random", "length", "perplexity"])
def test_every_layout_trains_on_the_rows_kept(tmp_path, name, method):
    trainer = tiny_trainer(tmp_path, method, train_dataset=layout(name), selection_budget=6)
    trainer.train()
    assert len(trainer.train_dataset) == 6 == len(trainer.selection.indices)
    assert np.isfinite([loss for loss, _ in losses(trainer)]).all()


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "text"])
def test_ifd_scores_every_layout_with_prompts(tmp_path, name):
    selection = tiny_trainer(tmp_path, "ifd", NO_WARMUP, train_dataset=layout(name), selection_budget=0.25).select()
    assert np.isfinite(selection.scores).sum() >= 20
    assert (selection.scores[selection.indices] <= 1).all()
    assert (np.diff(selection.scores[selection.indices]) <= 0).all()


def test_only_the_rows_kept_are_trained_on(tmp_path):
    rows = alpaca(24)
    trainer = tiny_trainer(tmp_path, "length", train_dataset=rows, selection_budget=5)
    trainer.train()
    decoded = trainer.processing_class.batch_decode(trainer.train_dataset["input_ids"][:])
    longest = sorted(trainer.selection.indices)
    assert all(rows[int(i)]["output"] in text for i, text in zip(longest, decoded, strict=True))


@pytest.mark.parametrize("loss", ["assistant_only_loss", "completion_only_loss"])
def test_masked_losses_work(tmp_path, loss):
    rows = layout("messages" if loss == "assistant_only_loss" else "chat prompt-completion")
    trainer = tiny_trainer(tmp_path, "random", train_dataset=rows, selection_budget=6, **{loss: True})
    trainer.train()
    assert all(-100 in labels for labels in trainer.train_dataset["labels"])


def test_packing_packs_only_the_rows_kept(tmp_path):
    trainer = tiny_trainer(tmp_path, "random", train_dataset=layout("messages"), selection_budget=6, packing=True)
    trainer.train()
    assert sum(map(len, trainer.train_dataset["seq_lengths"])) == 6


def test_select_leaves_the_trainer_as_it_was(tmp_path):
    peft_model = get_peft_model(tiny_model(tiny_tokenizer()), LORA)
    for model in (tiny_model(tiny_tokenizer()), peft_model):
        trainer = tiny_trainer(tmp_path, "ifd", {"warmup_clusters": 3}, model=model, gradient_checkpointing=True)
        trainer.model.train()
        before = snapshot(trainer.model)
        trainer.select()
        assert snapshot(trainer.model) == before


def snapshot(model) -> dict:
    return {
        "weights": model_identity(model),
        "names": [name for name, _ in model.named_parameters()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grad": [p.grad for p in model.parameters()],
        "modes": [m.training for m in model.modules()],
        "checkpointing": [getattr(m, "gradient_checkpointing", None) for m in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        "forwards": [m.__dict__.get("forward") for m in model.modules()],
        "random": (random.getstate(), torch.get_rng_state().sum().item(), str(np.random.get_state())),
        "use_cache": model.config.use_cache,
    }


METHODS = {
    "perplexity": {},
    "ifd": {"warmup": "full", "warmup_clusters": 2},
    "rds": {},
    "nuggets": {"tasks": 4, "threshold": 0.0},
    "less": {"lora_r": 4, "warmup_epochs": 1, "warmup_fraction": 0.5, "projection_dim": 64},
}


#: Lines of one length are compiled once.
COMPILED = {"torch_compile": True, "torch_compile_backend": "eager", "pad_to_multiple_of": 128}


@pytest.mark.parametrize(
    ("method", "options"),
    [(method, options) for method in METHODS for options in ({}, {"bf16": True})] + [("less", COMPILED)],
)
def test_a_trained_trainer_is_not_touched_by_selecting_or_evaluating(tmp_path, method, options):
    rows = {"train_dataset": layout("messages", 16), "eval_dataset": layout("messages", 4, seed=3)}
    layout("messages", 4, seed=7).to_json(tmp_path / "target.jsonl")
    options = options | {"selection_target": str(tmp_path / "target.jsonl"), "selection_budget": 4}
    trainer = tiny_trainer(
        tmp_path, method, METHODS[method], **rows, **options, selection_dtype="bfloat16", peft_config=LORA
    )
    trainer.evaluate()
    trainer.train()
    trainer.model.eval()  # as every evaluation leaves it
    before, held = belongings(trainer)
    trainer.select()
    trainer.evaluate()
    assert belongings(trainer)[0] == before and held


def belongings(trainer) -> tuple[dict, list]:
    """What training goes on with, by identity and content, and what has to be held for identities to stay."""
    tuned = [p for p in trainer.model.parameters() if p.requires_grad]
    nodes = [p.view_as(p).grad_fn.next_functions[0][0] for p in tuned]
    states = [value for state in trainer.optimizer.state_dict()["state"].values() for value in state.values()]
    accelerator = trainer.accelerator
    return snapshot(trainer.model) | {
        "parameters": [(id(p), p.data_ptr(), p.dtype, id(p.grad)) for p in trainer.model.parameters()],
        "nodes": [id(node) for node in nodes],
        "optimizer": [(id(value), float(torch.as_tensor(value).double().sum())) for value in states],
        "wrapped": id(trainer.model_wrapped),
        "marks": [sorted(vars(module)) for module in trainer.model.modules()],
        "precision": accelerator.mixed_precision,
        "dynamo": (id(accelerator.state.dynamo_plugin), str(accelerator.state.dynamo_plugin.backend)),
        "gradient state": dict(accelerator.gradient_state.plugin_kwargs),
        "generation": trainer.model.generation_config.to_dict(),
    }, nodes


@pytest.mark.parametrize("options", [{}, {"bf16": True, "selection_dtype": "float32"}], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_an_evaluation_changes_no_score(tmp_path, method, options):
    layout("messages", 4, seed=7).to_json(tmp_path / "target.jsonl")
    options = options | {"selection_target": str(tmp_path / "target.jsonl"), "selection_budget": 4}
    scores = []
    for evaluated in (False, True):
        rows = {"train_dataset": layout("messages", 16), "eval_dataset": layout("messages", 4, seed=3)}
        trainer = tiny_trainer(tmp_path, method, METHODS[method], **rows, **options | {"selection_cache_dir": "none"})
        if evaluated:
            trainer.evaluate()
        scores.append(trainer.select().scores)
    np.testing.assert_array_equal(*scores)


def test_same_seed_same_rows_and_another_seed_others(tmp_path):
    chosen = [
        tiny_trainer(tmp_path / str(i), "random", seed=seed, selection_budget=8).select().indices.tolist()
        for i, seed in enumerate((1, 1, 2))
    ]
    assert chosen[0] == chosen[1] != chosen[2]


def test_a_peft_model_of_the_user_trains(tmp_path):
    model = get_peft_model(tiny_model(tiny_tokenizer()), LORA)
    trainer = tiny_trainer(tmp_path, "ifd", {"warmup_clusters": 3}, model=model, selection_budget=6)
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    trainer.train()
    assert frozen and all(torch.equal(p, dict(model.named_parameters())[name]) for name, p in frozen.items())
    assert list(model.peft_config) == ["default"]


@pytest.mark.parametrize("bits", ["load_in_4bit", "load_in_8bit"])
def test_quantized_models_select_and_train(tmp_path, bits):
    tokenizer = tiny_tokenizer()
    tiny_model(tokenizer).save_pretrained(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", quantization_config=BitsAndBytesConfig(**{bits: True}), dtype=torch.float32
    )
    trainer = tiny_trainer(
        tmp_path, "ifd", {"warmup_clusters": 2}, model=model, peft_config=LORA, selection_budget=6, max_steps=1
    )
    trainer.train()
    assert np.isfinite(trainer.selection.scores).sum() >= 20 and np.isfinite(losses(trainer)).all()


def test_a_model_without_template_gets_the_one_default(tmp_path):
    trainer = tiny_trainer(tmp_path, "random", processing_class=tiny_tokenizer(chat_template=False))
    trainer.train()
    facts = json.loads((tmp_path / "run" / "selection.json").read_text())["facts"]
    assert facts["default_chat_template"] is True and len(facts["chat_template"]) == 24
    assert "### Assistant:" in trainer.processing_class.chat_template


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


def test_several_processes_tokenize_the_same(tmp_path):
    one = tiny_trainer(tmp_path / "1", "ifd", NO_WARMUP).select()
    two = tiny_trainer(tmp_path / "2", "ifd", NO_WARMUP, dataset_num_proc=2).select()
    assert np.array_equal(one.scores, two.scores, equal_nan=True)


def test_a_second_budget_scores_nothing_again(tmp_path):
    first = tiny_trainer(tmp_path, "ifd", NO_WARMUP, selection_budget=4).select()
    second = tiny_trainer(tmp_path, "ifd", NO_WARMUP, selection_budget=8).select()
    assert first.passes["forward_rows"] == 48 and second.passes == {
        "forward_rows": 0,
        "forward_tokens": 0,
        "cached_rows": 48,
    }
    assert second.indices[:4].tolist() == first.indices.tolist()
    assert second.seconds > second.cached_seconds > 0 == first.cached_seconds, "STR counts what the first run spent"


def test_ifd_and_perplexity_share_a_pass(tmp_path):
    tiny_trainer(tmp_path, "ifd", NO_WARMUP).select()
    assert tiny_trainer(tmp_path, "perplexity").select().passes["cached_rows"] == 24


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
    assert "selection_method: tests.training.test_trainer:TakesAPair" in recipe and "pair:" in recipe


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
