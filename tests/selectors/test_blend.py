"""A blend ranks as its methods together, keeps their columns, and costs one pass."""

import numpy as np
import pytest
from datasets import Dataset
from scipy.stats import rankdata

from hf_dataselect.data.records import Records
from hf_dataselect.pipeline import select
from hf_dataselect.registry import load_selector
from hf_dataselect.selectors.blend import Blend
from hf_dataselect.selectors.ifd import IFD
from hf_dataselect.selectors.length import Length
from hf_dataselect.selectors.perplexity import Perplexity
from hf_dataselect.selectors.rds import RDS
from hf_dataselect.testing import sample_rows, tiny_context


ROWS = sample_rows()
MEMBERS = {"ifd": {"weight": 2, "kwargs": {"warmup": "none"}}, "length": -1}


@pytest.mark.parametrize("how", ["mean", "product"])
def test_scores_are_weighted_ranks_among_rows_that_all_can_keep(how):
    found = select(ROWS, Blend(MEMBERS, how), 5, tiny_context())
    parts = [select(ROWS, method, 24, tiny_context()) for method in (IFD(warmup="none"), Length())]
    kept = np.isin(np.arange(24), parts[0].indices)
    ranks = [(rankdata(part.scores[kept]) - 0.5) / kept.sum() for part in parts]
    expected = (2 * ranks[0] - ranks[1]) / 3 if how == "mean" else (ranks[0] ** 2 / ranks[1]) ** (1 / 3)
    np.testing.assert_allclose(found.scores[kept], expected, rtol=1e-5)
    assert np.isnan(found.scores[~kept]).all() and 0 < kept.sum() < 24
    assert found.dropped.keys() == {f"ifd: {reason}" for reason in parts[0].dropped}
    np.testing.assert_array_equal(found.columns["ifd.conditional_loss"], parts[0].columns["conditional_loss"])
    np.testing.assert_array_equal(found.columns["length"], parts[1].scores)


def test_members_share_a_pass_and_score_as_alone():
    several = {
        "perplexity": 1,
        "hard": {"method": "perplexity", "kwargs": {"keep": "top"}},
        "rds": 1,
        "rsr": 1,
        "grape": 1,
        "ifd": {"kwargs": {"warmup": "none", "drop_above_one": False}},
    }
    found = select(ROWS, Blend(several), 5, tiny_context())
    assert found.passes["forward_rows"] == 2 * 24, "one pass with the prompts, one without"
    assert found.passes["embedded_rows"] == 3, "target rows"
    for name, alone in (("rds", RDS()), ("hard", Perplexity("top")), ("perplexity", Perplexity())):
        np.testing.assert_allclose(found.columns[name], select(ROWS, alone, 5, tiny_context()).scores, atol=1e-5)


def test_where_keeps_the_rows_for_which_it_holds():
    rows = ROWS.add_column("stars", [None if row == 3 else row % 5 for row in range(24)])
    where = "perplexity.conditional_loss > 5 and stars >= 2 and tokens < 120"
    found = select(rows, Blend({"perplexity": 1}, where=where), 24, tiny_context())
    ctx = tiny_context()
    tokens = ctx.encode(Records(ROWS)).tokens.lengths
    stars = np.array([row % 5 if row != 3 else -1 for row in range(24)])
    loss = found.columns["perplexity.conditional_loss"]
    expected = np.flatnonzero((loss > 5) & (stars >= 2) & (tokens < 120))
    assert 0 < len(expected) < 24 and sorted(found.indices.tolist()) == expected.tolist()
    assert len(found.dropped[f"not {where}"]) == 24 - len(expected)


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({}, "members is empty"),
        ({"members": {"length": 0, "perplexity": 0.0}}, "all weights of members are 0"),
        ({"members": {"lenght": 1}}, "did you mean 'length'"),
        ({"members": {"length": "much"}}, "the weight of 'length' must be a number, got 'much'"),
        ({"members": {"length": float("nan")}}, "must be a number"),
        ({"members": {"length": {"wieght": 1}}}, "'length' has 'wieght': give"),
        ({"members": {"perplexity": {"kwargs": {"kep": "top"}}}}, "no option 'kep'"),
        ({"members": {"full": 1}}, "full='full' gives no scores"),
        ({"members": {"auto": 1}}, "auto='auto' gives no scores"),
        ({"members": {"blend": {"kwargs": {"members": {"length": 1}}}}}, "'blend' is a blend itself"),
        ({"members": {"length": 1}, "where": "__import__('os').remove('x') > 1"}, "where"),
    ],
)
def test_wrong_options_are_refused_before_anything_loads(kwargs, said):
    with pytest.raises(ValueError, match=said):
        load_selector("blend", kwargs)


def test_an_unknown_column_is_refused_before_anything_loads():
    for name, near in (("perplexity.conditional_los", "perplexity.conditional_loss"), ("lenght", "length")):
        method = Blend({"perplexity": 1, "length": 1}, where=f"{name} > 1")
        with pytest.raises(ValueError, match=f"names '{name}', which is no column; did you mean '{near}'"):
            method.check(Records(ROWS))
    for name, near in (("nuggets.win", "nuggets.wins"), ("random.scores", "random")):
        with pytest.raises(ValueError, match=f"names '{name}', which is no column; did you mean '{near}'"):
            Blend({"nuggets": 1, "random": 1}, where=f"{name} > 1").check(Records(ROWS))
    with pytest.raises(ValueError, match="every prompt here has one"):
        Blend({"grape": 1}).check(Records(Dataset.from_list(ROWS.to_list()[:1])))


def test_a_score_and_the_tokens_of_the_window_come_before_a_column_of_their_name():
    rows = ROWS.add_column("length", [10**6] * 24).add_column("tokens", [10**6] * 24)
    for where in ("length < 1000000", "tokens < 1000000"):
        assert len(select(rows, Blend({"length": 1}, where=where), 24, tiny_context()).indices) == 24


def test_a_column_without_numbers_is_refused_before_anything_loads():
    rows = ROWS.add_column("lists", [[1]] * 24).add_column("none", [None] * 24).add_column("flag", [True] * 24)
    for name in ("instruction", "lists", "none"):
        with pytest.raises(ValueError, match=f"names the column '{name}', which holds no numbers but"):
            Blend({"length": 1}, where=f"length > 0 and {name} > 0").check(Records(rows))
    Blend({"length": 1}, where="flag > 0").check(Records(rows))


def test_a_blend_needs_what_its_methods_need():
    assert Blend({"bm25": 1, "perplexity": 1}).needs() == {"text", "target", "model"}
    assert Blend({"rds": 1, "rsr": 1}).wants() == {"position state", "loss", "token ranks"}
