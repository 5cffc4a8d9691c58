"""
A user's script, for the type checker: `make lint` reads it, and nothing runs it. What is ignored here must be an error
(`warn_unused_ignores`).
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, assert_type

import numpy as np
from datasets import Dataset

from hf_dataselect import (
    Budget,
    Card,
    Context,
    DataSelectingConfig,
    DataSelectingTrainer,
    Records,
    Scores,
    Selection,
    Selector,
    load_selector,
    select_dataset,
)
from hf_dataselect.options import Interval
from hf_dataselect.testing import check_selector


@dataclass
class Questions(Selector):
    """Prefer rows whose prompt asks."""

    weight: Annotated[float, Interval(0, 1)] = 1.0
    card: ClassVar[Card] = Card(title="rows that ask")

    def score(self, features: Records, ctx: Context) -> Scores:
        asks = np.array(["?" in record.prompt for record in features], np.float32)
        return Scores(self.weight * asks, {"asks": asks})


def train(rows: Dataset) -> float:
    args = DataSelectingConfig("runs/ifd", selection_method="ifd", selection_budget=0.05, learning_rate=2e-5)
    trainer = DataSelectingTrainer("HuggingFaceTB/SmolLM2-135M", args, train_dataset=rows, selector=Questions())
    trainer.train()
    assert_type(trainer.selection, Selection)
    print(trainer.selection.summary(), trainer.selection.indices[:5])
    kept: str = trainer.selection.sdf  # type: ignore[assignment]
    trainer.selection.no_such_name  # type: ignore[attr-defined]  # noqa: B018
    print(kept)
    return trainer.selection.sdf


def select(rows: Dataset) -> Selection:
    kept, selection = select_dataset(rows, Questions(weight=0.5), budget=0.1)
    assert_type(selection, Selection)
    print(len(kept), Budget.parse(0.1), load_selector("length").needs())
    select_dataset(rows, 5)  # type: ignore[arg-type]
    check_selector(Questions())
    return selection
