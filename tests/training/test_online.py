"""Selecting while training: what a policy sees and changes of a step, and that it changes nothing else."""

import json
import signal
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from hf_dataselect.card import Card
from hf_dataselect.cli.main import main
from hf_dataselect.evaluation.comparison.comparison import compare_runs
from hf_dataselect.evaluation.report.report import to_markdown
from hf_dataselect.evaluation.report.sections import sections
from hf_dataselect.policy import Policy, Seen
from hf_dataselect.training.checkpoints import why_torn
from tests.online import (
    EVERYTHING,
    GUARDED,
    POLICIES,
    SAVED,
    UNSAVED,
    killed,
    on_rank,
    selecting_again,
    sources,
    trained,
)
from tests.processes import run_ranks, succeed
from tests.rows import layout
from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_training import PLAIN, tiny_trainer
from tests.training.test_trainer import losses, snapshot


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


@dataclass
class Rounds(Policy):
    """Rows weigh as much as the number of their round."""

    card: ClassVar[Card] = Card(title="later rounds weigh more")
    chooses: ClassVar[bool] = True

    def choose(self, rows, progress, random):
        self.state["round"] = self.state.get("round", 0) + 1
        return rows[::-1], np.full(len(rows), float(self.state["round"]))


TABLE = "tests.training.test_online:Table"
#: Everything that lays out tokens in another way, with what else there is.
SHAPES = {
    "accumulated": {
        "gradient_accumulation_steps": 2,
        "assistant_only_loss": True,
        "num_train_epochs": 2,
        "peft_config": LoraConfig(r=4, lora_dropout=0.2, target_modules="all-linear"),
    },
    "packed": {"packing": True, "max_length": 64, "gradient_checkpointing": True},
    "split": {"packing": True, "packing_strategy": "bfd_split", "max_length": 24},
    "padding-free": {"padding_free": True, "max_length": None},
    "cut and shuffled": {"max_length": 24, "shuffle_dataset": True},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_weight_one_on_every_row_is_plain_sft_bit_for_bit(tmp_path, shape):
    options, rows = {"num_train_epochs": 1, "max_steps": -1} | SHAPES[shape], layout("messages", 6)
    mine = tiny_trainer(tmp_path, selection_policy=TABLE, train_dataset=rows, **options)
    mine.train()
    own = {"peft_config": options.pop("peft_config", None)}
    args = SFTConfig(str(tmp_path / "plain"), **{**PLAIN, **options})
    tokenizer = tiny_tokenizer()
    plain = SFTTrainer(tiny_model(tokenizer), args, train_dataset=rows, processing_class=tokenizer, **own)
    plain.train()
    assert losses(mine) == losses(plain) and len(losses(mine)) > 1
    assert snapshot(mine.model)["weights"] == snapshot(plain.model)["weights"]
    assert {row for seen in mine.online.policy.seen for row in seen.rows} == {*range(6)}


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


@pytest.mark.parametrize("shape", ["accumulated", "packed", "padding-free", "cut and shuffled"])
def test_the_loss_of_each_row_is_that_of_a_forward_of_its_own(tmp_path, shape):
    rows = layout("messages", 6)
    options = SHAPES[shape] | {"per_device_train_batch_size": 6, "max_steps": 1, "gradient_checkpointing": False}
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


def test_a_round_that_ends_within_a_step_keeps_its_weights(tmp_path):
    options = {"per_device_train_batch_size": 4, "max_steps": 6, "logging_steps": 1}
    options |= {"padding_free": True, "max_length": None}  # lines of both rounds in one
    trainer = tiny_trainer(
        tmp_path, selection_policy="tests.training.test_online:Rounds", train_dataset=sources(), **options
    )
    trainer.train()
    logged = [entry["policy/weight"] for entry in trainer.state.log_history if "policy/weight" in entry]
    assert logged[:2] == [1, 1] and 1 < logged[2] < 2 and logged[3:5] == [2, 2]  # two of four lines are of the next


# --- Every policy, with everything at once ---


def history(folder) -> list[dict]:
    return json.loads((folder / "run" / "policy.json").read_text())["history"]


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    succeed(on_rank, folder, folder=folder)
    return folder


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_does_the_same_for_any_micro_batch_accumulation_and_ranks(tmp_path, two_ranks, policy):
    trainer = trained(tmp_path, policy, per_device_train_batch_size=4, **EVERYTHING)
    assert trainer.padding_free, "packing no longer takes padding away, and is to be tested apart from it"
    folders = tmp_path, two_ranks / policy
    here, there = map(history, folders)
    assert len(here) == len(there) == 6
    for one, two in zip(here, there, strict=True):
        assert (one["from_step"], one["rows"], one["dropped"]) == (two["from_step"], two["rows"], two["dropped"])
        for part in ("share", "loss"):
            for name, value in one[part].items():
                assert value == (None if value is None else pytest.approx(two[part][name], rel=1e-5)), (part, name)
    if policy in GUARDED:
        both = (json.loads((folder / "run" / "guard.json").read_text())["history"] for folder in folders)
        changes = [[one["change"] for at in run for one in at["domains"].values()] for run in both]
        assert changes[0] == pytest.approx(changes[1], rel=1e-4) and len(changes[0]) == 6
    changed = {"tail_drop": "dropped", "self_paced": "dropped"}.get(policy)
    assert changed is None or any(entry[changed] for entry in here), "nothing was selected"


def test_the_method_chooses_the_same_again_on_two_ranks(tmp_path, two_ranks):
    selecting_again(tmp_path, **UNSAVED)
    folders = tmp_path, two_ranks / "again"
    here, there = (json.loads((folder / "run" / "policy.json").read_text())["selections"] for folder in folders)
    assert [entry["rows"] for entry in here] == [entry["rows"] for entry in there] and len(here) == 2


@pytest.mark.parametrize("policy", ["info_batch", "tail_drop"])
def test_a_killed_run_goes_on_with_the_very_batches_it_would_have_had(tmp_path, policy):
    whole = trained(tmp_path / "whole", policy, **SAVED)
    (ended,) = run_ranks(killed, tmp_path / "killed", policy, ranks=1, folder=tmp_path)
    assert ended.exitcode == -signal.SIGKILL, ended.log
    resumed = trained(tmp_path / "killed", policy, resume_from_checkpoint=True, **SAVED)
    assert losses(resumed)[-5:] == losses(whole)[-5:] and len(losses(whole)) == 9
    assert snapshot(resumed.model)["weights"] == snapshot(whole.model)["weights"]
    assert history(tmp_path / "killed") == history(tmp_path / "whole")
    missing = tmp_path / "killed" / "run" / "checkpoint-8" / "policy_state.json"
    assert missing.is_file()
    missing.unlink()
    assert "policy_state.json" in why_torn(missing.parent)
    with pytest.raises(ValueError, match="another `train_dataset`"):
        trained(tmp_path / "killed", policy, resume_from_checkpoint=True, **SAVED | {"train_dataset": sources(15)})
    with pytest.raises(ValueError, match="`selection_policy`"):
        trained(tmp_path / "killed", "domains", resume_from_checkpoint=True, **SAVED)


# --- What is told ---


def test_the_report_tells_a_run_with_a_policy_from_the_baseline(tmp_path, capsys):
    options = {"eval_dataset": sources(5), "max_steps": 2}
    for name in ("plain", "dropped"):
        policy = {"selection_policy": "tail_drop", "selection_policy_kwargs": {"schedule": "static"}}
        trainer = tiny_trainer(
            tmp_path / name, train_dataset=sources(), **options, **policy if name == "dropped" else {}
        )
        trainer.train()
    comparison = compare_runs([tmp_path / "plain" / "run", tmp_path / "dropped" / "run"])
    assert comparison.baseline.policy is None and [group.policy for group in comparison.groups] == [None, "tail_drop"]
    assert "`selection_policy`" in comparison.groups[1].differences(comparison.baseline)
    text = to_markdown(sections(comparison))
    assert "| full, tail_drop |" in text and "dropped by the policy tail_drop" in text
    assert "Share of each source in the weighted tokens" in text
    main(["methods", "tail_drop"])
    assert "Options (`selection_policy_kwargs`):\n  fraction = 0.5" in capsys.readouterr().out
    main(["methods", TABLE])
    assert "Options (`selection_policy_kwargs`):\n  values = None" in capsys.readouterr().out


def test_steps_in_which_all_rows_are_dropped_are_told(tmp_path, caplog):
    options = {"selection_policy_kwargs": {"fraction": 0.3}, "learning_rate": 1e-2, "max_steps": 4}
    trainer = trained(tmp_path, "tail_drop", per_device_train_batch_size=8, **options)
    empty = json.loads((trainer.run_folder / "policy.json").read_text())["steps_without_rows"]
    assert 0 < empty < 4 and f"`tail_drop` dropped all rows of {empty} of 4 steps" in caplog.text
