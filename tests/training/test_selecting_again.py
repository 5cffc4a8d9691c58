"""The method chooses again while the model trains: by the model as it is, among which rows, after a kill."""

import json
import signal

import numpy as np
from transformers import TrainerCallback

from hf_dataselect.evaluation.comparison.comparison import Comparison
from hf_dataselect.evaluation.comparison.evaluated_runs import Group, Run
from hf_dataselect.evaluation.report.remarks import remarks
from hf_dataselect.evaluation.report.while_training import policy_lines
from hf_dataselect.features.loss import answer_loss
from tests.online import (
    AGAIN,
    SAVED,
    killed_selecting,
    selecting_again,
)
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
