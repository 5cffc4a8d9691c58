"""BM25 agrees with other people's code, and finds rows that are like the target."""

import re

import numpy as np
import pytest
from datasets import Dataset

from hf_dataselect.data.records import Records
from hf_dataselect.errors import SelectionError
from hf_dataselect.features.term_scores import TermScores, terms
from hf_dataselect.pipeline import select
from hf_dataselect.selectors.bm25 import BM25
from tests.rows import alpaca
from tests.shared_data import golden
from tests.tiny import context_of


def context(target: Dataset):
    return context_of(None, target=Records(target, name="selection_target"))


def test_agrees_with_another_implementation():
    given = golden("bm25")
    texts = ["\n".join(filter(None, (row["instruction"], row["input"], row["output"]))) for row in given["rows"]]
    case = next(case for case in given["cases"] if (case["tokens"], case["variant"]) == ("words", "bergson"))
    rows, queries = ([texts[place] for place in given[name]] for name in ("train", "query"))
    words = re.compile(r"(?u)\b\w\w+\b").findall
    scores = TermScores(rows, queries, lambda text: words(text.lower()))
    np.testing.assert_allclose(scores[:].T, case["scores"], rtol=1e-6, atol=1e-6)
    scores = TermScores(rows, rows)
    np.testing.assert_allclose(scores[:].diagonal(), scores.own)


def test_terms_of_scripts_with_and_without_spaces():
    assert terms("It's a Fox, 2 foxes! Élan_3") == ["it", "fox", "foxes", "élan_3"]
    assert terms("写一首诗 ab日本c") == ["写一", "一首", "首诗", "ab", "日本"]
    assert terms("ไทยดี ok") == ["ไท", "ทย", "ยด", "ดี", "ok"]


def test_a_target_of_candidates_finds_them_whatever_their_length():
    rows = alpaca(24).to_list()
    rows[7]["output"] = "Zebras graze."
    rows[3]["output"] = " ".join(f"word{i}" for i in range(60))
    rows[20]["output"] = "A quokka sleeps under gum trees."
    rows = Dataset.from_list(rows)
    target = rows.select([7, 3, 20])
    for rule in ("mean", "round_robin"):
        found = select(rows, BM25(rule), 3, context(target))
        assert sorted(found.indices.tolist()) == [3, 7, 20]
    assert found.indices.tolist() == [7, 3, 20], "target rows choose in their order"
    np.testing.assert_allclose(found.scores[[3, 7, 20]], 1, atol=1e-6)


def test_subtasks_count_alike_and_what_can_not_be_scored_is_named():
    rows = alpaca(8).to_list()
    rows[2]["output"] = ""
    rows[5]["output"] = "Quokkas!"
    target = [{"instruction": "Say zebra", "input": "", "output": "red fox", "subtask": "a"}] * 3
    target += [{"instruction": "quokkas", "input": "", "output": "quokkas", "subtask": "b"}]
    found = select(Dataset.from_list(rows), BM25(), 2, context(Dataset.from_list(target)))
    assert found.indices.tolist()[0] == 5 and found.unscorable == {"no answer": [2]} and np.isnan(found.scores[2])
    nothing = Dataset.from_list([{"instruction": "Qqq", "input": "", "output": "xyzzy"}])
    with pytest.raises(SelectionError, match="none of its rows shares a word"):
        select(Dataset.from_list(rows), BM25(), 2, context(nothing))
