"""The options of a comparison: [`CompareArguments`]."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..budget import Budget
from ..options import check_declared, documented
from ..registry import load_selector
from .entries import as_name, file_name
from .equal import Equal


@documented
@dataclass
class CompareArguments:
    """What is compared."""

    methods: list[str] = field(
        default_factory=lambda: ["ifd"],
        metadata={"help": "Methods to compare; the baseline `full` and the control `random` are always added."},
    )
    budgets: list[str] = field(
        default_factory=lambda: ["0.05"],
        metadata={
            "help": "Budgets (see selection_budget). Each costs one training per method and seed, and no scoring."
        },
    )
    seeds: list[int] = field(
        default_factory=lambda: [42],
        metadata={
            "help": "Seeds of selection and training; with several, the interval of a PIR covers the spread between "
            "runs. Each costs all runs again."
        },
    )
    method_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Options by method, for example {ifd: {warmup: none}}: a mapping in YAML or JSON."},
    )
    equal: Equal = field(
        default="epochs",
        metadata={
            "help": "What every run gets as much of as the baseline: 'epochs' (the baseline, with more rows, then "
            "gets more optimizer updates: 20 times as many at a budget of 0.05), 'updates', or 'tokens', as near as "
            "whole updates come. The last two cost each run about the training time of the baseline."
        },
    )
    save_models: bool = field(default=True, metadata={"help": "Keep the model of each run, which takes disk space."})
    count_by: str | None = field(
        default=None, metadata={"help": "Column of the candidates by which the report counts the rows kept."}
    )

    def __post_init__(self):
        check_declared(self)
        if isinstance(self.method_kwargs, str):
            try:
                self.method_kwargs = json.loads(self.method_kwargs)
            except json.JSONDecodeError as error:
                raise ValueError(f"`method_kwargs={self.method_kwargs!r}` is not JSON: {error}.") from error
        given = self.method_kwargs or {}
        if not (isinstance(given, dict) and all(isinstance(kwargs, dict) for kwargs in given.values())):
            raise ValueError(f"`method_kwargs` must map methods to their options, got {self.method_kwargs!r}.")
        self.methods = list(dict.fromkeys(["full", "random", *self.methods]))
        self.budgets = list(dict.fromkeys(Budget.parse(budget).plain for budget in self.budgets))
        self.seeds = list(dict.fromkeys(self.seeds))
        for option in ("budgets", "seeds"):
            if not getattr(self, option):
                raise ValueError(f"`{option}` is empty.")
        for name, kwargs in given.items():
            load_selector(name, kwargs)  # also for a method that is not compared this time

    def runs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name and selection options of each run; every seed begins with its baseline."""
        for seed in self.seeds:
            for method in self.methods:
                kwargs = (self.method_kwargs or {}).get(method)
                fixed = load_selector(method, kwargs).fixed_budget
                for budget in [None] if fixed else self.budgets:
                    name = "-".join([file_name(method), *([as_name(budget)] if budget else []), f"seed{seed}"])
                    yield (
                        name,
                        {
                            "selection_method": method,
                            "selection_kwargs": kwargs,
                            "selection_budget": budget,
                            "seed": seed,
                        }
                        | ({"selection_budget_by": None} if fixed else {}),
                    )
