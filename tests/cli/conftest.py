"""A recipe in a folder of its own; judges and parsers that record what they are given."""

import argparse
from pathlib import Path

import pytest

from tests.evaluation.judging.test_win_rate import Scripted
from tests.tiny_training import write_recipe


@pytest.fixture
def recipe(tmp_path) -> Path:
    return write_recipe(tmp_path, selection_kwargs={"warmup": "none", "warmup_learning_rate": "5e-5"})


class Judges:
    """`load_judge` that records what it is given; the judge scores an answer by the number in it."""

    def __call__(self, spec, options, runtime, **current):
        self.spec, self.options, self.runtime, self.lengths = spec, options, runtime, set()
        judge, answer = Scripted(), Scripted._answer
        judge.runtime, judge.name = runtime, spec
        judge._answer = lambda questions, length, label: (
            self.lengths.add(length) or answer(judge, questions, length, label)
        )
        return judge

    @property
    def given(self) -> tuple:
        return self.spec, self.options, self.runtime.cache_dir


@pytest.fixture
def judges(monkeypatch) -> Judges:
    found = Judges()
    for module in ("cli.judge_check", "cli.compare", "plan", "training.trainer", "fitted.scorers.train_scorer"):
        monkeypatch.setattr(f"hf_dataselect.{module}.load_judge", found)
    return found


@pytest.fixture
def parsed(monkeypatch) -> dict:
    """Options of a command that has no dataclass of its own, filled as they are parsed."""
    found, parse = {}, argparse.ArgumentParser.parse_args
    monkeypatch.setattr(
        argparse.ArgumentParser, "parse_args", lambda *given: found.update(vars(options := parse(*given))) or options
    )
    return found
