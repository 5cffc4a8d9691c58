"""
How far a judge agrees with people: pairs of answers that people have compared, judged in both orders (see
[`win_rate`]) and set against their verdicts.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import cohen_kappa_score

from ...data.records import load_rows
from ...engines.llm.judge import Judge
from ...runs.folder import plain
from ..benchmark_rows import COLUMNS
from ..questions import read_question
from .win_rate import judge_pairs


class _Layout(NamedTuple):
    answers: tuple[str, str]
    labels: tuple[str, ...]
    codes: tuple[int, int, int]  # the first answer is better, the second, none


#: Layouts of labelled pairs: PandaLM (three people), Auto-J, LLMBar (which has no ties).
LAYOUTS = (
    _Layout(("response1", "response2"), ("annotator1", "annotator2", "annotator3"), (1, 2, 0)),
    _Layout(("response 1", "response 2"), ("label",), (0, 1, 2)),
    _Layout(("output_1", "output_2"), ("label",), (1, 2, 0)),
)


@dataclass
class LabelledPairs:
    """
    Pairs of answers with people's verdicts.

    Args:
        questions, first, second (`list[str]`):
            The requests and the two answers to each.
        labels (`np.ndarray`):
            Verdicts seen from the first answer, float64 `(n,)`: 1 = better, 0 = as good, -1 = worse.
        undecided (`int`):
            Rows left out: no verdict that most people gave.
        replayed (`np.ndarray`, *optional*):
            Stored verdicts of a judge, coded as the labels; NaN = none.
    """

    questions: list[str]
    first: list[str]
    second: list[str]
    labels: np.ndarray
    undecided: int = 0
    replayed: np.ndarray | None = None

    def sample(self, pairs: int, seed: int = 0) -> "LabelledPairs":
        """A seeded sample without replacement, in the order of the rows; all, if there are no more."""
        if pairs >= len(self.labels):
            return self
        rows = np.sort(np.random.default_rng(seed).choice(len(self.labels), pairs, replace=False))
        texts = ([side[row] for row in rows] for side in (self.questions, self.first, self.second))
        replayed = None if self.replayed is None else self.replayed[rows]
        return LabelledPairs(*texts, self.labels[rows], self.undecided, replayed)


def load_pairs(name: str, replay: str | None = None) -> LabelledPairs:
    """
    Labelled pairs by hub name, folder or file, in one of `LAYOUTS`.

    Args:
        name (`str`):
            See [`load_rows`].
        replay (`str`, *optional*):
            Column of stored verdicts, coded as the labels. One of several people's is set against the others'.

    Raises:
        `ValueError`: no such dataset or column, columns of no known layout, or a label of no known meaning.
    """
    rows = load_rows(name)
    columns = set(rows.column_names)
    layout = next((known for known in LAYOUTS if {*known.answers, *known.labels} <= columns), None)
    question = next((column for column in COLUMNS["question"] if column in columns), None)
    if layout is None or question is None:
        known = "\n  ".join(", ".join((*layout.answers, *layout.labels)) for layout in LAYOUTS)
        raise ValueError(f"{name!r} has the columns {sorted(columns)}; expected a question and one of:\n  {known}")
    if replay is not None and replay not in columns:
        raise ValueError(f"`replay={replay!r}` is no column of {name!r}; its columns are {sorted(columns)}.")
    people = [column for column in layout.labels if column != replay]
    if not people:
        raise ValueError(f"`replay={replay!r}` is the people's only verdict in {name!r}: name a judge's.")
    verdicts = np.array([_decoded(rows[column], layout.codes, name) for column in people])
    votes = np.array([(verdicts == value).sum(axis=0) for value in (1, 0, -1)])
    decided = 2 * votes.max(axis=0) > len(people)
    names = {"question": question, "answer": None, "subject": None, "id": None}
    turns = [read_question(row, place, names).turns for place, row in enumerate(rows)]
    texts = [
        ["".join(turn[:1]), *(row[a] or "" for a in layout.answers)] for row, turn in zip(rows, turns, strict=True)
    ]
    kept = np.flatnonzero(decided)
    questions, first, second = ([texts[row][part] for row in kept] for part in range(3))
    labels = np.array([1.0, 0.0, -1.0])[votes.argmax(axis=0)][kept]
    replayed = None if replay is None else _decoded(rows[replay], layout.codes, name, strict=False)[kept]
    return LabelledPairs(questions, first, second, labels, int((~decided).sum()), replayed)


def _decoded(codes: Sequence[Any], meaning: tuple[int, int, int], name: str, strict: bool = True) -> np.ndarray:
    values = dict(zip(meaning, (1.0, -1.0, 0.0), strict=True))
    found = np.array([values.get(code, np.nan) for code in codes])
    if strict and np.isnan(found).any():
        row = int(np.flatnonzero(np.isnan(found))[0])
        raise ValueError(f"{name!r}: row {row} has the label {codes[row]!r}; known are {sorted(meaning)}.")
    return found


@dataclass
class Agreement:
    """
    A judge against people, over the pairs that it judged.

    Args:
        pairs, unparsable, undecided (`int`):
            Labelled pairs; those of them without a verdict of the judge; rows on which people do not agree.
        accuracy, kappa (`float`):
            Share of equal verdicts (better, as good, worse); Cohen's kappa of them.
        accuracy_interval, kappa_interval (`tuple[float, float]`):
            95 % percentile bootstrap over pairs.
        consistency (`float`):
            Share of pairs whose two orders agree; NaN for stored verdicts.
        problems (`dict[str, int]`):
            Pairs without a verdict, by reason.
    """

    pairs: int
    unparsable: int
    undecided: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    kappa: float
    kappa_interval: tuple[float, float]
    consistency: float
    problems: dict[str, int] = field(default_factory=dict)


def agreement(
    pairs: LabelledPairs, judge: Judge | None = None, *, max_new_tokens: int = 128, resamples: int = 1000
) -> Agreement:
    """
    Set a judge, or the stored verdicts, against the labels.

    Args:
        pairs ([`LabelledPairs`]):
            What people said.
        judge ([`Judge`], *optional*):
            Who is checked; by default the stored verdicts are.
        max_new_tokens (`int`, *optional*, defaults to `128`):
            Length of a verdict at most.
        resamples (`int`, *optional*, defaults to `1000`):
            Bootstrap samples.
    """
    if judge is None:
        found, consistency = pairs.replayed, float("nan")
        problems = {"no stored verdict": int(np.isnan(found).sum())} if np.isnan(found).any() else {}
    else:
        verdicts = judge_pairs(judge, pairs.questions, pairs.first, pairs.second, max_new_tokens=max_new_tokens)
        found, consistency = verdicts.outcomes, verdicts.consistency
        problems = {why: len(rows) for why, rows in verdicts.problems.items()}
    judged = np.isfinite(found)
    labels, found = pairs.labels[judged], found[judged]
    accuracy = _with_interval(lambda mine, other: np.mean(mine == other), labels, found, resamples)
    kappa = _with_interval(_kappa, labels, found, resamples)
    unparsable = int((~judged).sum())
    return Agreement(len(pairs.labels), unparsable, pairs.undecided, *accuracy, *kappa, consistency, problems)


def _kappa(labels: np.ndarray, found: np.ndarray) -> float:
    # Where both know one value only, chance alone agrees, and kappa is not defined.
    alike = len(np.unique([labels, found])) == 1
    return float("nan") if alike else cohen_kappa_score(labels.astype(int), found.astype(int))


def _with_interval(
    statistic: Callable, labels: np.ndarray, found: np.ndarray, resamples: int
) -> tuple[float, tuple[float, float]]:
    """The statistic, and the middle 95 % of its values on resampled pairs; those without a value are left out."""
    if not len(labels):
        return float("nan"), (float("nan"), float("nan"))
    draws = np.random.default_rng(0).integers(len(labels), size=(resamples, len(labels)))
    values = np.array([statistic(labels[draw], found[draw]) for draw in draws])
    values = values[np.isfinite(values)]
    low, high = np.quantile(values, [0.025, 0.975]) if len(values) else (np.nan, np.nan)
    return float(statistic(labels, found)), (float(low), float(high))


def as_table(found: dict[str, Agreement]) -> str:
    """Markdown table of a judge's agreement on several sets."""

    def between(value: float, interval: tuple[float, float]) -> str:
        return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"

    lines = [
        "| pairs | of | accuracy [95 %] | kappa [95 %] | same in both orders | unparsable | people disagree |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, item in found.items():
        accuracy, kappa = between(item.accuracy, item.accuracy_interval), between(item.kappa, item.kappa_interval)
        consistency = "" if np.isnan(item.consistency) else f"{item.consistency:.3f}"
        lines.append(
            f"| {name} | {item.pairs} | {accuracy} | {kappa} | {consistency} | {item.unparsable} | {item.undecided} |"
        )
    lines += [f"\n{name}: {n} pairs: {why}" for name, item in found.items() for why, n in item.problems.items()]
    return "\n".join(lines)


def as_json(found: dict[str, Agreement], judge: Judge | None, replay: str | None) -> str:
    """The same as JSON, with the judge's name and cost; NaN is null."""
    who = {"replay": replay} if judge is None else {"judge": judge.name, "cost": asdict(judge.cost)}
    return json.dumps(plain(who | {"sets": {name: asdict(item) for name, item in found.items()}}), indent=1)
