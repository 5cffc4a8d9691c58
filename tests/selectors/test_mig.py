"""MIG: the authors' picks, the plain greedy loop, where its tags and qualities come from, and what it refuses."""

import numpy as np
import pytest
from datasets import Dataset
from scipy.sparse import csr_array
from transformers import BertModel

from hf_dataselect.data.records import Records
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.subset import tag_coverage
from hf_dataselect.engines.subset.tag_coverage import concave_cover, indicator_matrix, propagated, similar_labels
from hf_dataselect.errors import SelectionError
from hf_dataselect.features.sentence_vectors import load_text_encoder
from hf_dataselect.pipeline import select
from hf_dataselect.plan import SelectionPlan
from hf_dataselect.registry import load_selector
from hf_dataselect.selectors.mig import MIG
from tests.rows import alpaca
from tests.scripted import ScriptedJudge
from tests.selectors.test_mods import bert, bert_tokenizer
from tests.shared_data import golden
from tests.tiny import context_of, tiny_tokenizer


OPTIONS = {"quality": "column", "quality_kwargs": {"name": "rating"}, "encoder": None}
OPTIONS["tags"] = {"tags_column": "tags", "normalize": False}


def context(**changes):
    return context_of(tiny_tokenizer(), **changes)


def rated(tags: list, ratings: list) -> Dataset:
    columns = zip(tags, ratings, strict=True)
    rows = [{"instruction": f"q {i}", "output": "a", "tags": t, "rating": r} for i, (t, r) in enumerate(columns)]
    return Dataset.from_list(rows)


def plain(weights: np.ndarray, k: int, power: float = 0.8) -> list[int]:
    """All gains anew at each pick."""
    covered, picked = np.zeros(weights.shape[1]), []
    for _ in range(k):
        slope = power * (covered + 1e-6) ** (power - 1)
        gains = [sum(weight * slope[label] for label, weight in enumerate(row) if weight) for row in weights]
        gains = [-1 if row in picked else gain for row, gain in enumerate(gains)]
        picked.append(int(np.argmax(gains)))
        covered = covered + weights[picked[-1]]
    return picked


@pytest.mark.parametrize("case", [0, 1], ids=["tags counted", "divided by tags"])
@pytest.mark.parametrize("at_hand", [7, 4096])
def test_picks_what_the_authors_code_picks(case, at_hand, monkeypatch):
    monkeypatch.setattr(tag_coverage, "AT_HAND", at_hand)
    given, case = golden("mig"), golden("mig")["cases"][case]
    names = [f"{i:02}" for i in range(given["n_tags"])]
    tags, score = [[names[tag] for tag in row] for row in given["tags"]], np.array(given["score"])
    shares = score / (list(map(len, tags)) if case["divide_by_number_of_tags"] else 1)
    weights = indicator_matrix(tags, names) * shares[:, None]
    spread = propagated(csr_array(weights), csr_array(np.array(given["similarity"])))
    assert concave_cover(spread, case["k"])[0].tolist() == case["picks"]
    # The method itself, whose labels are unlike each other here.
    options = OPTIONS | {"divide_by_tags": case["divide_by_number_of_tags"]}
    found = select(rated(tags, given["score"]), MIG(**options), case["k"], context())
    assert found.indices.tolist() == plain(weights.toarray(), case["k"])
    np.testing.assert_allclose(found.scores, score, rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_few_gains_at_hand_give_the_rows_of_all_gains_anew(seed, monkeypatch):
    monkeypatch.setattr(tag_coverage, "AT_HAND", 16)
    draw = np.random.default_rng(seed)
    weights = draw.integers(0, 4, (120, 12)) * (draw.random((120, 12)) < 0.3).astype(float)  # many exact ties
    picked, updates = concave_cover(csr_array(weights), 60)
    assert picked.tolist() == plain(weights, 60) and 1 < updates < 60
    assert sorted(concave_cover(csr_array(weights), 999)[0].tolist()) == list(range(120))


def test_labels_are_alike_from_the_threshold_on():
    vectors = np.array([[1, 0], [2, 0.2], [0, 3], [1, 1]], np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.testing.assert_allclose(similar_labels(vectors, 0.75).toarray(), np.where(cosine >= 0.75, cosine, 0), atol=1e-6)
    assert similar_labels(vectors, 1.0).toarray().tolist() == np.eye(4).tolist()


def test_alike_labels_count_as_covered_by_the_vectors_of_an_encoder(tmp_path):
    tokenizer = bert_tokenizer()
    for part in (bert(BertModel, tokenizer), tokenizer):
        part.save_pretrained(tmp_path)
    tags, ratings = [["red fox"], ["red foxes"], ["stone"], ["red fox", "stone"], []], [3.0, 2.9, 2.0, 2.5, 5.0]
    labels = ["red fox", "red foxes", "stone"]
    vectors = load_text_encoder(str(tmp_path), Runtime()).encode(labels)
    cosine = (unit := vectors / np.linalg.norm(vectors, axis=1, keepdims=True)) @ unit.T
    threshold = float(np.sort(cosine[np.triu_indices(3, 1)])[:2].mean())  # two pairs of three are alike
    alike = np.where(cosine >= threshold, cosine, 0)
    weights = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1]]) * np.array(ratings[:4])[:, None]
    options = OPTIONS | {"encoder": str(tmp_path), "threshold": threshold}
    found = select(rated(tags, ratings), MIG(**options), 4, context(cache_dir=tmp_path / "cache"))
    assert found.indices.tolist() == plain(weights @ (alike / alike.sum(0)), 4)
    assert found.dropped == {"no tag is left": [4]} and found.passes["embedded_rows"] == 3
    assert found.facts["figures"]["pairs of tags that are alike"] == 2


def test_rows_that_cannot_be_kept_are_named():
    rows = rated([["a"], None, ["b"], ["a", "b"], ["c"]], [1.0, 2.0, -1.0, float("nan"), 0.0])
    found = select(rows, MIG(**OPTIONS), 1.0, context())
    assert found.indices.tolist() == [0, 4]
    assert found.unscorable == {"no tags to read in `tags`": [1], "no number in `rating`": [3]}
    assert found.dropped["a quality below 0"] == [2]
    with pytest.raises(SelectionError, match="a quality below 0"):
        select(rated([["a"], ["b"]], [-1.0, -2.0]), MIG(**OPTIONS), 1.0, context())


def test_copies_are_taken_last_and_settled_by_the_seed():
    rows = rated([["a"]] * 6 + [["b"]], [2.0] * 6 + [1.9])
    found = [select(rows, MIG(**OPTIONS), 2, context(seed=seed)).indices.tolist() for seed in range(6)]
    assert {row for _, row in found} == {6} and len({row for row, _ in found}) > 1


def test_a_judge_gives_tags_and_quality():
    judge = ScriptedJudge(lambda text: f'["kind {len(text) % 3}"]' if "JSON" in text else f"{len(text) % 6}\nSo.")
    options = {"quality": "alpagasus", "quality_kwargs": {"threshold": None}, "encoder": None}
    selector = load_selector("mig", {**options, "tags": {"min_count": 1, "similarity": 0, "support": 0}})
    assert selector.needs() == {"text", "prompt", "judge"} and selector.forecast(9, 0, 2) == {"judge_calls": 18}
    found = select(alpaca(12), selector, 4, context(judge=judge, max_length=512))
    assert len(judge.asked) == 24 and found.facts["figures"]["tags of the rows kept"]["diversity"] == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"quality_kwargs": {"name": "ratings"}}, "no column 'ratings'; did you mean 'rating'"),
        ({"tags": {"tags_column": "tag"}}, "no column 'tag'; did you mean 'tags'"),
        ({"quality": "full", "quality_kwargs": {}}, "quality='full' gives no scores of its own"),
        ({"tags": {"column": "tags"}}, "no option 'column'"),
        ({"encoder": "no/such-encoder"}, "encoder='no/such-encoder'"),
    ],
)
def test_what_is_missing_is_refused_before_anything_loads(options, said):
    with pytest.raises(ValueError, match=said):
        selector = load_selector("mig", {**OPTIONS, **options})
        SelectionPlan(Records(rated([["a"]], [1.0])), selector, 1.0).check(None)


def test_tags_need_a_judge_or_a_column():
    plan = SelectionPlan(Records(alpaca(4)), load_selector("mig", {**OPTIONS, "tags": {"normalize": False}}), 1.0)
    with pytest.raises(ValueError, match="judge"):
        plan.check(None)


def test_rare_tags_that_a_small_pool_loses_are_told(caplog):
    rows = rated([["sum"], ["sums", "odd"], ["rare"], []], [1.0, 2.0, 3.0, 4.0])
    tags = {"tags_column": "tags", "min_count": 2, "similarity": 0, "support": 0}
    found = select(rows, MIG(**OPTIONS | {"tags": tags}), 1.0, context())
    assert sorted(found.indices.tolist()) == [0, 1]
    assert "`min_count=2` removes 2 of 3 different tags" in caplog.text
    assert "leaves 1 of 3 tagged rows without one" in caplog.text
