"""`auto`: finds what is planted, claims nothing where nothing is, keeps to its time, and goes on after a kill."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from benchmarks.auto_claims import Simulated, decide
from hf_dataselect import select_dataset
from hf_dataselect.data.records import Records
from hf_dataselect.data.targets import load_target
from hf_dataselect.engines.store.checked import read_lines
from hf_dataselect.evaluation.audit.estimate import Estimate
from hf_dataselect.features.tuned_loss import TunedLoss
from hf_dataselect.fitted import subset_losses
from hf_dataselect.fitted.subset_losses import Measured
from hf_dataselect.plan import SelectionPlan
from hf_dataselect.registry import load_selector
from hf_dataselect.selectors.auto import ROUNDS, halving
from hf_dataselect.selectors.random import Random
from hf_dataselect.training.trial_plan import plan_trials
from hf_dataselect.training.trials import with_trials
from tests.rows import alpaca
from tests.tiny import context_of, tiny_model, tiny_tokenizer
from tests.tiny_training import tiny_trainer
from tests.training.test_audit import PLANTED, planted_rows


# With a trainer ------------------------------------------------------------------------------------------------------

NOISE = np.random.default_rng(3).permutation(60).astype(float).tolist()
POOL, HELD_OUT = Dataset.from_list(planted_rows(60, 24)), Dataset.from_list(planted_rows(8, 8, 1))
POOL = POOL.add_column("noise", NOISE)
OPTIONS = {"max_steps": 2, "learning_rate": 3e-3, "per_device_train_batch_size": 8, "selection_budget": 8}


def trainer(folder: Path, methods: list, seconds: float | None = 1e6, **options):
    kwargs = {"methods": methods} | ({} if seconds is None else {"auto_budget": seconds})
    options = {"train_dataset": POOL, "eval_dataset": HELD_OUT} | OPTIONS | options
    return tiny_trainer(folder, "auto", kwargs, **options)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a selection that was killed in the middle and went on."""
    folder, written = tmp_path_factory.mktemp("auto"), []

    class Killed(BaseException):
        pass

    def add(store, number, rows, *given, add=subset_losses.SubsetLosses._add):
        add(store, number, rows, *given)
        written.append((store.settings, tuple(rows)))
        if len(written) == 5:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subset_losses.SubsetLosses, "_add", add)
        made = trainer(folder, [PLANTED, "length"])
        with pytest.raises(Killed):
            made.select()
        made.select()
    assert len(written) == len(set(written)) == 8 + halving(2) == 8 + 2 + 1 + 1 + 1
    return folder


def test_what_is_planted_is_found_and_the_seconds_of_a_killed_process_count(run):
    found = json.loads((run / "run" / "selection.json").read_text())
    figures = found["facts"]["figures"]
    assert all(POOL[row]["planted"] for row in found["indices"]) and len(found["indices"]) == 8
    assert figures["chosen"].startswith("planted: its rows lower the held-out loss by")
    assert figures["gain over random rows"].startswith("planted ") and "; length -" in figures["gain over random rows"]
    assert figures["decided by"] == "8 of 8 rows of `eval_dataset`, on which the run is evaluated, too"
    assert "13 trainings on 8 rows" in figures["trials"] and "of 1000000 seconds" in figures["trials"]
    lines = list(read_lines(run / "run" / "subsets.jsonl"))
    assert found["cached_seconds"] == pytest.approx(sum(line["spent"] for line in lines[:5]), rel=1e-6)
    assert found["seconds"] > found["cached_seconds"] > 0


def test_random_rows_are_those_of_a_run_of_random_where_nothing_helps(run):
    method = {"method": "column", "selection_kwargs": {"name": "noise"}, "name": "noise"}
    selection = trainer(run, [method]).select()
    figures = selection.facts["figures"]
    assert figures["chosen"].startswith("random: none of 1 methods lowers the held-out loss beyond chance")
    assert "time was up" not in figures["chosen"]
    control = tiny_trainer(run / "control", "random", train_dataset=POOL, **OPTIONS).select()
    assert selection.indices.tolist() == control.indices.tolist()
    assert selection.method == "auto" and selection.options["methods"] == [method]


def test_it_stops_when_the_time_is_up_and_says_what_was_not_tried(run):
    figures = trainer(run, [PLANTED, "length"], seconds=1e-3).select().facts["figures"]
    assert figures["chosen"] == "random: no method was tried, since the time was up"
    assert (
        figures["not tried"] == "planted (time); length (time)"
        and figures["trials"].startswith("1 trainings")
        and "nan" not in str(figures)
    )
    # By default it may take as long as training on the whole pool, which here costs as many steps as on a subset.
    figures = trainer(run, ["length"], seconds=None).select().facts["figures"]
    assert (
        figures["chosen"].endswith("the time was up")
        and figures["trials"].startswith("1 trainings")
        and "nan" not in str(figures)
    )


def test_a_budget_of_seconds_holds_for_epochs_whose_subsets_have_at_least_8_rows(tmp_path):
    few = {"method": "column", "selection_kwargs": {"name": "noise", "threshold": 57}, "name": "few"}
    epochs = {"max_steps": -1, "num_train_epochs": 1, "selection_budget": 0.05}
    made = trainer(tmp_path, ["length", few], **epochs)
    selection = made.select()
    figures = selection.facts["figures"]
    assert len(selection.indices) == 3 and "trainings on 8 rows" in figures["trials"]
    assert "few (it has 3 rows to train on, fewer than the 8 of a subset)" in figures["not tried"]
    subsets = list(read_lines(tmp_path / "run" / "subsets.jsonl"))
    assert {len(line["rows"]) for line in subsets} == {8} and len(subsets) == 8 + ROUNDS


def test_a_method_whose_training_diverges_is_left_out(run, monkeypatch):
    method = {"method": "column", "selection_kwargs": {"name": "noise", "higher_is_better": False}, "name": "low"}
    lowest = set(np.argsort(NOISE)[:8].tolist())

    def diverging(self, rows, by_row=TunedLoss.by_row):
        if lowest == set(rows.tolist()):
            self.settings = dataclasses.replace(self.settings, given=self.settings.given | {"learning_rate": 1e30})
        return by_row(self, rows)

    monkeypatch.setattr(TunedLoss, "by_row", diverging)
    figures = trainer(run, [method, PLANTED]).select().facts["figures"]
    assert figures["chosen"].startswith("planted: ") and "nan" not in str(figures)
    assert figures["not tried"] == "low (its training diverged)"
    figures = trainer(run, [method]).select().facts["figures"]
    assert figures["chosen"] == "random: no method was tried, since all are left out"


def test_random_rows_that_diverge_end_it_with_the_cause(tmp_path):
    with pytest.raises(ValueError, match="weights are not finite .* lower the learning rate"):
        trainer(tmp_path, ["length"], learning_rate=1e30).select()


def test_a_method_with_a_target_is_judged_by_the_half_that_it_does_not_see(tmp_path):
    Dataset.from_list(planted_rows(16, 16, 2)).to_json(tmp_path / "target.jsonl")
    made = trainer(tmp_path, ["bm25", "length"], selection_target=str(tmp_path / "target.jsonl"))
    assert made.plan.trials.halved and made.plan.trials.source == "16 of 16 rows of `selection_target`"
    trials = with_trials(made).trials
    entries = made.plan.trials.entries
    halves = [{record.prompt for record in part} for part in trials._targets(entries[0])]
    everything = {record.prompt for record in made.plan.target}
    assert halves[0] | halves[1] == everything and not halves[0] & halves[1]
    assert trials._targets(entries[1]) == [made.plan.target]
    losses = iter([np.full(16, 1.0), np.full(16, 2.0)])
    trials._train = lambda *given: Measured(next(losses), {})
    trials.score("bm25")
    trials.add_top("bm25")  # rows of the first half are judged after training for the second
    first = [record.prompt in halves[0] for record in made.plan.trials.held_out]
    assert trials.tops["bm25"][0].tolist() == [2.0 if mine else 1.0 for mine in first]


def test_rows_of_its_own_decide_and_candidates_among_them_are_reported(tmp_path):
    HELD_OUT.to_json(tmp_path / "rows.jsonl")
    held_out = {"held_out": str(tmp_path / "rows.jsonl")}
    made = tiny_trainer(tmp_path, "auto", held_out, train_dataset=POOL, **OPTIONS)
    assert len(made.plan.held_out["held_out"]) == 8 and "evaluated" not in made.plan.trials.source
    assert made.plan.trials.left_out["rds"] == "`rds` needs `selection_target`: target-task examples."
    assert [entry.name for entry in made.plan.trials.entries][0] == "length" and not made.plan.trials.required


def test_tasks_of_a_target_that_decides_count_by_their_weights():
    records, tasks = Records(POOL), {"math": alpaca(90), "code": {"dataset": alpaca(9, seed=5), "weight": 2}}
    auto = load_selector("auto", {"methods": ["length"]})
    planned = plan_trials(SelectionPlan(records, auto, 8, target=load_target(tasks, records)), None, None)
    code = np.array(planned.held_out.dataset["task"]) == "code"
    assert len(code) == 64 and code.sum() == 9, "as many of each as there are"
    assert planned.source == "64 of 99 rows of `selection_target`, each task by its weight"
    assert planned.weights[code].sum() == pytest.approx(2 * planned.weights[~code].sum())
    trials = Simulated(context_of(None), 0, {"length": 1.0})
    trials._planned.weights = np.repeat([0.5, 1.5], 12)
    trials.random, trials.tops = [np.ones(24), np.ones(24)], {"length": [np.repeat([1.0, 0.0], 12)]}
    assert trials.gain("length", 1).value == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("kwargs", "options", "says"),
    [
        ({}, {"eval_dataset": None}, "decides by the loss of held-out rows: give one `eval_dataset`"),
        ({}, {"selection_budget": 1.0}, "`selection_budget=1.0` keeps all rows, whatever the method: choose `full`"),
        ({}, {"train_dataset": POOL.select(range(31))}, "31 rows are fewer than 32"),
        ({}, {"eval_dataset": HELD_OUT.select([0])}, "can't decide by the single row of `eval_dataset`"),
        ({"held_out": "target"}, {}, "held_out='target' needs `selection_target`"),
        ({"held_out": "./none.jsonl"}, {}, "none.jsonl"),
        ({"methods": []}, {}, "methods is empty"),
        ({"methods": ["lenght"]}, {}, "did you mean 'length'"),
        ({"methods": ["auto"]}, {}, "'auto' can't be tried"),
        ({"methods": ["full"]}, {}, "'full' can't be tried"),
        ({"methods": ["rds"]}, {}, "`rds` needs `selection_target`"),
        ({"methods": ["length", "length"]}, {}, "two of them are called 'length'"),
        ({"auto_budget": 0}, {}, "auto_budget=0.0 must be positive"),
        ({"subsets": 7}, {}, "subsets=7 must be at least 8"),
        ({}, {"selection_budget": "score >= 2"}, "chooses other rows for each number of rows"),
    ],
)
def test_wrong_options_are_refused_before_a_model_is_touched(tmp_path, kwargs, options, says):
    given = {"train_dataset": POOL, "eval_dataset": HELD_OUT} | OPTIONS | options
    with pytest.raises((ValueError, OSError), match=says):
        tiny_trainer(tmp_path, "auto", kwargs, **{name: value for name, value in given.items() if value is not None})
    assert not (tmp_path / "run").exists()


def test_it_needs_training_arguments():
    with pytest.raises(
        ValueError, match="`auto` trains on subsets as a run does, and there are no training arguments"
    ):
        select_dataset(alpaca(40), "auto", "no such model")


# In numbers ----------------------------------------------------------------------------------------------------------


def test_the_best_method_is_found_and_gets_most_trainings():
    found = [decide(seed, {"good": 2.0, "none": 0.0, "bad": -2.0, "some": 0.5}) for seed in range(10)]
    chosen = [choice for choice, *_ in found]
    assert chosen.count("good") >= 8 and set(chosen) <= {"good", "some"}
    for _, trials, _ in found:
        assert len(trials.random) == 8 and trials.trained == 8 + halving(4)
        assert len(trials.tops["bad"]) == 1 and max(map(len, trials.tops.values())) == ROUNDS


def test_methods_that_know_nothing_are_hardly_ever_chosen():
    nothing = {f"none{i}": 0.0 for i in range(6)}
    chosen = [decide(seed, nothing)[0] for seed in range(60)]
    assert sum(not isinstance(choice, Random) for choice in chosen) <= 6  # 5 % of 60, and chance


def test_less_time_drops_the_methods_whose_scores_predict_least():
    choice, trials, figures = decide(1, {"bad": -2.0, "none": 0.0, "good": 2.0}, seconds=8 + halving(1) + 0.5)
    assert choice == "good" and set(trials.tops) == {"good"} and trials.spent <= trials.seconds
    assert figures["not tried"] == "bad (time); none (time)"
    choice, trials, figures = decide(1, {"good": 2.0}, seconds=5.0)
    assert isinstance(choice, Random) and not trials.tops and figures["chosen"].endswith("the time was up")


def test_one_method_that_diverges_leaves_the_gains_of_the_others(monkeypatch):
    def train(self, rows, seed, name, train=Simulated._train):
        losses = train(self, rows, seed, name).losses
        return Measured(np.where(np.arange(24) < 20 * name.startswith("Rows of bad"), np.nan, losses), {})

    monkeypatch.setattr(Simulated, "_train", train)
    choice, trials, figures = decide(1, {"bad": 1.0, "good": 2.0})
    assert choice == "good" and figures["not tried"] == "bad (its training diverged)" and set(trials.tops) == {"good"}


def test_trainings_of_halving():
    assert [halving(n) for n in range(7)] == [0, 4, 5, 7, 8, 11, 12]


# For the contract ----------------------------------------------------------------------------------------------------


class Certain:
    """Trials that favour `length`, for tests of what is done with the choice."""

    names, left_out, source, size, trained, spent, seconds, left = ["length"], {}, "nothing", 8, 9, 1.0, 9.0, 8.0

    def __init__(self):
        self.random, self.tops = [np.zeros(1)] * 8, {}

    def plan(self, trainings):
        pass

    def add_random(self):
        pass

    def afford(self, trainings=1):
        return True

    def score(self, name):
        return True

    def prediction(self, name):
        return 1.0

    def trainings_of(self, name):
        return 1

    def add_top(self, name):
        self.tops[name] = [np.zeros(1)]
        return True

    def gain(self, name, among):
        return Estimate(0.5, 0.1, 0.9)

    def selector(self, name):
        return load_selector(name)


def certain_context():
    tokenizer = tiny_tokenizer()
    return dataclasses.replace(context_of(tokenizer, tiny_model(tokenizer), max_length=128), trials=Certain())
