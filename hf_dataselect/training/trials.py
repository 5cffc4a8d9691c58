"""
Trainings on small subsets of a pool, as the run trains, each from the same weights: what `auto` decides by.
"""

import dataclasses
import logging
import time
from typing import Any

import numpy as np

from ..context import Context
from ..data.records import Records
from ..engines.runtime.account import Account
from ..errors import TrainingDiverged, explained
from ..evaluation.audit.estimate import LEVEL, Estimate
from ..evaluation.audit.gain import between_seeds, gain
from ..evaluation.audit.prediction import predict, subset_sums
from ..fitted.subset_losses import Measured
from ..pipeline import needs_of, select
from ..runs.folder import read_evaluation
from ..selector import Selector
from ..selectors.auto import LEAST
from .entries import Entry
from .trained_losses import TrainedLosses
from .trial_plan import TrialPlan


logger = logging.getLogger(__name__)

DIVERGED = "its training diverged"


def trainable(records: Records, ctx: Context) -> tuple[np.ndarray, dict[str, list[int]]]:
    """Rows that can be trained on, int64, and the others by reason."""
    excluded = records.unreadable() if records.images else ctx.trained(records).problems
    lost = [row for rows in excluded.values() for row in np.asarray(rows).tolist()]
    for reason, rows in excluded.items():
        logger.info("%d of %d rows are excluded from all subsets: %s.", len(rows), len(records), reason)
    return np.setdiff1d(np.arange(len(records)), lost), excluded


def drawn_subset(usable: np.ndarray, size: int, seed: int, number: int) -> np.ndarray:
    """A random subset of rows, ascending; the same for the same seed and number."""
    return np.sort(np.random.default_rng([seed, number]).choice(usable, size, replace=False))


def full_seconds(args: Any, measured: list[Measured], ratio: float) -> float:
    """Seconds of training on the whole pool: those of the baseline, or those of the subsets, extrapolated."""
    if args.baseline_dir is not None:
        seconds = read_evaluation(args.baseline_dir).get("train_seconds")
        if not seconds:
            raise ValueError(f"`baseline_dir={args.baseline_dir!r}` does not say how long it was trained.")
        return seconds
    steps = [one.more.get("train_seconds", one.more["seconds"]) for one in measured]
    return float(np.mean(steps)) * (1 if args.max_steps > 0 else ratio)


def with_trials(trainer: Any) -> Context:
    """The context of a trainer, with [`Trials`] for a method that needs them."""
    ctx, planned = trainer.context(), trainer.plan.trials
    return ctx if planned is None else dataclasses.replace(ctx, trials=Trials(planned, trainer, ctx))


class Trials:
    """
    Trainings on random rows and on the rows that methods choose, as many as the time allows. The same on every rank.

    Args:
        planned ([`TrialPlan`]):
            What is tried, and the rows that decide.
        trainer ([`DataSelectingTrainer`]):
            The trainer.
        ctx ([`Context`]):
            Of the selection that the trials are part of: their seconds are its.
    """

    def __init__(self, planned: TrialPlan, trainer: Any, ctx: Context):
        self._planned, self._trainer, self._ctx = planned, trainer, ctx
        self._began, self._before = time.perf_counter(), ctx.account.cached_seconds
        #: Rows that a method chooses: those that the run keeps, or as many as the smallest subset has.
        self.rows = max(planned.rows, LEAST)
        #: What all of it may take; not known before the first training, where that of the whole pool is the limit.
        self.seconds = planned.seconds
        self._usable, _ = trainable(trainer.records, ctx)
        self._losses: dict[int, TrainedLosses] = {}
        self._chosen: dict[str, list[Any]] = {}
        halves = np.random.default_rng(ctx.seed).permutation(len(planned.held_out)) % 2 == 0
        self._halves = [halves, ~halves]
        self.source, self.left_out = planned.source, dict(planned.left_out)
        self.size, self.cost = self.rows, 0.0
        self._forget()

    @property
    def names(self) -> list[str]:
        """Methods to try."""
        return [entry.name for entry in self._planned.entries]

    @property
    def spent(self) -> float:
        """Seconds of all trials, with those of an earlier process whose results are read."""
        own = time.perf_counter() - self._began + self._ctx.account.cached_seconds - self._before
        return self._ctx.agreed(own)

    @property
    def left(self) -> float:
        """Seconds left; all of them are before the first training tells how long one takes."""
        return np.inf if self.seconds is None else self.seconds - self.spent

    @property
    def trained(self) -> int:
        """Trainings on subsets of the present size."""
        return len(self.random) + sum(map(len, self.tops.values()))

    def afford(self, trainings: int = 1) -> bool:
        """Whether the time is enough for as many more trainings."""
        return self.left > trainings * self.cost

    def plan(self, trainings: int) -> None:
        """Choose the rows of a subset, so that as many trainings are likely to fit the time that is left."""
        most = min(self.rows, len(self._usable) // 2)
        if self._trainer.args.max_steps > 0:  # rows cost nothing
            fitting = most
        elif self.seconds is None:  # the scores may take half of the time
            fitting = len(self._usable) // (2 * trainings)
        elif not self.cost:  # not known before the first training
            fitting = most
        else:
            fitting = int(self.size * self.left / (trainings * self.cost))
        size = max(LEAST, min(fitting, most))
        if self.seconds is None or not self.size / 1.5 < size < 1.5 * self.size:
            self.size, self.cost = size, self.cost * size / self.size
            self._forget()

    def _forget(self) -> None:
        self.random: list[np.ndarray] = []
        self.tops: dict[str, list[np.ndarray]] = {}
        self._subsets: list[np.ndarray] = []

    def add_random(self) -> None:
        """Train on one more random subset."""
        seed = self._trainer.args.seed
        subset = self._ctx.agreed(drawn_subset(self._usable, self.size, seed, len(self._subsets)))
        measured = self._train(subset, seed, f"Random subset {len(self._subsets) + 1}")
        if self.seconds is None:
            ratio = len(self._usable) / len(subset)
            self.seconds = self._ctx.agreed(full_seconds(self._trainer.args, [measured], ratio))  # clocks differ
        self.random.append(measured.losses)
        self._subsets.append(subset)

    def score(self, name: str) -> bool:
        """Let a method score the pool and choose the rows that it would keep; whether it could."""
        entry = next(entry for entry in self._planned.entries if entry.name == name)
        try:
            self._chosen[name] = [self._select(entry, target) for target in self._targets(entry)]
        except (ValueError, ImportError, OSError) as error:
            if self._planned.required:
                raise
            return self._leave_out(name, explained(error))
        return True

    def _leave_out(self, name: str, why: str) -> bool:
        logger.warning("`%s` is left out: %s", name, why)
        self.left_out[name] = why
        self.tops.pop(name, None)
        return False

    def prediction(self, name: str) -> float:
        """Rank correlation over random subsets of the sum of a method's scores and of how low the mean loss is."""
        scores = [chosen.scores[self._usable] for chosen in self._chosen[name]]
        columns = scores[0] if len(scores) == 1 else np.where(self._halves[1], scores[0][:, None], scores[1][:, None])
        places = np.searchsorted(self._usable, np.stack(self._subsets))
        losses = self._weighted(self.random)
        known = np.isfinite(losses).all(0)
        sums = subset_sums(columns, places)
        value = predict(sums if sums.ndim == 1 else sums[:, known], -losses[:, known]).mean_loss.value
        return float(np.nan_to_num(value, nan=-1.0))

    def trainings_of(self, name: str) -> int:
        """Trainings that one more of a method is: two, if it sees the halves of a target."""
        return len(self._chosen[name])

    def add_top(self, name: str) -> bool:
        """
        Train on a method's rows once more: on others of these, or with another seed if a subset is all of them.
        Whether it can be compared; else it is left out.
        """
        tried, new = len(self.tops.get(name, [])), []
        tops = [np.intersect1d(chosen.indices, self._usable) for chosen in self._chosen[name]]
        if (fewest := min(map(len, tops))) < self.size:
            return self._leave_out(name, f"it has {fewest} rows to train on, fewer than the {self.size} of a subset")
        for top in tops:
            seed = self._trainer.args.seed
            if len(top) > self.size:
                drawn = np.random.default_rng(seed).permutation(top)
                top = self._ctx.agreed(np.sort(np.roll(drawn, -tried * self.size)[: self.size]))
            else:
                seed += tried
            try:
                new.append(self._train(top, seed, f"Rows of {name}, {tried + 1}").losses)
            except TrainingDiverged:
                return self._leave_out(name, DIVERGED)
        losses = new[0] if len(new) == 1 else np.where(self._halves[1], *new)
        if not np.isfinite(losses[..., np.isfinite(self.random).all(0)]).all():
            return self._leave_out(name, DIVERGED)
        self.tops.setdefault(name, []).append(losses)
        return True

    def gain(self, name: str, among: int) -> Estimate:
        """
        By how much the rows that a method keeps lower the mean held-out loss, compared with random rows. Subsets of
        both are as large, and drawn at random: of the rows that the method keeps, and of the pool.

        Args:
            name (`str`):
                The method.
            among (`int`):
                Methods that were tried: the interval is so wide that all of as many hold with 95 %.
        """
        random, tables = self._weighted(self.random), {one: self._weighted(top) for one, top in self.tops.items()}
        known = np.isfinite(np.concatenate([random, *tables.values()])).all(0)
        tables = {one: losses[:, known] for one, losses in tables.items()}
        seeds, level = between_seeds(list(tables.values())), 1 - (1 - LEVEL) / among
        return gain(random[:, known], tables[name], seeds, level, drawn=False)

    def selector(self, name: str) -> Selector:
        """A method with its options."""
        return next(entry for entry in self._planned.entries if entry.name == name).load()

    def _weighted(self, losses: list[np.ndarray]) -> np.ndarray:
        """Losses `(trainings, rows)`, times the weights of the rows."""
        return np.stack(losses) * (1 if self._planned.weights is None else self._planned.weights)

    def _targets(self, entry: Entry) -> list[Records | None]:
        """The whole target, or both halves of it, one by one, for a method that would see the rows that decide."""
        target, held_out, name = self._ctx.target, self._planned.held_out, "selection_target"
        if not self._planned.halved or "target" not in needs_of(entry.load(), self._ctx.diversity):
            return [target]
        return [
            Records(held_out.dataset.select(np.flatnonzero(half)), held_out.text_field, held_out.formatting_func, name)
            for half in self._halves
        ]

    def _select(self, entry: Entry, target: Records | None) -> Any:
        own = Account()
        own.cache_files = self._ctx.account.cache_files  # what one method has paid for costs the next one nothing
        runtime = dataclasses.replace(self._ctx.runtime, account=own)
        ctx = dataclasses.replace(self._ctx, runtime=runtime, target=target, trials=None)
        try:
            return select(self._trainer.records, entry.load(), self.rows, ctx)
        finally:
            self._ctx.account.add_cached_seconds(own.cached_seconds)
            self._ctx.account.count(**own.passes)

    def _train(self, rows: np.ndarray, seed: int, name: str) -> Measured:
        if seed not in self._losses:
            folder = self._trainer.run_folder
            self._losses[seed] = TrainedLosses(self._trainer, self._planned.held_out, folder, seed)
        losses = self._losses[seed]
        known = losses.known(rows)
        (measured,) = losses.measure([rows], name)
        if known:
            self._ctx.account.add_cached_seconds(measured.more["spent"])
        count = self.trained
        self.cost = self._ctx.agreed((self.cost * count + measured.more["spent"]) / (count + 1))
        return measured
