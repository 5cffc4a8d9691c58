"""
Agreement of a judge with human annotators: pairs of answers are judged in both orders (see [`win_rate`]) and compared
with human labels.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.stats import binomtest

from ...data.load import load_rows
from ...engines.llm.judge import Judge
from ...options import nearest
from ...runs.files import plain
from ..benchmark_rows import COLUMNS
from ..question_rows import Messages, read_question
from .win_rate import judge_pairs


if TYPE_CHECKING:
    from ...engines.llm.reward_model import RewardModel


class _Layout(NamedTuple):
    answers: tuple[str, str]
    labels: tuple[str, ...]
    codes: tuple[int, int, int]  # the first answer is better, the second, tie


#: Layouts of labelled pairs: PandaLM (three annotators), Auto-J, LLMBar (without ties).
LAYOUTS = (
    _Layout(("response1", "response2"), ("annotator1", "annotator2", "annotator3"), (1, 2, 0)),
    _Layout(("response 1", "response 2"), ("label",), (0, 1, 2)),
    _Layout(("output_1", "output_2"), ("label",), (1, 2, 0)),
)


@dataclass
class LabelledPairs:
    """
    Pairs of answers with human labels.

    Args:
        questions (`list[str]` or `list[list[dict]]`):
            Requests, as texts or as messages.
        first, second (`list[str]`):
            The two answers to each.
        labels (`np.ndarray`):
            Labels of the first answer, float64 `(n,)`: 1 = better, 0 = equal, -1 = worse.
        undecided (`int`):
            Number of excluded rows: the annotators have no majority.
        replayed (`np.ndarray`, *optional*):
            Stored verdicts of a judge, coded as the labels; NaN = missing.
    """

    questions: Sequence[str | Messages]
    first: list[str]
    second: list[str]
    labels: np.ndarray
    undecided: int = 0
    replayed: np.ndarray | None = None

    def sample(self, pairs: int, seed: int = 0) -> "LabelledPairs":
        """A seeded sample without replacement in row order; all pairs, if there are fewer."""
        if pairs >= len(self.labels):
            return self
        rows = np.sort(np.random.default_rng(seed).choice(len(self.labels), pairs, replace=False))
        texts = ([side[row] for row in rows] for side in (self.questions, self.first, self.second))
        replayed = None if self.replayed is None else self.replayed[rows]
        return LabelledPairs(*texts, self.labels[rows], self.undecided, replayed)


def load_pairs(name: str, replay: str | None = None) -> LabelledPairs:
    """
    Load labelled pairs in one of the `LAYOUTS`.

    Args:
        name (`str`):
            Hub name, folder or file, see [`load_rows`].
        replay (`str`, *optional*):
            Column of stored verdicts, coded as the labels. If it is one of several annotators, it is compared with the
            others.

    Raises:
        `ValueError`: Unknown dataset or column, unknown layout, or an unknown label.
    """
    rows = load_rows(name)
    columns = set(rows.column_names)
    layout = next((known for known in LAYOUTS if {*known.answers, *known.labels} <= columns), None)
    question = next((column for column in COLUMNS["question"] if column in columns), None)
    if layout is None or question is None:
        known = "\n  ".join(", ".join((*layout.answers, *layout.labels)) for layout in LAYOUTS)
        raise ValueError(f"{name!r} has the columns {sorted(columns)}; expected a question and one of:\n  {known}")
    if replay is not None and replay not in columns:
        raise ValueError(f"`replay={replay!r}` is not a column of {name!r}{nearest(replay, sorted(columns))}")
    annotators = [column for column in layout.labels if column != replay]
    if not annotators:
        raise ValueError(
            f"`replay={replay!r}` is the only human label in {name!r}: name a column of a judge's verdicts."
        )
    verdicts = np.array([_decoded(rows[column], layout.codes, name) for column in annotators])
    votes = np.array([(verdicts == value).sum(axis=0) for value in (1, 0, -1)])
    decided = 2 * votes.max(axis=0) > len(annotators)
    names = {"question": question, "system": next((name for name in COLUMNS["system"] if name in columns), None)}
    texts = [
        [read_question(row, place, names).whole, *("" if row[a] is None else str(row[a]) for a in layout.answers)]
        for place, row in enumerate(rows.with_format(None))
    ]
    kept = np.flatnonzero(decided)
    questions, first, second = ([texts[row][part] for row in kept] for part in range(3))
    labels = np.array([1.0, 0.0, -1.0])[votes.argmax(axis=0)][kept]
    replayed = None if replay is None else _decoded(rows[replay], layout.codes, name, strict=False)[kept]
    return LabelledPairs(questions, first, second, labels, int((~decided).sum()), replayed)


def _decoded(codes: Sequence[Any], meaning: tuple[int, int, int], name: str, strict: bool = True) -> np.ndarray:
    values = dict(zip(meaning, (1.0, -1.0, 0.0), strict=True))
    decoded = np.array([values.get(code, np.nan) for code in codes])
    if strict and np.isnan(decoded).any():
        row = int(np.flatnonzero(np.isnan(decoded))[0])
        raise ValueError(f"{name!r}: row {row} has the label {codes[row]!r}, expected one of {sorted(meaning)}.")
    return decoded


@dataclass
class Agreement:
    """
    Agreement of a judge with human labels, over the pairs that it judged.

    Args:
        pairs, unparsable, undecided (`int`):
            Number of labelled pairs; of pairs without a verdict of the judge; of rows without a majority label.
        accuracy, kappa (`float`):
            Share of equal verdicts (better, equal, worse); Cohen's kappa.
        accuracy_interval, kappa_interval (`tuple[float, float]`):
            95 % intervals: Clopper-Pearson; see [`_kappa_interval`].
        consistency (`float`):
            Share of pairs with the same verdict in both orders; NaN for stored verdicts and for a reward model, which
            sees no order.
        consistency_interval (`tuple[float, float]`):
            Clopper-Pearson, 95 %.
        problems (`dict[str, int]`):
            Pairs without a verdict, by reason.
        identical (`int`):
            Pairs of identical answers, which the judge did not see: part of no rate.
    """

    pairs: int
    unparsable: int
    undecided: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    kappa: float
    kappa_interval: tuple[float, float]
    consistency: float
    consistency_interval: tuple[float, float]
    problems: dict[str, int] = field(default_factory=dict)
    identical: int = 0


def agreement(
    pairs: LabelledPairs,
    judge: "Judge | RewardModel | None" = None,
    *,
    max_new_tokens: int = 128,
    resamples: int = 1000,
) -> Agreement:
    """
    Compare a judge, or stored verdicts, with human labels.

    Args:
        pairs ([`LabelledPairs`]):
            Labelled pairs.
        judge ([`Judge`] or [`RewardModel`], *optional*):
            The judge to check; by default the stored verdicts are checked.
        max_new_tokens (`int`, *optional*, defaults to `128`):
            Maximum length of a verdict.
        resamples (`int`, *optional*, defaults to `1000`):
            Number of bootstrap resamples.
    """
    if judge is None:
        outcomes, identical = pairs.replayed, 0
        judged = np.isfinite(outcomes)
        consistency = _share(0, 0)
        problems = {} if judged.all() else {"no stored verdict": int((~judged).sum())}
    else:
        verdicts = judge_pairs(judge, pairs.questions, pairs.first, pairs.second, max_new_tokens=max_new_tokens)
        outcomes, identical, judged = verdicts.outcomes, len(verdicts.identical), verdicts.seen
        consistency = _share(verdicts.consistent, int(judged.sum()) if isinstance(judge, Judge) else 0)
        problems = {reason: len(rows) for reason, rows in verdicts.problems.items()}
    labels, outcomes = pairs.labels[judged], outcomes[judged]
    return Agreement(
        len(pairs.labels),
        int((~judged).sum()) - identical,
        pairs.undecided,
        *_share(int((labels == outcomes).sum()), len(labels)),
        _kappa(labels, outcomes),
        _kappa_interval(labels, outcomes, resamples),
        *consistency,
        problems,
        identical,
    )


def _share(successes: int, n: int) -> tuple[float, tuple[float, float]]:
    """A share and its exact 95 % interval (Clopper-Pearson), which has a width at 0 and 1 too; NaN of nothing."""
    if n == 0:
        return math.nan, (math.nan, math.nan)
    interval = binomtest(successes, n).proportion_ci(0.95, method="exact")
    return successes / n, (float(interval.low), float(interval.high))


def _kappa(labels: np.ndarray, outcomes: np.ndarray) -> float:
    """Cohen's kappa; NaN where it is undefined: all labels and outcomes are equal, so that chance alone agrees."""
    expected = _expected_agreement(labels, outcomes)
    return math.nan if expected == 1 or not len(labels) else (np.mean(labels == outcomes) - expected) / (1 - expected)


def _expected_agreement(labels: np.ndarray, outcomes: np.ndarray) -> float:
    """Agreement by chance, of verdicts that are as frequent as these."""
    n = max(1, len(labels))
    return sum(np.count_nonzero(labels == v) / n * (np.count_nonzero(outcomes == v) / n) for v in (1, 0, -1))


def _kappa_interval(labels: np.ndarray, outcomes: np.ndarray, resamples: int) -> tuple[float, float]:
    """
    95 % interval of kappa: percentiles over resampled pairs, as wide at least as what the exact interval of the
    accuracy gives with this expected agreement: resamples of pairs that all agree give 1 without exception, and those
    of a few pairs vary too little. Resamples where kappa is undefined are excluded.
    """
    if math.isnan(_kappa(labels, outcomes)):
        return math.nan, math.nan
    n = len(labels)
    expected = _expected_agreement(labels, outcomes)
    exact = (np.array(_share(int((labels == outcomes).sum()), n)[1]) - expected) / (1 - expected)
    draws = np.random.default_rng(0).integers(n, size=(resamples, n))
    values = np.array([_kappa(labels[draw], outcomes[draw]) for draw in draws])
    drawn = np.quantile(values[np.isfinite(values)], [0.025, 0.975]) if np.isfinite(values).any() else exact
    return float(max(-1.0, min(exact[0], drawn[0]))), float(max(exact[1], drawn[1]))


def as_table(sets: dict[str, Agreement]) -> str:
    """Agreement by set as a Markdown table."""

    def between(value: float, interval: tuple[float, float]) -> str:
        return "" if np.isnan(value) else f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"

    lines = [
        "| pairs | of | accuracy [95 %] | kappa [95 %] | same in both orders [95 %] | unparsable | no majority |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, item in sets.items():
        accuracy, kappa = between(item.accuracy, item.accuracy_interval), between(item.kappa, item.kappa_interval)
        consistency = between(item.consistency, item.consistency_interval)
        lines.append(
            f"| {name} | {item.pairs} | {accuracy} | {kappa} | {consistency} | {item.unparsable} | {item.undecided} |"
        )
    for name, item in sets.items():
        lines += [f"\n{name}: {n} pairs: {reason}" for reason, n in item.problems.items()]
        if item.identical:
            lines.append(f"\n{name}: {item.identical} pairs: identical answers, not shown to the judge, in no rate")
    return "\n".join(lines)


def as_json(sets: dict[str, Agreement], judge: "Judge | RewardModel | None", replay: str | None) -> str:
    """Agreement by set as JSON, with the judge's name and cost; NaN is null."""
    who = {"replay": replay} if judge is None else {"judge": judge.name, "cost": asdict(judge.cost)}
    return json.dumps(plain(who | {"sets": {name: asdict(item) for name, item in sets.items()}}), indent=1)
