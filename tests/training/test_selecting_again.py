"""The method chooses again while the model trains: by the model as it is, among which rows, after a kill."""

import json
import signal

import numpy as np
import pytest
from datasets import Dataset
from transformers import TrainerCallback

from hf_dataselect.evaluation.comparison.comparison import Comparison
from hf_dataselect.evaluation.comparison.evaluated_runs import Group, Run
from hf_dataselect.evaluation.report.remarks import remarks
from hf_dataselect.evaluation.report.while_training import policy_lines
from hf_dataselect.features.loss import answer_loss
from tests.online import AGAIN, SAVED, UNSAVED, killed_selecting, selecting_again
from tests.processes import run_ranks
from tests.rows import layout
from tests.tiny_training import tiny_trainer
from tests.training.test_trainer import losses, snapshot


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
    assert group.policy == "again every 2 steps"
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


#: The later a row, the better; of every second one the prompt fills the window, so that it can't be trained on.
HALF = Dataset.from_list(
    [
        row | {"prompt": row["prompt"] * (1 + 20 * (i % 2)), "score": i}
        for i, row in enumerate(layout("prompt-completion", 20))
    ]
)
GROWING = {"method": "column", "train_dataset": HALF, "selection_budget": 8, "max_length": 48}
GROWING |= {"per_device_train_batch_size": 1, "selection_schedule": {"every": 2, "grow": 3}}


def tokens_of_rows(lines) -> np.ndarray:
    return np.bincount(np.concatenate(lines.rows_of(list(range(len(lines))))), minlength=20)


def test_packed_rows_grow_by_those_that_can_be_trained_on_and_a_round_serves_each_once(tmp_path):
    trainer = tiny_trainer(tmp_path, kwargs={"name": "score"}, packing=True, max_steps=8, **GROWING)
    trainer.prepare_subset()
    online, trainable = trainer.online, np.arange(0, 20, 2)
    assert online.pool.rows.tolist() == trainable.tolist() and len(online.pool.lines) >= 4
    assert trainer.selection.facts["rows_without_answer_in_window"] == 4  # of the rows 12 to 19
    whole = tokens_of_rows(online.pool.lines)
    assert tokens_of_rows(online.lines).tolist() == np.where(np.arange(20) >= 12, whole, 0).tolist()
    for rows in ([12, 13], [12, 12], [12, 20]):
        with pytest.raises(ValueError, match="2 rows are to be served, and only 1 different"):
            online.pool.of(np.array(rows))
    trainer.train()
    figures = online.figures(8)
    assert [entry["rows"] for entry in figures["selections"]] == [list(range(6, 20, 2)), trainable.tolist()]
    assert figures["rounds"] == 3, "once all are kept, a round serves all of them"
    served = np.flatnonzero(online.policy.state["seen"])
    assert set(served) <= set(trainable) and len(served) >= 7


def test_training_goes_on_where_no_other_row_passes_the_threshold(tmp_path, caplog):
    trainer = tiny_trainer(tmp_path, kwargs={"name": "score", "threshold": 13}, **GROWING)
    trainer.train()
    assert "worse than the threshold 13. The 3 rows kept before are trained on" in caplog.text
    assert trainer.online.policy.state["kept"].tolist() == [14, 16, 18] and trainer.state.global_step == 3


def test_a_guard_measures_beside_a_schedule_and_changes_nothing(tmp_path):
    held_out = layout("prompt-completion", 12, seed=7)
    guard = {"guard_dataset": {"a": held_out}, "eval_dataset": held_out.select(range(2))}
    guard |= {"eval_strategy": "steps", "eval_steps": 2}
    short = UNSAVED | {"max_steps": 3}
    plain = selecting_again(tmp_path / "plain", **short)
    guarded = selecting_again(tmp_path / "guarded", **short, **guard)
    one, two = ([entry["rows"] for entry in run.online.figures(3)["selections"]] for run in (plain, guarded))
    assert one == two and len(one) == 1 and losses(plain) == losses(guarded)
    written = json.loads((tmp_path / "guarded" / "run" / "guard.json").read_text())
    assert [entry["step"] for entry in written["history"]] == [2, 3]
    before, after = (np.array(written["domains"]["a"][name]) for name in ("losses_before", "losses"))
    assert np.isfinite(before).all() and (before != after).any()


def test_a_training_that_ends_before_the_first_selection_says_so(tmp_path, caplog):
    options = {"method": "random", "selection_schedule": {"every": 50}, "max_steps": 1}
    tiny_trainer(tmp_path, train_dataset=layout("prompt-completion", 20), **options).train()
    assert "training ends after 1 steps, before 50 are done" in caplog.text
    policy = json.loads((tmp_path / "run" / "policy.json").read_text())
    assert policy_lines(policy) == [("selected again while it trained", "0 times: the training ended before")]
