"""Text of answers for [`metrics`]: normalization, words and numbers in every script."""

import unicodedata
from decimal import Decimal
from fractions import Fraction

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

# Digits with thousands separators (also India's 12,34,567) or without, and decimals; or a decimal point and digits.
_DIGITS = r"(?:(?:(?:\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3})(?!\d)|\d+)(?:\.\d+)?|(?<!\d)\.\d+)"
# A number with an optional exponent; before it the whole number of a mixed one (3 1/4), behind it the denominator of a
# fraction (not in a date such as 3/4/2024) or minutes and seconds. A minus directly before the number (or its
# currency) is its sign, unless a letter, digit or closing bracket precedes it (10-5).
_NUMBER = regex.compile(
    r"(?P<minus>(?<![\p{L}\p{N}\p{Pe}])-)?(?:\p{Sc}\s?)?(?:(?<![\d/.,:])(?P<whole>\d+)\s+(?:and\s+)?(?=\d+\s?/\s?\d))?"
    rf"(?P<digits>{_DIGITS})(?P<exponent>e[+-]?\d{{1,3}}(?![\p{{L}}\d]))?"
    rf"(?:(?<!/\s?[\d.,]{{1,24}})\s?/\s?(?P<under>-?{_DIGITS})(?!\.?\d|\s?/\s?\d)|(?P<sixtieths>(?::\d+)+))?",
    regex.IGNORECASE,
)
# What the compatibility normalization would write into the number beside it: 3½ is not 31/2, and 5² is not 52.
_RAISED = r"[⁰¹²³⁴-⁹]"
_BESIDE_DIGITS = [
    (regex.compile(rf"(?<=\d)(?=[¼½¾⅐-⅞↉]|{_RAISED}+⁄)"), " "),
    (regex.compile(rf"(?<=\d)(?=⁻?{_RAISED})(?!{_RAISED}+⁄)"), "^"),
    (regex.compile(rf"(?<=[\p{{L}})])⁻?{_RAISED}+"), ""),
    # Thousands separators of other notations.
    (regex.compile(r"(?<=\d)(?:\{,\}|,\\!|\\[,!]|[\u00a0\u2009\u202f'’_])(?=\d{3}(?!\d))"), ""),
]
_BRACES = rf"(?:\{{\s*(-?{_DIGITS})\s*\}}|(\d))"
_FRAC = regex.compile(rf"(\d)?\s*\\[dtc]?frac\s*{_BRACES}\s*{_BRACES}")
_NOTATIONS = [
    (_FRAC, lambda m: (f"{m[1]} " if m[1] else "") + f"{m[2] or m[3]}/{m[4] or m[5]}"),
    (regex.compile(rf"(?<![\p{{L}}\d])\(\s*(-?{_DIGITS})\s*\)(?=\s?/)|(?<=/\s?)\(\s*(-?{_DIGITS})\s*\)"), r"\1\2"),
    # Exponents of units and variables: 25 m^2 is not 2.
    (regex.compile(r"(?<=[\p{L})])(?:\^|\*\*)\{?-?\d+\}?"), ""),
    (regex.compile(r"(?<=(?<!\p{L})(?:[kcdmnμ]?m|ft|in|yd|mi))[23](?!\w)"), ""),
    (regex.compile(r"(?<=\d)\s?(?:[x×*·⋅]|\\times|\\cdot)\s?10(?:\^|\*\*)\{?([+-]?\d{1,3})\}?(?!\d)"), r"e\1"),
    (
        regex.compile(r"(?<![\d.,])(\d{1,4})(?:\^|\*\*)(?:\{(-?\d{1,3})\}|(-?\d{1,3}))(?!\d)"),
        lambda m: _power(int(m[1]), int(m[2] or m[3])),
    ),
]


def _power(base: int, exponent: int) -> str:
    return f"{base**exponent}" if exponent >= 0 else f"1/{base**-exponent}"


def last_number(text: str) -> Fraction | None:
    r"""
    The last number after the last `####` (GSM8K's marker), or of the whole text without a marker; `None` if there is
    no number.

    Commas separate thousands, a point separates decimals (`$1,234.50`); currency, percent signs, units and a trailing
    full stop are ignored, digits of every script are read, and `5` equals `5.0`. A fraction is one number (`3/4`, `¾`,
    `\frac{3}{4}`), as are a mixed number (`3 1/4`), a power (`2^3`, `3 x 10^5`) and a time or ratio (`3:45`, by the
    number of sixtieths). Other arithmetic, roots and symbols are not evaluated: `10 - 5` ends on 5.
    """
    text = text.rpartition("####")[2]
    for pattern, written in _BESIDE_DIGITS:
        text = pattern.sub(written, text)
    text = regex.sub("[\u2044\u2215]", "/", regex.sub("[\u2212\u2013]", "-", unicodedata.normalize("NFKC", text)))
    for pattern, written in _NOTATIONS:
        text = pattern.sub(written, text)
    matches = list(_NUMBER.finditer(text))
    return _value(matches[-1]) if matches else None


def _value(match: "regex.Match[str]") -> Fraction | None:
    number, minus = _exact(match["digits"] + (match["exponent"] or "")), bool(match["minus"])
    if match["under"]:
        under = _exact(match["under"])
        if not under:
            return None
        number /= under
        if match["whole"] and number < 1:
            number += _exact(match["whole"])
        elif match["whole"]:  # two numbers, not a mixed one
            minus = False
    for place, part in enumerate((match["sixtieths"] or "").split(":")):
        number += _exact(part or "0") / 60**place
    return -number if minus else number


def _exact(digits: str) -> Fraction:
    return Fraction(Decimal(digits.replace(",", "")))  # `Decimal`, as Python limits the digits of an `int`


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
