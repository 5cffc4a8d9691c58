"""
[`Reselection`]: the method chooses again while the model trains, by the model as it is then (`selection_schedule`).
"""

import dataclasses
import logging
import time
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from ...budget import Budget
from ...card import Card
from ...context import Context
from ...data.records import Records
from ...engines.runtime.model_state import preserved
from ...engines.runtime.phase import doing
from ...engines.runtime.ranks import meeting
from ...errors import AllExcluded
from ...evaluation.comparison.pir import selection_to_tuning_ratio
from ...options import Interval, NonNegativeInt, check_declared, typed_options
from ...policy import Policy
from ...runs.folder import read_evaluation
from ...selection import Selection


logger = logging.getLogger(__name__)


@dataclass
class Schedule:
    """
    When the method chooses again, and among which rows.

    Args:
        every (`float` or `int`):
            At most 1 is a part of an epoch over the rows that were kept first; more are optimizer steps.
        exclude_seen (`bool`, *optional*, defaults to `False`):
            Whether rows that were trained on are left out of later selections. Once the others are too few to choose
            as many as at first, all are candidates again.
        grow (`int`, *optional*, defaults to `0`):
            Rows that each selection adds to those kept, which stay. By default it chooses all of them anew.
    """

    every: Annotated[float, Interval(0, closed="neither")]
    exclude_seen: bool = False
    grow: NonNegativeInt = 0

    def __post_init__(self):
        check_declared(self, "selection_schedule")
        if self.every > 1 and self.every != int(self.every):
            raise ValueError(f"`selection_schedule`: every={self.every} must be a part of an epoch, or whole steps.")
        if self.exclude_seen and self.grow:
            raise ValueError("`selection_schedule`: exclude_seen has no meaning where rows kept stay: remove grow.")

    @classmethod
    def parse(cls, given: Any) -> "Schedule | None":
        """That of an option; `None` for `once`."""
        if given is None or str(given).lower() == "once":
            return None
        if not isinstance(given, dict) and not str(given).startswith("{"):
            raise ValueError(f"`selection_schedule={given!r}` must be 'once' or a mapping such as {{every: 0.25}}.")
        if "every" not in given:
            raise ValueError("`selection_schedule` needs `every`: a part of an epoch, or a number of steps.")
        return typed_options(cls, given, "selection_schedule")

    def steps(self, of_epoch: int) -> int:
        """Optimizer steps between selections."""
        return max(1, round(self.every * of_epoch)) if self.every <= 1 else int(self.every)

    def times(self, updates: int, of_epoch: int) -> int:
        """Selections after the first in a training of so many optimizer updates."""
        return (updates - 1) // self.steps(of_epoch)


class Reselection(Policy):
    """
    Serves the rows that a method keeps, and lets it choose anew every so many steps.

    Args:
        schedule ([`Schedule`]):
            When.
        trainer ([`DataSelectingTrainer`]):
            Whose plan chooses, with the model as it is.
    """

    card: ClassVar[Card] = Card(title="rows that a method keeps, chosen again while the model trains")
    chooses: ClassVar[bool] = True

    def __init__(self, schedule: Schedule, trainer: Any):
        self.schedule, self._trainer = schedule, trainer
        self.state = {}

    def prepare(self, records: Records, rows: np.ndarray, ctx: Context) -> None:
        kept = np.intersect1d(self._trainer.selection.indices, rows)
        self.state |= {"kept": kept, "seen": np.zeros(len(records), bool), "selections": []}

    def observe(self, seen: Any) -> None:
        self.state["seen"][seen.rows] = True

    def choose(
        self, rows: np.ndarray, progress: float, random: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.state["kept"], np.ones(len(self.state["kept"]))

    def renew(self, step: int, rows: np.ndarray) -> float:
        """
        Choose again.

        Args:
            step (`int`):
                Optimizer steps so far; the seed of draws and ties follows from it.
            rows (`np.ndarray`):
                Rows that can be trained on, int64, ascending.

        Returns:
            `float`: the seconds that it cost, see [`Selection`].
        """
        before = self.state["kept"]
        among, began_anew = self._candidates(rows)
        if not len(among):
            logger.info("Step %d: all rows are kept.", step)
            return 0.0
        started = time.perf_counter()
        try:
            chosen = self._selected(among, step)
        except AllExcluded as error:
            logger.warning("Step %d: %s The %d rows kept before are trained on.", step, error, len(before))
            return time.perf_counter() - started
        kept = np.intersect1d(among[chosen.indices], rows)
        untrainable = len(chosen.indices) - len(kept)
        if not len(kept):
            logger.warning(
                "`selection_schedule`: at step %d the method keeps no row that can be trained on; the %d rows kept "
                "before are trained on.",
                step,
                len(before),
            )
            kept = before
        self.state["kept"] = kept = np.union1d(before, kept) if self.schedule.grow else kept
        entry = {"step": step, "kept": len(kept), "seconds": chosen.seconds, "str": self._str(chosen.seconds)}
        entry |= {"candidates": len(among), "began_anew": began_anew, "untrainable": untrainable}
        for kind in ("unscorable", "dropped"):
            entry[kind] = {reason: len(of_reason) for reason, of_reason in getattr(chosen, kind).items()}
        entry["overlap"] = float(np.isin(kept, before).mean())
        self.state["selections"].append(entry | {"rows": kept.tolist()})
        logger.info("Step %d: %d rows are kept, %.0f %% of them as before.", step, len(kept), 100 * entry["overlap"])
        return chosen.seconds

    def _candidates(self, rows: np.ndarray) -> tuple[np.ndarray, bool]:
        """Rows to choose among, and whether those that were trained on are candidates again."""
        if self.schedule.grow:
            return np.setdiff1d(rows, self.state["kept"]), False
        if not self.schedule.exclude_seen:
            return np.arange(len(self._trainer.records)), False
        left, wanted = rows[~self.state["seen"][rows]], len(self._trainer.selection.indices)
        if round(self._trainer.plan.selector.largest_part * len(left)) >= wanted:
            return left, False
        if not any(entry["began_anew"] for entry in self.state["selections"]):
            logger.warning(
                "`selection_schedule`: exclude_seen leaves %d rows, too few to choose %d among: all %d are candidates "
                "again, here and whenever it happens later.",
                len(left),
                wanted,
                len(rows),
            )
        self.state["seen"][:] = False
        return rows, True

    def _selected(self, among: np.ndarray, step: int) -> Selection:
        trainer = self._trainer
        plan, ctx = trainer.plan, trainer.context()
        if self.schedule.exclude_seen or self.schedule.grow:
            most = max(1, round(plan.selector.largest_part * len(among)))
            budget = Budget(min(self.schedule.grow or len(trainer.selection.indices), most), "rows")
            plan = dataclasses.replace(plan, records=trainer.records.subset(among), budget=budget)
            ctx = ctx.of_rows(among)
        if self.schedule.grow:
            ctx = dataclasses.replace(ctx, kept=trainer.records.subset(self.state["kept"]))
        with preserved(trainer.model), meeting(), doing(f"Selecting again (step {step:,})"):
            return plan.select(dataclasses.replace(ctx, seed=ctx.seed + step), None, {})

    def _str(self, seconds: float) -> float | None:
        folder = self._trainer.args.baseline_dir
        return None if folder is None else selection_to_tuning_ratio(seconds, read_evaluation(folder)["train_seconds"])
