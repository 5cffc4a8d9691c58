"""Selecting while training: what a policy sees and changes of a step, and that it changes nothing else."""

import json
import signal
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PromptTuningConfig
from PIL import Image
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from hf_dataselect.card import Card
from hf_dataselect.cli.main import main
from hf_dataselect.compat.trl import weighing
from hf_dataselect.data.records import Records
from hf_dataselect.evaluation.comparison.comparison import Comparison, compare_runs
from hf_dataselect.evaluation.comparison.evaluated_runs import Group, Run
from hf_dataselect.evaluation.report.remarks import remarks
from hf_dataselect.evaluation.report.report import to_markdown
from hf_dataselect.evaluation.report.sections import sections
from hf_dataselect.evaluation.report.while_training import policy_lines
from hf_dataselect.features.loss import answer_loss
from hf_dataselect.policies.domains import Domains
from hf_dataselect.policies.info_batch import InfoBatch
from hf_dataselect.policies.loss_weight import weights_of
from hf_dataselect.policies.self_paced import SelfPaced
from hf_dataselect.policies.tail_drop import TailDrop
from hf_dataselect.policy import Policy, Seen
from hf_dataselect.training.checkpoints import why_torn
from hf_dataselect.training.config import DataSelectingConfig
from hf_dataselect.training.online.refusals import check_policy_rows
from tests.online import (
    AGAIN,
    EVERYTHING,
    POLICIES,
    SAVED,
    UNSAVED,
    killed,
    killed_selecting,
    on_rank,
    selecting_again,
    sources,
    trained,
)
from tests.processes import run_ranks, succeed
from tests.rows import layout
from tests.shared_data import golden
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
    trained(tmp_path, policy, per_device_train_batch_size=4, **EVERYTHING)
    here, there = history(tmp_path), history(two_ranks / policy)
    assert len(here) == len(there) == 6
    for one, two in zip(here, there, strict=True):
        assert (one["from_step"], one["rows"], one["dropped"]) == (two["from_step"], two["rows"], two["dropped"])
        for part in ("share", "loss"):
            for name, value in one[part].items():
                assert value == (None if value is None else pytest.approx(two[part][name], rel=1e-5)), (part, name)
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


# --- Selecting again ---


class Watch(TrainerCallback):
    """What the method should choose at each step that is followed by a selection: the rows of the highest losses."""

    def __init__(self):
        self.expected = {}

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step in (2, 4):
            loss = answer_loss(self.trainer.records, self.trainer.context(cached=False)).mean
            self.expected[state.global_step] = np.sort(np.argsort(-loss)[:5]).tolist()


def test_the_method_chooses_again_by_the_model_as_it_is_and_a_kill_while_it_does_changes_nothing(tmp_path):
    watch = Watch()
    rows, options = layout("prompt-completion", 20), AGAIN | SAVED
    whole = tiny_trainer(tmp_path / "whole", train_dataset=rows, callbacks=[watch], **options)
    watch.trainer = whole
    whole.train()
    written = json.loads((tmp_path / "whole" / "run" / "policy.json").read_text())["selections"]
    assert [entry["step"] for entry in written] == [2, 4, 6, 8]
    assert {entry["step"]: entry["rows"] for entry in written[:2]} == watch.expected
    first = np.sort(whole.selection.indices)
    assert written[0]["overlap"] == np.isin(written[0]["rows"], first).mean() and written[0]["rows"] != first.tolist()
    assert whole.selection.seconds >= sum(entry["seconds"] for entry in written) > 0
    policy = json.loads((tmp_path / "whole" / "run" / "policy.json").read_text())
    group = Group("one", [Run("one", whole.selection, {}, None, policy=policy)])
    assert group.policy == "again every 2"
    said = " ".join(remarks(Comparison([group], None)))
    assert f"it trained on {policy['rows']['served']} rows" in said and 5 < policy["rows"]["served"] <= 20
    (line,) = policy_lines(policy)
    assert line[1].startswith("4 times in ")
    assert all(entry["unscorable"] == {} and entry["untrainable"] == 0 for entry in written)
    rates = [entry["learning_rate"] for entry in whole.state.log_history if "loss" in entry]
    np.testing.assert_allclose(rates, 1e-2 * (1 - np.arange(9) / 9))  # as if nothing had happened
    (ended,) = run_ranks(killed_selecting, tmp_path / "killed", ranks=1, folder=tmp_path)
    assert ended.exitcode == -signal.SIGKILL, ended.log
    resumed = selecting_again(tmp_path / "killed", resume_from_checkpoint=True)
    again = json.loads((tmp_path / "killed" / "run" / "policy.json").read_text())["selections"]
    assert [entry["rows"] for entry in again] == [entry["rows"] for entry in written]
    assert losses(resumed)[-5:] == losses(whole)[-5:]
    assert snapshot(resumed.model)["weights"] == snapshot(whole.model)["weights"]


def test_rows_that_were_trained_on_are_left_out_until_too_few_are_left(tmp_path, caplog):
    schedule = {"every": 1.0, "exclude_seen": True}
    options = {"selection_schedule": schedule, "selection_budget": 8, "per_device_train_batch_size": 8}
    options |= {"max_steps": 6, "save_strategy": "no"}
    trainer = selecting_again(tmp_path, **options)
    entries = trainer.online.figures(6)["selections"]
    served = [np.sort(trainer.selection.indices).tolist(), *(entry["rows"] for entry in entries)]
    assert [len(kept) for kept in served] == [8] * 6
    assert [entry["candidates"] for entry in entries] == [12, 20, 12, 20, 12]  # 4 are fewer than 8: from all again
    assert [entry["began_anew"] for entry in entries] == [False, True, False, True, False]
    assert [len({*one} & {*two}) for one, two in zip(served[::2], served[1::2], strict=True)] == [0, 0, 0]
    assert caplog.text.count("exclude_seen leaves 4 rows, too few to choose 8 among") == 1


# --- What is refused ---

UNSEEN = {"selection_policy": None, "method": "perplexity", "selection_schedule": {"every": 2, "exclude_seen": True}}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"selection_policy": "tail_dorp"}, "did you mean 'tail_drop'"),
        ({"selection_policy_kwargs": {"fracton": 1}}, "did you mean 'fraction'"),
        ({"selection_policy_kwargs": {"fraction": 1.5}}, r"fraction=1.5 must be in \[0, 1\)"),
        ({"selection_policy": None, "selection_policy_kwargs": {"fraction": 0.5}}, "give `selection_policy`"),
        ({"selection_schedule": {"every": 2}}, "can't be used together with `selection_schedule`"),
        ({"selection_policy": None, "selection_schedule": {"every": 2}}, "`full` keeps every row each time"),
        ({"selection_policy": None, "selection_schedule": "often"}, "must be 'once' or a mapping"),
        ({"selection_policy": None, "selection_schedule": {"evry": 2}}, "needs `every`"),
        ({"selection_policy": None, "selection_schedule": {"every": 0}}, "every=0.0 must be"),
        ({**UNSEEN, "selection_budget_by": "source"}, "`selection_budget_by='source'`: a group may have no rows left"),
        ({**UNSEEN, "selection_budget": "score >= 2"}, "`selection_budget='score >= 2"),
        ({**UNSEEN, "selection_budget": "2k tokens"}, "keeps as many rows each time"),
        ({"loss_type": "dft"}, "`loss_type=dft`"),
        ({"label_smoothing_factor": 0.1}, "`label_smoothing_factor=0.1`"),
        ({"auto_find_batch_size": True}, "`auto_find_batch_size=True`"),
        ({"use_liger_kernel": True}, "`use_liger_kernel=True`"),
        ({"train_sampling_strategy": "group_by_length"}, "`train_sampling_strategy=group_by_length`"),
        ({"ignore_data_skip": True}, "`ignore_data_skip=True`"),
        ({"dataset_kwargs": {"skip_prepare_dataset": True}}, "skip_prepare_dataset"),
        ({"train_dataset": Dataset.from_dict({"input_ids": [[5, 6, 7]] * 4})}, "give them untokenized"),
        ({"peft_config": PromptTuningConfig(task_type="CAUSAL_LM")}, "learns a prompt"),
        ({"selection_policy": "domains", "selection_policy_kwargs": {"column": "sauce"}}, "did you mean 'source'"),
        ({"selection_policy": "domains", "selection_policy_kwargs": {"prefer": {"z": 2}}}, "prefer names 'z'"),
        (
            {"selection_policy": "domains", "selection_policy_kwargs": {"prefer": {"a": -1}}},
            "must be a positive number",
        ),
    ],
)
def test_what_a_policy_can_t_be_used_with_is_refused_by_name(tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        tiny_trainer(tmp_path, **{"selection_policy": "tail_drop", "train_dataset": sources(), **options})


def test_a_trl_that_does_not_tell_the_losses_of_tokens_is_refused(tmp_path, monkeypatch):
    monkeypatch.delattr("trl.trainer.utils.FusedCausalLMOutput")
    with pytest.raises(ImportError, match="does not have `trl.trainer.utils.FusedCausalLMOutput`"):
        DataSelectingConfig(str(tmp_path), selection_policy="self_paced", use_cpu=True, bf16=False)
    with pytest.raises(ImportError, match="does not have `object.log_probs`"):
        weighing(lambda: object(), None)()


def test_rows_with_images_are_refused(tmp_path):
    picture = Image.new("RGB", (8, 8))
    records = Records(Dataset.from_list([row | {"image": picture} for row in sources()]))
    args = DataSelectingConfig(str(tmp_path), selection_policy="self_paced", use_cpu=True, bf16=False)
    with pytest.raises(ValueError, match="rows with images"):
        check_policy_rows(args, records, None, {})


# --- The rules ---


def test_flow_weighs_as_its_authors_do():
    found = golden("flow")
    loss, weights = (np.array([row[name] for row in found["rows"]]) for name in ("mean_loss", "weight"))
    np.testing.assert_allclose(weights_of(loss), weights, atol=found["tolerance"]["weight"]["absolute"])
    assert weights_of(np.array([1.0, np.nan, 1.0])).tolist() == [np.exp(-1), 1.0, np.exp(-1)]
    assert weights_of(np.full(2, np.nan)).tolist() == [1.0, 1.0]
    tokens = [len(row["ids"]) - row["n_prompt"] for row in found["rows"]]
    assert (weights_of(loss) * loss * tokens).sum() / sum(tokens) == pytest.approx(found["weighted_loss"], rel=1e-4)


def test_the_losses_of_flow_are_those_of_the_model_before_training(tmp_path):
    rows = sources()
    trainer = tiny_trainer(tmp_path, selection_policy="loss_weight", train_dataset=rows, max_steps=1)
    expected = by_row(trainer, rows)
    trainer.train()
    weights = weights_of(np.array([loss for loss, _ in expected.values()]))
    np.testing.assert_allclose(trainer.online.policy.state["weights"], weights, rtol=1e-5)
    assert trainer.selection.seconds >= trainer.online.prepared_in > 0


@pytest.mark.parametrize("number", [0, 1])
def test_info_batch_prunes_as_its_authors_do(number):
    case = golden("infobatch")["cases"][number]
    policy = InfoBatch(case["prune_ratio"], case["delta"])
    rows = np.arange(case["rows"])
    policy.state["losses"] = np.full(len(rows), np.nan)
    for epoch in case["log"]:
        number, random = epoch["epoch"], np.random.RandomState(epoch["epoch"] + 1)
        pruned = number + 1 <= case["epochs"] * case["delta"]
        chosen, factors = policy.choose(rows, 0.0 if pruned else 1.0, random)
        random.shuffle(order := chosen.copy())
        assert order.tolist() == epoch["order"]
        weights = factors[np.argsort(chosen)][np.searchsorted(np.sort(chosen), order)]
        if pruned:  # the authors keep stale weights after that, in the case that is about it
            np.testing.assert_allclose(weights, epoch["weights"], rtol=1e-6)
        else:
            assert (weights == 1).all()
        losses = np.array(case["losses"][number])[np.sort(order)]
        policy.observe(Seen(1, 2, np.sort(order), losses, np.ones(len(order))))


def test_cuts_drop_the_part_that_is_asked_for_while_the_loss_falls():
    draw, steps, n = np.random.default_rng(0), 200, 1000
    for policy in (TailDrop(0.4, "static"), SelfPaced(start=0.6, full_at=1.0)):
        policy.state["before"] = np.full(n, 3.0)
        parts, weights = [], []
        for step in range(1, steps + 1):
            rows = np.sort(draw.choice(n, 16, replace=False))
            losses = 1 + 2 * np.exp(-step / 20) + draw.gamma(2, 0.4, 16)  # skewed, and falling fast
            given = policy.weights(rows, torch.from_numpy(losses)).numpy()
            low = losses if isinstance(policy, TailDrop) else -losses
            assert not given.any() or low[given == 0].max(initial=-np.inf) <= low[given > 0].min()
            parts.append((given == 0).mean() - policy.part((step - 1) / (steps - 1)))
            weights.append(given.mean())
            policy.observe(Seen(step, steps, rows, losses, np.full(16, 50.0)))
        assert abs(np.mean(parts)) < 0.02 and np.mean(weights) == pytest.approx(1, abs=0.05)


def test_domains_gain_weight_where_they_learn_least_and_lose_it_again(tmp_path):
    policy, records = Domains(prefer={"c": 2}), Records(sources(100))
    policy.prepare(records, np.arange(100), None)
    of_row = policy.state["of_row"]
    shares = np.bincount(of_row) / 100

    def weights() -> np.ndarray:
        given = policy.weights(np.arange(100), torch.zeros(100)).numpy()
        assert given.mean() == pytest.approx(1)
        return np.bincount(of_row, given) / np.bincount(of_row)

    np.testing.assert_allclose(weights(), np.array([1, 1, 2]) / (shares * [1, 1, 2]).sum(), rtol=1e-6)
    for step in range(1, 101):  # `a` stays where it was, until the others have nothing left to learn either
        losses = np.where(of_row == 0, 3.0, 3.0 * max(0.5, 1 - (step - 1) / 50))
        policy.observe(Seen(step, 400, np.arange(100), losses, np.full(100, 10.0)))
        if step == 30:
            early = weights()
    assert early[0] > 1.2 * early[1] and early[2] == pytest.approx(2 * early[1])
    for step in range(101, 400):
        policy.observe(Seen(step, 400, np.arange(100), np.full(100, 1.5), np.full(100, 10.0)))
    assert weights()[0] == pytest.approx(weights()[1], rel=0.01)


def test_a_row_without_a_loss_before_training_weighs_one():
    policy = TailDrop(0.5, "static")
    policy.state |= {"before": np.array([1.0, np.nan, 1.0]), "cut": -0.5, "factor": 2.0}
    assert policy.weights(np.arange(3), torch.tensor([0.0, 0.0, 1.0])).tolist() == [0.0, 1.0, 2.0]


def test_domains_say_that_rows_kept_are_of_one_and_which_have_none(caplog):
    policy, records = Domains(prefer={"c": 2}), Records(sources())
    policy.check(records)
    policy.prepare(records, np.array([0, 4]), None)
    assert "all rows kept are of 'a'" in caplog.text and "prefer names c, of which no row was kept" in caplog.text
    assert policy.weights(np.array([0, 4]), torch.zeros(2)).tolist() == [1, 1]


# --- what is told ---


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
