"""
Token ids of texts, and the number of tokens before a position in a text.

A tokenizer splits a text at its special tokens before anything else. So the tokens before a position next to one are
those of the whole text, and the text before any other position is tokenized from the last special token on.
"""

import re
from bisect import bisect_right

import numpy as np

from .text import TextFormat


#: Characters per token of the window to which long texts are cut before tokenization, and tokens at the end of such a
#: cut text that are unreliable.
CHARACTERS, MARGIN = 8, 64


class TokenizedTexts:
    """
    Token ids of texts, and their number before a position in a text if the text before it is tokenized separately.

    Args:
        text_format ([`TextFormat`]):
            Tokenizer and window.
        texts (`list[str]`):
            Texts of one batch.
        special_tokens (`bool`):
            Whether the tokenizer adds its special tokens, as for plain texts.
    """

    def __init__(self, text_format: TextFormat, texts: list[str], special_tokens: bool):
        self.format, self.special_tokens = text_format, special_tokens
        window = text_format.max_length if text_format.truncation == "keep_start" else None
        self.texts = [text[: _enough(text, window)] for text in texts]
        self.ids = text_format.tokenize(self.texts, special_tokens)
        enough = (window or 0) + MARGIN
        short = [i for i, ids in enumerate(self.ids) if len(self.texts[i]) < len(texts[i]) and len(ids) < enough]
        for i, ids in zip(short, text_format.tokenize([texts[i] for i in short], special_tokens), strict=True):
            self.texts[i], self.ids[i] = texts[i], ids
        self._specials = self._find_specials()

    def specials(self, i: int) -> dict[int, int]:
        """Character position -> token position of the special tokens in the `i`-th text."""
        return {start: place for start, _, place in self._specials[i] or ()}

    def before(self, places: list[list[int]]) -> list[list[int]]:
        """Number of tokens before each position in each text; all of them where the text was cut before it."""
        counts, pending = [[0] * len(row) for row in places], {}
        for i, row in enumerate(places):
            specials, starts = self._specials[i], [special[0] for special in self._specials[i] or ()]
            for column, position in enumerate(row):
                if position >= len(self.texts[i]):
                    counts[i][column] = len(self.ids[i])
                    continue
                before = bisect_right([end for _, end, _ in specials or ()], position)
                after = starts[before] if before < len(starts) else -1
                first, base = (specials[before - 1][1], specials[before - 1][2] + 1) if before else (0, 0)
                if position == after:
                    counts[i][column] = specials[before][2]
                elif position == first and before:
                    counts[i][column] = base
                else:
                    counts[i][column] = base
                    pending.setdefault(self.texts[i][first:position], []).append((i, column))
        for segment, ids in zip(pending, self.format.tokenize(list(pending), self.special_tokens), strict=True):
            for i, column in pending[segment]:
                counts[i][column] += len(ids)
        return counts

    def _find_specials(self) -> list[list[tuple[int, int, int]] | None]:
        """Start, end and token position of each special token in each text; `None` where these don't match."""
        if self.special_tokens or self.format.splitting is None or not self.ids:
            return [None] * len(self.ids)
        pattern, special_ids = self.format.splitting
        ends = np.cumsum([0, *map(len, self.ids)])
        special = np.isin(np.concatenate([np.array(ids, np.int32) for ids in self.ids]), special_ids)
        specials = []
        for text, start, end in zip(self.texts, ends[:-1], ends[1:], strict=True):
            matches, tokens = [match.span() for match in pattern.finditer(text)], np.flatnonzero(special[start:end])
            same = len(matches) == len(tokens)
            specials.append(
                [(*span, token) for span, token in zip(matches, tokens.tolist(), strict=True)] if same else None
            )
        return specials


def _enough(text: str, window: int | None) -> int:
    """Where to cut a text that is far longer than the window: after a word, before the space that follows."""
    if window is None or len(text) <= (least := CHARACTERS * (window + MARGIN)):
        return len(text)
    place = re.compile(r"\w (?=\w)").search(text, least)
    return place.start() + 1 if place else len(text)
