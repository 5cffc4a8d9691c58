"""Selecting while training: what a policy sees and changes of a step, and that it changes nothing else."""

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from trl import SFTConfig, SFTTrainer

from hf_dataselect.card import Card
from hf_dataselect.policy import Policy, Seen
from tests.rows import layout
from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_training import PLAIN, tiny_trainer
from tests.training.test_trainer import LORA, losses, snapshot


@dataclass
class Table(Policy):
    """Weights by row, and all that is seen."""

    values: list | None = None

    card: ClassVar[Card] = Card(title="weights that are given")

    def __post_init__(self):
        super().__post_init__()
        self.seen: list[Seen] = []

    def weights(self, rows, losses):
        return torch.ones_like(losses) if self.values is None else torch.tensor(self.values).to(losses)[rows]

    def observe(self, seen):
        self.seen.append(seen)


TABLE = "tests.training.test_online:Table"
SHAPES = {
    "padded": {},
    "accumulated": {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 3},
    "packed": {"packing": True, "max_length": 64},
    "wrapped": {"packing": True, "packing_strategy": "wrapped", "max_length": 48},
    "split": {"packing": True, "packing_strategy": "bfd_split", "max_length": 24},
    "padding-free": {"padding_free": True, "max_length": None},
    "cut and shuffled": {"max_length": 24, "shuffle_dataset": True},
    "assistant only": {"assistant_only_loss": True},
    "lora": {"peft_config": LORA},
    "checkpointed": {"gradient_checkpointing": True},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_weight_one_on_every_row_is_plain_sft_bit_for_bit(tmp_path, shape):
    options, rows = {"num_train_epochs": 2, "max_steps": -1} | SHAPES[shape], layout("messages", 10)
    mine = tiny_trainer(tmp_path, selection_policy=TABLE, train_dataset=rows, **options)
    mine.train()
    own = {"peft_config": options.pop("peft_config", None)}
    args = SFTConfig(str(tmp_path / "plain"), **{**PLAIN, **options})
    tokenizer = tiny_tokenizer()
    plain = SFTTrainer(tiny_model(tokenizer), args, train_dataset=rows, processing_class=tokenizer, **own)
    plain.train()
    assert losses(mine) == losses(plain) and len(losses(mine)) > 2
    assert snapshot(mine.model)["weights"] == snapshot(plain.model)["weights"]
    assert sum(len(seen.rows) for seen in mine.online.policy.seen) >= 10


def by_row(trainer, rows) -> dict[int, tuple[float, int]]:
    """Loss and label tokens of each row before training, by a plain forward of its own."""
    found = {}
    for row in range(len(rows)):
        prepared = SFTTrainer._prepare_dataset(
            trainer, rows.select([row]), trainer.processing_class, trainer.args, False, None, "train"
        )
        if len(prepared):
            ids, labels = (torch.tensor(prepared[name][:]) for name in ("input_ids", "labels"))
            with torch.no_grad():
                logits = trainer.model(input_ids=ids).logits[0, :-1]
            nll = torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="none", ignore_index=-100)
            counted = int((labels[0, 1:] != -100).sum())
            found[row] = float(nll.sum()) / counted, counted
    return found


@pytest.mark.parametrize("shape", ["padded", "packed", "padding-free", "cut and shuffled", "assistant only"])
def test_the_loss_of_each_row_is_that_of_a_forward_of_its_own(tmp_path, shape):
    rows = layout("messages", 9)
    options = {"per_device_train_batch_size": 9, "max_steps": 1} | SHAPES[shape]
    trainer = tiny_trainer(tmp_path, selection_policy=TABLE, train_dataset=rows, **options)
    expected = by_row(trainer, rows)
    trainer.train()
    (seen,) = trainer.online.policy.seen
    assert seen.rows.tolist() == sorted(expected) and (seen.step, seen.steps) == (1, 1)
    np.testing.assert_allclose(seen.losses, [loss for loss, _ in expected.values()], rtol=1e-5)
    if shape != "packed":  # where the first token of a row has no context, and is not counted
        assert seen.tokens.tolist() == [tokens for _, tokens in expected.values()]


def test_weights_multiply_the_losses_of_rows(tmp_path):
    rows, weights = layout("prompt-completion", 6), [0.0, 2.0, 0.5, 1.0, 0.0, 3.0]
    options = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "max_steps": 1}
    kwargs = {"values": weights}
    trainer = tiny_trainer(
        tmp_path, selection_policy=TABLE, selection_policy_kwargs=kwargs, train_dataset=rows, **options
    )
    expected = by_row(trainer, rows)
    trainer.train()
    total = sum(weights[row] * loss * tokens for row, (loss, tokens) in expected.items())
    assert losses(trainer)[0][0] == pytest.approx(total / sum(tokens for _, tokens in expected.values()), rel=1e-5)
    written = json.loads((tmp_path / "run" / "policy.json").read_text())
    assert (written["policy"], written["options"]) == (TABLE, kwargs)
    assert written["rows"] == {"served": 6, "times": 6, "dropped": 2, "times_dropped": 2, "always_dropped": 2}
