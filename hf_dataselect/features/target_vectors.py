"""Vectors of candidates and of target-task examples, made alike."""

from collections.abc import Callable

import numpy as np

from ..context import Context
from ..data.encoded import Encoded
from ..data.records import Records
from ..data.row_texts import RowTexts
from ..data.targets import check_target_text
from ..engines.runtime.stored_vectors import Vectors as Vectors
from ..engines.subset.lazy_vectors import LazyVectors
from ..engines.subset.target_similarity import unit
from ..errors import SelectionError
from .hidden_states import note_unusable, text_vectors
from .sentence_vectors import sentence_vectors
from .target_rows import encode_target, refuse_without_target
from .term_scores import row_texts


def target_vectors(
    records: Records, ctx: Context, vectors_of: Callable[[Encoded, Context, str, bool], Vectors] = text_vectors
) -> tuple[Vectors, np.ndarray]:
    """
    Vectors of rows, and of the rows of `ctx.target`, by the context's model.

    Args:
        records ([`Records`]):
            The candidates. Those without a vector are entered in `ctx.account`.
        ctx ([`Context`]):
            Model, tokenizer, window, target.
        vectors_of (`Callable`, *optional*, defaults to [`~hidden_states.text_vectors`]):
            Encoded rows, context, label, and whether they are the candidates -> [`Vectors`].

    Returns:
        `tuple`: [`Vectors`] of the candidates, and the target's in memory, `(m, width)`, NaN for rows that are not
        usable, which a warning names.

    Raises:
        [`SelectionError`]: no row of the target is usable.
    """
    text_format = ctx.text_format()
    encoded_target = encode_target(ctx, text_format)
    wanted = vectors_of(encoded_target, ctx.whole, "Embedding the target", False)
    refuse_without_target(wanted.usable, encoded_target, ctx)
    target = wanted.vectors[:]
    target[~wanted.usable] = np.nan
    encoded = ctx.encode(records, text_format)
    note_unusable(encoded, ctx)
    candidates = vectors_of(encoded, ctx, "Embedding rows", True)
    unusable = np.flatnonzero(~candidates.usable)
    ctx.account.note("unscorable", "did not fit in memory, or no finite representation", unusable)
    return candidates, target


def target_sentence_vectors(records: Records, ctx: Context, encoder: str) -> tuple[Vectors, np.ndarray]:
    """
    The same by a sentence encoder (extra `embed`), of the text of all turns, at length 1.

    Raises:
        [`SelectionError`]: no row of the target has a text, or the encoder can't be loaded.
    """
    check_target_text(ctx.target)
    wanted = _text_vectors(ctx.target, encoder, ctx.whole, "Embedding the target")
    if not wanted.usable.any():
        raise SelectionError("`selection_target`: none of its rows has an answer.")
    target = wanted.vectors[:]
    target[~wanted.usable] = np.nan
    candidates = _text_vectors(records, encoder, ctx, "Embedding rows")
    ctx.account.note("unscorable", "no answer", np.flatnonzero(~candidates.usable))
    return candidates, target


def _text_vectors(records: Records, encoder: str, ctx: Context, label: str) -> Vectors:
    texts = row_texts(records)
    states = sentence_vectors(RowTexts(records, lambda record: texts.text_of(record) or ""), encoder, ctx, label)
    known = np.array([text is not None for text in texts])
    return Vectors(LazyVectors(states.vectors, unit, states.vectors.shape[1]), known & states.directed())
