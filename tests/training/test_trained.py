"""What training did is in `eval.json`, as it was."""

import json
from pathlib import Path

import pytest
from transformers import TrainerCallback

from hf_dataselect.training.trained import KEY
from tests.rows import alpaca
from tests.run_folders import as_earlier_version
from tests.tiny_training import tiny_trainer, watch_training


class Counts(TrainerCallback):
    """Counts updates; `stop` ends training after so many."""

    def __init__(self, stop: int | None = None):
        self.updates, self.stop = 0, stop

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.updates += 1

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = control.should_training_stop or self.updates == self.stop


def trained(folder: Path) -> dict:
    return json.loads((folder / "run" / "eval.json").read_text())["trained"]


EPOCHS = {"max_steps": -1, "num_train_epochs": 2, "gradient_accumulation_steps": 2, "selection_budget": 10}


def test_what_training_did_is_recorded(tmp_path, monkeypatch):
    """10 rows in updates of 4, twice; the last update of an epoch has 2."""
    seen, counts = watch_training(monkeypatch), Counts()
    schedule = {"warmup_steps": 4, "learning_rate": 4e-3}
    tiny_trainer(tmp_path, "random", callbacks=[counts], **EPOCHS, **schedule).train()
    tokens = sum(len(ids) for ids, _ in seen)
    assert counts.updates == 6 and len(seen) == 20
    found = trained(tmp_path)
    assert found.pop("learning_rate") == pytest.approx(4e-3)
    assert found == {
        **{"updates": 6, "epochs": 2.0, "tokens": tokens},
        **{"ranks": 1, "batch_size": 4, "max_length": 128},
    }


def test_a_run_that_stops_early_records_what_it_did(tmp_path, monkeypatch):
    seen, counts = watch_training(monkeypatch), Counts(stop=4)
    trainer = tiny_trainer(tmp_path, "random", callbacks=[counts], **EPOCHS, warmup_steps=5, max_length=None)
    trainer.train()
    found = trained(tmp_path)
    assert found["updates"] == counts.updates == 4 and found["tokens"] == sum(len(ids) for ids, _ in seen)
    assert found["epochs"] == pytest.approx(1 + 2 / 5) and found["max_length"] is None
    assert found["learning_rate"] == pytest.approx(1e-2 * 3 / 5), "it never reached the rate of its options"
    counts.stop = None
    trainer.train()
    assert trained(tmp_path)["updates"] == 6 and trained(tmp_path)["tokens"] < 2 * found["tokens"], "counted anew"


def test_a_resumed_run_records_all_its_parts(tmp_path):
    schedule = {**EPOCHS, "lr_scheduler_type": "cosine", "save_strategy": "steps", "save_steps": 2}
    tiny_trainer(tmp_path, "random", **schedule).train()
    whole = trained(tmp_path)
    assert whole["learning_rate"] == 1e-2
    for folder, step in ((tmp_path, 4), (tmp_path / "elsewhere", 6)):  # the last has no update left
        resumed = tiny_trainer(folder, "random", **schedule)
        resumed.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{step}"))
        assert trained(folder) == whole
    again = tiny_trainer(tmp_path, "random", **schedule | {"max_length": 100})
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    assert trained(tmp_path) == whole | {"max_length": [128, 100]}


def test_a_checkpoint_without_these_figures_leaves_unknown_what_it_cannot_tell(tmp_path):
    schedule = {**EPOCHS, "save_strategy": "steps", "save_steps": 2}
    tiny_trainer(tmp_path, "random", **schedule).train()
    whole, path = trained(tmp_path), tmp_path / "run" / "checkpoint-2" / "trainer_state.json"
    as_earlier_version(tmp_path / "run")
    state = json.loads(path.read_text())
    del state["stateful_callbacks"][KEY]
    path.write_text(json.dumps(state))
    tiny_trainer(tmp_path, "random", **schedule).train(resume_from_checkpoint=str(path.parent))
    assert trained(tmp_path) == whole | {"tokens": None, "learning_rate": None}


def test_training_otherwise_than_the_baseline_is_warned_of(tmp_path, caplog):
    rows, warned = alpaca(4, seed=9), "Trained otherwise than `baseline_dir`, not only on other rows: "
    tiny_trainer(tmp_path / "bm", eval_dataset=rows, **EPOCHS | {"selection_budget": None}).train()
    baseline = {"baseline_dir": str(tmp_path / "bm" / "run"), "eval_dataset": rows}
    tiny_trainer(tmp_path, "random", **EPOCHS, **baseline).train()
    assert warned not in caplog.text
    options = {"learning_rate": 0.1, "max_length": None, "per_device_train_batch_size": 1}
    tiny_trainer(tmp_path, "random", callbacks=[Counts(stop=4)], **EPOCHS | baseline | options).train()
    assert (
        f"{warned}epochs trained (0.8 against 2), effective batch size (2 against 4), peak learning rate (0.1 against "
        "0.01), `max_length` (none against 128)."
    ) in caplog.text
