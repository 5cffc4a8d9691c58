"""Candidates that are also in another set are found by their text, whatever the layout, and are told."""

import json
import logging

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets

from hf_dataselect.data.leakage import described, overlap, reported_overlap
from hf_dataselect.data.records import Records
from tests.rows import LAYOUTS, alpaca, layout
from tests.tiny_training import tiny_trainer


def chats(*pairs, system=None):
    before = [] if system is None else [{"role": "system", "content": system}]
    rows = [
        {"messages": [*before, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for question, answer in pairs
    ]
    return Records(Dataset.from_list(rows))


@pytest.mark.parametrize("mine", LAYOUTS)
def test_rows_are_found_in_every_layout(mine):
    records = Records(layout(mine, 12))
    other = Records(layout(mine, 12).select([7, 3, 3]))
    assert {name: rows.tolist() for name, rows in overlap(records, {"held": other}).items()} == {"held": [3, 7]}
    assert overlap(records, {"held": Records(layout(mine, 12, seed=9))}) == {}


def test_rows_are_found_across_layouts_and_whitespace():
    rows = alpaca(6).map(lambda row: {"input": ""})
    spaced = [(row["instruction"].replace(" ", " \n "), f" {row['output']}\n") for row in rows.select([1, 4])]
    found = overlap(Records(rows), {"held": chats(*spaced)})
    assert found["held"].tolist() == [1, 4]
    assert overlap(Records(rows), {"held": chats((rows[1]["instruction"], "Another answer."))}) == {}


def test_questions_are_found_in_user_turns_only():
    records = chats(("What is two?", "2"), ("Name a colour.", "What is two?"), ("Anything else", "no"))
    found = overlap(records, {"quiz": ["What is  two?", "", "Who?"], "none": [], "other": ["red"]})
    assert {name: rows.tolist() for name, rows in found.items()} == {"quiz": [0]}
    assert overlap(chats(("What is two?", "2"), system="Be brief."), {"quiz": ["What is two?"]})["quiz"].tolist() == [
        0
    ]


def test_rows_without_text_are_in_no_set():
    empty = Records(Dataset.from_list([{"instruction": "", "output": ""}, {"instruction": "a", "output": None}]))
    assert overlap(empty, {"held": empty, "quiz": [""]}) == {}
    tokens = Records(Dataset.from_list([{"input_ids": [1, 2], "labels": [1, 2]}]))
    assert overlap(tokens, {"held": tokens}) == {} and overlap(empty, {"held": tokens}) == {}


def test_the_warning_names_the_set_the_number_and_the_first_rows(caplog):
    records = Records(alpaca(12))
    with caplog.at_level(logging.WARNING, "hf_dataselect"):
        found = reported_overlap(records, {"eval_dataset": Records(alpaca(12).select(range(4, 11)))})
    assert "7 of 12 rows of `train_dataset` are also in `eval_dataset` (rows 4, 5, 6, 7, 8, ...)" in caplog.text
    assert described(found, np.array([10, 0, 4])) == {
        "eval_dataset": {"rows": 7, "kept": 2, "first": [4, 5, 6, 7, 8]},
    }


def test_a_run_tells_of_shared_rows_and_removes_none(tmp_path, caplog):
    rows, held_out = alpaca(12), alpaca(4, seed=5)
    quiz = [{"question": rows[2]["instruction"], "answer": "no"}]
    Dataset.from_list(quiz).to_json(tmp_path / "quiz.jsonl")
    trainer = tiny_trainer(
        tmp_path,
        train_dataset=rows,
        eval_dataset=concatenate_datasets([held_out, rows.select([9])]),
        benchmarks=[{"kind": "generation", "dataset": str(tmp_path / "quiz.jsonl"), "metrics": ["exact_match"]}],
    )
    selection = trainer.select()
    shared = {"eval_dataset": {"rows": 1, "kept": 1, "first": [9]}, "quiz": {"rows": 1, "kept": 1, "first": [2]}}
    if rows[2]["input"]:  # then it asks something else
        shared.pop("quiz")
    written = json.loads((tmp_path / "run" / "selection.json").read_text(encoding="utf-8"))
    assert written["facts"]["also_in"] == selection.facts["also_in"] == shared and len(selection.indices) == 12
    assert caplog.text.count("are also in") == len(shared)


def test_a_run_without_shared_rows_says_nothing(tmp_path, caplog):
    trainer = tiny_trainer(tmp_path, train_dataset=alpaca(12), eval_dataset=alpaca(4, seed=5))
    assert trainer.select().facts["also_in"] is None and "also in" not in caplog.text


def test_target_examples_among_the_candidates_are_told(tmp_path):
    alpaca(12).select([6]).to_json(tmp_path / "target.jsonl")
    options = {"selection_target": str(tmp_path / "target.jsonl"), "selection_budget": 3}
    trainer = tiny_trainer(tmp_path, "random", train_dataset=alpaca(12), **options)
    kept = int(6 in trainer.select().indices)
    assert trainer.selection.facts["also_in"] == {"selection_target": {"rows": 1, "kept": kept, "first": [6]}}
