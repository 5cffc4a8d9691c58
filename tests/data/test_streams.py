"""Streams are written to disk, as far as they are asked for."""

import json
import os
from pathlib import Path

import datasets
import numpy as np
import pytest
from accelerate import Accelerator, PartialState
from datasets import Dataset, Features, IterableDataset, Value

from hf_dataselect import select_dataset
from hf_dataselect.data.load import load_rows
from hf_dataselect.data.streams import on_disk
from tests.docs.markdown import blocks, pages
from tests.processes import succeed
from tests.rows import alpaca, alpaca_rows


def test_the_first_rows_of_a_stream_are_on_disk():
    read = []

    def rows():
        for number, row in enumerate(alpaca_rows(40)):
            read.append(number)
            yield row

    written = on_disk(IterableDataset.from_generator(rows), 12)
    assert written.to_list() == alpaca_rows(40)[:12] and max(read) <= 12 and written.cache_files
    assert len(on_disk(IterableDataset.from_generator(rows), 99)) == 40  # as many as there are
    whole = Dataset.from_list(alpaca_rows(3))
    assert on_disk(whole, None) is whole and on_disk(whole, 1) is whole


def test_a_stream_that_has_changed_is_read_again(tmp_path):
    path = tmp_path / "rows" / "rows.jsonl"
    for n in (5, 7):
        alpaca(n, seed=n).to_json(path)
        assert load_rows(str(path.parent), stream_rows=6).to_list() == alpaca_rows(n, seed=n)[:6]
        assert load_rows(str(path), stream_rows=6).to_list() == alpaca_rows(n, seed=n)[:6]


def broken():
    yield {"text": "a"}
    raise OSError("no connection")


@pytest.mark.parametrize("rows", [broken, lambda: iter([])], ids=["broken", "empty"])
def test_a_stream_that_can_not_be_read_is_told(rows):
    stream = IterableDataset.from_generator(rows, features=Features({"text": Value("string")}))
    with pytest.raises(ValueError, match="`train_dataset`: its first 4 rows can't be written to"):
        on_disk(stream, 4)


def test_rows_are_chosen_from_a_stream():
    stream = Dataset.from_list(alpaca_rows(30)).to_iterable_dataset()
    rows, selection = select_dataset(stream, "random", budget=3, stream_rows=20)
    alone, _ = select_dataset(Dataset.from_list(alpaca_rows(20)), "random", budget=3)
    assert rows.to_list() == alone.to_list() and len(selection.scores) == 20
    with pytest.raises(TypeError, match="`dataset` is an `IterableDataset`.* Set `selection_stream_rows`"):
        select_dataset(stream, "random")


def drawn():
    yield from ({"text": text} for text in np.random.default_rng().bytes(8).hex())


def failing():
    yield {"text": "a"}
    if os.environ["RANK"] == "0":
        raise OSError("no connection")


def stream_on_rank(folder: Path) -> None:
    def stream(rows):
        return IterableDataset.from_generator(rows, features=Features({"text": Value("string")}))

    # No accelerator has been made.
    rows, _ = select_dataset(stream(drawn), "random", budget=4, stream_rows=9, cache_dir=None)
    (folder / f"rows-{os.environ['RANK']}.json").write_text(json.dumps(rows["text"][:]))
    accelerator = Accelerator(cpu=True)
    with pytest.raises(ValueError, match="`dataset`: its first 4 rows can't be written to"):
        on_disk(stream(failing), 4, "dataset")
    PartialState().local_process_index = 0  # two nodes with a disk each
    datasets.config.HF_DATASETS_CACHE = folder / os.environ["RANK"]
    with pytest.raises(ValueError, match="`train_dataset`: the nodes have read other rows"):
        on_disk(stream(drawn), 9)
    accelerator.end_training()


def test_ranks_choose_from_one_copy_of_a_stream_or_are_told_why_not(tmp_path):
    succeed(stream_on_rank, tmp_path, folder=tmp_path)
    zero, one = (json.loads((tmp_path / f"rows-{rank}.json").read_text()) for rank in (0, 1))
    assert zero == one and len(zero) == 4


def test_what_can_t_be_streamed_is_refused_by_the_option(tmp_path, monkeypatch):
    alpaca(5).to_json(tmp_path / "rows" / "rows.jsonl")
    with pytest.raises(ValueError, match=r"`dataset_train_split='train\[:3\]'` with `selection_stream_rows`"):
        load_rows(str(tmp_path / "rows"), split="train[:3]", stream_rows=2)
    (tmp_path / "streams").touch()  # where a folder should be
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(ValueError, match="`dataset_name`: its first 2 rows can't be written to"):
        load_rows(str(tmp_path / "rows"), stream_rows=2)


def test_blocks_of_a_stream_give_the_best_of_it(monkeypatch):
    rating = np.random.default_rng(0).permutation(30).tolist()
    rows = Dataset.from_list(alpaca_rows(30)).remove_columns("rating").add_column("rating", rating)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows.to_iterable_dataset())
    code = next(block for block in blocks(pages()["docs/scaling.md"], "python") if "stream" in block)
    for said, small in (
        ("100_000", "7"),
        ("5_000", "4"),
        ('"reward"', '"column"'),
        ('{"model": "my_reward_model"}', '{"name": "rating"}'),
    ):
        assert said in code
        code = code.replace(said, small)
    names: dict = {}
    exec(code, names)
    (best,) = names["best"]
    assert best["rating"][:] == [29, 28, 27, 26]
