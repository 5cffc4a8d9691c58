"""
Nuggets (arXiv 2312.10302, "One-Shot Learning as Instruction Data Prospector"; code pldlgb/nuggets): rows that help the
model with other tasks when it sees them as its one example.

The claim: the rows whose golden score is highest, a seventh of Alpaca, tune a model better than all rows.

1. Choose predetermined tasks: those of `selection_target`, or of the rows at hand those nearest the centroids of a
   k-means over the model's embeddings of their prompts.
2. Zero-shot: log-likelihood of each task's answer behind its prompt, summed over its tokens.
3. One-shot: the same with a candidate row, prompt and answer, in front.
4. Golden score of the candidate = share of the tasks whose one-shot log-likelihood is the higher one. Keep the rows
   above `threshold`, the best first.

A task has to follow the candidate, so that only the candidate's keys and values can be shared; each candidate costs a
pass over all tasks. With a threshold, a candidate is left as soon as it can't get above it any more, and the tasks
that the fewest candidates have helped with come first; that changes no row of the selection.

Relations: [`IFD`] asks what a row's own prompt does for its answer; this one what a row does for others.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..context import Context
from ..data.records import Records
from ..data.text import encode
from ..engines.forward.likelihood import likelihood
from ..engines.forward.one_shot import OneShot, one_shot_loss
from ..engines.subset.clusters import central_rows
from ..errors import SelectionError
from ..features.hidden_states import prompt_vectors
from ..features.one_shot_tasks import Tasks, task_tokens
from ..selector import Card, Selector


#: Tasks of a candidate that are run at least, between two looks at whether its fate is sealed.
FEWEST_TASKS = 8


@dataclass
class Nuggets(Selector):
    """
    Args:
        tasks (`int`, *optional*, defaults to `100`):
            Predetermined tasks chosen by k-means, where no `selection_target` gives them. More tasks cost
            proportionally more time and tell candidates finer apart.
        threshold (`float`, *optional*, defaults to `0.8`):
            Rows with a golden score up to this are dropped; the budget still caps how many are kept. `None` keeps the
            best up to the budget, and needs every task of every row.
        stop (`str`, *optional*, defaults to `"dropped"`):
            When a candidate's tasks end early: `"never"`; `"dropped"`, once it can't get above the threshold (rows up
            to it have no score then); `"sealed"`, also once it is above it, which is faster and leaves the order of
            the kept rows open (the score of each is the least one above the threshold), so that the budget must have
            room for all of them.
        task_window (`int`, *optional*):
            Tokens of a task at most, by default those of a row; the authors' code has 200.
        reference_quirks (`bool`, *optional*, defaults to `False`):
            Score as the authors' code does: tasks never begin with the beginning-of-sequence token and are cut at 200
            tokens, candidates are not cut, and an added padding token takes part in the softmax.
    """

    tasks: int = 100
    threshold: float | None = 0.8
    stop: Literal["never", "dropped", "sealed"] = "dropped"
    task_window: int | None = None
    reference_quirks: bool = False

    card: ClassVar[Card] = Card(
        title="rows that help the model with other tasks as a one-shot example",
        paper="2312.10302",
        features="model-oriented",
        label_source="answer likelihood of the pending fine-tune model, with and without the row in front",
        steps=(
            "choose tasks",
            "score their answers alone",
            "score their answers behind each row",
            "keep rows that help with enough of them",
        ),
        llm_uses=3,
        model_free=False,
        multi_turn="a row stands in front with all its turns; of a task of several turns all answers count",
        needs=frozenset({"text", "prompt", "model"}),
        deviations=(
            "prompts are written with the model's own chat template; a task goes on the chat of the candidate",
            "a task alone begins with the tokenizer's beginning-of-sequence token, as a candidate does",
            "a task is cut at the window of the training, not at 200 tokens",
            "no padding token in the softmax",
            "(these three are the code's with `reference_quirks`)",
            "prompts are embedded by the mean over their own tokens, where the code also averages over padding",
            "a row without an answer is not scored: there would be nothing to train on",
            "of more than 65,536 rows, so many drawn at random are clustered; tasks are chosen from all",
            "scores are not rounded; equal ones keep the order of the dataset",
        ),
    )

    def __post_init__(self):
        if self.tasks < 1:
            raise ValueError(f"`selection_kwargs`: tasks={self.tasks} must be at least 1.")
        if self.task_window is not None and self.task_window < 2:  # the first token of a task never counts
            raise ValueError(f"`selection_kwargs`: task_window={self.task_window} must be at least 2.")
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise ValueError(f"`selection_kwargs`: threshold={self.threshold} must be from 0 to below 1, or null.")
        if self.stop == "sealed" and self.threshold is None:
            raise ValueError("`selection_kwargs`: stop='sealed' needs a `threshold`.")

    def featurize(self, records: Records, ctx: Context) -> dict[str, np.ndarray]:
        tasks = self._tasks(records, ctx)
        options = {"batch_tokens": ctx.batch_tokens, "dtype": ctx.dtype, "accelerator": ctx.accelerator}
        options |= {"cache_dir": ctx.cache_dir, "mean_logit": self.reference_quirks}
        alone = likelihood(ctx.model, tasks.alone, progress="Scoring tasks alone", **options)
        encoded = encode(
            records,
            ctx.text_format(max_length=None if self.reference_quirks else ctx.max_length),
            num_proc=ctx.num_proc,
        )
        usable = self._usable(encoded, tasks, ctx)
        plan = Plan(alone.loss, self.threshold, self.stop)
        found: OneShot = one_shot_loss(
            ctx.model,
            encoded.tokens,
            tasks.behind,
            rows=usable,
            wanted=plan,
            progress="Scoring tasks behind each row",
            **options,
        )
        run = np.isfinite(found.loss)
        ctx.account.count(
            forward_rows=len(tasks.alone) - alone.cached + int(run.sum()) - found.cached,
            forward_tokens=alone.forward_tokens + found.forward_tokens,
            cached_rows=alone.cached + found.cached,
        )
        ctx.account.add_cached_seconds(alone.cached_seconds + found.cached_seconds)
        ctx.account.figures["tasks run"] = f"{run.sum():,} of {run.size:,}"
        asked = np.isin(np.arange(len(records)), usable)
        return {"golden": self._golden((found.loss < alone.loss).sum(1), (~run).sum(1), run.shape[1], asked, ctx)}

    def _golden(self, wins: np.ndarray, left: np.ndarray, n: int, asked: np.ndarray, ctx: Context) -> np.ndarray:
        """
        Golden scores of rows with so many of `n` tasks won and left to run, NaN where unknown. They depend on nothing
        but the row: what happened to be known of a row that may be left early does not count.
        """
        golden = np.where(asked & (left == 0), wins / n, np.nan)
        if self.threshold is None:
            low = high = np.zeros(len(wins), bool)
        else:
            low, high = asked & ((wins + left) / n <= self.threshold), asked & (wins / n > self.threshold)
            ctx.account.note("dropped", f"golden score up to {self.threshold}", np.flatnonzero(low))
            if self.stop != "never":
                golden[low] = np.nan
            if self.stop == "sealed":
                least = next(share for share in np.arange(1, n + 1) / n if share > self.threshold)
                golden[high] = least
                ctx.account.figures["golden score of every kept row, at least"] = round(float(least), 4)
        failed = asked & np.isnan(golden) & ~low
        ctx.account.note("unscorable", "did not fit in memory, or its losses are no numbers", np.flatnonzero(failed))
        return golden

    def score(self, features: dict[str, np.ndarray], ctx: Context) -> np.ndarray:
        return features["golden"].astype(np.float32)

    def select(self, scores: np.ndarray, features: dict[str, np.ndarray], k: int, ctx: Context) -> np.ndarray:
        if self.threshold is not None:
            scores = np.where(features["golden"] <= self.threshold, np.nan, scores)
            kept = int(np.isfinite(scores).sum())
            if self.stop == "sealed" and kept > k:
                raise SelectionError(
                    f"`nuggets`: {kept} rows are above the threshold, and the budget is {k}: with stop='sealed' their "
                    "order is not known. Set `selection_kwargs` stop to 'dropped' (what was computed is kept), or "
                    "`selection_budget` to 1.0."
                )
        return super().select(scores, features, k, ctx)

    def _tasks(self, records: Records, ctx: Context) -> Tasks:
        """The predetermined tasks, alone and behind an exemplar."""
        window = self.task_window or (200 if self.reference_quirks else ctx.max_length)
        chosen = ctx.target
        if chosen is None:
            found = prompt_vectors(records, ctx)
            usable = np.flatnonzero(found.usable)
            if len(usable) == 0:
                raise SelectionError("`nuggets`: no row has a prompt and an answer within the window to be a task.")
            chosen = records.subset(ctx.agreed(central_rows(found.vectors, usable, self.tasks, seed=ctx.seed)))
        tasks = task_tokens(chosen, ctx.text_format(max_length=window), bos=not self.reference_quirks)
        if len(tasks.silent) == len(chosen):
            raise SelectionError(f"`nuggets`: the answer of no task begins within {window} tokens.")
        if len(tasks.silent):
            ctx.account.figures["tasks that no row can help with: the answer is beyond the window"] = len(tasks.silent)
        ctx.account.figures["predetermined tasks"] = len(chosen)
        return tasks

    def _usable(self, encoded, tasks: Tasks, ctx: Context) -> np.ndarray:
        """Rows that can stand in front of every task."""
        usable = np.ones(len(encoded.tokens), bool)
        for reason, rows in encoded.problems.items():
            ctx.account.note("unscorable", reason, rows)
            usable[rows] = False
        positions = getattr(ctx.model.config.get_text_config(), "max_position_embeddings", None)
        if positions is not None:
            long = usable & (encoded.tokens.lengths + tasks.behind.lengths.max() > positions)
            ctx.account.note(
                "unscorable", f"the row and a task need more than {positions} positions", np.flatnonzero(long)
            )
            usable &= ~long
        ctx.account.note("truncated", "the answer is longer than the window", np.flatnonzero(encoded.truncated))
        return np.flatnonzero(usable)


class Plan:
    """Which tasks of a candidate to run next: all, or as few as may settle which side of the threshold it is on."""

    def __init__(self, alone: np.ndarray, threshold: float | None, stop: str):
        self.alone, self.threshold, self.stop = alone, threshold, stop
        self.helped, self.tried = np.zeros(len(alone)), np.zeros(len(alone))

    def sealed(self, wins: int, left: int) -> int:
        """-1 if the golden score can't exceed the threshold, 1 if it does, 0 if that is open or must not end it."""
        n = len(self.alone)
        if self.threshold is None or self.stop == "never":
            return 0
        if (wins + left) / n <= self.threshold:
            return -1
        return int(self.stop == "sealed" and wins / n > self.threshold)

    def __call__(self, losses: np.ndarray) -> np.ndarray:
        done = ~np.isnan(losses)
        won = losses < self.alone
        wins, left = int(won.sum()), int((~done).sum())
        if left == 0 or self.sealed(wins, left):
            self.helped[won] += 1
            self.tried[done] += 1
            return np.zeros(0, np.int64)
        todo = np.flatnonzero(~done)
        if self.threshold is None or self.stop == "never":
            return todo
        ways = (m for m in range(1, left) if self.sealed(wins, left - m) or self.sealed(wins + m, left - m))
        fewest = next(ways, left)
        order = np.argsort((self.helped[todo] + 1) / (self.tried[todo] + 2), kind="stable")
        return todo[order[: max(fewest, FEWEST_TASKS)]]
