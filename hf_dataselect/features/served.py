"""What the rows kept give to the tasks of a target: a matrix by source, rows that serve several, what is unserved."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from ..context import Context
from ..data.records import Records
from ..engines.subset.choose import top_k
from ..engines.subset.matchers import for_target
from ..engines.subset.target_similarity import Similarity, best_of_columns, highest, parts_of
from .target_rows import Columns, columns


#: Column of the candidates that says where a row comes from.
SOURCE = "source"
#: Sources and unserved columns that are named, the largest or first ones.
SHOWN = 12


class ServesTarget:
    """
    What selectors share that take rows for a target by a `rule` over similarities `(n, columns)`: their features, or
    these by the name `"similarity"`. A base before [`Selector`], whose calls it adds to.
    """

    columns: ClassVar[tuple[str, ...] | None] = ()
    weighs_tasks: ClassVar[bool] = True

    rule: str
    #: Whether `max` takes a target without subtasks as one; otherwise each of its examples is a column.
    joins_examples: ClassVar[bool] = False

    def needs(self) -> frozenset[Any]:
        return super().needs() | {"text", "target"}

    @property
    def matcher(self) -> str:
        """The rule over the columns: of single examples, `doubly_greedy` is `max`."""
        return "max" if self.rule == "doubly_greedy" else self.rule

    def columns_of(self, ctx: Context) -> Columns:
        """What of the target chooses rows."""
        return columns(ctx.target, self.rule, one=self.joins_examples and self.rule == "max")

    def describe(self, chosen: np.ndarray, scores: np.ndarray, records: Records, features: Any, ctx: Context) -> None:
        similarity = features["similarity"] if isinstance(features, dict) else features
        note_served(similarity, scores, chosen, records, self.columns_of(ctx), ctx)


#: Rules over similarities of vectors.
VectorRule = Literal["max", "round_robin", "round_robin_free", "optimal_transport", "knn_uniform", "knn_kde"]


class ServesBySimilarity(ServesTarget):
    """
    Stages of methods by the similarity of vectors: of features `"similarity"`, a [`Similarity`], `"usable"`, bool
    `(n,)`, and `"vectors"` of the rows.
    """

    splits: ClassVar[Literal["rows"]] = "rows"

    def needs(self) -> frozenset[Any]:
        return super().needs() | {"model"}

    def forecast(self, rows: int, target: int, kept: int) -> dict[str, int]:
        return {"forward_rows": rows + target}

    def score(self, features: dict[str, Any], ctx: Context) -> np.ndarray:
        weighted = self.columns_of(ctx).weighted
        return np.where(features["usable"], highest(features["similarity"], weighted), np.nan).astype(np.float32)

    def select(
        self, scores: np.ndarray, records: Records, features: dict[str, Any], k: int, ctx: Context
    ) -> np.ndarray:
        ties, vectors = ctx.ties(len(scores)), features["vectors"]
        shares = self.columns_of(ctx).shares
        return for_target(features["similarity"], scores, k, self.rule, ties, shares, vectors)


def note_served(
    similarity: np.ndarray | Similarity,
    scores: np.ndarray,
    chosen: np.ndarray,
    records: Records,
    columns: Columns,
    ctx: Context,
) -> None:
    """
    Enter among the figures of `ctx.account` what the rows kept give to several tasks: to the named ones of the target,
    or to its subtasks. A row serves a task if it is among the rows that the task alone would keep: its `len(chosen)`
    most similar ones.

    Args:
        similarity (`np.ndarray` or [`Similarity`]):
            Of rows and columns `(n, columns)`.
        scores (`np.ndarray`):
            `(n,)`; rows without a finite score serve nothing.
        chosen (`np.ndarray`):
            The rows kept.
        records ([`Records`]):
            Candidates; a column `source` tells where they are from.
        columns ([`Columns`]):
            The columns, and their tasks.
    """
    tasks = several_tasks(columns)
    if not tasks or len(chosen) == 0:
        return
    named, ties = list(dict.fromkeys(tasks)), ctx.ties(len(scores))
    serves = _serving(similarity, scores, chosen, np.array([named.index(task) for task in tasks]), ties)
    figures: dict[str, Any] = ctx.account.figures
    sources = np.array(["candidates"] * len(chosen), object)
    if SOURCE in records.dataset.column_names:
        sources = np.array(list(map(str, records.dataset.select(chosen)[SOURCE])), object)
    names, counts = np.unique(sources, return_counts=True)
    largest = names[np.argsort(-counts, kind="stable")][:SHOWN].tolist()
    rest = ~np.isin(sources, largest)
    for source, mine in [*((name, sources == name) for name in largest), ("all other sources", rest)]:
        if mine.any():
            served = dict(zip(named, serves[mine].sum(0).tolist(), strict=True))
            figures[f"rows kept of {source} that serve"] = served | {"none": int((~serves[mine].any(1)).sum())}
    figures["rows kept that serve several tasks"] = chosen[serves.sum(1) > 1].tolist()
    kept = ", ".join(f"{name} {part:.0%}" for name, part in zip(named, serves.mean(0), strict=True))
    figures["of the rows that each task alone would keep"] = kept
    best = best_of_columns(similarity, equal_share(chosen, columns), scores, ties)
    note_unserved([rows for rows, _ in best], chosen, columns, ctx)


def several_tasks(columns: Columns) -> list[str]:
    """The task of each column, named or a subtask; empty where the target has one only."""
    tasks = columns.tasks or (columns.names if len(columns.names) < len(columns.groups) else [])
    return tasks if len(set(tasks)) > 1 else []


def equal_share(chosen: np.ndarray, columns: Columns) -> int:
    """Of the rows kept, how many each column would have if all had as many, rounded up."""
    return -(-len(chosen) // len(columns.names))


def note_unserved(best: Sequence[np.ndarray], chosen: np.ndarray, columns: Columns, ctx: Context) -> None:
    """Enter among the figures of `ctx.account` the columns none of whose `best` rows, its [`equal_share`], is kept."""
    missing = [name for name, rows in zip(columns.names, best, strict=True) if not np.isin(rows, chosen).any()]
    said = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
    ctx.account.figures["left unserved"] = f"{len(missing)} of {len(columns.names)}: {said}" if missing else "none"


def _serving(
    similarity: np.ndarray | Similarity, scores: np.ndarray, chosen: np.ndarray, task: np.ndarray, ties: np.ndarray
) -> np.ndarray:
    """Whether each chosen row serves each task, bool `(k, tasks)`."""
    n = similarity.shape[0]
    by_task = np.full((n, task.max() + 1), np.nan, np.float32)
    for part, values in parts_of(similarity, scores):
        for number in range(by_task.shape[1]):
            by_task[part, number] = np.fmax.reduce(values[:, task == number], axis=1)
    own = [top_k(values, len(chosen), ties) for values in by_task.T]
    return np.stack([np.isin(chosen, rows) for rows in own], 1)
