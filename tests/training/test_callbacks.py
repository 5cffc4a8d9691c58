"""What reaches the trackers, and when."""

import json

import pytest
from datasets import Dataset
from transformers import EarlyStoppingCallback, TrainerCallback

from hf_dataselect.training.checkpoints import record
from tests.engines.runtime.test_cached_map import Clock
from tests.rows import alpaca
from tests.run_folders import as_earlier_version, edit
from tests.tiny_training import tiny_trainer


@pytest.fixture
def baseline(tmp_path):
    trainer = tiny_trainer(tmp_path / "bm", eval_dataset=alpaca(12, seed=9))
    trainer.train()
    return tmp_path / "bm" / "run"


def entries(trainer, key: str) -> list:
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def test_pir_is_logged_at_every_evaluation_and_at_the_end(tmp_path, baseline):
    options = {"baseline_dir": str(baseline), "eval_dataset": alpaca(12, seed=9), "selection_budget": 6}
    trainer = tiny_trainer(tmp_path, "random", eval_strategy="steps", eval_steps=2, **options)
    trainer.train()
    assert len(entries(trainer, "pir")) == 2 == len(entries(trainer, "pir/answer_loss"))  # steps 2 and 3
    assert set(entries(trainer, "sdf")) == {0.25}
    assert len(entries(trainer, "pir_low")) == len(entries(trainer, "pir_high")) == 2
    mine = json.loads((tmp_path / "run" / "eval.json").read_text())
    other = json.loads((baseline / "eval.json").read_text())
    loss = [run["settings"]["answer_loss"]["score"] for run in (other, mine)]
    accuracy = [run["settings"]["token_accuracy"]["score"] for run in (mine, other)]
    assert mine["pir"]["settings"]["answer_loss"] == pytest.approx(loss[0] / loss[1])
    if accuracy[0] and accuracy[1]:
        assert mine["pir"]["settings"]["token_accuracy"] == pytest.approx(accuracy[0] / accuracy[1])
    else:
        assert "token_accuracy" in mine["pir"]["left_out"]
    seconds = trainer.selection.seconds / other["train_seconds"]
    assert other["train_seconds"] != mine["train_seconds"] and mine["str"] == pytest.approx(seconds)
    assert entries(trainer, "str") == pytest.approx([seconds] * 2) and mine["sdf"] == 0.25
    assert [entry["step"] for entry in mine["history"]] == [2, 3]
    lengths = [len(ids) for ids in trainer.train_dataset["input_ids"]]
    assert len(lengths) == 6 and mine["train_tokens"] == sum(lengths) < other["train_tokens"]


class Passes(TrainerCallback):
    """A second for each step, and a hundred for each evaluation."""

    def __init__(self, clock: Clock):
        self.clock = clock

    def on_step_end(self, *given, **options):
        self.clock.now += 1

    def on_evaluate(self, *given, **options):
        self.clock.now += 100


def test_evaluations_and_records_of_checkpoints_do_not_count_as_training_time(tmp_path, monkeypatch):
    clock = Clock()
    for module in ("callbacks", "trainer"):
        monkeypatch.setattr(f"hf_dataselect.training.{module}.time", clock)
    often = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 2, "max_steps": 4}

    def recorded(*given):
        record(*given)
        clock.now += 1000

    monkeypatch.setattr("hf_dataselect.training.callbacks.record", recorded)
    trainer = tiny_trainer(tmp_path, eval_dataset=alpaca(4, seed=7), callbacks=[Passes(clock)], **often)
    trainer.evaluate()  # before the run
    trainer.train()
    assert clock.now == 4 + 500 + 2000
    assert json.loads((tmp_path / "run" / "eval.json").read_text())["train_seconds"] == 4
    assert json.loads((tmp_path / "run" / "checkpoint-2" / "train_seconds.json").read_text())["seconds"] == 2


def test_selecting_that_costs_more_than_training_on_everything_is_warned_of(tmp_path, baseline, caplog):
    edit(baseline / "eval.json", train_seconds=1e-9)
    tiny_trainer(tmp_path, "random", baseline_dir=str(baseline), eval_dataset=alpaca(12, seed=9)).train()
    assert "times as long as training on everything (STR above 1)" in caplog.text


def test_the_numbers_reach_tensorboard_in_the_run_folder(tmp_path, baseline, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    options = {"baseline_dir": str(baseline), "eval_dataset": alpaca(12, seed=9), "selection_budget": 6}
    tiny_trainer(tmp_path, "random", **{"report_to": "tensorboard", **options}).train()
    (file,) = tmp_path.rglob("events*")
    assert file.is_relative_to(tmp_path / "run" / "runs")
    events = EventAccumulator(str(file))
    events.Reload()
    found = set(events.Tags()["scalars"])
    assert {"train/pir", "train/sdf", "train/str", "train/pir/answer_loss", "train/selection_seconds"} <= found


def test_every_tracker_is_set_up_before_it_is_given_numbers(tmp_path):
    calls = []

    class Tracker(TrainerCallback):
        def on_train_begin(self, *args, **kwargs):
            calls.append("begin")

        def on_log(self, *args, logs, **kwargs):
            calls.append("sdf" if "sdf" in logs else "log")

        def on_train_end(self, *args, **kwargs):
            calls.append("end")

    trainer = tiny_trainer(tmp_path, "random", selection_budget=6, callbacks=[Tracker()])
    trainer.add_callback(Tracker)
    trainer.train()
    first, second = calls[::2], calls[1::2]
    assert first == second == ["begin", "sdf", *["log"] * 4, "end"]
    trainer.train()
    assert calls.count("sdf") == 4, "once a training"


def test_several_sets_of_evaluation_rows_are_told_apart(tmp_path):
    rows = {"one": alpaca(4, seed=7), "two": alpaca(4, seed=8)}
    trainer = tiny_trainer(tmp_path, eval_dataset=rows, eval_strategy="steps", eval_steps=3)
    trainer.train()
    settings = json.loads((tmp_path / "run" / "eval.json").read_text())["settings"]
    assert {"one/answer_loss", "two/answer_loss", "one/token_accuracy", "two/token_accuracy"} == set(settings)
    assert len(entries(trainer, "benchmark/one/answer_loss")) == 1


def test_generated_answers_are_scored(tmp_path):
    options = {"benchmark_metrics": ["exact_match"], "benchmark_max_new_tokens": 4}
    trainer = tiny_trainer(tmp_path, eval_dataset=alpaca(4, seed=7), **options)
    trainer.train()
    setting = json.loads((tmp_path / "run" / "eval.json").read_text())["settings"]["exact_match"]
    assert setting["higher_is_better"] and len(setting["examples"]) == 4


def test_held_out_rows_that_cannot_be_scored_are_counted(tmp_path):
    rows = alpaca(4, seed=7).to_list()
    rows[1]["output"] = ""
    trainer = tiny_trainer(tmp_path, eval_dataset=Dataset.from_list(rows))
    trainer.train()
    evaluation = json.loads((tmp_path / "run" / "eval.json").read_text())
    assert evaluation["unscorable"] == {"no answer": [1]}
    assert evaluation["settings"]["answer_loss"]["examples"][1] is None


def test_answer_loss_is_what_training_sees(tmp_path):
    trainer = tiny_trainer(tmp_path, eval_dataset=alpaca(1, seed=7))
    trainer.train()
    settings = json.loads((tmp_path / "run" / "eval.json").read_text())["settings"]
    # One row, so TRL's token mean is the row's mean; TRL also counts the newline after the end of turn.
    assert settings["answer_loss"]["score"] == pytest.approx(trainer.evaluate()["eval_loss"], rel=0.2)


def test_an_evaluation_before_any_selection_only_logs(tmp_path):
    trainer = tiny_trainer(tmp_path, "random", eval_dataset=alpaca(4, seed=7))
    trainer.evaluate()
    assert len(entries(trainer, "benchmark/answer_loss")) == 1 and not (tmp_path / "run" / "eval.json").exists()
    trainer.train()
    assert [e["step"] for e in json.loads((tmp_path / "run" / "eval.json").read_text())["history"]] == [0, 3]


@pytest.mark.parametrize(
    ("version", "processes", "last", "refused"),
    [("0.1.0", 2, 3, True), ("0.1.0", 1, 3, False), ("0.1.1", 2, 3, False), ("0.1.0", 2, 2, False)],
)
def test_a_baseline_whose_ranks_diverged_in_an_earlier_version_is_refused(tmp_path, version, processes, last, refused):
    options = {"eval_dataset": alpaca(12, seed=9), "eval_strategy": "steps", "eval_steps": 2, "max_steps": last}
    tiny_trainer(tmp_path / "bm", **options).train()
    folder = tmp_path / "bm" / "run"
    facts = json.loads((folder / "selection.json").read_text())["facts"] | {"processes": processes}
    as_earlier_version(folder, versions={"hf_dataselect": version}, selection={"facts": facts})
    if refused:
        with pytest.raises(ValueError, match="averaging gradients"):
            tiny_trainer(tmp_path, "random", baseline_dir=str(folder), **options)
    else:
        tiny_trainer(tmp_path, "random", baseline_dir=str(folder), **options)


def test_a_baseline_whose_ranks_hold_different_weights_is_refused(tmp_path, baseline):
    evaluation = json.loads((baseline / "eval.json").read_text())
    assert evaluation["ranks_agree"] is True
    edit(baseline / "eval.json", ranks_agree=False)
    with pytest.raises(ValueError, match="different models"):
        tiny_trainer(tmp_path, "random", baseline_dir=str(baseline), eval_dataset=alpaca(12, seed=9))


def test_a_baseline_of_another_evaluation_is_refused(tmp_path, baseline):
    with pytest.raises(ValueError, match="not evaluated on the same rows"):
        tiny_trainer(tmp_path, "random", baseline_dir=str(baseline), eval_dataset=alpaca(6, seed=10))
    with pytest.raises(ValueError, match="needs an `eval_dataset`"):
        tiny_trainer(tmp_path, "random", baseline_dir=str(baseline))


def test_a_prompt_too_long_to_answer_is_counted_and_loses_nothing(tmp_path):
    rows = alpaca(4, seed=7).to_list()
    rows[2]["instruction"] = "long " * 300
    options = {"benchmark_metrics": ["exact_match"], "benchmark_max_new_tokens": 4, "max_length": None}
    trainer = tiny_trainer(tmp_path, eval_dataset=Dataset.from_list(rows), **options)
    trainer.model.config.max_position_embeddings = 512
    trainer.train()
    evaluation = json.loads((tmp_path / "run" / "eval.json").read_text())
    assert evaluation["unscorable"] == {"the prompt is empty or too long": [2]}


def test_the_best_model_is_the_one_that_is_scored(tmp_path):
    options = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": True}
    best |= {"guard_dataset": {"a": alpaca(10, seed=8)}}
    trainer = tiny_trainer(tmp_path, eval_dataset=alpaca(4, seed=7), **options, **best)
    trainer.train()
    written, guarded = (json.loads((tmp_path / "run" / name).read_text()) for name in ("eval.json", "guard.json"))
    final, history = written["settings"]["answer_loss"]["score"], written["history"]
    losses = [entry["benchmark/answer_loss"] for entry in history]
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-1") and final == pytest.approx(losses[0], rel=1e-5)
    assert [(entry["step"], round(12 * entry["epoch"])) for entry in history] == [(1, 1), (2, 2), (3, 3)]
    assert losses == pytest.approx(entries(trainer, "benchmark/answer_loss")[:3]), "the last step keeps its own score"
    trainer.evaluate()  # by hand: still the best model
    assert json.loads((tmp_path / "run" / "eval.json").read_text())["history"] == history
    assert json.loads((tmp_path / "run" / "guard.json").read_text())["history"] == guarded["history"]
    at_the_end = guarded["domains"]["a"]["change"]
    changes = [entry["domains"]["a"]["change"] for entry in guarded["history"]]
    assert len(changes) == 3 and at_the_end == pytest.approx(changes[0], rel=1e-4) != pytest.approx(changes[2])


def test_the_best_model_can_be_the_one_with_the_highest_pir(tmp_path, baseline):
    """Early stopping reads it too: a learning rate that rises from 0 to this makes later steps worse ones."""
    options = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "max_steps": 4}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "pir", "baseline_dir": str(baseline)}
    options |= best | {"learning_rate": 3.0, "warmup_steps": 2, "selection_budget": 6}
    stops = [EarlyStoppingCallback(early_stopping_patience=2)]
    trainer = tiny_trainer(tmp_path, "random", eval_dataset=alpaca(12, seed=9), callbacks=stops, **options)
    trainer.train()
    *pirs, final = entries(trainer, "pir")
    assert len(pirs) == 3 and max(pirs) == pirs[0] and pirs[0] > pirs[2]
    assert trainer.state.best_metric == pirs[0] and trainer.state.best_model_checkpoint.endswith("checkpoint-1")
    assert final == pytest.approx(pirs[0]) == json.loads((tmp_path / "run" / "eval.json").read_text())["pir"]["value"]
    assert trainer.evaluate()["eval_pir"] == pytest.approx(final)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "needs `baseline_dir`"),
        ({"baseline_dir": "bm", "eval_dataset": None}, "needs an `eval_dataset`"),
        ({"baseline_dir": "bm", "greater_is_better": False}, "would keep the worst"),
        (
            {"baseline_dir": "bm", "fsdp": True, "fsdp_config": {"version": 1}},
            "can't run on a model that FSDP1 shards",
        ),
    ],
)
def test_the_best_model_by_pir_is_refused_where_it_has_none(tmp_path, options, why):
    given = {"metric_for_best_model": "pir", "eval_dataset": alpaca(4, seed=7)} | options
    with pytest.raises(ValueError, match=f"`metric_for_best_model='pir'`.*{why}"):
        tiny_trainer(tmp_path, **given)


def test_the_history_goes_on_after_a_resume(tmp_path):
    options = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    tiny_trainer(tmp_path, eval_dataset=alpaca(4, seed=7), **options).train()
    resumed = tiny_trainer(tmp_path, eval_dataset=alpaca(4, seed=7), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    history = json.loads((tmp_path / "run" / "eval.json").read_text())["history"]
    assert [entry["step"] for entry in history] == [1, 2, 3]
    resumed.args.max_steps = 1
    resumed.train()
    history = json.loads((tmp_path / "run" / "eval.json").read_text())["history"]
    assert [entry["step"] for entry in history] == [1], "a training anew has a history of its own"
