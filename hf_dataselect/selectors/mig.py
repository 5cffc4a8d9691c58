"""
MIG (arXiv 2504.13835, "Maximizing Information Gain in Semantic Space"; code yichengchen24/MIG): good rows that cover
the labels of the pool, and what is like them.

The claim: quality and diversity are one measure, the information over a graph of labels; 5 % of Tulu-3 by it equal all
rows.

1. Tags name what each row asks for, as in [`InsTag`]: a judge gives them, or a column has them (`tags: {tags_column:
   tags}`).
2. Labels are alike whose vectors have a cosine of `threshold` or more; A has these cosines, and P is A with columns
   that sum to 1.
3. Row by row, take the one whose information grows most, by the slope at what is covered so far:

    E    = quality of the row at each of its tags, times P
    gain = sum over labels of E x power x (z + 1e-6)^(power - 1);  z = sum of E of the rows taken

    score = quality

The quality is any method's (`quality`), DEITA's by default. Rows without tags, or of a quality below 0, which has no
information, are excluded.

Relations: [`InsTag`] covers tags without a quality; [`QDIT`] covers vectors instead of tags.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import csr_array, eye_array

from ..context import Context
from ..data.records import Records
from ..engines.subset.tag_coverage import concave_cover, indicator_matrix, propagated, similar_labels
from ..features.sentence_vectors import check_sentence_encoder, sentence_vectors
from ..features.tags import tag_statistics
from ..options import Fraction
from ..rated import RatedSelector
from ..registry import load_member
from ..selector import Card, Need, Split, split_of


@dataclass
class MIG(RatedSelector):
    """
    Args:
        quality (`str`, *optional*, defaults to `"deita"`):
            Method that gives the quality; its scores must not be negative.
        quality_kwargs (`dict`, *optional*):
            Its options; `column` takes `{name: COLUMN}`.
        tags (`dict`, *optional*):
            Options of [`InsTag`], which gives the tags: `{tags_column: COLUMN}`, or a judge's.
        encoder (`str`, *optional*, defaults to `"intfloat/e5-mistral-7b-instruct"`):
            Sentence encoder of the labels (extra `embed`); `None`: no two labels are alike.
        threshold (`float`, *optional*, defaults to `0.9`):
            Cosine from which labels are alike; encoders differ in what a cosine means.
        power (`float`, *optional*, defaults to `0.8`):
            How fast a label that is covered counts less; 1 takes the rows of most quality x tags.
        divide_by_tags (`bool`, *optional*, defaults to `False`):
            Whether a row's quality is shared out among its tags, so that rows of many tags have no advantage.
    """

    quality: str = "deita"
    quality_kwargs: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, Any] = field(default_factory=dict)
    encoder: str | None = "intfloat/e5-mistral-7b-instruct"
    threshold: Fraction = 0.9
    power: Fraction = 0.8
    divide_by_tags: bool = False

    card: ClassVar[Card] = Card(
        title="rows of high quality that cover the labels of the pool",
        paper="2504.13835",
        features="model-oriented",
        label_source="DEITA's complexity x quality, at a tagger's tags",
        trained_llms=2,
        steps=("tag each query", "rate each row", "embed the tags", "take the row that adds most, one by one"),
        llm_uses=5,
        dataset_free=False,
        chatgpt_free=False,
        multi_turn="all that is asked in a row is tagged as one query; the quality is its method's",
        deviations=(
            "DEITA's score is the sum over turns, where the code takes the mean; rows of one turn have the same",
            "tags are normalised by the options of `instag`, where the authors take those of the released tagger",
            "of equal gains the row of higher quality, then the one that the seed draws",
        ),
        evidence="the authors' table: 55.32 against 51.81 of random rows (50K of 939K, Llama-3.1-8B); no replication "
        "found",
    )
    spreads_out: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        self._tagger = load_member("tags", "instag", self.tags)

    @property
    def splits(self) -> Split | None:
        """Where the quality and the tags do."""
        return split_of([self._rater, self._tagger])

    def needs(self) -> frozenset[Need]:
        return super().needs() | self._tagger.needs()

    def extras(self) -> dict[str, str]:
        own = {} if self.encoder is None else {"sentence_transformers": "embed"}
        return super().extras() | self._tagger.extras() | own

    def check(self, records: Records) -> None:
        super().check(records)
        self._tagger.check(records)
        if self.encoder is not None:
            check_sentence_encoder(self.encoder)

    def forecast(self, rows: int, target: int, kept: int) -> dict[str, int]:
        passes = Counter(super().forecast(rows, target, kept))
        passes.update(self._tagger.forecast(rows, target, kept))
        return dict(passes)

    def featurize(self, records: Records, ctx: Context) -> dict[str, Any]:
        tags = self._tagger.featurize(records, ctx)
        labels = sorted({tag for row in tags if row for tag in row})
        similarity: Any = eye_array(len(labels), format="csr")
        if self.encoder is not None and labels:
            vectors = sentence_vectors(labels, self.encoder, ctx, "Embedding tags").vectors[:]
            similarity = similar_labels(vectors, self.threshold)
        return super().featurize(records, ctx) | {"tags": tags, "labels": labels, "similarity": similarity}

    def exclude(self, scores: np.ndarray, features: dict[str, Any], ctx: Context) -> dict[str, np.ndarray]:
        # Rows without a list of tags are noted by the tagger.
        untagged = np.array([not row for row in features["tags"]], bool)
        masks = {"no tag is left": untagged, "a quality below 0": scores < 0}
        return super().exclude(scores, features, ctx) | masks

    def select(
        self, scores: np.ndarray, records: Records, features: dict[str, Any], k: int, ctx: Context
    ) -> np.ndarray:
        order, labels = ctx.best(scores), features["labels"]
        tags = [features["tags"][row] for row in order]
        quality = scores[order].astype(np.float64) / ([len(row) for row in tags] if self.divide_by_tags else 1)
        weights = csr_array(indicator_matrix(tags, labels).multiply(quality[:, None]))
        picked, _ = concave_cover(propagated(weights, features["similarity"]), k, self.power)
        kept = [tags[place] for place in picked]
        ctx.account.figures |= {
            "tags of all rows": tag_statistics(tags, len(labels)),
            "tags of the rows kept": tag_statistics(kept, len(labels)),
            "pairs of tags that are alike": (features["similarity"].nnz - len(labels)) // 2,
        }
        return order[picked]
