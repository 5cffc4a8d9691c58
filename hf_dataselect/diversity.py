"""[`Diversity`]: after any method's ranking, keep rows that differ from each other."""

import importlib.util
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from .context import Context
from .data.records import Records
from .engines.forward.sentence_encoder import check_sentence_encoder
from .engines.subset.choose import cosine, facility_location
from .engines.subset.diverse_filter import diverse_filter
from .engines.subset.nearest_graph import nearest_graph, represented
from .engines.subset.target_similarity import directions
from .features.row_vectors import RowVectors
from .options import Cosine, Fraction, PositiveInt, check_declared, typed_options


@dataclass
class Diversity:
    """
    What follows a method's own ranking (`selection_diversity`).

    Args:
        kind (`str`, *optional*, defaults to `"filter"`):
            `"filter"`: best first, keep each row whose cosine to every row kept so far is at most `threshold` (DEITA,
            arXiv 2312.15685); only the rows that this reaches are embedded. `"facility_location"`: of the best rows,
            `pool` of the dataset, those that represent them best (Superfiltering.D, arXiv 2402.00530); time grows with
            the square of the pool.
        threshold (`float`, *optional*, defaults to `0.9`):
            For `"filter"`: highest cosine to a kept row. Lower keeps rows farther apart; too low a one leaves fewer
            rows than the budget.
        pool (`float`, *optional*, defaults to `0.2`):
            For `"facility_location"`: part of the dataset that it picks from. With a budget as large as that, the
            method's own choice stands, and the summary says so.
        encoder (`str`, *optional*, defaults to `"sentence-transformers/all-MiniLM-L6-v2"`):
            Sentence encoder by hub name or folder (extra `embed`), or `"model"`: the last hidden state of the pending
            fine-tune model at the end of the answer.
        neighbours (`int`, *optional*):
            For `"facility_location"`: rows that may represent a row, its nearest ones, which an index looks up (extra
            `faiss`), for pools of more than some 50,000 rows. By default any row may.
    """

    kind: Literal["filter", "facility_location"] = "filter"
    threshold: Cosine = 0.9
    pool: Fraction = 0.2
    encoder: str = "sentence-transformers/all-MiniLM-L6-v2"
    neighbours: PositiveInt | None = None

    def __post_init__(self):
        check_declared(self, "selection_diversity")
        if self.neighbours is not None and self.kind == "filter":
            raise ValueError("`selection_diversity`: neighbours is for `kind: facility_location`: remove it.")

    def facts(self) -> dict[str, Any]:
        """Its options, without those that are not given and have no default: runs of before have none of them."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def needs(self) -> frozenset[str]:
        """What it needs besides what the method does, as [`~Selector.needs`] names it."""
        return frozenset({"text", "model"} if self.encoder == "model" else ())

    def check(self) -> None:
        """Refuse, with a `ValueError`, an encoder that can't be loaded, before anything loads."""
        if self.encoder != "model":
            check_sentence_encoder(self.encoder, "selection_diversity")

    def choose(self, best: Callable[[int], np.ndarray], records: Records, k: int, ctx: Context) -> np.ndarray:
        """
        Rows to keep.

        Args:
            best (`Callable`):
                Number of rows wanted -> rows, best first: the method's own choice.
            records ([`Records`]):
                The candidate dataset.
            k (`int`):
                Rows to keep.
            ctx ([`Context`]):
                Model, cache, ranks.

        Returns:
            `np.ndarray`: int64, at most `k`; best first for the filter, most gain first for facility location.
        """
        n = len(records)
        vectors = RowVectors(records, ctx, self.encoder)
        try:
            if self.kind == "filter":
                order = best(n)
                device = ctx.runtime.device
                kept = diverse_filter(order, vectors, k, self.threshold, device=device)
                walked = order if len(kept) < k else order[: int(np.flatnonzero(order == kept[-1])[0])]
                why = f"a cosine above {self.threshold:g} with a better row that is kept"
                lost = [row for rows in ctx.account.rows("dropped").values() for row in rows]
                ctx.account.note("dropped", why, np.setdiff1d(walked, np.concatenate([kept, lost])))
                return kept
            pool = best(max(k, round(self.pool * n)))
            if len(pool) <= k:
                ctx.account.figures["facility location"] = (
                    f"skipped: its pool of {len(pool):,} rows is no larger than the budget, so the method's own "
                    "choice stands"
                )
                return pool
            embedded = vectors.stored(pool)
            usable = np.flatnonzero(embedded.directed())
            pool, embeddings = pool[usable], embedded.take(usable)
            if self.neighbours is not None:
                return pool[ctx.agreed(represented(nearest_graph(embeddings, self.neighbours), k)[0])]
            return pool[facility_location(directions(embeddings), k, cosine)[0]]
        finally:
            vectors.close()


def load_diversity(value: "str | dict[str, Any] | Diversity | None") -> Diversity | None:
    """
    What `selection_diversity` means: a kind, a mapping of options, or nothing.

    Raises:
        `ValueError`: an unknown kind or option, or a value of the wrong type.
        `ImportError`: the encoder needs a package that is missing.
    """
    if value is None or isinstance(value, Diversity):
        return value
    given = {"kind": value} if isinstance(value, str) and not value.startswith("{") else value
    diversity = typed_options(Diversity, given, "selection_diversity")
    if diversity.encoder != "model" and importlib.util.find_spec("sentence_transformers") is None:
        raise ImportError(
            "`selection_diversity` needs the package `sentence_transformers`: `pip install hf_dataselect[embed]`, or "
            "`encoder: model`."
        )
    if diversity.neighbours is not None and importlib.util.find_spec("faiss") is None:
        raise ImportError(
            "`selection_diversity`: neighbours needs the package `faiss`: `pip install hf_dataselect[faiss]`, or "
            "remove it and give a smaller `pool`."
        )
    return diversity
