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
        metadata={
            "help": "Methods to compare; the baseline `full` and the control `random` are always added, and `bm25` "
            "where one of them selects for a target: the cheapest that does."
        },
    )
    budgets: list[str] = field(
        default_factory=lambda: ["0.05"],
        metadata={
            "help": "Budgets (see selection_budget). Each costs one training per method and seed, and no scoring."
        },
    )
    method_budgets: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Budgets of single methods, {ifd: [0.05, 0.1], alpagasus: own}, in place of `budgets`: a mapping "
            "in YAML or JSON; 'own' is the paper's. The control `random` is trained at each that is an amount."
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
    hub_report_id: str | None = field(
        default=None,
        metadata={"help": "Space on the Hub (`user/name`) to push the page of the report to; private if it is new."},
    )

    def __post_init__(self):
        check_declared(self)
        for option in ("method_kwargs", "method_budgets"):
            if isinstance(text := getattr(self, option), str):
                try:
                    setattr(self, option, json.loads(text))
                except json.JSONDecodeError as error:
                    raise ValueError(f"`{option}={text!r}` is not JSON: {error}.") from error
        self._read_method_budgets()
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

    def _read_method_budgets(self) -> None:
        given, read = self.method_budgets or {}, {}
        if not isinstance(given, dict):
            raise ValueError(f"`method_budgets` must map methods to budgets, got {given!r}.")
        for method, budgets in given.items():
            selector = load_selector(method, (self.method_kwargs or {}).get(method))
            if selector.fixed_budget:
                raise ValueError(f"`method_budgets`: `{method}` keeps every row: remove it.")
            own = [budgets] if not isinstance(budgets, list) else budgets
            parsed = [Budget.parse(selector.default_budget if item == "own" else item).plain for item in own]
            if not parsed:
                raise ValueError(f"`method_budgets`: {method} has none: give one, or remove it.")
            read[method] = list(dict.fromkeys(parsed))
        self.method_budgets = read or None

    def add_target_control(self) -> None:
        """Add `bm25` where another method selects for a target: what it costs next to nothing to beat."""
        kwargs = self.method_kwargs or {}
        if any("target" in load_selector(name, kwargs.get(name)).needs() for name in self.methods):
            self.methods = list(dict.fromkeys([*self.methods, "bm25"]))

    def budgets_of(self, method: str) -> list[Any]:
        """Budgets that a method is compared at; for the control, those of all others that are amounts."""
        given = self.method_budgets or {}
        if method != "random" or method in given or not given:
            return given.get(method, self.budgets)
        every = [item for name in self.methods if name not in ("full", "random") for item in self.budgets_of(name)]
        amounts = [item for item in dict.fromkeys(every or self.budgets) if Budget.parse(item).unit != "score"]
        return [item for item in amounts if item != 1.0]  # all rows: the baseline

    def runs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name and selection options of each run; every seed begins with its baseline."""
        for seed in self.seeds:
            for method in self.methods:
                kwargs = (self.method_kwargs or {}).get(method)
                fixed = load_selector(method, kwargs).fixed_budget
                for budget in [None] if fixed else self.budgets_of(method):
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
