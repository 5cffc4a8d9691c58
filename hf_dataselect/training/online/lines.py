"""[`Pool`] and [`Lines`]: what TRL trains on, line by line, and the candidate row that each token comes from."""

import copy
from collections.abc import Callable
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset

from ...engines.runtime.batching import main_process_first
from ...engines.store.arrow_files import checked_map


class RowBatch(NamedTuple):
    """The rows of a micro-batch."""

    #: Rows of the candidate dataset, int64 `(r,)`, ascending; one that two rounds serve is there twice.
    rows: np.ndarray
    #: Factors of their losses in the round that serves them, float64 `(r,)`.
    weights: np.ndarray
    #: Place in `rows` of each token, `(lines, tokens)`; `r` for padding.
    of_token: torch.Tensor


class Lines:
    """
    Lines as TRL prepares them: of one row each, or of several that are packed.

    Args:
        dataset ([`~datasets.Dataset`]):
            Lines with `input_ids`, `labels` and, packed, `seq_lengths`.
        numbered ([`~datasets.Dataset`]):
            The same lines; their `input_ids` are the place in `rows` of the row that a token comes from.
        rows (`np.ndarray`):
            Rows of the candidate dataset, int64.
    """

    def __init__(self, dataset: Dataset, numbered: Dataset, rows: np.ndarray):
        columns = [name for name in ("input_ids", "labels", "seq_lengths") if name in dataset.column_names]
        self._dataset, self.rows = dataset, rows
        self._read, self._numbered = dataset.select_columns(columns), numbered.with_format("arrow")
        self._places = np.arange(len(dataset))

    def __len__(self) -> int:
        return len(self._places)

    @cached_property
    def dataset(self) -> Dataset:
        """The lines as TRL trains on them."""
        return self._dataset if len(self) == len(self._dataset) else self._dataset.select(self._places)

    def first_rows(self) -> np.ndarray:
        """The candidate row of the first token of each line, int64."""
        parts = [part["input_ids"].combine_chunks() for part in self._numbered.iter(10_000)]
        tokens = ((np.append(part.flatten().to_numpy(), 0), _starts(part)) for part in parts)  # a line may have none
        return self.rows[np.concatenate([rows[starts] for rows, starts in tokens])]

    def some(self, places: np.ndarray) -> "Lines":
        """Some of the lines, in their order; as each round has others, nothing is hashed or copied for them."""
        part = copy.copy(self)
        part.__dict__.pop("dataset", None)
        part._places = self._places[places]
        return part

    def examples(self, places: list[int]) -> list[dict[str, Any]]:
        """Lines, as a collator takes them."""
        return self._read.__getitems__(self._places[places].tolist())

    def rows_of(self, places: list[int]) -> list[np.ndarray]:
        """The candidate row of each token of some lines."""
        numbers = self._numbered[self._places[places]]["input_ids"].combine_chunks()
        return np.split(self.rows[numbers.flatten().to_numpy()], _starts(numbers)[1:])


def _starts(lists: Any) -> np.ndarray:
    offsets = lists.offsets.to_numpy()
    return offsets[:-1] - offsets[0]


class Round(NamedTuple):
    """What is served together: lines, their rows, and the factors of these."""

    lines: Lines
    #: Rows of the candidate dataset, int64 `(m,)`, ascending.
    rows: np.ndarray
    #: Factors of their losses, float64 `(m,)`.
    weights: np.ndarray


def runs_of(served: list[tuple[Round, int]]) -> list[tuple[Round, list[int]]]:
    """Lines in their order, those of one round that follow each other together: reading some takes as long as one."""
    grouped = groupby(served, lambda pair: id(pair[0]))
    runs = (list(pairs) for _, pairs in grouped)
    return [(pairs[0][0], [place for _, place in pairs]) for pairs in runs]


def row_batch(served: list[tuple[Round, int]], shape: torch.Size) -> RowBatch:
    """
    The rows of tokens of lines as a collator lays them out: each line padded on the right, or, without padding, one
    after the other.
    """
    rounds = list({id(one): one for one, _ in served}.values())
    number = {id(one): i for i, one in enumerate(rounds)}
    keys = [
        rows * len(rounds) + number[id(one)] for one, places in runs_of(served) for rows in one.lines.rows_of(places)
    ]
    if shape[0] == 1 < len(keys):
        keys = [np.concatenate(keys)]
    laid_out = np.full(shape, np.iinfo(np.int64).max)
    for line, of_line in zip(laid_out, keys, strict=True):
        line[: len(of_line)] = of_line
    known = np.unique(np.concatenate(keys))
    places = np.where(laid_out == np.iinfo(np.int64).max, len(known), np.searchsorted(known, laid_out))
    rows, of_round = np.divmod(known, len(rounds))
    weights = np.ones(len(rows))
    for i, one in enumerate(rounds):
        here = of_round == i
        weights[here] = one.weights[np.searchsorted(one.rows, rows[here])]
    return RowBatch(rows, weights, torch.from_numpy(places))


class Pool:
    """
    Rows that are tokenized once, as lines of all or some of them.

    Args:
        prepare (`Callable`):
            TRL's preparation: a dataset, arguments, and whether to pack -> lines.
        args ([`~trl.SFTConfig`]):
            Window, packing, shuffling.
        dataset ([`~datasets.Dataset`]):
            The rows, in a layout that TRL trains on.
        rows (`np.ndarray`):
            Their numbers in the candidate dataset, int64, ascending.
    """

    def __init__(
        self, prepare: Callable[[Dataset, Any, bool], Dataset], args: Any, dataset: Dataset, rows: np.ndarray
    ):
        self._prepare, self._args, self.rows = prepare, args, rows
        whole = copy.copy(args)  # rows as they are: what cuts, leaves out, packs or shuffles them comes after
        whole.max_length, whole.shuffle_dataset = None, False
        self._tokens = prepare(dataset, whole, False).select_columns(["input_ids", "labels"])
        options = {"batched": True, "with_indices": True, "num_proc": args.dataset_num_proc}
        with main_process_first(self._tokens):
            self._numbered = checked_map(self._tokens, _numbered, desc="Numbering rows", **options)
        #: The lines of all rows.
        self.lines = self._lines(self._tokens, self._numbered)
        self._of_line = None if args.packing else self.lines.first_rows()

    def _lines(self, tokens: Dataset, numbered: Dataset) -> Lines:
        parts = [self._prepare(part, self._args, self._args.packing) for part in (tokens, numbered)]
        return Lines(*parts, self.rows)

    def of(self, rows: np.ndarray) -> Lines:
        """
        The lines of some rows; packed, if they are, without others.

        Raises:
            `ValueError`: a row of others than the pool's, or one that is there twice.
        """
        known = np.intersect1d(rows, self.rows)
        if len(known) < len(rows):
            raise ValueError(
                f"`selection_policy`: {len(rows)} rows are to be served, and only {len(known)} different ones of them "
                "can be trained on. `choose` must return rows that it is given, each once."
            )
        if self._of_line is not None:
            return self.lines.some(np.flatnonzero(np.isin(self._of_line, known)))
        places = np.searchsorted(self.rows, known)
        return self._lines(self._tokens.select(places), self._numbered.select(places))


def _numbered(batch: dict[str, list], indices: list[int]) -> dict[str, list]:
    return {"input_ids": [[i] * len(ids) for i, ids in zip(indices, batch["input_ids"], strict=True)]}
