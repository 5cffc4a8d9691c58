"""Loss and rank of each token of the answers."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..context import Context
from ..data.records import Records
from ..engines.forward.shared_pass import compute_together, token_values
from ..engines.forward.wants import ONE_PASS, Want
from .hidden_states import note_unusable


class AnswerTokens(NamedTuple):
    """Numbers of the label tokens, ragged; read from the disk as they are indexed where there is a cache."""

    #: Of each token row, float32 `(label tokens,)`.
    values: Sequence[np.ndarray]
    #: Record of each token row, int64.
    row: np.ndarray
    #: Records without an unscorable part, bool `(n,)`.
    usable: np.ndarray

    def sums(self, clip: float = np.inf) -> tuple[np.ndarray, np.ndarray]:
        """Sum of the numbers of each record, cut at `clip`, and how many it has, float64 `(n,)` each."""
        total = np.array([np.minimum(values, clip).sum(dtype=np.float64) for values in self.values])
        counts = np.array([len(values) for values in self.values], np.float64)
        n = len(self.usable)
        return np.bincount(self.row, total, n), np.bincount(self.row, counts, n)


def answer_token_values(records: Records, ctx: Context, want: Want, label: str = "Scoring answers") -> AnswerTokens:
    """
    Loss (`"token losses"`, nats) or rank (`"token ranks"`, from 1) of each label token of the answers, given all
    before it. Unscorable rows are entered in `ctx.account`, as by [`~loss.answer_loss`].
    """
    encoded = ctx.encode(records, parts=True)
    compute_together(ctx.model, encoded.tokens, ctx.runtime, ctx.wants & ONE_PASS, label)
    values = token_values(ctx.model, encoded.tokens, ctx.runtime, want, label)
    note_unusable(encoded, ctx)
    # A token at position 0 is a label token without a number.
    lost = (encoded.label_tokens() > 1) & (np.array([len(row) for row in values]) == 0)
    usable = ~encoded.problematic
    odd = np.array([not np.isfinite(row).all() for row in values])
    for reason, rows in (("did not fit in memory", encoded.row[lost]), ("the loss is not finite", encoded.row[odd])):
        ctx.account.note("unscorable", reason, rows[usable[rows]])
        usable[rows] = False
    return AnswerTokens(values, encoded.row, usable)
