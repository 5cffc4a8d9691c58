"""What a prompt changes in the loss of each answer token, under noisy copies of the row (T-SHIRT)."""

from collections.abc import Sequence

import numpy as np

from ..context import Context
from ..data.encoded import Encoded
from ..data.records import Records
from ..data.text import TextFormat
from ..engines.forward.noisy_losses import noisy_deltas
from ..engines.runtime.token_rows import TokenRows
from .hidden_states import note_unusable


class Answers(Sequence):
    """The answers of each record without their prompts, taken from `alone` as they are asked for."""

    def __init__(self, alone: Encoded, records: int):
        self._tokens, self._order = alone.tokens, np.argsort(alone.row, kind="stable")
        self._begins = np.searchsorted(alone.row[self._order], np.arange(records + 1))

    def __len__(self) -> int:
        return len(self._begins) - 1

    def __getitem__(self, row: int) -> TokenRows:  # type: ignore[override]  # no slices
        return self._tokens.select(self._order[self._begins[row] : self._begins[row + 1]])


class Deltas(Sequence):
    """
    Of each record, float32 `(copies, 1 + tokens)`: the change of the mean loss, and of each token's loss, that the
    prompt makes; read from the disk as they are indexed where there is a cache. Unusable records have no rows.
    """

    def __init__(self, flat: Sequence[np.ndarray], copies: int, usable: np.ndarray):
        self._flat, self._copies, self._usable = flat, copies, usable

    def __len__(self) -> int:
        return len(self._flat)

    def __getitem__(self, row: int) -> np.ndarray:  # type: ignore[override]  # no slices
        return self._flat[row].reshape(self._copies, -1) if self._usable[row] else np.zeros((0, 1), np.float32)


def prompt_deltas(records: Records, ctx: Context, text_format: TextFormat, copies: int, alpha: float) -> Deltas:
    """[`Deltas`] of records, see [`noisy_deltas`]. Those without any are entered in `ctx.account`."""
    encoded = ctx.encode(records, text_format)
    answers = Answers(ctx.encode(records, text_format, unconditional=True), len(records))
    label = f"Scoring {copies} noisy copies"
    given = ctx.model, encoded.tokens, answers, ctx.runtime, copies, alpha
    flat = noisy_deltas(*given, seed=ctx.seed, label=label)
    note_unusable(encoded, ctx)
    lost = np.flatnonzero([values.size == 0 or not np.isfinite(values).all() for values in flat])
    reason = "no token has a loss both with and without the prompt, or the row did not fit in memory"
    ctx.account.note("unscorable", reason, lost[~encoded.problematic[lost]])
    usable = ~encoded.problematic
    usable[lost] = False
    return Deltas(flat, copies, usable)
