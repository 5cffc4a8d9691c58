"""
Nuggets (arXiv 2312.10302, "One-Shot Learning as Instruction Data Prospector"; code pldlgb/nuggets): rows that help the
model with other tasks as a one-shot example.

The claim: the rows with the highest golden scores, a seventh of Alpaca, fine-tune a model better than all rows.

1. Choose predetermined tasks: those of `selection_target`, or the rows nearest to the centroids of a k-means over the
   model's embeddings of the prompts.
2. Zero-shot: log-likelihood of each task's reference answer, summed over its label tokens.
3. One-shot: the same with a candidate row, prompt and answer, before the task.
4. Keep the rows whose golden score is above `threshold`, the best first. `threshold: null` keeps the budget's best.

    golden score = tasks with one-shot log-likelihood > zero-shot log-likelihood / tasks

A task whose zero-shot likelihood is not finite is left out, and so is, for a row, one whose one-shot likelihood is not
finite. A row without any task left has no score.

Only the KV cache of the candidate can be shared among its tasks; each candidate costs a pass over all tasks. With a
threshold, a candidate is decided early, once it can no longer get above it, and the tasks that the fewest candidates
have helped with run first; that changes no row of the selection. Column of scores.parquet: `wins`, the tasks that a
row helps with, where all were run.

Relations: [`IFD`] measures what a row's own prompt does for its answer; this one what a row does for others.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from ..context import Context
from ..data.layouts import content_text
from ..data.records import Records
from ..errors import SelectionError
from ..features.one_shot_tasks import Tasks, choose_tasks, task_counts, task_tokens
from ..options import Interval, PositiveInt
from ..selector import Card, Need, Scores, Selector, Split


#: Tasks of a candidate that run at least before the plan asks again whether it is decided.
FEWEST_TASKS = 8


@dataclass
class Nuggets(Selector):
    """
    Args:
        tasks (`int`, *optional*, defaults to `100`):
            Predetermined tasks chosen by k-means, where no `selection_target` gives them. More tasks cost
            proportionally more time and resolve golden scores finer.
        threshold (`float`, *optional*, defaults to `0.8`):
            Golden score that a row must exceed; the budget still caps how many are kept. `None` keeps the best up to
            the budget, and needs every task of every row.
        stop (`str`, *optional*, defaults to `"dropped"`):
            When a candidate's tasks end early: `"never"`; `"dropped"`, once it can't exceed the threshold (rows up to
            it have no score then); `"sealed"`, also once it exceeds it, which is faster and leaves the order of
            the kept rows open (the score of each is the least one above the threshold), so that the budget must have
            room for all of them.
        task_window (`int`, *optional*):
            Tokens of a task at most, by default those of a row; the authors' code has 200.
        reference_quirks (`bool`, *optional*, defaults to `False`):
            Score as the authors' code does: tasks never begin with the beginning-of-sequence token and are truncated
            to 200 tokens, candidates are not truncated, and an added padding token takes part in the softmax.
    """

    tasks: PositiveInt = 100
    threshold: Annotated[float | None, Interval(0, 1, closed="left")] = 0.8
    stop: Literal["never", "dropped", "sealed"] = "dropped"
    # The first token of a task is never a label.
    task_window: Annotated[int | None, Interval(2)] = None
    reference_quirks: bool = False

    splits: ClassVar[Split | None] = "features"
    takes_target: ClassVar[bool] = True
    card: ClassVar[Card] = Card(
        title="rows that help the model with other tasks as a one-shot example",
        paper="2312.10302",
        features="model-oriented",
        label_source="answer likelihood of the pending fine-tune model, with and without the row in front",
        steps=(
            "choose tasks",
            "score their answers zero-shot",
            "score their answers after each row",
            "keep rows that help with enough of them",
        ),
        llm_uses=3,
        model_free=False,
        multi_turn="a row is the example with all its turns; of a task of several turns all answers count",
        deviations=(
            "prompts are rendered with the model's own chat template; a task continues the chat of the candidate",
            "a zero-shot task begins with the tokenizer's beginning-of-sequence token, as a candidate does",
            "a task is truncated to the window of the training, not to 200 tokens",
            "no padding token in the softmax",
            "(these three are the code's with `reference_quirks`)",
            "prompts are embedded by the mean over their own tokens, where the code also averages over padding",
            "a row without an answer is not scored: there would be nothing to train on",
            "of more than 65,536 rows, so many drawn at random are clustered; tasks are chosen from all",
            "scores are not rounded",
        ),
    )
    columns: ClassVar[tuple[str, ...] | None] = ("wins",)

    def __post_init__(self):
        super().__post_init__()
        if self.stop == "sealed" and self.threshold is None:
            raise ValueError("`selection_kwargs`: stop='sealed' needs a `threshold`.")

    @property
    def default_budget(self) -> float:
        """Whatever passes the threshold, as in the paper."""
        return Selector.default_budget if self.threshold is None else 1.0

    @property
    def nested(self) -> bool:
        """Unless rows are decided early, without an order among them."""
        return self.stop != "sealed"

    def needs(self) -> frozenset[Need]:
        return frozenset({"text", "prompt", "model"})

    def check_target(self, target: Records) -> None:
        super().check_target(target)
        for record in target:
            if record.problem is not None or not any(content_text(record.messages[i]) for i in record.answer_turns):
                raise ValueError(
                    f"`selection_target`: row {record.index} can't be a task of `nuggets`: "
                    f"{record.problem or 'no answer'}. Remove it."
                )

    def forecast(self, rows: int, target: int, kept: int) -> dict[str, int]:
        tasks = target or min(self.tasks, rows)
        return {"forward_rows": tasks + tasks * rows + (0 if target else rows)}  # tasks are chosen by their embeddings

    def featurize(self, records: Records, ctx: Context) -> dict[str, np.ndarray]:
        counts = task_counts(
            records,
            self._tasks(records, ctx),
            ctx,
            lambda zero_shot: Plan(zero_shot, self.threshold, self.stop),
            ctx.text_format(max_length=None if self.reference_quirks else ctx.max_length),
            mean_logit=self.reference_quirks,
        )
        wins, run, failed = counts.wins, counts.run, counts.failed
        ctx.account.figures["tasks run"] = f"{run.sum():,} of {run.size * counts.tasks:,}"
        if failed.any():
            pairs = f"{failed.sum():,} of {(failed > 0).sum():,} rows and {counts.failing:,} tasks"
            ctx.account.figures["one-shot losses left out, not finite"] = pairs
        usable, n = counts.usable & (failed < counts.tasks), np.maximum(counts.tasks - failed, 1)
        left = counts.tasks - run - failed
        low = high = np.zeros(len(run), bool)
        if self.threshold is not None:
            low = usable & ((wins + left) / n <= self.threshold)
            high = usable & (wins / n > self.threshold)
        # A score depends on nothing but the row: tasks of a row decided early that happen to be known do not count.
        golden = np.where(usable & (left == 0), wins / n, np.nan)
        if self.stop != "never":
            golden[low] = np.nan
        known = np.isfinite(golden)
        if self.stop == "sealed":
            least = min(next(k / m for k in range(1, m + 1) if k / m > self.threshold) for m in np.unique(n).tolist())
            golden[high], known[high] = least, False
            ctx.account.figures["golden score of every kept row, at least"] = round(float(least), 4)
        unfit = usable & np.isnan(golden) & ~low
        ctx.account.note("unscorable", "its losses are not finite", np.flatnonzero(counts.usable & ~usable))
        ctx.account.note("unscorable", "did not fit in memory", np.flatnonzero(unfit))
        return {"golden": golden, "low": low, "wins": np.where(known, wins, np.nan)}

    def score(self, features: dict[str, np.ndarray], ctx: Context) -> Scores:
        return Scores(features["golden"].astype(np.float32), {"wins": features["wins"]})

    def exclude(self, scores: np.ndarray, features: dict[str, np.ndarray], ctx: Context) -> dict[str, np.ndarray]:
        return {} if self.threshold is None else {f"golden score up to {self.threshold}": features["low"]}

    def select(
        self, scores: np.ndarray, records: Records, features: dict[str, np.ndarray], k: int, ctx: Context
    ) -> np.ndarray:
        above = int(np.isfinite(scores).sum())
        if self.stop == "sealed" and above > k:
            raise SelectionError(
                f"`nuggets`: {above} rows are above the threshold, and the budget is {k}: with stop='sealed' their "
                "order is not known. Set `selection_kwargs` stop to 'dropped' (what was computed is kept), or "
                "`selection_budget` to 1.0."
            )
        return ctx.best(scores, k)

    def _tasks(self, records: Records, ctx: Context) -> Tasks:
        """The predetermined tasks, zero-shot and after an exemplar."""
        window = self.task_window or (200 if self.reference_quirks else ctx.max_length)
        chosen = choose_tasks(records, ctx, self.tasks)
        tasks = task_tokens(chosen, ctx.text_format(max_length=window), bos=not self.reference_quirks)
        if len(tasks.without_answer) == len(chosen):
            raise SelectionError(f"`nuggets`: the answer of no task begins within {window} tokens.")
        if len(tasks.without_answer):
            ctx.account.figures["tasks that no row can help with: the answer is beyond the window"] = len(
                tasks.without_answer
            )
        ctx.account.figures["predetermined tasks"] = len(chosen)
        return tasks


class Plan:
    """Which tasks of a candidate to run next: all, or as few as may decide which side of the threshold it is on."""

    def __init__(self, zero_shot: np.ndarray, threshold: float | None, stop: str):
        self.zero_shot, self.threshold, self.stop = zero_shot, threshold, stop
        self.helped, self.tried = np.zeros(len(zero_shot)), np.zeros(len(zero_shot))

    def decided(self, wins: int, left: int, n: int) -> int:
        """
        Of `n` tasks: -1 if the golden score can't exceed the threshold, 1 if it does, 0 if that is open or must not
        end it. Tasks that are left out later change neither: the share of the others is on the same side.
        """
        if self.threshold is None or self.stop == "never" or n == 0:
            return 0
        if (wins + left) / n <= self.threshold:
            return -1
        return int(self.stop == "sealed" and wins / n > self.threshold)

    def __call__(self, losses: np.ndarray) -> np.ndarray:
        done, n = ~np.isnan(losses), int((~np.isinf(losses)).sum())
        won = losses < self.zero_shot
        wins, left = int(won.sum()), int((~done).sum())
        if left == 0 or self.decided(wins, left, n):
            self.helped[won] += 1
            self.tried[done] += 1
            return np.zeros(0, np.int64)
        todo = np.flatnonzero(~done)
        if self.threshold is None or self.stop == "never":
            return todo
        ways = (m for m in range(1, left) if self.decided(wins, left - m, n) or self.decided(wins + m, left - m, n))
        fewest = next(ways, left)
        order = np.argsort((self.helped[todo] + 1) / (self.tried[todo] + 2), kind="stable")
        return todo[order[: max(fewest, FEWEST_TASKS)]]
