"""Text of answers for [`metrics`]: normalization, words and numbers in every script."""

import unicodedata
from decimal import Decimal

import regex


# A letter, with its marks, of a script written without spaces between words.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}&&\p{L}]\p{M}*"
_UNSPACED_LETTER = regex.compile(_UNSPACED, regex.V1)
_SPACE_BESIDE_UNSPACED = regex.compile(rf"\s+(?={_UNSPACED})|(?<={_UNSPACED})\s+", regex.V1)
# Such a letter; a run of other letters and digits; or a pictograph such as an emoji. `\p{So}` has no ASCII character.
_WORD = regex.compile(rf"{_UNSPACED}|(?:(?!{_UNSPACED})[\p{{L}}\p{{N}}]\p{{M}}*)+|\p{{So}}", regex.V1)

# Without meaning for a comparison: soft hyphen, zero-width space, direction marks, BOM, emoji presentation selectors.
# Other invisible characters stay: they join emoji and encode flags.
_INVISIBLE = regex.compile(r"[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\ufe0e\ufe0f]")
_APOSTROPHE = regex.compile(r"(?<=\p{L})['’](?=\p{L})")
_THOUSANDS = regex.compile(r"(?<=\d),(?=\d{3}(?!\d))")
# Punctuation except a decimal point and a minus sign: 3.5 is not 35 and -5 is not 5.
_PUNCTUATION = regex.compile(r"(?!(?<![\p{L}.])\.(?=\d)|(?<![\p{L}\p{N}])-(?=\.?\d))\p{P}")

# Digits with optional thousands separators, or a decimal point and digits; an optional exponent. A minus directly
# before the number (or its currency) is its sign, unless a letter, digit or closing bracket precedes it (10-5).
_NUMBER = regex.compile(
    r"(?P<minus>(?<![\p{L}\p{N}\p{Pe}])-)?(?:\p{Sc}\s?)?"
    r"(?P<digits>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\d)\.\d+)(?P<exponent>e[+-]?\d{1,3}(?![\p{L}\d]))?",
    regex.IGNORECASE,
)


def last_number(text: str) -> Decimal | None:
    """
    The last number after the last `####` (GSM8K's marker), or of the whole text without a marker; `None` if there is
    no number.

    Commas separate thousands, a point separates decimals (`$1,234.50`); currency, percent signs, units and a trailing
    full stop are ignored, digits of every script are read, and `5` equals `5.0`.
    """
    text = unicodedata.normalize("NFKC", text).replace("\u2212", "-").rpartition("####")[2]
    matches = list(_NUMBER.finditer(text))
    if not matches:
        return None
    number = Decimal(matches[-1]["digits"].replace(",", "") + (matches[-1]["exponent"] or ""))
    return -number if matches[-1]["minus"] else number


def normalize(text: str) -> str:
    """
    Normalize an answer for string comparison.

    In this order: Unicode compatibility normalization (NFKC: full-width `Ａ！` becomes `A!`) and case folding;
    invisible characters are removed; apostrophes inside words and thousands separators are removed (`don't` becomes
    `dont`, `1,000` becomes `1000`); other punctuation becomes a space, except a decimal point and a minus sign; white
    space becomes one space, and is removed next to a letter of a script written without spaces (`你好, 世界。` becomes
    `你好世界`). Symbols stay: `€` differs from `$`, 👍 from 👎. Articles stay too: SQuAD's rule is English only. A
    text of punctuation only is not changed: `?` differs from `!`.

    Args:
        text (`str`): Any text.

    Returns:
        `str`: The normalized text, empty only if `text` has no visible character.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = _INVISIBLE.sub("", text).replace("\u2212", "-").strip()
    normalized = _THOUSANDS.sub("", _APOSTROPHE.sub("", text))
    normalized = " ".join(_PUNCTUATION.sub(" ", normalized).split())
    return _SPACE_BESIDE_UNSPACED.sub("", normalized) or text


def words(text: str) -> list[str]:
    """Lower-case words; a letter of a script written without spaces is one. `rouge-score` itself splits ASCII only."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def spaced(text: str) -> str:
    """Puts spaces around letters of scripts without spaces: `sacrebleu`'s 13a does not split a Chinese clause."""
    return _UNSPACED_LETTER.sub(r" \g<0> ", text)
