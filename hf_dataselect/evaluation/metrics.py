"""
Text metrics that work offline.

Every name given to `evaluate.load`, `"rouge"` included, is looked up on a hub. The most used ones are therefore
shipped here as `evaluate.Metric` classes, so that a run on a machine without a network can be scored:

| name | is | from | scale | one value a row |
|---|---|---|---|---|
| `exact_match` | share of rows whose [`normalize`]d texts are equal | this file | 0 to 1 | yes |
| `numeric_match` | share of rows whose last number is the reference's (GSM8K) | this file | 0 to 1 | yes |
| `rouge` | F of shared words, word pairs, longest common subsequence, mean over rows | `rouge-score` | 0 to 1 | yes |
| `chrf` | sentence-level chrF2 (shared character 1- to 6-grams), mean over rows | `sacrebleu` | 0 to 100 | yes |
| `bleu` | BLEU-4 of the whole list of answers | `sacrebleu` | 0 to 100 | no |

They need no list of languages: `rouge` and `bleu` take each character of a script written without spaces (Chinese,
Japanese, Thai, ...) for a word. On ASCII text they give what `rouge-score` and `sacrebleu` give by default.

Any other name goes to `evaluate.load`: a folder or script of the user, or a name on the hub. Another metric of one
of these names is reached by a fuller one: `"./rouge"`, `"evaluate-metric/rouge"`.
"""

import importlib.util
import math
import numbers
import re
import unicodedata
import warnings
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import regex


try:
    import datasets
    import evaluate
except ImportError as error:
    raise ImportError("Text metrics need the package `evaluate`: pip install hf_dataselect[metrics]") from error

# A character, and its marks, of a script that puts no space between words.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}&&\p{L}]\p{M}*"
_UNSPACED_CHARACTER = regex.compile(_UNSPACED, regex.V1)
_SPACE_BESIDE_UNSPACED = regex.compile(rf"\s+(?={_UNSPACED})|(?<={_UNSPACED})\s+", regex.V1)
# Such a character; a run of other letters and digits; or a picture such as an emoji. `\p{So}` has no ASCII character.
_WORD = regex.compile(rf"{_UNSPACED}|(?:(?!{_UNSPACED})[\p{{L}}\p{{N}}]\p{{M}}*)+|\p{{So}}", regex.V1)

# Not part of what a text says: soft hyphen, zero-width space, direction marks, BOM, the choice between the black and
# white and the coloured form of an emoji. Other invisible characters stay: they join emoji and spell flags.
_INVISIBLE = regex.compile(r"[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\ufe0e\ufe0f]")
_APOSTROPHE = regex.compile(r"(?<=\p{L})['’](?=\p{L})")
_THOUSANDS = regex.compile(r"(?<=\d),(?=\d{3}(?!\d))")
# Punctuation, except a decimal point and a minus sign: 3.5 is not 35 and -5 is not 5.
_PUNCTUATION = regex.compile(r"(?!(?<![\p{L}.])\.(?=\d)|(?<![\p{L}\p{N}])-(?=\.?\d))\p{P}")

# A number: digits, in groups of three behind commas or not, or a decimal point and digits; perhaps an exponent. A
# minus is a sign if it stands right before it (or its currency) and not behind a letter, digit or bracket (10-5).
_NUMBER = regex.compile(
    r"(?P<minus>(?<![\p{L}\p{N}\p{Pe}])-)?(?:\p{Sc}\s?)?"
    r"(?P<digits>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\d)\.\d+)(?P<exponent>e[+-]?\d{1,3}(?![\p{L}\d]))?",
    regex.IGNORECASE,
)


def last_number(text: str) -> Decimal | None:
    """
    The number that a text ends on: the last one behind the last `####` where there is one (GSM8K), else the last one.

    Thousands are separated by commas and decimals by a point (`$1,234.50`); currency, percent signs, units and a full
    stop around it are left aside, digits of every script are read, and `5` is `5.0`. `None` if there is no number.
    """
    text = unicodedata.normalize("NFKC", text).replace("\u2212", "-").rpartition("####")[2]
    found = list(_NUMBER.finditer(text))
    if not found:
        return None
    number = Decimal(found[-1]["digits"].replace(",", "") + (found[-1]["exponent"] or ""))
    return -number if found[-1]["minus"] else number


def normalize(text: str) -> str:
    """
    What is left of an answer when spelling habits are folded, so that equal answers are equal strings.

    In this order: Unicode compatibility forms are unified (NFKC: full-width `Ａ！` is `A!`), case is folded; invisible
    characters go; apostrophes inside words and thousands separators go (`don't` is `dont`, `1,000` is `1000`); other
    punctuation becomes a space, except a decimal point and a minus sign; white space becomes one space, none beside
    a character of a script written without spaces (`你好, 世界。` is `你好世界`). Symbols stay: `€` is not `$`, 👍 is
    not 👎. Articles stay too, unlike in SQuAD's normalisation, which is English only. A text that holds nothing but
    punctuation stays as it is: `?` is not `!`.

    Args:
        text (`str`): Any text.

    Returns:
        `str`: The folded text, empty only if `text` has no visible character.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = _INVISIBLE.sub("", text).replace("\u2212", "-").strip()
    folded = _THOUSANDS.sub("", _APOSTROPHE.sub("", text))
    folded = " ".join(_PUNCTUATION.sub(" ", folded).split())
    return _SPACE_BESIDE_UNSPACED.sub("", folded) or text


class _Words:
    """Tokenizer for `rouge-score`, whose own drops every letter that is not ASCII: a Chinese answer would get 0."""

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


class _TextMetric(evaluate.Metric):
    """One text a row on both sides. A subclass has `per_row`, or `_compute` where rows have no value of their own."""

    package: str | None = None

    def __init__(self, *args, **kwargs):
        if self.package and importlib.util.find_spec(self.package) is None:
            raise ImportError(
                f"The metric `{type(self).__name__.lower()}` needs the package `{self.package.replace('_', '-')}`: "
                "pip install hf_dataselect[metrics]"
            )
        super().__init__(*args, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=self.__doc__,
            citation="",
            inputs_description="predictions and references: one `str` a row each.",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def per_row(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, list[float]] | None:
        """The values of each row, in the order of the rows; `None` where a row has no value of its own."""
        return None

    def _compute(self, predictions, references) -> dict[str, float]:
        _check(predictions, references)
        rows = self.per_row(predictions, references)
        return {key: _mean(values) for key, values in rows.items()}


class ExactMatch(_TextMetric):
    """Share of rows whose prediction equals the reference after [`normalize`]; 0 to 1. Two empty texts are equal."""

    def per_row(self, predictions, references):
        pairs = zip(predictions, references, strict=True)
        return {
            "exact_match": [float(normalize(prediction) == normalize(reference)) for prediction, reference in pairs]
        }


class NumericMatch(_TextMetric):
    """
    Share of rows whose prediction ends on the number that the reference ends on, see [`last_number`]; 0 to 1. NaN
    where the reference has no number; a prediction without one is wrong.
    """

    def per_row(self, predictions, references):
        numbers_of = [
            (last_number(one), last_number(other)) for one, other in zip(predictions, references, strict=True)
        ]
        return {"numeric_match": [math.nan if right is None else float(said == right) for said, right in numbers_of]}


class Rouge(_TextMetric):
    """
    ROUGE-1, ROUGE-2 and ROUGE-L F-measures without stemming, mean over rows; 0 to 1. A row in which either side has no
    word gets 0 (so does ROUGE-2 where either side has only one).
    """

    package = "rouge_score"

    def per_row(self, predictions, references):
        from rouge_score.rouge_scorer import RougeScorer

        kinds = ["rouge1", "rouge2", "rougeL"]
        scorer = RougeScorer(kinds, tokenizer=_Words())
        pairs = zip(predictions, references, strict=True)
        rows = [scorer.score(target=reference, prediction=prediction) for prediction, reference in pairs]
        return {kind: [float(row[kind].fmeasure) for row in rows] for kind in kinds}


class Chrf(_TextMetric):
    """
    chrF2 of each row, mean over rows; 0 to 100. Not `sacrebleu`'s corpus chrF, which adds up the n-grams of all rows
    first: there a long row counts for more than a short one, and rows of two runs cannot be compared one by one.
    """

    package = "sacrebleu"

    def per_row(self, predictions, references):
        from sacrebleu.metrics import CHRF

        scorer = CHRF()
        pairs = zip(predictions, references, strict=True)
        return {
            "chrf": [float(scorer.sentence_score(prediction, [reference]).score) for prediction, reference in pairs]
        }


class Bleu(_TextMetric):
    """Corpus BLEU-4 with `sacrebleu`'s default smoothing and tokenization (13a); 0 to 100. It is no mean over rows."""

    package = "sacrebleu"

    def _compute(self, predictions, references):
        from sacrebleu.metrics import BLEU

        _check(predictions, references)
        # `force` only silences a warning about texts that look tokenized, which ours are after the split.
        scorer = BLEU(force=True)
        hypotheses, targets = ([self._split(text) for text in texts] for texts in (predictions, references))
        return {"bleu": float(scorer.corpus_score(hypotheses, [targets]).score)}

    @staticmethod
    def _split(text: str) -> str:
        """Puts spaces around characters of scripts without spaces; 13a leaves a Chinese clause in one piece."""
        return _UNSPACED_CHARACTER.sub(r" \g<0> ", text)


SHIPPED: dict[str, type[_TextMetric]] = {
    "exact_match": ExactMatch,
    "numeric_match": NumericMatch,
    "rouge": Rouge,
    "chrf": Chrf,
    "bleu": Bleu,
}

# Words in the name of a metric, or of a value it gives, that settle which way is better.
_LOWER = {"cer", "distance", "error", "errors", "loss", "losses", "mae", "mape", "mse", "perplexity", "ppl", "rmse"}
_LOWER |= {"ter", "toxicity", "wer"}
_HIGHER = {"accuracy", "bertscore", "bleu", "bleurt", "chrf", "comet", "correlation", "f1", "match", "meteor"}
_HIGHER |= {"precision", "recall", "rouge", "similarity"}


class TextScore(NamedTuple):
    """
    One value of a metric.

    Args:
        score (`float`): The value over all rows, on the scale of the metric.
        higher_is_better (`bool`): Whether a bigger value is a better one.
        examples (`list[float]`, *optional*): Values of the rows, in their order, whose mean is `score` (NaN where the
            reference is no such thing as the metric compares, and left out of the mean); `None` where the metric is no
            mean over rows, or does not give them.
    """

    score: float
    higher_is_better: bool
    examples: list[float] | None = None


def _split_direction(name: str) -> tuple[str, bool | None]:
    """`"my_metric:lower"` -> `("my_metric", False)`; no direction -> `None`."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"a metric is named by a non-empty string, got {name!r}")
    stem, _, direction = name.rpartition(":")
    if stem and direction in ("lower", "higher"):
        if direction == "lower" and stem in SHIPPED:
            raise ValueError(f"metric {name!r}: higher is better in `{stem}`, write {stem!r}")
        return stem, direction == "higher"
    return name, None


def load_metric(name: str) -> evaluate.EvaluationModule:
    """
    Loads a metric by name without starting any work, so that a wrong name is refused early.

    Args:
        name (`str`):
            One of the table above, shipped and offline; else what `evaluate.load` takes:
            the folder or script of a metric, or its name on the hub. An ending `":lower"` or `":higher"`, which says
            which values are better, is allowed and ignored here (see [`score_texts`]).

    Returns:
        `evaluate.EvaluationModule`: The metric; `compute(predictions=..., references=...)` gives its values.

    Raises:
        `ImportError`: A package that the metric needs is missing; the message says what to install.
        `ValueError`: There is no such metric, or it cannot be had without a hub.
    """
    stem, _ = _split_direction(name)
    # In memory, since the files that `evaluate` keeps otherwise are fought over by ranks with one home folder.
    if stem in SHIPPED:
        return SHIPPED[stem](keep_in_memory=True)
    try:
        return evaluate.load(stem, keep_in_memory=True)
    except ImportError:
        raise  # names the packages that the metric asks for
    except Exception as error:  # a missing hub, folder or script shows as half a dozen types of error
        raise ValueError(
            f"metric {name!r} could not be loaded. Shipped: {', '.join(sorted(SHIPPED))}. Other names are "
            "a local folder or script of an `evaluate` metric, or a name on the hub, which has to be reachable. "
            f"`evaluate` said: {type(error).__name__}: {error}"
        ) from error


def _direction(name: str, key: str) -> bool:
    """Which way is better, from the words in `key`, else in the metric's `name`; unknown is higher, with a warning."""
    for text in (key, Path(name).stem):
        words = set(re.split(r"[^a-z0-9]+", text.lower()))
        if words & _LOWER or words & _HIGHER:
            return not words & _LOWER
    warnings.warn(
        f"metric {name!r}: whether a higher `{key}` is better is not known, so it is taken to be. "
        f"Write {name + ':higher'!r} or {name + ':lower'!r} to say it.",
        stacklevel=3,
    )
    return True


def _mean(values: Sequence[float]) -> float:
    """Over the rows that have a value."""
    values = [value for value in values if not math.isnan(value)]
    return sum(values) / len(values) if values else math.nan


def _check(predictions: Sequence[str], references: Sequence[str]) -> None:
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} `predictions` for {len(references)} `references`: one of each a row")
    if not len(predictions):
        raise ValueError("no rows to score: `predictions` and `references` are empty")
    for side, texts in (("predictions", predictions), ("references", references)):
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"`{side}[{row}]` is {text!r}, not a text; an answer that is empty is ''")


def score_texts(name: str, predictions: Sequence[str], references: Sequence[str]) -> dict[str, TextScore]:
    """
    Scores answers against references with one metric.

    Which way is better is known for the shipped metrics. For others it is, in this order: what the user says with an
    ending `":lower"` or `":higher"`; lower, if the name of the value or else of the metric has a word such as `wer`,
    `cer`, `ter`, `perplexity`, `mae`, `mse`, `error` or `loss` in it (`mean_perplexity`); higher, if it has one like
    `accuracy` or `f1`; higher with a warning.

    Args:
        name (`str`):
            As in [`load_metric`], for instance `"rouge"`, `"./metrics/my_metric"` or `"./metrics/my_metric:lower"`.
        predictions (`Sequence[str]`):
            One answer a row. An empty answer is `""`; it is scored like any other text, so as a rule it gets 0.
        references (`Sequence[str]`):
            One reference a row.

    Returns:
        `dict[str, TextScore]`: One entry for each number that the metric gives: `rouge1`, `rouge2`, `rougeL`;
        `exact_match`; `chrf`; `bleu`. Lists and texts in the result of another metric are left out, and a bare number
        gets the metric's name.

    Raises:
        `ImportError`: A package that the metric needs is missing.
        `TypeError`: A row that is `None` or no text.
        `ValueError`: No such metric; no rows; lists of different lengths; a metric that gives no number.
    """
    stem, higher = _split_direction(name)
    _check(predictions, references)
    predictions, references = list(predictions), list(references)
    metric = load_metric(name)
    rows = metric.per_row(predictions, references) if isinstance(metric, _TextMetric) else None
    if rows is not None:
        return {key: TextScore(_mean(values), True, values) for key, values in rows.items()}
    result = metric.compute(predictions=predictions, references=references)
    if not isinstance(result, dict):
        result = {Path(stem).stem: result}
    # 0-d arrays and tensors too, which are no `Number`
    values = {key: value.item() if getattr(value, "ndim", None) == 0 else value for key, value in result.items()}
    found = {
        key: TextScore(float(value), _direction(stem, key) if higher is None else higher)
        for key, value in values.items()
        if isinstance(value, numbers.Real) and not isinstance(value, bool)
    }
    if not found:
        raise ValueError(f"metric {name!r} gave no number, only {sorted(result)}")
    return found
