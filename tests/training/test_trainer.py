"""The plug-in: what `DataSelectingTrainer` keeps, changes and refuses."""

import inspect
import json
import random

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

from hf_dataselect.engines.store.identity import model_identity
from hf_dataselect.training.config import DataSelectingConfig
from hf_dataselect.training.trainer import DataSelectingTrainer
from tests.rows import LAYOUTS, alpaca, layout
from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_training import PLAIN, tiny_trainer


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
