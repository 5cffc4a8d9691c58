"""Open-set tags of rows: read, and made one vocabulary (arXiv 2308.07074, section 2.2)."""

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


#: Longer texts are no tags, but a model that went on talking.
LONGEST_TAG = 80
#: So many brackets that begin no JSON, and a text is taken to hold none: looking further takes quadratic time.
MOST_BRACKETS = 200


def parse_tags(value: Any) -> list[str] | None:
    """
    Tags of a row out of a column or a tagger's reply: a list of texts or of objects with a `tag`, or the same as JSON,
    also within other text or a code fence.

    Returns:
        `list[str]`: each once, in their order; `None` if there is nothing to read.
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
    The first JSON list or object in a text; of bare objects one after another, all, but not those of a list that never
    ends.
    """
    decoder, found, place = json.JSONDecoder(), [], 0
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
            found.append(value)
    return found[0] if len(found) == 1 else found or None


class Vocabulary:
    """
    Raw tags made one vocabulary, in the paper's four steps. What each step left is in `figures`.

    Args:
        tags (`Sequence`):
            Tags of each row; `None` for a row without any reply.
        min_count (`int`):
            Tags of fewer rows than this are dropped, after the rules, so that spellings of one tag count together.
        similarity (`float`):
            Tags whose vectors have a cosine distance of at most this are one (DBSCAN); 0 leaves the step out.
        encoder (`str`):
            Sentence encoder for it.
        support, confidence (`int` and `float`):
            A tag that comes with another one in at least `support` rows, which are at least `confidence` of its own
            rows, becomes that other one; a support of 0 leaves the step out.
        accelerator ([`~accelerate.Accelerator`], *optional*):
            Deals the encoding over its ranks.
    """

    def __init__(
        self,
        tags: Sequence[Iterable[str] | None],
        min_count: int,
        similarity: float,
        encoder: str,
        support: int,
        confidence: float,
        accelerator: Any = None,
    ):
        self.tags = [None if row is None else list(row) for row in tags]
        self.figures = {"raw": self._distinct()}
        self._rename(_by_spelling(self._counts()))
        self.figures["by rule"] = self._distinct()
        self._rename({tag: None for tag, count in self._counts().items() if count < min_count})
        self.figures[f"in {min_count} rows or more"] = self._distinct()
        if similarity > 0 and self._distinct() > 1:
            self._rename(_by_meaning(self._counts(), similarity, encoder, accelerator))
            self.figures["by meaning"] = self._distinct()
        if support > 0 and self._distinct() > 1:
            self._rename(_by_company(self.tags, support, confidence))
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
    """Lower case, no punctuation, and one name for all forms of the same words: that of the most frequent form."""
    from nltk.stem import SnowballStemmer

    stem = SnowballStemmer("english").stem
    plain = {tag: " ".join(re.sub(r"[^\w+#]+|_", " ", tag.lower()).split()) for tag in counts}
    groups: dict[str, Counter] = {}
    for tag, name in plain.items():
        groups.setdefault(" ".join(map(stem, name.split())), Counter())[name] += counts[tag]
    names = {key: min(group, key=lambda name: (-group[name], name)) for key, group in groups.items()}
    return {tag: names[" ".join(map(stem, name.split()))] or None for tag, name in plain.items()}


def _by_meaning(counts: Counter, distance: float, encoder: str, accelerator: Any) -> dict[str, str]:
    tags = sorted(counts, key=lambda tag: (-counts[tag], tag))
    vectors = sentence_embeddings(tags, encoder, accelerator)
    labels = DBSCAN(eps=distance, min_samples=2, metric="cosine").fit_predict(vectors)
    first: dict[int, str] = {}
    return {tag: tag if label < 0 else first.setdefault(label, tag) for tag, label in zip(tags, labels, strict=True)}


def _by_company(rows: list[list[str] | None], support: int, confidence: float) -> dict[str, str]:
    """
    FP-Growth's rules from one tag to another, from the matrix of how often two tags come together. A rule from one tag
    to several holds only if the rules to each of these do, and one from several tags does not say what a single one of
    them becomes. Of two tags with rules both ways the rarer becomes the other; there is no rule to a rarer tag only.
    """
    counts = Counter(tag for row in rows if row for tag in row)
    tags = sorted(counts, key=lambda tag: (-counts[tag], tag))
    place = {tag: i for i, tag in enumerate(tags)}
    pairs = [(i, place[tag]) for i, row in enumerate(rows) for tag in row or ()]
    at = np.array(pairs, np.int64).reshape(-1, 2).T
    table = csr_array((np.ones(len(pairs), np.int64), (at[0], at[1])), shape=(len(rows), len(tags)))
    together = (table.T @ table).tocoo()
    names: dict[str, str] = {}
    # From the most frequent tag on, so that a chain of rules ends in the name that stays.
    for specific, general, both in sorted(zip(*together.coords, together.data, strict=True)):
        if general < specific and both >= support and both >= confidence * counts[tags[specific]]:
            names.setdefault(tags[specific], names.get(tags[general], tags[general]))
    return names


def tag_statistics(tags: Sequence[Sequence[str] | None], vocabulary: int) -> dict[str, float]:
    """
    Complexity (mean tags a row), diversity (distinct tags) and coverage (their part of the vocabulary), after the
    paper's section 3.
    """
    distinct = len({tag for row in tags if row for tag in row})
    return {
        "complexity": round(float(np.mean([len(row or ()) for row in tags])), 3) if len(tags) else 0.0,
        "diversity": distinct,
        "coverage": round(distinct / vocabulary, 4) if vocabulary else 0.0,
    }
