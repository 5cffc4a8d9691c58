import gzip
import importlib.util
import json
import math
import socket
import textwrap
import warnings

import evaluate
import pytest

from hf_dataselect.evaluation.answer_text import last_number, normalize
from hf_dataselect.evaluation.metrics import SHIPPED, load_metric, score_texts
from tests.shared_data import data_path


PREDICTIONS = ["The cat sat on the mat.", "A fox, quick & brown", "", "你好,世界", "answer: 42"]
REFERENCES = ["the cat sat down on the mat", "A quick brown fox", "nothing", "你好世界!", "42"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args):
        raise AssertionError("a metric went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Hello,  World!\n", "hello world"),
        ("你好, 世界。", "你好世界"),
        ("３ 个苹果", "3个苹果"),
        ("ABC！", "abc!"),
        ("don’t", "Dont"),
        ("1,234,567", "1234567"),
        ("−5", "-5"),
        ("well-known", "well known"),
        ("I ❤️ it", "I ❤ it"),
        ("Straße", "STRASSE"),
        ("ภาษา ไทย", "ภาษาไทย"),
        ("\ufeffyes\u200b", "Yes."),
        ("«Да»", "да"),
    ],
)
def test_equal_answers_are_equal_when_normalized(one, other):
    assert normalize(one) == normalize(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3.5", "35"),
        ("the answer is -5", "the answer is 5"),
        ("-.5", "5"),
        ("👍", "👎"),
        ("5 €", "5 $"),
        ("?", "!"),
        ("👩‍🚀", "👨‍🚀"),
        ("🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🏴󠁧󠁢󠁳󠁣󠁴󠁿"),
        ("你好", "你坏"),
        ("हिन्दी", "हिन्दू"),
        ("12 3", "1 23"),
        ("", "x"),
    ],
)
def test_different_answers_stay_different(one, other):
    assert normalize(one) != normalize(other)


def test_normalizing_twice_changes_nothing():
    for text in [*PREDICTIONS, *REFERENCES, "...", "İ ǅ ﬁ", "a - b", "x=-5", "2^-3"]:
        assert normalize(normalize(text)) == normalize(text)


def test_exact_match():
    score, higher, examples = score_texts("exact_match", PREDICTIONS, REFERENCES)["exact_match"]
    assert higher
    assert examples == [0, 0, 0, 1, 0]
    assert score == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She makes $18 a day.\n#### 18", 18),
        ("#### 1,234", 1234),
        ("It is $1,234.50.", 1234.5),
        ("first 3, then 4 apples", 4),
        ("about 18km", 18),
        ("50 % off", 50),
        ("x = -5", -5),
        ("that is -5 degrees", -5),
        ("it lost -$20", -20),
        ("it lost $-20", -20),
        ("\u22127", -7),
        ("10-5", 5),
        ("10 - 5", 5),
        ("f(2)-3", 3),
        (".5", 0.5),
        ("18.", 18),
        ("18.00", 18),
        ("1,5", 5),
        ("2e3", 2000),
        ("3 eggs", 3),
        ("**42**", 42),
        ("\\boxed{72}", 72),
        ("1 2 3 #### 7 and done", 7),
        ("#### 7\n#### 8", 8),
        ("12 #### none", None),
        ("３２ 个", 32),
        ("٤٢", 42),
        ("no number", None),
        ("", None),
    ],
)
def test_the_number_that_a_text_ends_on(text, number):
    found = last_number(text)
    assert found == number if number is None else float(found) == number


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


def local_metric(folder, name, result):
    """A metric of the user: `folder/name/name.py`, whose `_compute` returns the expression `result`."""
    code = f"""
        import datasets
        import evaluate
        import numpy as np

        class Local(evaluate.Metric):
            def _info(self):
                text = datasets.Value("string")
                features = datasets.Features({{"predictions": text, "references": text}})
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
