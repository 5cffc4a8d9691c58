"""Answers as they are compared: normalized texts, last numbers."""

import pytest

from hf_dataselect.evaluation.answer_text import last_number, normalize
from hf_dataselect.evaluation.metrics import score_texts
from tests.evaluation.test_metrics import PREDICTIONS, REFERENCES


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
        ("12,34,567", 1234567),
        ("1{,}234", 1234),
        ("1\u202f234", 1234),
        ("1'234", 1234),
        ("50%", 50),
        ("+5", 5),
        ("\u20135", -5),
        ("3\u20135", 5),
        ("25 m²", 25),
        ("25 m2", 25),
        ("25 km/h^2", 25),
        ("on 3/4/2024", 2024),
        ("12 / 4 = 3", 3),
        ("2020, 3/4", 0.75),
        ("3/4 and 1/2", 0.5),
        ("7 5/4", 1.25),
        ("1.5E-3", 0.0015),
        ("1/0", None),
        ("9" * 5000, float("inf")),
    ],
)
def test_the_number_that_a_text_ends_on(text, number):
    found = last_number(text)
    if number == float("inf"):
        assert found == 10**5000 - 1
    else:
        assert found == number if number is None else float(found) == number


#: Ways to write one number, by line; no two lines are the same number.
SAME = [
    [
        "1/4",
        "0.25",
        "¼",
        ".25",
        "1 / 4",
        "2/8",
        r"\frac{1}{4}",
        r"\dfrac14",
        r"\boxed{\frac{1}{4}}",
        "(1)/(4)",
        "１／４",
    ],
    ["3/4", "0.75", "¾", r"$\tfrac{3}{4}$", "**3/4**.", "The share is 3/4 cups"],
    ["-1/4", "\u22121/4", r"-\frac{1}{4}", r"\frac{-1}{4}", "1/-4", "(-1)/4", "-0.25"],
    ["3 1/4", "3¼", "3.25", "13/4", r"3\frac{1}{4}", r"3 \frac14", "3 and 1/4", "$3 1/4"],
    ["-3 1/4", "-13/4", "-3.25"],
    ["4 1/4", "17/4"],
    ["31/4", "7.75"],
    ["1,000/3", "1000/3"],
    ["3 x 10^5", "3 × 10⁵", r"3 \times 10^{5}", "3e5", "300,000"],
    ["7 × 10^5", "700000"],
    ["3×10⁻²", "0.03", "3/100"],
    ["2^3", "2³", "2**3", "8"],
    ["3^3", "27"],
    ["10^{-3}", "0.001", "1e-3"],
    ["3:45"],
    ["9:45"],
    ["3:46"],
]


@pytest.mark.parametrize("line", range(len(SAME)))
def test_the_same_number_is_right_however_it_is_written_and_another_is_not(line):
    for text in SAME[line]:
        others = [other for i, ways in enumerate(SAME) if i != line for other in ways]
        same = score_texts("numeric_match", [text] * len(SAME[line]), SAME[line])["numeric_match"].examples
        assert same == [1.0] * len(SAME[line]), text
        assert not any(score_texts("numeric_match", [text] * len(others), others)["numeric_match"].examples), text


def test_a_text_of_many_digits_takes_no_time():
    for text in ("1,", "1.1", "1/", "(1", "10^", "1 and "):
        last_number(text * 8000)
