"""Agreement of a judge with people: known cases, real labels replayed, and the command."""

import json

import numpy as np
import pytest
from datasets import Dataset
from sklearn.metrics import cohen_kappa_score

from hf_dataselect.cli.main import main
from hf_dataselect.engines.llm.reward_model import RewardModel
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.evaluation.judging.judge_check import LabelledPairs, agreement, as_table, load_pairs
from tests.engines.llm.test_local import reward_model
from tests.evaluation.judging.test_win_rate import Scripted
from tests.faulty_server import FaultyServer
from tests.shared_data import data_path
from tests.tiny import tiny_tokenizer


def pairs(labels: list[int], replayed: list[float] | None = None) -> LabelledPairs:
    n = len(labels)
    texts = [f"q {i}" for i in range(n)], [f"a {5 + label}" for label in labels], [f"b 5 {i}" for i in range(n)]
    stored = None if replayed is None else np.array(replayed, float)
    return LabelledPairs(*texts, np.array(labels, float), replayed=stored)


def test_a_judge_that_is_right_and_one_that_guesses():
    labels = [1, -1, 0, 1, -1, 1, 0, -1] * 3
    right = agreement(pairs(labels), Scripted())
    assert right.accuracy == right.kappa == right.consistency == 1 and right.unparsable == 0
    # None of 24 failed: the exact lower end p has p ** 24 = 0.025; kappa's chance agreement is that of thirds.
    low = 0.025 ** (1 / 24)
    assert right.accuracy_interval == right.consistency_interval == (pytest.approx(low), 1)
    chance = (9**2 + 6**2 + 9**2) / 24**2
    assert right.kappa_interval == (pytest.approx((low - chance) / (1 - chance)), 1)
    # A judge that always prefers what stands first says "as good" of all pairs.
    blind = agreement(pairs(labels), Scripted(bias=5))
    assert blind.accuracy == 0.25 and blind.consistency == 0 and blind.kappa == pytest.approx(0)
    assert blind.consistency_interval == (0, pytest.approx(1 - low))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("right", [True, False])
def test_no_interval_is_without_a_width(n, right):
    labels = [1 if i % 2 else -1 for i in range(n)]
    found = agreement(pairs(labels), Scripted(bias=0 if right else 9))
    assert found.accuracy == found.consistency == (1 if right else 0)
    end = 0.025 ** (1 / n)  # Clopper-Pearson with no failure; two-sided, so alpha / 2
    expected = (end, 1) if right else (0, 1 - end)
    assert found.accuracy_interval == pytest.approx(expected)
    assert found.consistency_interval == pytest.approx(expected)
    assert f"{found.consistency:.3f} [{expected[0]:.3f}, {expected[1]:.3f}]" in as_table({"set": found})
    if right and n == 1:
        assert np.isnan(found.kappa) and np.isnan(found.kappa_interval).all()
    else:
        low, high = found.kappa_interval
        assert -1 <= low <= found.kappa <= high <= 1 and high - low > 0.16
        assert n > 3 or high - low > 0.5, "three pairs say little"


def test_the_interval_of_a_kappa_is_not_narrower_than_that_of_the_accuracy():
    # 18 of 20 right, all labels equal: each resample has kappa 0, and chance alone agrees on 0.9.
    found = agreement(pairs([1] * 20, [1] * 18 + [-1] * 2))
    assert found.accuracy_interval == (pytest.approx(0.6830, abs=1e-4), pytest.approx(0.9877, abs=1e-4))
    assert found.kappa == 0 and found.kappa_interval == (-1, pytest.approx((0.98765 - 0.9) / 0.1, abs=1e-3))


def test_equal_answers_that_no_judge_saw_are_counted_apart():
    given = pairs([1, -1, 1, -1, 0, 0, 0])
    given.first[4:] = given.second[4:] = ["same 1", "same 2", "same 3"]
    judge = Scripted(bias=9)  # what stands first wins: never the same in both orders, and always a tie
    found = agreement(given, judge)
    assert judge.cost.calls == 8 and found.pairs == 7 and found.identical == 3 and found.unparsable == 0
    assert found.accuracy == 0 and found.consistency == 0, "the three ties without a call are right in no rate"
    assert found.accuracy_interval == found.consistency_interval == (0, pytest.approx(1 - 0.025 ** (1 / 4)))
    assert "\nset: 3 pairs: identical answers, not shown to the judge" in as_table({"set": found})
    given.first[:4] = given.second[:4]
    none = agreement(given, Scripted())
    assert none.identical == 7 and np.isnan([none.accuracy, none.consistency, *none.accuracy_interval]).all()
    assert "nan" not in as_table({"set": none})


def test_a_reward_model_has_no_order_to_be_consistent_in():
    tokenizer = tiny_tokenizer()
    judge = RewardModel("r", reward_model(tokenizer), tokenizer, Runtime(dtype="float32"))
    given = LabelledPairs(["q one", "q two"], ["blue fox", "stone"], ["red", "river letter"], np.array([1.0, -1.0]))
    found = agreement(given, judge)
    assert np.isnan([found.consistency, *found.consistency_interval]).all() and not np.isnan(found.accuracy)


def test_unparsable_pairs_are_counted_and_left_out():
    found = agreement(pairs([1, 1, -1, -1]), Scripted(odd={"q 1": "none", "q 2": (None, "blocked")}))
    assert found.pairs == 4 and found.unparsable == 2 and found.accuracy == 1
    assert found.problems == {"no two scores on the first line of the reply": 1, "blocked": 1}
    assert "no two scores" in as_table({"set": found})


def test_the_interval_holds_the_spread_of_a_known_case():
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 400) * 2 - 1
    stored = np.where(draw.random(400) < 0.8, labels, -labels)
    found = agreement(pairs(labels.tolist(), stored))
    three = draw.integers(-1, 2, (2, 50)).astype(float)
    assert agreement(pairs(three[0].tolist(), three[1])).kappa == pytest.approx(cohen_kappa_score(*three.astype(int)))
    assert found.accuracy == np.mean(labels == stored) and np.isnan(found.consistency)
    assert found.kappa == pytest.approx(cohen_kappa_score(labels, stored))
    deviation = np.sqrt(found.accuracy * (1 - found.accuracy) / 400)
    expected = found.accuracy + np.array([-1.96, 1.96]) * deviation
    np.testing.assert_allclose(found.accuracy_interval, expected, atol=0.006)
    # Of two equal classes kappa is 2 * accuracy - 1.
    np.testing.assert_allclose(found.kappa_interval, 2 * expected - 1, atol=0.02)


def test_too_little_to_say_anything():
    found = agreement(pairs([1, 1], [np.nan, np.nan]))
    assert found.unparsable == 2 and np.isnan(found.accuracy) and np.isnan(found.kappa_interval).all()
    assert np.isnan(agreement(pairs([1, 1], [1, 1])).kappa), "one value on both sides: chance alone agrees"


def written(tmp_path, rows: list[dict]) -> str:
    Dataset.from_list(rows).to_json(tmp_path / "pairs.jsonl")
    return str(tmp_path / "pairs.jsonl")


def test_layouts_and_majority(tmp_path):
    votes = [(1, 1, 2), (2, 2, 2), (0, 1, 0), (0, 1, 2)]
    rows = [
        {"instruction": "Do", "input": "it", "response1": "a", "response2": "b"}
        | {f"annotator{i + 1}": vote for i, vote in enumerate(row)}
        for row in votes
    ]
    found = load_pairs(written(tmp_path, rows))
    assert found.labels.tolist() == [1, -1, 0] and found.undecided == 1 and found.questions[0] == "Do\n\nit"
    # One of the people against the others, where those agree.
    found = load_pairs(written(tmp_path, rows), replay="annotator3")
    assert found.labels.tolist() == [1, -1] and found.replayed.tolist() == [-1, -1] and found.undecided == 2
    autoj = [{"prompt": "p", "response 1": "a", "response 2": "b", "label": label} for label in (0, 1, 2)]
    assert load_pairs(written(tmp_path, autoj)).labels.tolist() == [1, -1, 0]
    llmbar = [{"input": "p", "output_1": "a", "output_2": "b", "label": 1, "mine": 2}]
    llmbar += [{"input": "p", "output_1": "a", "output_2": "b", "label": 2, "mine": None}]
    found = load_pairs(written(tmp_path, llmbar), replay="mine")
    assert found.labels.tolist() == [1, -1]
    np.testing.assert_array_equal(found.replayed, [-1, np.nan])
    assert load_pairs(written(tmp_path, llmbar)).questions == ["p", "p"]


def test_what_is_no_labelled_pair_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a question and one of"):
        load_pairs(written(tmp_path, [{"prompt": "p", "answer": "a"}]))
    row = {"input": "p", "output_1": "a", "output_2": "b", "label": 7}
    with pytest.raises(ValueError, match="row 0 has the label 7, expected one of"):
        load_pairs(written(tmp_path, [row]))
    with pytest.raises(ValueError, match="`replay='nothing'` is not a column"):
        load_pairs(written(tmp_path, [row]), replay="nothing")
    with pytest.raises(ValueError, match="is the only human label"):
        load_pairs(written(tmp_path, [row]), replay="label")


REAL = {"pandalm_human_999": (999, 999), "llmbar_419": (419, 419), "autoj_pairwise_test_1392": (1392, 1392)}


@pytest.mark.parametrize("name", REAL)
def test_real_labels_are_read(name):
    found = load_pairs(str(data_path(f"rated/{name}.jsonl.gz")))
    assert (len(found.labels) + found.undecided, len(found.labels)) == REAL[name]
    assert set(found.labels) == ({1, -1} if name == "llmbar_419" else {1, 0, -1})
    assert all(map(str.strip, found.questions)) and len(found.first) == len(found.second) == len(found.labels)
    assert len(found.sample(50).labels) == 50
    assert found.sample(50).questions == found.sample(50).questions != found.sample(50, seed=1).questions


def test_people_replayed_against_people():
    """The people of PandaLM agree as well as they do, whichever of them plays the judge."""
    path = str(data_path("rated/pandalm_human_999.jsonl.gz"))
    for person in ("annotator1", "annotator2", "annotator3"):
        found = agreement(load_pairs(path, replay=person), resamples=100)
        assert found.unparsable == 0 and found.pairs + found.undecided == 999
        assert 0.8 < found.accuracy_interval[0] < found.accuracy < found.accuracy_interval[1] < 1
        assert found.kappa > 0.7


def test_the_command(tmp_path, monkeypatch, capsys):
    rows = [
        {"input": f"p{i}", "output_1": f"a {i % 3}", "output_2": "b 1", "label": 1 + (i % 3 == 0)}
        for i in range(30)
        if i % 3 != 1
    ]
    path = written(tmp_path, rows)

    def judged(text: str) -> str:
        if "p3\n" in text:
            return "I can't say."
        return " ".join(part.split("\n")[1].split()[-1] for part in text.split("<answer_")[1:]).replace("0", "3", 0)

    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-key")
    with FaultyServer(reply=lambda text: judged(text).replace("0 1", "4 5").replace("1 0", "5 4")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        command = ["judge-check", path, "--judge", "openai:m", "--cache_dir", str(tmp_path / "cache")]
        main([*command, "--output_file", str(tmp_path / "found.json")])
        assert sum(server.calls.values()) == 40
        main([*command, "--limit", "5", "--judge_kwargs", '{"max_calls": 0}'])
        assert sum(server.calls.values()) == 40, "kept replies are used"
    shown = capsys.readouterr().out
    assert "| pairs | 20 | 1.000 [0.824, 1.000] |" in shown and "pairs: 1 pairs: no two scores" in shown
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["cost"]["calls"] == 40 and found["sets"]["pairs"]["unparsable"] == 1
    assert "sk-secret-key" not in shown + (tmp_path / "found.json").read_text()
    main(
        ["judge-check", str(data_path("rated/pandalm_human_999.jsonl.gz")), "--replay", "annotator1", "--limit", "60"]
    )
    assert "| pandalm_human_999 | 60 |" in capsys.readouterr().out
    for wrong, says in (
        ([], "give either `--judge` or `--replay`"),
        (["--judge", "gpt"], "`judge='gpt'` must be"),
        (["--judge", "openai:m", "--judge_kwargs", '{"max_call": 1}'], "did you mean 'max_calls'"),
        (["--replay", "x"], "is not a column"),
        (["--replay", "label", "--max_new_tokens", "0"], "`--max_new_tokens 0` must be at least 1"),
    ):
        with pytest.raises(SystemExit) as refused:
            main(["judge-check", path, *wrong])
        assert refused.value.code == 2 and says in capsys.readouterr().err
