"""
Human-designed features, computed without a model (paper, section 3.1). `FEATURES` lists them;
`selection_method: indicator` selects by any of them.

A word is what stands between spaces, in lower case, without digits, hyphens and dashes; other ASCII punctuation counts
as a space (the rule of the package lexicalrichness). In scripts that are written without spaces (Chinese, Japanese,
Thai, Lao, Khmer, Burmese) each character with its marks is a word and punctuation is none: lengths and diversity can
then be compared within a language, not between languages.
"""

import string
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import regex

from ..context import Context
from ..data.layouts import content_text
from ..data.records import Records


#: Rows per batch.
ROWS = 256

#: Scripts that are written without spaces, as a pattern of a character.
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_UNSPACED_CHARACTER = regex.compile(UNSPACED)
_UNSPACED_WORD = regex.compile(rf"{UNSPACED}\p{{M}}*|(?:(?!{UNSPACED})[\p{{L}}\p{{N}}\p{{M}}])+")
_END_OF_SENTENCE = regex.compile(r"[.!?\u2026\u3002\uff01\uff1f]+")
_WORD_CHARACTER = regex.compile(r"\w")
_CLEANED = str.maketrans("", "", string.digits + "-\u2013\u2014") | str.maketrans(
    dict.fromkeys(set(string.punctuation) - {"-"}, " ")
)


def words(text: str) -> list[str]:
    """Words of a text, see the module docstring."""
    word_list = []
    for part in text.lower().translate(_CLEANED).split():
        word_list += _UNSPACED_WORD.findall(part) if _UNSPACED_CHARACTER.search(part) else [part]
    return word_list


def split_sentences(text: str) -> list[str]:
    """Stretches with a letter or digit in them, between full stops, exclamation and question marks of any script."""
    return [part for part in _END_OF_SENTENCE.split(text) if _WORD_CHARACTER.search(part)]


def sentences(text: str) -> int:
    """Number of sentences, see [`split_sentences`]."""
    return len(split_sentences(text))


def mtld(tokens: list[str], threshold: float = 0.72) -> float:
    """
    Measure of textual lexical diversity of a list of words (McCarthy & Jarvis 2010): how many follow each other, on
    average over a walk forward and one backward, before the share of different ones falls to `threshold`. NaN without
    words.
    """
    from lexicalrichness import LexicalRichness

    return LexicalRichness(tokens, preprocessor=None, tokenizer=None).mtld(threshold=threshold) if tokens else np.nan


def lix(text: str) -> float:
    """Words a sentence plus the percentage of words of more than six letters; NaN without words."""
    word_list = words(text)
    if not word_list:
        return np.nan
    return len(word_list) / max(1, sentences(text)) + 100 * sum(len(word) > 6 for word in word_list) / len(word_list)


def automated_readability(text: str) -> float:
    """4.71 x letters a word + 0.5 x words a sentence - 21.43; NaN without words."""
    word_list = words(text)
    if not word_list:
        return np.nan
    return 4.71 * _mean_length(word_list) + 0.5 * len(word_list) / max(1, sentences(text)) - 21.43


def _mean_length(word_list: list[str]) -> float:
    return _ratio(sum(map(len, word_list)), len(word_list))


def _ratio(number: int, of: int) -> float:
    return number / of if of else np.nan


def compression(text: str) -> float:
    """UTF-8 bytes of a text / bytes that zlib makes of them; NaN for an empty text."""
    data = text.encode("utf-8", "replace")
    return len(data) / len(zlib.compress(data, 9)) if data else np.nan


@dataclass(frozen=True)
class TextFeature:
    """
    A number computed from a text.

    Args:
        formula, range, source (`str`):
            Its definition, values and origin.
        of (`Callable`):
            Text -> number; NaN where it is undefined. `None` if it needs more than the text.
        extras (`dict[str, str]`, *optional*):
            Packages needed, each with the extra that installs it.
    """

    formula: str
    range: str
    source: str
    of: Callable[[str], float] | None
    extras: dict[str, str] = field(default_factory=dict)


#: The text features, by name.
TEXT_FEATURES = {
    "characters": TextFeature("code points", "0 and up", "", len),
    "words": TextFeature("words", "0 and up", "arXiv 2307.06290 (Len)", lambda text: len(words(text))),
    "terms": TextFeature("different words", "0 and up", "", lambda text: len(set(words(text)))),
    "sentences": TextFeature("sentences", "0 and up", "", sentences),
    "word_length": TextFeature("letters / words", "above 0", "", lambda text: _mean_length(words(text))),
    "sentence_length": TextFeature(
        "words / sentences", "0 and up", "", lambda text: _ratio(len(words(text)), sentences(text))
    ),
    "ttr": TextFeature(
        "terms / words",
        "0 to 1, falls with length",
        "Templin 1957",
        lambda text: _ratio(len(set(word_list := words(text))), len(word_list)),
    ),
    "mtld": TextFeature(
        "mean words until terms / words falls to 0.72, forward and backward",
        "1 and up",
        "McCarthy & Jarvis 2010; arXiv 2307.06290",
        lambda text: mtld(words(text)),
        {"lexicalrichness": "lexical"},
    ),
    "lix": TextFeature(
        "words / sentences + 100 x words of more than 6 letters / words; European languages",
        "about 20 (easy) to 60 (hard)",
        "Björnsson 1968",
        lix,
    ),
    "ari": TextFeature(
        "4.71 x letters / words + 0.5 x words / sentences - 21.43; English",
        "about 1 (easy) to 14 (hard)",
        "Senter & Smith 1967",
        automated_readability,
    ),
    "compression": TextFeature(
        "bytes / bytes compressed", "below 1 (short) to 1,000; high repeats itself", "zlib", compression
    ),
}


#: All features: those of a text, and the one that needs a tokenizer.
FEATURES = TEXT_FEATURES | {
    "tokens": TextFeature("tokens of the model's tokenizer, answers only", "0 and up", "arXiv 2402.04833", None)
}


def feature_table() -> str:
    """Markdown table of the features."""
    lines = ["| name | formula | range | source |", "|---|---|---|---|"]
    for name, feature in FEATURES.items():
        extra = "".join(f"; extra `{extra}`" for extra in feature.extras.values())
        lines.append(f"| `{name}` | {feature.formula}{extra} | {feature.range} | {feature.source} |")
    return "\n".join(lines)


def text_feature(name: str, records: Records, ctx: Context, of_prompt: bool = False) -> np.ndarray:
    """
    A feature of `TEXT_FEATURES` of each row's answers (one below the other), or of its prompt, float64 `(n,)`. Rows
    are sharded across the ranks.

    Rows without the text, or where the feature is undefined, are NaN and entered in `ctx.account`.
    """

    def measure(rows: np.ndarray) -> np.ndarray:
        columns = np.zeros((len(rows), 2))  # whether the row has the text, and the number
        for place, record in enumerate(records.subset(rows)):
            texts = [content_text(record.messages[turn]) for turn in record.answer_turns]
            text = record.prompt if of_prompt else "\n".join(texts)
            if record.problem is None and text.strip():
                columns[place] = 1, TEXT_FEATURES[name].of(text)
        return columns

    options = {"batch_tokens": ROWS, "label": f"Measuring {name}"}
    present, values = ctx.runtime.map(measure, np.ones(len(records), np.int64), 2, **options).T
    values[present == 0] = np.nan
    ctx.account.note("unscorable", f"no {'prompt' if of_prompt else 'answer'}", np.flatnonzero(present == 0))
    ctx.account.note("unscorable", f"the text has no {name}", np.flatnonzero(np.isnan(values)))
    return values


def answer_tokens(records: Records, ctx: Context) -> np.ndarray:
    """
    Tokens of all answers of a row, before truncation, float64 `(n,)`, by the model's own tokenizer, which also serves
    languages without spaces. Rows without an answer are NaN and entered in `ctx.account`.
    """
    encoded = ctx.encode(records, ctx.text_format(max_length=None))
    counts = encoded.label_tokens().astype(np.float64)
    for reason, rows in encoded.problems.items():
        ctx.account.note("unscorable", reason, rows)
        counts[rows] = np.nan
    return counts
