"""QDIT: the greedy rule restated, its scales, and what it refuses; `reward`, its default quality."""

import numpy as np
import pytest
from datasets import Dataset
from scipy.stats import rankdata
from transformers import BertModel

from hf_dataselect.data.records import Records
from hf_dataselect.engines.llm.load import load_reward_model
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.subset.choose import cosine, facility_location
from hf_dataselect.errors import SelectionError
from hf_dataselect.features.hidden_states import prompt_vectors
from hf_dataselect.features.sentence_vectors import load_text_encoder
from hf_dataselect.pipeline import select
from hf_dataselect.plan import SelectionPlan
from hf_dataselect.registry import load_selector
from hf_dataselect.selectors.qdit import QDIT, scaled
from hf_dataselect.selectors.reward import Reward
from tests.engines.llm.test_local import reward_model
from tests.rows import alpaca
from tests.selectors.test_mods import bert, bert_tokenizer
from tests.shared_data import golden, golden_arrays
from tests.tiny import context_of, tiny_model, tiny_tokenizer


RATED = {"quality": "column", "quality_kwargs": {"name": "rating"}}


def context(**options):
    tokenizer = tiny_tokenizer()
    return context_of(tokenizer, tiny_model(tokenizer), **{"max_length": 128, "dtype": "float32", **options})


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)


def greedy(vectors: np.ndarray, quality: np.ndarray, alpha: float, k: int) -> list[int]:
    """The rule on a full matrix."""
    near, covered, picked = np.maximum(vectors @ vectors.T, 0), np.zeros(len(vectors)), []
    for _ in range(k):
        gain = (1 - alpha) * np.maximum(near - covered, 0).mean(1) + alpha * quality
        gain[picked] = -np.inf
        picked.append(int(gain.argmax()))
        covered = np.maximum(covered, near[picked[-1]])
    return picked


@pytest.mark.parametrize("case", [0, 1])
@pytest.mark.parametrize("alpha", ["0.0", "0.3", "0.7", "1.0"])
def test_picks_and_gains_are_those_of_the_rule(case, alpha):
    case = golden("qdit")["cases"][case]
    vectors, expected, n = (
        golden_arrays("restated_arrays")[case["vectors"]],
        case["alphas"][alpha],
        len(case["quality"]),
    )
    quality, weight = scaled(np.array(case["quality"]), "range"), float(alpha)
    if weight == 1:
        order = np.argsort(-quality, kind="stable")[: case["k"]]
        assert order.tolist() == expected["picks"]
        return
    picked, gains = facility_location(vectors, case["k"], cosine, worth=weight / (1 - weight) * n * quality)
    assert picked.tolist() == expected["picks"] == greedy(vectors.astype(np.float64), quality, weight, case["k"])
    np.testing.assert_allclose(gains * (1 - weight) / n, expected["gain"], atol=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_worth_keeps_lazy_gains_those_of_the_plain_loop(seed):
    draw = np.random.default_rng(seed)
    vectors = unit(draw.normal(size=(40, 5)))[draw.integers(0, 40, 90)]  # copies
    worth = draw.integers(-3, 4, 90).astype(float)  # ties, and negative ones
    quality = (worth - worth.min()) / np.ptp(worth)
    rows, _ = facility_location(vectors, 90, cosine, block=7, worth=90 * quality)
    assert sorted(rows.tolist()) == list(range(90))
    assert rows[:12].tolist() == greedy(vectors, quality, 0.5, 12)


@pytest.mark.parametrize(("alpha", "scaling"), [(0, "range"), (0.6, "range"), (0.6, "ranks"), (1, "range")])
def test_the_method_is_the_rule_on_the_prompts_of_rated_rows(alpha, scaling):
    rows, ctx = alpaca(40), context()
    found = select(rows, QDIT(**RATED, alpha=alpha, scaling=scaling, encoder="model"), 7, ctx)
    ratings = np.array(rows["rating"])
    order = ctx.best(ratings)
    vectors = unit(prompt_vectors(Records(rows.select(order)), ctx).vectors)
    quality = ratings[order] if scaling == "range" else rankdata(ratings[order])
    quality = (quality - quality.min()) / np.ptp(quality)
    expected = range(7) if alpha == 1 else greedy(vectors, quality, alpha, 7)
    assert found.indices.tolist() == order[list(expected)].tolist() and found.scores.tolist() == ratings.tolist()
    assert found.passes.get("embedded_rows", 0) == (0 if alpha == 1 else 40)


@pytest.mark.parametrize(("method", "alpha"), [("qdit", {"alpha": 1}), ("qdit", {}), ("car", {})])
def test_the_forecast_tells_rows_of_the_model_from_those_of_an_encoder(method, alpha):
    def forecast(encoder):
        return load_selector(method, {**RATED, **alpha, "encoder": encoder}).forecast(9, 0, 3)

    expected = [{}, {}] if alpha else [{"forward_rows": 9}, {"embedded_rows": 9}]
    assert [forecast("model"), forecast("a/sentence-encoder")] == expected
    unneeded = load_selector("qdit", {**RATED, "alpha": 1, "encoder": "no/such"})
    assert not unneeded.extras() and unneeded.needs() == load_selector("column", {"name": "rating"}).needs()
    assert unneeded.splits is None and load_selector("qdit", {"alpha": 1}).splits == "rows"
    assert load_selector("qdit", RATED).splits == load_selector("qdit").splits == "selection"


def test_more_than_the_pool_copies_and_rows_without_a_rating():
    rows = alpaca(6).to_list()
    rows = [*rows, rows[0], rows[0]]
    rows[3]["rating"] = float("nan")
    rows[4]["output"] = ""
    rows = Dataset.from_list(rows)
    found = select(rows, QDIT(**RATED, encoder="model"), 1.0, context())
    assert sorted(found.indices.tolist()) == [0, 1, 2, 5, 6, 7]
    assert found.unscorable == {"no number in `rating`": [3]} and found.dropped[
        "no finite embedding of its prompt"
    ] == [4]
    same = select(rows.select([0] * 5), QDIT(**RATED, encoder="model"), 3, context())
    assert len(set(same.indices.tolist())) == 3


def test_a_reward_model_and_a_sentence_encoder(tmp_path):
    tokenizer = bert_tokenizer()
    for part in (bert(BertModel, tokenizer), tokenizer):
        part.save_pretrained(tmp_path / "bert")
    for part in (reward_model(tiny_tokenizer()), tiny_tokenizer()):
        part.save_pretrained(tmp_path / "reward")
    rows, kwargs = alpaca(16), {"model": str(tmp_path / "reward")}
    selector = load_selector("qdit", {"quality_kwargs": kwargs, "encoder": str(tmp_path / "bert")})
    assert "model" not in selector.needs() and selector.forecast(16, 0, 4) == {"forward_rows": 16, "embedded_rows": 16}
    found, alone = (select(rows, method, 4, context()) for method in (selector, Reward(**kwargs)))
    chats = [
        [{"role": "user", "content": record.prompt}, {"role": "assistant", "content": record.answer}]
        for record in Records(rows)
    ]
    rewards = load_reward_model(kwargs["model"], Runtime(dtype="float32")).score(chats)
    np.testing.assert_allclose(found.scores, rewards, atol=1e-5)
    assert alone.indices.tolist() == np.argsort(-rewards)[:4].tolist()
    order = np.argsort(-rewards)
    texts = [record.prompt for record in Records(rows.select(order))]
    vectors = unit(load_text_encoder(selector.encoder, Runtime()).encode(texts))
    expected = greedy(vectors, (rewards[order] - rewards.min()) / np.ptp(rewards), 0.7, 4)
    assert found.indices.tolist() == order[expected].tolist()


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"quality_kwargs": {"model": "no/such"}}, "model='no/such'"),
        ({"quality": "column", "quality_kwargs": {"name": "rate"}}, "no column 'rate'"),
        ({**RATED, "encoder": "no/such"}, "encoder='no/such'"),
        ({**RATED, "alpha": 1.5}, "alpha=1.5"),
        ({"quality": "colum"}, "quality: `selection_method='colum'` does not exist; did you mean 'column'"),
        ({"quality": "auto"}, "quality='auto' gives no scores of its own"),
    ],
)
def test_what_is_missing_is_refused_before_anything_loads(kwargs, said):
    with pytest.raises(ValueError, match=said):
        selector = load_selector("qdit", kwargs)
        SelectionPlan(Records(alpaca(4)), selector, 1.0).check(tiny_model(tiny_tokenizer()))


@pytest.mark.parametrize("method", ["qdit", "car"])
def test_rows_without_any_rating_are_the_reason_that_is_given(method):
    rows = alpaca(6).remove_columns("rating").add_column("rating", ["good"] * 6)
    selector = load_selector(method, {"quality": "column", "quality_kwargs": {"name": "rating"}, "encoder": "model"})
    with pytest.raises(SelectionError, match="found no row to keep of 6: no number in `rating`"):
        select(rows, selector, 2, context_of(tokenizer := tiny_tokenizer(), tiny_model(tokenizer)))
