"""The content hash of rows: the same for the same rows, another for any other value."""

from datetime import datetime

import pyarrow as pa
import pytest
from datasets import Dataset, concatenate_datasets

from hf_dataselect.data import rows_hash as arrow_hash
from hf_dataselect.data.records import Records


def rows_of_all_kinds(n: int) -> list[dict]:
    return [
        {
            "text": None if row % 7 == 3 else f"row {row} 行",
            "n": row,
            "share": None if row % 5 == 4 else row / 3,
            "chat": None if row % 9 == 8 else [{"role": "user", "content": f"{row}" * (row % 4)}] * (row % 3),
            "flag": row % 2 == 0,
            "when": datetime(2026, 1, 1 + row % 28),
            "nothing": None,
        }
        for row in range(n)
    ]


def test_the_content_hash_is_that_of_the_rows_and_not_of_the_object(tmp_path, monkeypatch):
    rows = rows_of_all_kinds(600)
    dataset = Dataset.from_list(rows)
    dataset.save_to_disk(tmp_path)
    same = [
        dataset,
        Dataset.load_from_disk(str(tmp_path)),
        dataset.select(range(600)),
        Dataset.from_list(rows[::-1]).select(range(599, -1, -1)),
        dataset.add_column("x", [0] * 600).remove_columns("x"),
        concatenate_datasets([Dataset.from_list(rows[:250]), Dataset.from_list(rows[250:], dataset.features)]),
        dataset.select_columns(dataset.column_names[::-1]),
        Dataset(pa.table({name: column.cast(pa.large_string()) if name == "text" else column for name, column in
                          zip(dataset.column_names, dataset.data.columns, strict=True)})),
    ]  # fmt: skip
    assert len({Records(one).content_hash() for one in same}) == 1
    monkeypatch.setattr(arrow_hash, "ROWS", 7)
    assert len({Records(one).content_hash() for one in same}) == 1


@pytest.mark.parametrize("row", [0, 1, 257, 599])
def test_the_content_hash_changes_with_each_value_of_each_row(row):
    rows = rows_of_all_kinds(600)
    hashes = [Records(Dataset.from_list(rows)).content_hash()]
    for column, value in {
        "text": "other",
        "n": -1,
        "share": 0.123,
        "chat": [{"role": "system", "content": "x"}],
        "flag": row % 2 == 1,
        "when": datetime(2025, 1, 1),
    }.items():
        changed = [*rows[:row], {**rows[row], column: value}, *rows[row + 1 :]]
        hashes.append(Records(Dataset.from_list(changed)).content_hash())
    assert len(set(hashes)) == 7


def test_the_content_hash_changes_with_columns_order_number_and_formatting():
    rows = [{"text": f"row {row}", "n": row} for row in range(200)]
    changed = [rows, rows[:-1], rows[::-1], [{**row, "more": 1} for row in rows], [{"text": r["text"]} for r in rows]]
    changed += [[{"text": "ab", "n": 0}, {"text": "c", "n": 0}], [{"text": "a", "n": 0}, {"text": "bc", "n": 0}]]
    hashes = [Records(Dataset.from_list(rows)).content_hash() for rows in changed]
    hashes += [Records(Dataset.from_list(rows), formatting_func=lambda row: f"{row['n']}").content_hash()]
    assert len(set(hashes)) == len(hashes)
