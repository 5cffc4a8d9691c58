"""Open-set tags of rows: parsed, and normalized to one vocabulary (arXiv 2308.07074, section 2.2)."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from sklearn.cluster import DBSCAN

from ..engines.forward.sentence_encoder import sentence_embeddings
from ..engines.llm.prompts import without_thoughts
from ..engines.runtime.runtime import Runtime


#: Longer texts are runaway generation, not tags.
LONGEST_TAG = 80
#: Brackets without valid JSON after which the search, which takes quadratic time, ends.
MOST_BRACKETS = 200


def parse_tags(value: Any) -> list[str] | None:
    """
    Tags of a row from a column or a tagger's reply: a list of texts or of objects with a `tag`, or the same as JSON,
    also within other text or a code fence.

    Returns:
        `list[str]`: without duplicates, in order; `None` if the value can't be parsed.
    """
    if isinstance(value, str):
        value = _json_in(without_thoughts(value) or "")
    if isinstance(value, dict):
        value = value.get("tags", [value])
    if not isinstance(value, (list, tuple)):
        return None
    tags = [item.get("tag") if isinstance(item, dict) else item for item in value]
    if not all(isinstance(tag, str) for tag in tags):
        return None
    return list(dict.fromkeys(tag.strip() for tag in tags if 0 < len(tag.strip()) <= LONGEST_TAG))


def _json_in(text: str) -> Any:
    """
    The first JSON list or object in a text; of consecutive bare objects all, except those of an unterminated list.
    """
    decoder, values, place = json.JSONDecoder(), [], 0
    failed, unended = 0, False
    for start in re.finditer(r"[\[{]", text):
        if start.start() < place:
            continue
        try:
            value, place = decoder.raw_decode(text, start.start())
        except (json.JSONDecodeError, RecursionError):
            if (failed := failed + 1) == MOST_BRACKETS:
                break
            unended |= start.group() == "[" and text[start.end() :].lstrip()[:1] in ("{", '"')
            continue
        if isinstance(value, list):
            return value
        if not unended:
            values.append(value)
    return values[0] if len(values) == 1 else values or None


class Vocabulary:
    """
    Raw tags normalized to one vocabulary, in the paper's four steps; `figures` holds the number of tags after each.

    Args:
        tags (`Sequence`):
            Tags of each row; `None` for a row without a reply.
        min_count (`int`):
            Tags of fewer rows are dropped, after spellings of one tag are merged.
        similarity (`float`):
            Cosine distance up to which tags are merged (DBSCAN); 0 skips the step.
        encoder (`str`):
            Sentence encoder of that step.
        support, confidence (`int` and `float`):
            A tag that shares at least `support` rows, and at least the fraction `confidence` of its own rows, with
            another tag becomes that tag; a support of 0 skips the step.
        runtime ([`Runtime`]):
            Shards the encoding across its ranks.
    """

    def __init__(
        self,
        tags: Sequence[Iterable[str] | None],
        min_count: int,
        similarity: float,
        encoder: str,
        support: int,
        confidence: float,
        runtime: Runtime,
    ):
        self.tags = [None if row is None else list(row) for row in tags]
        self.figures = {"raw": self._distinct()}
        self._rename(_by_spelling(self._counts()))
        self.figures["by rule"] = self._distinct()
        self._rename({tag: None for tag, count in self._counts().items() if count < min_count})
        self.figures[f"in {min_count} rows or more"] = self._distinct()
        if similarity > 0 and self._distinct() > 1:
            self._rename(_by_meaning(self._counts(), similarity, encoder, runtime))
            self.figures["by meaning"] = self._distinct()
        if support > 0 and self._distinct() > 1:
            self._rename(_by_association(self.tags, support, confidence))
            self.figures["by association"] = self._distinct()

    def _counts(self) -> Counter:
        return Counter(tag for row in self.tags if row for tag in set(row))

    def _distinct(self) -> int:
        return len(self._counts())

    def _rename(self, names: dict[str, str | None]) -> None:
        for place, row in enumerate(self.tags):
            if row:
                renamed = dict.fromkeys(names.get(tag, tag) for tag in row)
                self.tags[place] = [tag for tag in renamed if tag is not None]


def _by_spelling(counts: Counter) -> dict[str, str | None]:
    """Lower-cased, without punctuation, and with inflected forms merged into the most frequent one."""
    from nltk.stem import SnowballStemmer

    stem = SnowballStemmer("english").stem
    plain = {tag: " ".join(re.sub(r"[^\w+#]+|_", " ", tag.lower()).split()) for tag in counts}
    groups: dict[str, Counter] = {}
    for tag, name in plain.items():
        groups.setdefault(" ".join(map(stem, name.split())), Counter())[name] += counts[tag]
    names = {key: min(group, key=lambda name: (-group[name], name)) for key, group in groups.items()}
    return {tag: names[" ".join(map(stem, name.split()))] or None for tag, name in plain.items()}


def _by_meaning(counts: Counter, distance: float, encoder: str, runtime: Runtime) -> dict[str, str]:
    tags = sorted(counts, key=lambda tag: (-counts[tag], tag))
    vectors = sentence_embeddings(tags, encoder, runtime)
    labels = DBSCAN(eps=distance, min_samples=2, metric="cosine").fit_predict(vectors)
    first: dict[int, str] = {}
    return {tag: tag if label < 0 else first.setdefault(label, tag) for tag, label in zip(tags, labels, strict=True)}


def _by_association(rows: list[list[str] | None], support: int, confidence: float) -> dict[str, str]:
    """
    FP-Growth's rules from one tag to another, from the co-occurrence matrix. A rule from one tag to several holds only
    if the rules to each of them do, and a rule from several tags does not say what a single one becomes. Of two tags
    with rules both ways the rarer becomes the other; rules to a rarer tag are ignored.
    """
    counts = Counter(tag for row in rows if row for tag in row)
    tags = sorted(counts, key=lambda tag: (-counts[tag], tag))
    place = {tag: i for i, tag in enumerate(tags)}
    pairs = [(i, place[tag]) for i, row in enumerate(rows) for tag in row or ()]
    at = np.array(pairs, np.int64).reshape(-1, 2).T
    table = csr_array((np.ones(len(pairs), np.int64), (at[0], at[1])), shape=(len(rows), len(tags)))
    together = (table.T @ table).tocoo()
    names: dict[str, str] = {}
    # From the most frequent tag on, so that a chain of rules ends in the final name.
    for specific, general, both in sorted(zip(*together.coords, together.data, strict=True)):
        if general < specific and both >= support and both >= confidence * counts[tags[specific]]:
            names.setdefault(tags[specific], names.get(tags[general], tags[general]))
    return names


def tag_statistics(tags: Sequence[Sequence[str] | None], vocabulary: int) -> dict[str, float]:
    """
    Complexity (mean tags per row), diversity (distinct tags) and coverage (fraction of the vocabulary), as in the
    paper's section 3.
    """
    distinct = len({tag for row in tags if row for tag in row})
    return {
        "complexity": round(float(np.mean([len(row or ()) for row in tags])), 3) if len(tags) else 0.0,
        "diversity": distinct,
        "coverage": round(distinct / vocabulary, 4) if vocabulary else 0.0,
    }
