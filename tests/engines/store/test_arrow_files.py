"""Cached rows of datasets: whatever is damaged in their files, the same rows are read."""

import logging
import os
from pathlib import Path

import pytest
from datasets import load_dataset

from hf_dataselect.engines.store.arrow_files import checked_map


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    (folder / "rows.jsonl").write_text("".join(f'{{"a": "row {i}"}}\n' for i in range(500)))
    return load_dataset("json", data_files=str(folder / "rows.jsonl"), split="train", cache_dir=str(folder / "cache"))


def flip(path):
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 2, len(content) // 2 + 400, 8):
        content[place] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "flipped": flip,
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: path.write_bytes(b""),
    "its checksum": lambda path: path.with_name(path.name + ".blake2b").write_text("0"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_rows_are_named_and_made_again(damage, rows, caplog):
    calls = []

    def made():
        def compute(batch):
            calls.append(1)
            return {"b": [text * 3 for text in batch["a"]]}

        key = damage.replace(" ", "-")
        return checked_map(rows, compute, batched=True, remove_columns=["a"], new_fingerprint=key)

    mapped = made()
    (file,) = mapped.cache_files
    path = Path(file["filename"])
    assert made()[:] == mapped[:] and len(calls) == 1
    expected = mapped[:]
    del mapped
    with caplog.at_level(logging.WARNING):
        DAMAGES[damage](path)
        assert made()[:] == expected and len(calls) == 2
        assert made()[:] == expected and len(calls) == 2, "it is replaced"
    assert len(caplog.messages) == 1 and "Cached rows are damaged, and made again" in caplog.text
