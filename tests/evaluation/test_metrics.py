import gzip
import importlib.util
import json
import math
import socket
import textwrap
import warnings

import evaluate
import pytest

from hf_dataselect.context import Context
from hf_dataselect.evaluation.answer_text import last_number
from hf_dataselect.evaluation.metrics import SHIPPED, check_references, load_metric, score_texts
from hf_dataselect.evaluation.questions import check_metrics, score_answers
from tests.shared_data import data_path


PREDICTIONS = ["The cat sat on the mat.", "A fox, quick & brown", "", "你好,世界", "answer: 42"]
REFERENCES = ["the cat sat down on the mat", "A quick brown fox", "nothing", "你好世界!", "42"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args):
        raise AssertionError("a metric went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_exact_match():
    score, higher, examples = score_texts("exact_match", PREDICTIONS, REFERENCES)["exact_match"]
    assert higher
    assert examples == [0, 0, 0, 1, 0]
    assert score == pytest.approx(0.2)


def test_numeric_match_compares_the_last_numbers():
    predictions = ["So 5 + 13 = 18 dollars.", "18.0", "19", "none", "18", "-1,000"]
    references = ["9 * 2\n#### 18", "#### 18", "#### 18", "#### 18", "no idea", "#### -1000"]
    score, higher, examples = score_texts("numeric_match", predictions, references)["numeric_match"]
    assert higher and examples[:4] == [1, 1, 0, 0] and math.isnan(examples[4]) and examples[5] == 1
    assert score == pytest.approx(3 / 5)


def test_real_gsm8k_references_end_on_their_numbers():
    with gzip.open(data_path("eval/gsm8k_test.jsonl.gz"), "rt") as lines:
        answers = [json.loads(line)["answer"] for line in lines]
    numbers = [last_number(answer) for answer in answers]
    assert len(numbers) == 1319 and None not in numbers
    # The steps alone end on the same number nearly always, wherever the `####` is.
    alone = [last_number(answer.partition("####")[0]) for answer in answers]
    assert sum(one == other for one, other in zip(numbers, alone, strict=True)) > 0.9 * 1319


def test_rouge_is_rouge_score_on_ascii():
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    every = "".join(map(chr, range(128)))
    predictions, references = [*PREDICTIONS[:3], every, "snake_case a"], [*REFERENCES[:3], "abc " + every, "a snake"]
    found = score_texts("rouge", predictions, references)
    assert list(found) == ["rouge1", "rouge2", "rougeL"]
    for key, value in found.items():
        expected = [scorer.score(b, a)[key].fmeasure for a, b in zip(predictions, references, strict=True)]
        assert value.examples == pytest.approx(expected)
        assert value.score == pytest.approx(sum(expected) / len(expected))


@pytest.mark.parametrize(
    ("prediction", "reference", "rouge1"),
    [
        ("我爱北京", "我爱上海", 0.5),
        ("ねこが好き", "いぬが好き", 0.6),
        ("привет мир", "Привет, друг", 0.5),
        ("हिन्दी भाषा", "हिन्दी", 2 / 3),
        ("naïve café", "naive café", 0.5),
        ("👍🎉", "👍", 2 / 3),
        ("用 Python 写", "用python写", 1.0),
        ("한국어 좋다", "한국어", 2 / 3),
    ],
)
def test_rouge_counts_words_in_every_script(prediction, reference, rouge1):
    assert score_texts("rouge", [prediction], [reference])["rouge1"].score == pytest.approx(rouge1)


def test_bleu_is_sacrebleu_on_ascii_and_splits_chinese():
    import sacrebleu

    predictions, references = PREDICTIONS[:3], REFERENCES[:3]
    found = score_texts("bleu", predictions, references)
    assert list(found) == ["bleu"]
    assert found["bleu"] == (pytest.approx(sacrebleu.corpus_bleu(predictions, [references]).score), True, None)
    prediction, reference = "春天来了,花儿都开了。", "春天来了,花儿全开了。"
    expected = sacrebleu.corpus_bleu([prediction], [[reference]], tokenize="zh").score
    assert 20 < expected < 90
    assert score_texts("bleu", [prediction], [reference])["bleu"].score == pytest.approx(expected)


def test_chrf_is_the_mean_of_sacrebleus_sentence_scores():
    import sacrebleu

    expected = [sacrebleu.sentence_chrf(a, [b]).score for a, b in zip(PREDICTIONS, REFERENCES, strict=True)]
    score, higher, examples = score_texts("chrf", PREDICTIONS, REFERENCES)["chrf"]
    assert higher
    assert examples == pytest.approx(expected)
    assert score == pytest.approx(sum(expected) / len(expected))


@pytest.mark.parametrize("name", SHIPPED)
def test_built_in_metrics_span_their_range(name):
    texts = ["the same four words 4", "你好世界 2"]
    same = score_texts(name, texts, texts)
    assert all(value.score == pytest.approx(100 if name in ("chrf", "bleu") else 1) for value in same.values())
    assert all(value.score == 0 for value in score_texts(name, ["", ""], ["a 1", "2"]).values())
    assert {value.examples is None for value in same.values()} == {name == "bleu"}


@pytest.mark.parametrize("name", SHIPPED)
def test_what_cannot_be_scored_is_refused(name):
    with pytest.raises(ValueError, match="are empty"):
        score_texts(name, [], [])
    with pytest.raises(ValueError, match="2 `predictions` for 1 `references`"):
        score_texts(name, ["a", "b"], ["a"])
    with pytest.raises(TypeError, match=r"`predictions\[1\]` is None"):
        score_texts(name, ["a", None], ["a", "b"])
    with pytest.raises(TypeError, match=r"`references\[0\]` is 3"):
        score_texts(name, ["a"], [3])
    with pytest.raises(ValueError, match="higher is better"):
        score_texts(name + ":lower", ["a"], ["a"])
    assert score_texts(name + ":higher", ["a"], ["a"])


@pytest.mark.parametrize(("name", "package"), [("rouge", "rouge_score"), ("chrf", "sacrebleu"), ("bleu", "sacrebleu")])
def test_missing_package_is_named_with_its_extra(monkeypatch, name, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=rf"`{package}`.*pip install hf_dataselect\[metrics\]"):
        load_metric(name)
    load_metric("exact_match")


def test_unknown_metric_is_explained(monkeypatch):
    def absent(*args, **kwargs):
        raise FileNotFoundError("no such module")

    monkeypatch.setattr(evaluate, "load", absent)
    with pytest.raises(
        ValueError, match="'ruge' could not be loaded.*bleu, chrf, exact_match, numeric_match, rouge.*Hub.*no such"
    ):
        load_metric("ruge")
    for name in ("", None, 3):
        with pytest.raises(ValueError, match="non-empty string"):
            load_metric(name)


def local_metric(folder, name, result, references="text"):
    """A metric of the user: `folder/name/name.py`, whose `_compute` returns the expression `result`."""
    code = f"""
        import datasets
        import evaluate
        import numpy as np

        class Local(evaluate.Metric):
            def _info(self):
                text = datasets.Value("string")
                features = datasets.Features({{"predictions": text, "references": {references}}})
                return evaluate.MetricInfo(description="", citation="", features=features)

            def _compute(self, predictions, references):
                return {result}
        """
    (folder / name).mkdir()
    (folder / name / f"{name}.py").write_text(textwrap.dedent(code))
    return str(folder / name)


def test_local_metric_gives_its_numbers(tmp_path):
    result = (
        "{'f1': np.float32(0.5), 'array': np.array(2), 'mean_perplexity': 3, 'rows': [1.0], 'ok': True, 'to': 'x'}"
    )
    name = local_metric(tmp_path, "local_numbers", result)
    with pytest.warns(UserWarning, match="direction of `array` is unknown.*:lower"):
        found = score_texts(name, ["a"], ["b"])
    assert found == {"f1": (0.5, True, None), "array": (2.0, True, None), "mean_perplexity": (3.0, False, None)}
    assert all(type(value.score) is float for value in found.values())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not any(value.higher_is_better for value in score_texts(name + ":lower", ["a"], ["b"]).values())
        assert all(value.higher_is_better for value in score_texts(name + ":higher", ["a"], ["b"]).values())


def test_bare_number_gets_the_name_of_the_metric(tmp_path):
    name = local_metric(tmp_path, "local_wer", "len(predictions) / 4")
    assert score_texts(name, ["a"], ["b"]) == {"local_wer": (0.25, False, None)}


def test_metric_without_a_number_is_refused(tmp_path):
    name = local_metric(tmp_path, "local_lists", "{'precisions': [1.0]}")
    with pytest.raises(ValueError, match=r"no number, only \['precisions'\]"):
        score_texts(name, ["a"], ["b"])


SEVERAL = ["a quick fox", "a b c d e 4"], [["the cat", "a quick fox", "foxes 3"], ["a b c d f", "a b c d e 4"]]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_best_of_several_right_answers_counts_wherever_it_stands(name):
    predictions, references = SEVERAL
    for order in (1, -1):
        found = score_texts(name, predictions, [right[::order] for right in references])
        first = score_texts(name, predictions, [right[::order][0] for right in references])
        for key, value in found.items():
            if name == "numeric_match":
                assert value.examples == [0, 1]
            elif name != "bleu":
                assert value.examples == pytest.approx([100 if name == "chrf" else 1] * 2)
            else:
                assert value.score == pytest.approx(100) and first[key].score < 100
    one = score_texts(name, predictions, [[right[0]] for right in references])
    same = score_texts(name, predictions, [right[0] for right in references])
    assert repr(one) == repr(same)


def test_several_references_are_those_of_the_libraries():
    import sacrebleu
    from rouge_score.rouge_scorer import RougeScorer

    predictions = ["the cat sat on the mat today", "it is a small dog that barks"]
    references = [["a cat sat on the mat", "the cat is on the mat today", "no"], ["it is a dog that barks a lot"]]
    streams = [[references[0][i], (references[1] + ["", ""])[i] or None] for i in range(3)]
    assert score_texts("bleu", predictions, references)["bleu"].score == pytest.approx(
        sacrebleu.corpus_bleu(predictions, streams).score
    )
    expected = [sacrebleu.sentence_chrf(a, b).score for a, b in zip(predictions, references, strict=True)]
    assert score_texts("chrf", predictions, references)["chrf"].examples == pytest.approx(expected)
    scorer, pairs = RougeScorer(["rougeL"]), list(zip(references, predictions, strict=True))
    expected = [max(scorer.score(text, said)["rougeL"].fmeasure for text in right) for right, said in pairs]
    assert score_texts("rouge", predictions, references)["rougeL"].examples == pytest.approx(expected)


def test_a_number_counts_where_only_some_right_answers_have_one():
    found = score_texts("numeric_match", ["3", "3", "3"], [["three", "3"], ["three"], ["4", "5"]])["numeric_match"]
    assert found.examples[0] == 1 and math.isnan(found.examples[1]) and found.examples[2] == 0
    assert found.score == 0.5


@pytest.mark.parametrize("right", [[], [1], None, ["a", None]])
def test_references_that_are_no_texts_are_refused(right):
    with pytest.raises(TypeError, match=r"`references\[1\]` is .*at least one"):
        score_texts("exact_match", ["a", "b"], ["a", right])


LISTS = "datasets.Sequence(text)"


def test_a_metric_of_lists_gets_lists_and_one_of_texts_refuses_them(tmp_path):
    result = "{'accuracy': sum(p in r for p, r in zip(predictions, references)) / len(references)}"
    name = local_metric(tmp_path, "of_lists", result, references=LISTS)
    assert score_texts(name, ["a", "ab"], [["b", "a"], ["abc"]])["accuracy"].score == 0.5
    assert score_texts(name, ["a", "b"], ["a", "abc"])["accuracy"].score == 0.5  # "b" is no item of ["abc"]
    check_references(name, [["a", "b"], ["a"]])
    texts = local_metric(tmp_path, "of_texts", result)
    assert score_texts(texts, ["a"], [["a"]])["accuracy"].score == 1
    for refuse in (lambda: score_texts(texts, ["a"], [["a", "b"]]), lambda: check_references(texts, [["a", "b"]])):
        with pytest.raises(
            ValueError, match="of_texts' takes one reference for each example, and 1 examples have sev"
        ):
            refuse()
    even = local_metric(tmp_path, "of_pairs", "{'accuracy': len({*map(len, references)}) > 1 and 1 / 0}", LISTS)
    check_references(even, [["a", "b"], ["a", "c"]])
    with pytest.raises(ValueError, match="of_pairs' can't score examples with 1 and with 2 answers: division"):
        check_references(even, [["a", "b"], ["a"]])


def named(metrics, **options):
    ctx = Context(None)
    found = score_answers(metrics, ["a", None, "a", "b"], [["a", "b"], ["a"], [], ["a"]], ctx, **options)
    return {name: setting.score for name, setting in found.items()}, ctx.account.rows("unscorable")


def test_values_of_one_name_are_named_with_their_metrics(tmp_path):
    (tmp_path / "other").mkdir()
    one = local_metric(tmp_path, "one_rate", "{'score': 0.25, 'own_rate': 1.0}", LISTS) + ":higher"
    two = local_metric(tmp_path, "two_rate", "{'score': 0.75, 'exact_match': 0.5}", LISTS) + ":lower"
    assert named([one])[0] == {"score": 0.25, "own_rate": 1.0}
    assert named(["exact_match", one, two])[0] == {
        "exact_match.exact_match": 0.5,
        "one_rate.score": 0.25,
        "own_rate": 1.0,
        "two_rate.score": 0.75,
        "two_rate.exact_match": 0.5,
    }
    twin = local_metric(tmp_path / "other", "one_rate", "{'score': 0.125, 'own_rate': 0.0}", LISTS) + ":higher"
    assert set(named([one, twin])[0].values()) == {0.25, 1.0, 0.125, 0.0}
    assert named([one], taken=("score",))[0] == {"one_rate.score": 0.25, "own_rate": 1.0}
    assert named(["exact_match"]) == ({"exact_match": 0.5}, {"no reference answer": [2]})
    for twice in (["rouge", "chrf", "rouge"], [one, one[: -len(":higher")]]):
        with pytest.raises(ValueError, match="`metrics=.* more than once"):
            check_metrics(twice)
