"""Multiple choice by likelihood: layouts, right answers, unscorable rows, and the same numbers as the plain way."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_dataselect.context import Context
from hf_dataselect.evaluation.benchmark import load_benchmarks
from tests.shared_data import data_path
from tests.tiny import context_of, tiny_model, tiny_tokenizer


MMLU = [
    {
        "subject": subject,
        "split": split,
        "question": f"Which {'was' if split == 'dev' else 'is'} {word}?",
        "choices": choices,
        "answer": i % 3,
    }
    for subject in ("colours", "animals")
    for split in ("dev", "test")
    for i, (word, choices) in enumerate(
        [
            ("red", ["The colour red", "A fox", "Paris in France"]),
            ("quick", ["Blue", "The quick brown fox that learns to read", "A letter"]),
            ("seven", ["Six", "Eight", "Seven"]),
        ]
    )
]


def write(folder: Path, rows: list[dict], name: str = "mmlu.jsonl") -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / name)


def choices(dataset: str, **options):
    benchmark = load_benchmarks([{"kind": "multiple_choice", "dataset": dataset, **options}])[0]
    benchmark.prepare()
    return benchmark


def context(chat: bool = True, **options) -> Context:
    tokenizer = tiny_tokenizer(chat_template=chat)
    return context_of(tokenizer, tiny_model(tokenizer), dtype="float32", **options)


def plain_loss(ctx: Context, before: str, answer: str) -> tuple[float, int]:
    """Summed loss of an answer by a full forward of one row, and its tokens."""
    start = len(ctx.tokenizer(before, add_special_tokens=False)["input_ids"])
    ids = ctx.tokenizer(before + answer, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = ctx.model(ids).logits[0].double().log_softmax(-1)
    targets = ids[0, start:]
    return -float(logits[torch.arange(start - 1, ids.shape[1] - 1), targets].sum()), len(targets)


@pytest.mark.parametrize("normalization", ["sum", "tokens", "bytes"])
@pytest.mark.parametrize("answer_with", ["letter", "text"])
@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize("chat", [True, False])
def test_the_likeliest_choice_is_that_of_plain_forwards(tmp_path, chat, shots, answer_with, normalization):
    ctx, path = context(chat), write(tmp_path, MMLU)
    benchmark = choices(path, shots=shots, answer_with=answer_with, normalization=normalization)
    expected = []
    for row in (row for row in MMLU if row["split"] == "test"):

        def spelled(row):
            listed = "".join(f"\n{letter}. {text}" for letter, text in zip("ABC", row["choices"], strict=True))
            return row["question"] + (listed if answer_with == "letter" else "") + "\nAnswer:"

        def named(row):
            return list("ABC") if answer_with == "letter" else row["choices"]

        examples = [other for other in MMLU if other["split"] == "dev" and other["subject"] == row["subject"]][:shots]
        if chat:
            turns = [(spelled(other), named(other)[other["answer"]]) for other in examples]
            before = "".join(f"<|user|>\n{text}</s>\n<|assistant|>\n{answer}</s>\n" for text, answer in turns)
            before += f"<|user|>\n{spelled(row)}</s>\n<|assistant|>\n"
        else:
            before = "".join(f"{spelled(other)} {named(other)[other['answer']]}\n\n" for other in examples)
            before += spelled(row)
        scores = []
        for choice in named(row):
            loss, tokens = plain_loss(ctx, before, choice if chat else f" {choice}")
            scores.append(-loss / {"sum": 1, "tokens": tokens, "bytes": len(choice)}[normalization])
        expected.append(float(np.argmax(scores) == row["answer"]))
    setting = benchmark.run(ctx)["mmlu/accuracy"]
    assert setting.examples == expected and setting.higher_is_better
    assert setting.score == np.mean(expected)
    assert setting.parts == {"animals": np.mean(expected[3:]), "colours": np.mean(expected[:3])}


def test_batches_do_not_change_the_result(tmp_path):
    path = write(tmp_path, MMLU)
    found = [choices(path).run(context(batch_tokens=tokens))["mmlu/accuracy"] for tokens in (1, 100, 10_000)]
    assert found[0] == found[1] == found[2]


def test_a_model_that_was_taught_the_answers_is_right(tmp_path):
    ctx, benchmark = context(), choices(write(tmp_path, MMLU), limit=3)
    rows, _, _ = benchmark._encode(ctx)
    right = [3 * row + item.right for row, item in enumerate(benchmark.items)]
    optimizer = torch.optim.Adam(ctx.model.parameters(), lr=3e-3)
    for _ in range(60):
        for ids, _ in rows.take(right):
            ids = torch.from_numpy(ids.astype(np.int64))[None]
            ctx.model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert benchmark.run(ctx)["mmlu/accuracy"].score == 1.0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answer": 3}, "the index of the answer is out of range"),
        ({"answer": -1}, "the index of the answer is out of range"),
        ({"answer": None}, "the answer is not one of the choices"),
        ({"choices": ["one"]}, "fewer than two choices"),
        ({"choices": []}, "fewer than two choices"),
        ({"choices": ["a", "", "c"]}, "an empty choice"),
        ({"choices": None}, "an empty choice"),
        ({"question": ""}, "no question"),
        ({"question": "long " * 3000}, "the question is longer than the window of the model"),
    ],
)
def test_a_row_that_cannot_be_asked_is_nan_and_named(tmp_path, change, reason):
    rows = [dict(row) for row in MMLU]
    rows[3] |= change
    ctx = context()
    setting = choices(write(tmp_path, rows)).run(ctx)["mmlu/accuracy"]
    assert [bool(np.isnan(value)) for value in setting.examples] == [True, False, False, False, False, False]
    (named, places), *others = ctx.account.rows("unscorable").items()
    assert reason in named and places == [0] and not others
    assert setting.score == np.mean(setting.examples[1:])


def test_any_of_the_right_choices_is_right(tmp_path):
    ctx, found = context(), []
    for right in ([0], [1], [2], [0, 1], [1, 2], [0, 1, 2]):
        rows = [{**row, "answer": right} for row in MMLU if row["split"] == "test"]
        found.append(choices(write(tmp_path, rows)).run(ctx)["mmlu/accuracy"].examples)
    one, two, three, either, later, every = np.array(found)
    assert (one + two + three == 1).all() and (every == 1).all()
    assert (either == one + two).all() and (later == two + three).all()


def leaked(rows: list[dict]) -> list[dict]:
    """The rows, and two for few-shot examples that differ from test questions by white space and the answer."""
    others = [{**row, "question": f" {row['question'].replace(' ', '  ')}\n", "answer": 1} for row in rows[3:5]]
    return [{**row, "split": "dev"} for row in others] + rows


@pytest.mark.parametrize("limit", [None, 1])
def test_few_shot_examples_are_no_test_questions(tmp_path, caplog, limit):
    clean, path = write(tmp_path, MMLU, "clean.jsonl"), write(tmp_path, leaked(MMLU))
    benchmark, expected = (choices(name, shots=3, limit=limit, name="a") for name in (path, clean))
    assert benchmark.examples == expected.examples and "colours" in benchmark.examples
    assert "2 rows of `shots_split='dev'` are questions of `split='test'` and left out" in caplog.text
    with pytest.raises(ValueError, match=r"has 3 examples of 'colours'; 2 rows of `shots_split='dev'` are questions"):
        choices(path, shots=4)


def test_a_filter_by_split_does_not_make_test_rows_examples(tmp_path):
    benchmark = choices(write(tmp_path, MMLU), shots=3, where={"split": "test"}, name="a")
    assert benchmark.examples == choices(write(tmp_path, MMLU), shots=3, name="a").examples
    assert all("was" in shot.question for shots in benchmark.examples.values() for shot in shots)


BBH = [
    ("letters", "Which?\nOptions:\n(A) one fox\n(B) two foxes", "(B)"),
    ("dashes", "Is it so?\nOptions:\n- Yes\n- No", "No"),
    ("dashes", "Is it not?\nOptions:\n- valid \n- invalid", "valid"),
    ("boolean", "not True is", "False"),
    ("boolean", "not False is", "True"),
    ("free", "Sort: b a", "a b"),
    ("free", "Sort: d c", "c d"),
    ("free", "Sort: f e", "e f"),
]


def test_big_bench_options_are_read_from_the_text(tmp_path):
    rows = [dict(zip(("task", "input", "target"), row, strict=True)) for row in BBH]
    path, ctx = write(tmp_path, rows, "bbh.jsonl"), context()
    benchmark = choices(path)
    assert [item.choices for item in benchmark.items[:5]] == [
        ("(A)", "(B)"),
        ("Yes", "No"),
        ("valid", "invalid"),
        ("False", "True"),
        ("False", "True"),
    ]
    assert [item.right for item in benchmark.items[:5]] == [1, 1, 0, 0, 1]
    setting = benchmark.run(ctx)["bbh/accuracy"]
    assert np.isnan(setting.examples[5:]).all() and np.isfinite(setting.examples[:5]).all()
    assert ctx.account.rows("unscorable") == {"no choices in the row": [5, 6, 7]}
    assert np.isnan(setting.parts["free"]) and setting.parts.keys() == {"letters", "dashes", "boolean", "free"}
    assert choices(path, answer_with="text").items[0].choices == ("one fox", "two foxes")


def test_a_limit_takes_rows_of_every_subject(tmp_path):
    benchmark = choices(write(tmp_path, MMLU), limit=2)
    assert [item.subject for item in benchmark.items] == ["colours", "animals"]
    benchmark = choices(write(tmp_path, MMLU), where={"subject": "animals"})
    assert [item.subject for item in benchmark.items] == ["animals"] * 3


def test_the_protocol_is_of_the_content(tmp_path):
    path, other = write(tmp_path, MMLU), write(tmp_path, MMLU, "copy.jsonl")
    assert choices(path).protocol() == choices(other, name="renamed", at_end=True).protocol()
    changed = [dict(row) for row in MMLU]
    changed[-1]["answer"] = 0
    for benchmark in (
        choices(write(tmp_path, changed, "changed.jsonl")),
        choices(path, limit=5),
        choices(path, shots=1),
        choices(path, normalization="bytes"),
        choices(path, answer_with="text"),
    ):
        assert benchmark.protocol() != choices(path).protocol()


def test_real_mmlu_and_bbh_rows():
    mmlu = choices(str(data_path("eval/mmlu_dev_val_test50.jsonl.gz")), limit=6, shots=1, name="mmlu")
    assert len(mmlu.items) == 6 == len({item.subject for item in mmlu.items})
    setting = mmlu.run(context())["mmlu/accuracy"]
    assert np.isfinite(setting.examples).sum() >= 5 and len(setting.parts) == 6
    bbh = choices(str(data_path("eval/bbh_all.jsonl.gz")))
    without = {item.subject for item in bbh.items if item.problem == "no choices in the row"}
    assert without == {"dyck_languages", "multistep_arithmetic_two", "object_counting", "word_sorting"}
    readable = [item for item in bbh.items if item.problem is None]
    assert len(readable) >= 6511 - 4 * 250 - 5 and all(len(item.choices) >= 2 for item in readable)
    broken = {item.subject for item in bbh.items if item.problem not in (None, "no choices in the row")}
    assert broken == {"ruin_names", "movie_recommendation", "snarks"}  # four rows that the dataset itself cut apart
