"""
Text metrics that work offline.

`evaluate.load` looks up every metric name on the Hub, `"rouge"` included. The most common metrics are therefore built
in, so that answers can be scored on a machine without network access:

| name | is | range | per-example scores |
|---|---|---|---|
| `exact_match` | share of predictions that equal a reference after [`normalize`] | 0 to 1 | yes |
| `numeric_match` | share of predictions with the [`last_number`] of a reference (GSM8K) | 0 to 1 | yes |
| `rouge` | ROUGE-1, -2 and -L F-measures without stemming, mean over examples (`rouge-score`) | 0 to 1 | yes |
| `chrf` | sentence-level chrF2, mean over examples (`sacrebleu`) | 0 to 100 | yes |
| `bleu` | corpus BLEU-4 with default smoothing and tokenization 13a (`sacrebleu`) | 0 to 100 | no |

`rouge` and `bleu` count each letter of a script written without spaces (Chinese, Japanese, Thai, ...) as a word. On
ASCII text they equal the defaults of `rouge-score` and `sacrebleu`.

Any other name goes to `evaluate.load`: a local folder or script, or a name on the Hub. A Hub metric with one of the
names above is loaded by its full name: `"evaluate-metric/rouge"`.

Where an example has several right answers, a prediction gets its best score over them (`bleu`: n-grams of all of them,
as in `sacrebleu`). A metric of `evaluate` gets them as lists if it declares that it takes lists, and is refused
otherwise.
"""

import math
import numbers
import re
import warnings
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from ..options import require_extras
from .answer_text import last_number, normalize, spaced, words


#: The right answer of an example, or a list of them: a prediction counts as its best with any of them.
References = str | Sequence[str]


def exact_match(predictions: Sequence[str], references: Sequence[References]) -> dict[str, list[float]]:
    """1 where the text equals a reference after [`normalize`], else 0. Two empty texts are equal."""
    pairs = zip(predictions, map(_listed, references), strict=True)
    return {"exact_match": [float(normalize(said) in map(normalize, right)) for said, right in pairs]}


def numeric_match(predictions: Sequence[str], references: Sequence[References]) -> dict[str, list[float]]:
    """1 where the text has the [`last_number`] of a reference, else 0; NaN if no reference has a number."""
    scores = []
    for said, texts in zip(map(last_number, predictions), map(_listed, references), strict=True):
        right = {last_number(text) for text in texts} - {None}
        scores.append(float(said in right) if right else math.nan)
    return {"numeric_match": scores}


def rouge(predictions: Sequence[str], references: Sequence[References]) -> dict[str, list[float]]:
    """ROUGE F-measures. A text without words scores 0 (for ROUGE-2, a text of one word)."""
    from rouge_score.rouge_scorer import RougeScorer

    kinds = ["rouge1", "rouge2", "rougeL"]
    scorer = RougeScorer(kinds, tokenizer=SimpleNamespace(tokenize=words))
    scores = list(map(scorer.score_multi, map(_listed, references), predictions))
    return {kind: [float(score[kind].fmeasure) for score in scores] for kind in kinds}


def chrf(predictions: Sequence[str], references: Sequence[References]) -> dict[str, list[float]]:
    """
    Sentence-level chrF2. `sacrebleu`'s corpus chrF sums the n-grams of all examples first: long examples weigh more,
    and two runs can't be compared example by example.
    """
    from sacrebleu.metrics import CHRF

    scorer, pairs = CHRF(), zip(predictions, map(_listed, references), strict=True)
    return {"chrf": [float(scorer.sentence_score(said, right).score) for said, right in pairs]}


def bleu(predictions: Sequence[str], references: Sequence[References]) -> dict[str, float]:
    """Corpus BLEU-4; it is not a mean over examples."""
    from sacrebleu.metrics import BLEU

    streams = zip_longest(*(map(spaced, _listed(right)) for right in references))
    # `force` silences a warning about texts that look tokenized, as ours do after `spaced`.
    score = BLEU(force=True).corpus_score([*map(spaced, predictions)], [*map(list, streams)])
    return {"bleu": float(score.score)}


def _listed(references: References) -> list[str]:
    return [references] if isinstance(references, str) else list(references)


#: Built-in metrics, and the package that each needs.
SHIPPED = {
    "exact_match": (exact_match, None),
    "numeric_match": (numeric_match, None),
    "rouge": (rouge, "rouge_score"),
    "chrf": (chrf, "sacrebleu"),
    "bleu": (bleu, "sacrebleu"),
}

# Words in the name of a metric, or of one of its values, that tell its direction.
_LOWER = {"cer", "distance", "error", "errors", "loss", "losses", "mae", "mape", "mse", "perplexity", "ppl", "rmse"}
_LOWER |= {"ter", "toxicity", "wer"}
_HIGHER = {"accuracy", "bertscore", "bleu", "bleurt", "chrf", "comet", "correlation", "f1", "match", "meteor"}
_HIGHER |= {"precision", "recall", "rouge", "similarity"}


class TextScore(NamedTuple):
    """
    One value of a metric.

    Args:
        score (`float`): The value over all examples, in the range of the metric.
        higher_is_better (`bool`): Direction.
        examples (`list[float]`, *optional*): Per-example scores, whose mean is `score` (NaN, and excluded from the
            mean, where the reference can't be compared); `None` if the metric has no per-example scores.
    """

    score: float
    higher_is_better: bool
    examples: list[float] | None = None


def _split_direction(name: str) -> tuple[str, bool | None]:
    """`"my_metric:lower"` -> `("my_metric", False)`; no direction -> `None`."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"A metric name must be a non-empty string, got {name!r}.")
    stem, _, direction = name.rpartition(":")
    if stem and direction in ("lower", "higher"):
        if direction == "lower" and stem in SHIPPED:
            raise ValueError(f"Metric {name!r}: higher is better for `{stem}`. Write {stem!r}.")
        return stem, direction == "higher"
    return name, None


def load_metric(name: str) -> Callable[..., Any]:
    """
    Load a metric by name without computing anything, so that a wrong name is refused early.

    Args:
        name (`str`):
            A built-in metric of the table above, or what `evaluate.load` takes: a local folder or script, or a name
            on the Hub. A suffix `":lower"` or `":higher"` gives the direction, see [`score_texts`].

    Returns:
        `Callable`: Called with `predictions=` and `references=`, it returns the values of the metric.

    Raises:
        `ImportError`: A package that the metric needs is not installed; the message tells what to install.
        `ValueError`: The metric does not exist, or only on a Hub that can't be reached.
    """
    stem, _ = _split_direction(name)
    if stem in SHIPPED:
        metric, package = SHIPPED[stem]
        require_extras(name, {package: "metrics"} if package else {})
        return metric
    import evaluate

    try:
        # In memory: ranks that share a home folder would race for the files that `evaluate` writes otherwise.
        return evaluate.load(stem, keep_in_memory=True).compute
    except ImportError:
        raise  # it names the packages that the metric needs
    except Exception as error:  # a missing Hub, folder or script raises half a dozen types of error
        raise ValueError(
            f"Metric {name!r} could not be loaded. Built in: {', '.join(sorted(SHIPPED))}. Other names are a local "
            "folder or script of an `evaluate` metric, or a name on the Hub, which must be reachable. `evaluate` "
            f"raised {type(error).__name__}: {error}"
        ) from error


def _direction(name: str, key: str) -> bool:
    """Direction by the words in `key`, else in the metric's `name`; unknown counts as higher, with a warning."""
    for text in (key, Path(name).stem):
        parts = set(re.split(r"[^a-z0-9]+", text.lower()))
        if parts & _LOWER or parts & _HIGHER:
            return not parts & _LOWER
    warnings.warn(
        f"Metric {name!r}: the direction of `{key}` is unknown; higher is assumed to be better. Write "
        f"{name + ':higher'!r} or {name + ':lower'!r} to state it.",
        stacklevel=3,
    )
    return True


def _mean(values: Sequence[float]) -> float:
    values = [value for value in values if not math.isnan(value)]
    return sum(values) / len(values) if values else math.nan


def _check(predictions: Sequence[str], references: Sequence[References]) -> None:
    if len(predictions) != len(references):
        raise ValueError(f"Got {len(predictions)} `predictions` for {len(references)} `references`.")
    if not len(predictions):
        raise ValueError("`predictions` and `references` are empty.")
    for row, (said, right) in enumerate(zip(predictions, references, strict=True)):
        if not isinstance(said, str):
            raise TypeError(f"`predictions[{row}]` is {said!r}; expected a `str` (an empty answer is '').")
        texts = [right] if isinstance(right, str) else right
        if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(text, str) for text in texts):
            raise TypeError(f"`references[{row}]` is {right!r}; expected a `str`, or a list of at least one.")


def _as_declared(name: str, metric: Callable[..., Any], references: Sequence[References]) -> list[Any]:
    """References as a metric of `evaluate` declares them: a text for each example, or a list of texts."""
    declared = getattr(getattr(metric, "__self__", None), "features", None) or []
    kinds = {
        hasattr(of.get("references"), "feature") for of in (declared if isinstance(declared, list) else [declared])
    }
    lists = list(map(_listed, references))
    if all(len(right) == 1 for right in lists):
        return lists if kinds == {True} else [right[0] for right in lists]
    if True not in kinds:
        several = sum(len(right) > 1 for right in lists)
        raise ValueError(
            f"Metric {name!r} takes one reference for each example, and {several:,} examples have several right "
            f"answers. Use one that takes several, such as {', '.join(sorted(SHIPPED))}, or keep one answer in a row."
        )
    return lists


def check_references(name: str, references: Sequence[References]) -> None:
    """
    Refuse a metric that can't score examples with several right answers, before there are predictions.

    Raises:
        `ValueError`: The metric takes one reference for each example, or the same number for all.
    """
    lists = sorted(map(_listed, references), key=len)
    if _split_direction(name)[0] in SHIPPED or not lists or len(lists[-1]) == 1:
        return
    _as_declared(name, load_metric(name), lists)
    if len(lists[0]) == len(lists[-1]):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            score_texts(name, ["a", "a"], [lists[0], lists[-1]])
    except Exception as error:  # of the metric's own code
        raise ValueError(
            f"Metric {name!r} can't score examples with {len(lists[0])} and with {len(lists[-1])} answers: {error}"
        ) from error


def score_texts(name: str, predictions: Sequence[str], references: Sequence[References]) -> dict[str, TextScore]:
    """
    Score predictions against references with one metric.

    Higher is better for the built-in metrics. For others the direction is, in this order: the suffix `":lower"` or
    `":higher"`; lower, if the name of the value or else of the metric contains a word such as `wer`, `cer`, `ter`,
    `perplexity`, `mae`, `mse`, `error` or `loss` (`mean_perplexity`); higher, if it contains one like `accuracy` or
    `f1`; higher with a warning.

    Args:
        name (`str`):
            As in [`load_metric`], for instance `"rouge"`, `"./metrics/my_metric"` or `"./metrics/my_metric:lower"`.
        predictions (`Sequence[str]`):
            One prediction per example. An empty prediction is `""` and usually scores 0.
        references (`Sequence[str]` or `Sequence[list[str]]`):
            One reference per example, or a list of right answers.

    Returns:
        `dict[str, TextScore]`: One entry for each number that the metric returns: `rouge1`, `rouge2`, `rougeL`;
        `exact_match`; `chrf`; `bleu`. Lists and texts returned by other metrics are ignored; a bare number gets the
        metric's name.

    Raises:
        `ImportError`: A package that the metric needs is not installed.
        `TypeError`: A prediction is not a `str`, or a reference neither a `str` nor a list of them.
        `ValueError`: Unknown metric; no examples; lists of different lengths; several references where the metric
            takes one; a metric that returns no number.
    """
    stem, higher = _split_direction(name)
    _check(predictions, references)
    metric = load_metric(name)
    given = list(references) if stem in SHIPPED else _as_declared(name, metric, references)
    result = metric(predictions=list(predictions), references=given)
    if stem in SHIPPED:
        return {
            key: TextScore(_mean(value), True, value) if isinstance(value, list) else TextScore(value, True)
            for key, value in result.items()
        }
    if not isinstance(result, dict):
        result = {Path(stem).stem: result}
    # 0-d arrays and tensors are numbers too, though not `Number`.
    values = {key: value.item() if getattr(value, "ndim", None) == 0 else value for key, value in result.items()}
    scores = {
        key: TextScore(float(value), _direction(stem, key) if higher is None else higher)
        for key, value in values.items()
        if isinstance(value, numbers.Real) and not isinstance(value, bool)
    }
    if not scores:
        raise ValueError(f"Metric {name!r} returned no number, only {sorted(result)}.")
    return scores
