"""Human-designed features: what can be read off a row without a model (paper, section 3.1)."""

import numpy as np

from ..selector import Context
from .records import Records
from .text import encode


def answer_tokens(records: Records, ctx: Context) -> np.ndarray:
    """
    Tokens of all answers of a row, before any cut at the window, float64 `(n,)`.

    Counted with the model's own tokenizer, so that languages without spaces count as well. Rows without an answer are
    NaN and entered in `ctx.account`.
    """
    encoded = encode(records, ctx.text_format(max_length=None), num_proc=ctx.num_proc)
    counts = np.full(len(records), np.nan)
    for start in range(0, len(records), 10_000):
        rows = range(start, min(start + 10_000, len(records)))
        counts[rows] = [(spans[:, 1] - spans[:, 0]).sum() for _, spans in encoded.tokens.take(rows)]
    for reason, rows in encoded.problems.items():
        ctx.account.note("unscorable", reason, rows)
        counts[rows] = np.nan
    return counts
