"""Rows of multiple-choice questions: choices and right answers as datasets spell them."""

import pytest

from tests.evaluation.benchmarks.test_multiple_choice import MMLU, choices, write


@pytest.mark.parametrize(
    ("answer", "place"),
    [("B", 1), ("b", 1), ("(C)", 2), ("C.", 2), ("Seven", 2), (" Six ", 0), (1, 1), ("Nine", None), ("1", None)],
)
def test_the_right_choice_is_named_by_number_letter_or_text(tmp_path, answer, place):
    row = {"question": "?", "choices": ["Six", "Eight", "Seven"], "answer": answer}
    if place is None:
        with pytest.raises(ValueError, match="not one of the choices"):
            choices(write(tmp_path, [row]))
    else:
        assert choices(write(tmp_path, [row])).items[0].right == place


@pytest.mark.parametrize(
    ("choices_of", "answer", "places"),
    [
        (["Six", "Eight", "Seven"], ["A", "C"], (0, 2)),
        (["Six", "Eight", "Seven"], [0, 2], (0, 2)),
        (["Six", "Eight", "Seven"], ["Seven"], (2,)),
        (["Six", "Eight", "Seven"], [], "no correct choice"),
        (["Six", "Eight", "Seven"], ["A", "Nine"], "not one of the choices"),
        (["Six", "Eight", "Seven"], 1.0, (1,)),
        ([0, 1, 2], 0, (0,)),
        ([0, 5, 7], 5, (1,)),
        ([0, 5, 7], 2, (2,)),
        ([5, 2, 0], 0, "ambiguous between two choices"),
        ([0.5, 0.25], 0.25, (1,)),
        ([False, True], True, (1,)),
        (["no", "yes"], 0, (0,)),
    ],
)
def test_several_right_choices_and_numbers_as_choices(tmp_path, choices_of, answer, places):
    path = write(tmp_path, [{"question": "?", "choices": choices_of, "answer": answer}])
    if isinstance(places, str):
        with pytest.raises(ValueError, match=places):
            choices(path)
    else:
        (item,) = choices(path).items
        assert (item.right, *item.also) == places


@pytest.mark.parametrize("columns", [{"label": [2, 3]}, {"label": ["1", "2"]}, {"label": []}])
def test_labels_may_be_numbers_or_missing(tmp_path, columns):
    row = {"question": "?", "choices": {"text": ["a", "b"], **columns}, "answer": "b"}
    item = choices(write(tmp_path, [row])).items[0]
    assert item.right == 1 and item.choices == tuple(map(str, columns["label"] or "AB"))


def test_labels_of_another_number_are_named(tmp_path):
    row = {"question": "?", "choices": {"text": ["a", "b"], "label": ["A", "B", "C"]}, "answer": "B"}
    with pytest.raises(ValueError, match="choices and labels of different number"):
        choices(write(tmp_path, [row]))


def test_values_of_a_task_without_options_may_be_numbers_and_missing(tmp_path):
    rows = [{"task": "bool", "input": f"not {i}", "target": [True, False, None][i]} for i in range(3)]
    items = choices(write(tmp_path, rows)).items
    assert [(item.choices, item.right) for item in items[:2]] == [(("False", "True"), 1), (("False", "True"), 0)]
    assert items[2].problem == "no correct choice"
    rows = [{"task": "count", "input": f"count {i}", "target": [0, 7][i]} for i in range(2)]
    assert [item.right for item in choices(write(tmp_path, rows)).items] == [0, 1]


def test_a_letter_that_may_mean_two_choices_is_not_guessed(tmp_path):
    row = {"question": "?", "choices": ["B", "A"], "answer": "A"}
    with pytest.raises(ValueError, match="ambiguous between two"):
        choices(write(tmp_path, [row]))


def test_arc_labels_are_shown_and_name_the_answer(tmp_path):
    row = {"question": "How many?", "choices": {"text": ["Six", "Eight"], "label": ["1", "2"]}, "answerKey": "2"}
    item = choices(write(tmp_path, [row]), columns={"answer": "answerKey"}).items[0]
    assert item.right == 1 and item.choices == ("1", "2") and "\n2. Eight\n" in item.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": 4}, "`shots=4`, and `shots_split='dev'` has 3 examples of 'colours'"),
        ({"shots": 1, "shots_split": "train"}, r"no row of .* has \['train'\] in `split`.* Known: dev, test"),
        ({"split": "validation"}, r"Known: dev, test"),
        ({"where": {"subject": "art"}}, r"no row of .* has \['art'\] in `subject`.* Known: animals, colours"),
        ({"where": {"subjet": "art"}}, "did you mean 'subject'"),
        ({"columns": {"question": "queston"}}, "did you mean 'question'"),
    ],
)
def test_what_is_not_in_the_dataset_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        choices(write(tmp_path, MMLU), **options)


def test_missing_columns_and_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has the columns question, choices, not answer or"):
        choices(write(tmp_path, [{"question": "?", "choices": ["a", "b"]}]))
    with pytest.raises(ValueError, match="is a file without a column `split`"):
        choices(write(tmp_path, [{"question": "?", "choices": ["a", "b"], "answer": 0}]), shots=1)
    with pytest.raises(ValueError, match="Can't load the dataset"):
        choices(write(tmp_path, []))
    with pytest.raises(ValueError, match="there is no file"):
        choices(str(tmp_path / "nothing.jsonl"))
