"""Rows of a pool: the same on every machine, none drawn twice, and what is planted in them."""

import re
from collections import Counter

import numpy as np
import pytest
from datasets import Dataset

from hf_dataselect.data.load import load_rows
from hf_dataselect.data.near_duplicates import NearDuplicates, add_near_duplicates
from hf_dataselect.data.noise import Corruption, corrupt, cut_answer, other_numbers
from hf_dataselect.data.pool import Source, answer_of, draw, located, mixed, write_rows
from hf_dataselect.data.records import Records
from tests.rows import alpaca, layout


#: Answers of every kind: with and without numbers, of one word, equal ones, without spaces.
ANSWERS = ["It is 48, and 48 / 2 = 24.", "Yes", "Yes", "A fox reads 7 letters.", "均衡饮食多吃水果", "Red and blue."]


@pytest.fixture
def pool(tmp_path) -> list[dict]:
    """60 rows of two sources."""
    for name, n in (("one", 40), ("two", 20)):
        rows = [
            {"question": f"{name} asks {i}?", "reply": f"{ANSWERS[i % 6]} {'' if i % 6 in (1, 2) else i}".strip()}
            for i in range(n)
        ]
        Dataset.from_list(rows).to_json(tmp_path / f"{name}.jsonl")
    columns = {"instruction": "question", "output": "reply"}
    return draw(
        [Source(str(tmp_path / f"{n}.jsonl"), k, columns=columns) for n, k in (("one", 40), ("two", 20))], 0, set()
    )


def texts(rows: list[dict]) -> list[str]:
    return [f"{row['prompt'][-1]['content']} | {answer_of(row)}" for row in rows]


@pytest.mark.parametrize(
    "name", ["alpaca", "messages", "prompt-completion", "chat prompt-completion", "sharegpt", "strings"]
)
def test_rows_of_every_layout_become_prompts_and_last_answers(tmp_path, name):
    rows = layout(name)
    rows.to_json(tmp_path / "rows.jsonl")
    found = draw([Source(str(tmp_path / "rows.jsonl"), 10, name="mine")], 0, set())
    records = Records(rows)
    for row in found:
        record = records[row["row"]]
        turns = [*row["prompt"], *row["completion"]]
        assert [turn["content"] for turn in turns] == [turn["content"] for turn in record.messages[: len(turns)]]
        assert answer_of(row) == record.answer and row["source"] == "mine" and row["fault"] == "none"
    write_rows(found, tmp_path / "pool.jsonl")
    read = Records(load_rows(str(tmp_path / "pool.jsonl")))
    assert [record.answer for record in read] == [answer_of(row) for row in found]


def test_which_rows_are_drawn_does_not_depend_on_their_order_or_the_machine(tmp_path):
    alpaca(200).to_json(tmp_path / "rows.jsonl")
    alpaca(200).select(range(199, -1, -1)).to_json(tmp_path / "reversed.jsonl")
    one, other = (draw([Source(str(tmp_path / f"{n}.jsonl"), 5)], 0, set()) for n in ("rows", "reversed"))
    assert texts(one) == texts(other) and [row["row"] for row in one] == [199 - row["row"] for row in other]
    assert [row["row"] for row in one] == [91, 20, 81, 41, 162]  # on every machine
    assert texts(draw([Source(str(tmp_path / "rows.jsonl"), 5)], 1, set())) != texts(one)


def test_no_prompt_is_drawn_twice(tmp_path):
    rows = alpaca(30).to_list()
    Dataset.from_list(rows + [row | {"output": "Another."} for row in rows]).to_json(tmp_path / "rows.jsonl")
    source, taken = Source(str(tmp_path / "rows.jsonl"), 15), set()
    first, second = draw([source], 0, taken), draw([source], 0, taken)
    prompts = [row["prompt"][0]["content"] for row in first + second]
    assert len(set(prompts)) == 30 == len(taken)
    with pytest.raises(ValueError, match="`rows=15` of .*it has 0 that can be used"):
        draw([source], 0, taken)


def test_only_rows_of_the_wanted_size_are_drawn(tmp_path):
    chats = [
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "x" * n}] * m
        for n in (5, 50)
        for m in (1, 2)
    ]
    named = [[chat[0] | {"content": f"Hi {i}"}, *chat[1:]] for i, chat in enumerate(chats * 2)]
    broken = [[], [{"role": "user", "content": "No answer"}], [{"role": "assistant", "content": "No prompt"}]]
    Dataset.from_list([{"messages": chat} for chat in named + broken]).to_json(tmp_path / "rows.jsonl")
    found = draw([Source(str(tmp_path / "rows.jsonl"), 2, min_turns=4, max_characters=40)], 0, set())
    assert sorted(row["row"] for row in found) == [1, 5]
    with pytest.raises(ValueError, match="it has 8 that can be used"):
        draw([Source(str(tmp_path / "rows.jsonl"), 9)], 0, set())


def test_a_source_that_can_not_be_read_is_refused_by_name(tmp_path):
    alpaca(5).to_json(tmp_path / "rows.jsonl")
    with pytest.raises(ValueError, match="no column 'outputs'; did you mean 'output'"):
        Source(str(tmp_path / "rows.jsonl"), 2, columns={"instruction": "instruction", "output": "outputs"}).read()
    with pytest.raises(ValueError, match="there is no file"):
        Source(str(tmp_path / "none.jsonl"), 2).read()
    with pytest.raises(ValueError, match="`rows=0` must be"):
        Source("a", 0)


def test_a_mapping_puts_a_file_in_the_place_of_a_dataset():
    source = Source("openai/gsm8k", 5, config="main", split="test")
    found = located(source, {"openai/gsm8k": {"test": "t.jsonl", "train": "a.jsonl"}})
    assert (found.dataset, found.config, found.split, found.name) == ("t.jsonl", None, "train", "gsm8k")
    assert located(source, {"other": "x"}) is source
    with pytest.raises(ValueError, match="no split 'test'"):
        located(source, {"openai/gsm8k": {"train": "a.jsonl"}})


@pytest.mark.parametrize("kinds", [["shuffled"], ["cut"], ["wrong"], ["shuffled", "cut", "wrong"]])
@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5])
def test_the_share_of_corrupted_rows_is_exact_and_each_is_what_it_says(pool, kinds, fraction):
    found = corrupt(pool, Corruption(fraction, kinds), 0)
    assert texts(corrupt(pool, Corruption(fraction, kinds), 0)) == texts(found) and len(found) == len(pool)
    faults = Counter(row["fault"] for row in found)
    assert faults.pop("none") == 60 - round(60 * fraction) and set(faults) <= set(kinds)
    assert set(faults) == set(kinds) or fraction == 0.1  # of 2 and 4 rows, too few answers to shuffle
    assert Counter(row["source"] for row in found if row["fault"] != "none")["one.jsonl"] == round(40 * fraction)
    for before, after in zip(pool, found, strict=True):
        old, new = answer_of(before), answer_of(after)
        assert before["prompt"] == after["prompt"] and (old == new) == (after["fault"] == "none"), after["fault"]
        if after["fault"] == "cut":
            assert old.startswith(new) and 0 < len(new) < len(old)
    for source in ("one.jsonl", "two.jsonl"):  # none is lost
        moved = [
            (answer_of(b), answer_of(a))
            for b, a in zip(pool, found, strict=True)
            if (a["fault"], a["source"]) == ("shuffled", source)
        ]
        assert Counter(old for old, _ in moved) == Counter(new for _, new in moved)


def test_another_seed_corrupts_other_rows(pool):
    one, other = (corrupt(pool, Corruption(0.3), seed) for seed in (0, 1))
    assert [row["fault"] for row in one] != [row["fault"] for row in other]


def test_answers_that_can_not_be_corrupted_are_refused(pool):
    alike = [row | {"completion": [{"role": "assistant", "content": "Yes"}]} for row in pool]
    with pytest.raises(ValueError, match="of the 40 rows of 'one.jsonl', 20 can't be corrupted by 'shuffled'"):
        corrupt(alike, Corruption(0.5, ["shuffled"]), 0)
    with pytest.raises(ValueError, match="of the 40 rows of 'one.jsonl', 20 can't be corrupted by 'wrong'"):
        corrupt(alike, Corruption(0.5, ["wrong"]), 0)
    with pytest.raises(ValueError, match="`corrupt`: fraction=1.5"):
        Corruption(1.5)


def test_cuts_and_numbers():
    assert cut_answer("one two three four") == "one two"
    assert cut_answer("均衡饮食多吃水果") == "均衡饮食" and cut_answer("ab") == "a"
    draw = np.random.default_rng(0)
    changed = other_numbers("48/2 = 24, so 48 has 0.50 left", draw)
    first, second, third, fourth, *rest = re.findall(r"\d+", changed)
    assert first == fourth != "48" and second != "2" and third != "24" and len(rest) == 2
    assert [len(part) for part in (first, second, third, *rest)] == [2, 1, 2, 1, 2]
    assert other_numbers("no number", draw) is None


def test_near_duplicates_say_the_same_otherwise(pool):
    found = add_near_duplicates(pool, NearDuplicates(0.5, 2), 0)
    assert texts(found[:60]) == texts(pool) and len(found) == 120
    assert texts(add_near_duplicates(pool, NearDuplicates(0.5, 2), 0)) == texts(found)
    copies = found[60:]
    assert {row["fault"] for row in copies} == {"duplicate"} and len(set(texts(found))) == len(set(texts(pool))) + 60
    by_row = {(row["source"], row["row"]): row for row in pool}
    assert set(Counter((row["source"], row["row"]) for row in copies).values()) == {2}
    for copy in copies:
        original = by_row[copy["source"], copy["row"]]
        core = original["prompt"][0]["content"].rstrip("?")
        assert core in copy["prompt"][0]["content"] and answer_of(original).rstrip(".") in answer_of(copy)
    noisy = corrupt(pool, Corruption(0.5), 0)
    assert Counter(row["fault"] for row in add_near_duplicates(noisy, NearDuplicates(0.5), 0))["duplicate"] == 15
    with pytest.raises(ValueError, match="copies=900 of one row are more than"):
        add_near_duplicates(pool[:1], NearDuplicates(1.0, 900), 0)


def test_a_pool_is_mixed_the_same_way_whatever_its_order(pool):
    assert texts(mixed(pool, 0)) == texts(mixed(pool[::-1], 0)) != texts(pool)
    assert sorted(texts(mixed(pool, 0))) == sorted(texts(pool))
