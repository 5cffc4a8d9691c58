"""Runs to report on."""

from pathlib import Path

import numpy as np
import pytest

from hf_dataselect.evaluation.benchmark import Setting, as_json
from tests.reported_runs import ROWS, RUNS, answered, make_run


@pytest.fixture
def runs(tmp_path) -> list[Path]:
    return [
        make_run(tmp_path / "ifd", "ifd", 1.6, 0.4, rows=[11, 10, 9], selection={"seconds": 30.0}),
        make_run(tmp_path / "full"),
        make_run(tmp_path / "random", "random", 2.5, 0.5, rows=[0, 5, 7]),
    ]


@pytest.fixture
def different(tmp_path) -> list[Path]:
    """Two methods, each with a control of its size, and a baseline; no two of their numbers are equal."""
    folders = []
    for place, (name, (method, rows, seconds, train_seconds, loss, accuracy, judged)) in enumerate(RUNS.items()):
        noise = np.random.default_rng(place).normal(0, 0.02, (2, 60))
        noise -= noise.mean(1, keepdims=True)
        settings = {
            "answer_loss": Setting(loss, False, list(loss + noise[0])),
            "token_accuracy": Setting(accuracy, True, list(accuracy + noise[1])),
        }
        evaluation = {"settings": as_json(settings), "train_seconds": train_seconds, "train_tokens": 1000 - place}
        evaluation |= {"history": [{"step": 0, "benchmark/answer_loss": 3.0 + place}]}
        scores = np.linspace(0, 1, ROWS) if method == "ifd" else np.arange(ROWS) % 5
        scores = np.where(np.arange(ROWS) < 2, np.nan, scores)  # two rows have none
        given = {"rows": rows, "scores": scores, "selection": {"seconds": seconds}, "evaluation": evaluation}
        folders.append(make_run(tmp_path / name, method, **given))
        if judged is not None:
            answered(folders[-1], judged)
    return folders
