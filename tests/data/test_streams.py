"""Streams are written to disk, as far as they are asked for."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pytest
from accelerate import Accelerator, PartialState
from datasets import Dataset, Features, IterableDataset, Value

from hf_dataselect import select_dataset
from hf_dataselect.data.load import load_rows
from hf_dataselect.data.streams import blocks_on_disk, on_disk
from hf_dataselect.registry import method_names, selector_class
from hf_dataselect.selectors.column import Column
from tests.docs.markdown import blocks, pages
from tests.processes import succeed
from tests.rows import alpaca, alpaca_rows
from tests.tiny import tiny_model, tiny_tokenizer


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
    rated = IterableDataset.from_generator(lambda: ({"text": "a", "score": (5 * i) % 7} for i in range(7)))
    best, _ = select_dataset(rated, "column", budget=3, stream_block=2, cache_dir=None)
    assert best["selection_row"][:] == [4, 1, 5] and best["score"][:] == [6, 5, 4]
    (folder / f"rows-{os.environ['RANK']}.json").write_text(json.dumps(rows["text"][:]))
    accelerator = Accelerator(cpu=True)
    with pytest.raises(ValueError, match="`dataset`: its first 4 rows can't be written to"):
        on_disk(stream(failing), 4, "dataset")
    PartialState().local_process_index = 0  # two nodes with a disk each
    datasets.config.HF_DATASETS_CACHE = folder / os.environ["RANK"]
    with pytest.raises(ValueError, match="`train_dataset`: the nodes have read other rows"):
        on_disk(stream(drawn), 9)
    longer = IterableDataset.from_generator(lambda: ({"text": "a"} for _ in range(3 + 2 * int(os.environ["RANK"]))))
    with pytest.raises(ValueError, match="the nodes have read other rows"):  # of which one has come to its end
        [*blocks_on_disk(longer, 3)]
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


def test_the_example_of_the_docs_gives_the_best_rows(monkeypatch):
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
    assert names["rows"]["rating"][:] == [29, 28, 27, 26]


@pytest.mark.parametrize("size", [3, 99])
@pytest.mark.parametrize(
    ("method", "options", "budget"),
    [
        ("column", {"name": "rating"}, 4),
        ("column", {"name": "rating", "threshold": 3}, "score <= 20"),
        ("perplexity", {"keep": "top"}, 5),
    ],
)
def test_blocks_of_a_stream_give_the_rows_of_the_whole(method, options, budget, size, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    given = Dataset.from_list(alpaca_rows(20)).remove_columns("rating")
    rating = [None, *np.random.default_rng(0).permutation(30)[:19].tolist()]  # some blocks have none to keep
    given = given.add_column("rating", rating).map(
        lambda row, i: {"output": "" if i == 8 else row["output"]}, with_indices=True
    )
    tokenizer = tiny_tokenizer()
    ask = {"method_kwargs": options, "budget": budget, "cache_dir": None, "dtype": "float32"}
    ask |= {"model": tiny_model(tokenizer, hidden=32), "tokenizer": tokenizer} if method == "perplexity" else {}
    rows, whole = select_dataset(given, method, **ask)
    found, selection = select_dataset(given.to_iterable_dataset(), method, stream_block=size, **ask)
    assert found.column_names == rows.column_names
    np.testing.assert_allclose(selection.scores, whole.scores, rtol=1e-5)
    assert found.remove_columns("selection_score").to_list() == rows.remove_columns("selection_score").to_list()
    assert selection.indices.tolist() == whole.indices.tolist() and selection.budget == whole.budget
    assert selection.unscorable == whole.unscorable and selection.dropped == whole.dropped
    assert selection.columns.keys() == whole.columns.keys() and selection.passes == whole.passes
    tied = {name: whole.facts["figures"][name] for name in ("rows tied at the cut",) if name in whole.facts["figures"]}
    assert selection.facts["figures"] == {"blocks of the stream": -(-20 // size)} | tied
    assert selection.peak_memory.keys() == whole.peak_memory.keys()
    assert not [*tmp_path.glob("streams/*/*")], "no block is left"


@pytest.mark.parametrize(
    ("method", "given", "said"),
    [
        ("perplexity", {"budget": 5}, "`perplexity` with these options chooses otherwise from blocks"),
        ("k_center", {"budget": 5}, "`k_center` with these options"),
        ("ifd", {"budget": 5}, "`ifd` with these options"),
        (
            "length",
            {"budget": 5, "diversity": {"encoder": "model"}},
            "`diversity` chooses otherwise",
        ),
        ("length", {"budget": 0.1}, "`budget='0.1'` depends on rows to come: give a count"),
        ("length", {}, "`budget='0.05'` depends"),
        ("length", {"budget": "900 tokens"}, "depends on rows to come"),
        ("length", {"budget": 5, "budget_by": "rating"}, "without `budget_by`"),
        ("length", {"budget": 5, "stream_rows": 7}, "reads all of a stream, and `stream_rows` its first rows"),
    ],
)
def test_what_can_not_be_chosen_from_blocks_is_refused_before_a_row_is_read(method, given, said):
    def unread():
        raise AssertionError

    with pytest.raises(ValueError, match=said):
        select_dataset(IterableDataset.from_generator(unread), method, stream_block=3, **given)


def test_the_docs_name_the_methods_that_take_blocks():
    named = pages()["docs/scaling.md"].partition("depends on no other row:")[2].partition("All others")[0]
    taken = {name for name in method_names() if selector_class(name).by_row}
    assert {*re.findall(r"`(\w+)`", named)} & {*method_names()} == taken


@dataclass
class Marked(Column):
    """Enters rows among the figures, as methods do that ask a judge."""

    def score(self, features, ctx):
        ctx.account.figures |= {"marked": [0, 1], "highest": float(np.max(features))}
        return super().score(features, ctx)


def test_figures_of_blocks_are_kept_and_ties_are_those_of_all():
    rows = Dataset.from_list([{"text": "a", "score": score} for score in (3, 1, 2, 2, 2, 0)])
    _, selection = select_dataset(rows.to_iterable_dataset(), Marked(), budget=3, stream_block=3, cache_dir=None)
    assert selection.indices.tolist()[:2] == [0, 2] and selection.facts["figures"] == {
        "blocks of the stream": 2,
        "marked": [0, 1, 3, 4],
        "highest": {"block 1": 3.0, "block 2": 2.0},
        "rows tied at the cut": {"tied": 3, "kept": 2},
    }


@pytest.mark.parametrize(
    ("values", "method", "said"),
    [
        ([1, 2, 3, 4.5], "column", "`dataset`: its rows from 2 on can't be written: .* `stream.cast"),
        ([0.1, 0.2, 0.3, 1.5], "pass_rate", "Of rows 2 to 3 of the stream: .*1.5 in row 1: a rate is in"),
    ],
)
def test_a_later_block_is_checked_as_the_first_one(values, method, said):
    name = "score" if method == "column" else "pass_rate"
    stream = IterableDataset.from_generator(lambda: ({"text": "a", name: value} for value in values))
    with pytest.raises(ValueError, match=said):
        select_dataset(stream, method, budget=2, stream_block=2, cache_dir=None)


def test_blocks_that_are_none_or_hold_nothing_to_keep_are_told():
    rows = Dataset.from_list([{"text": "a", "rating": None}] * 3)
    given = {"method_kwargs": {"name": "rating"}, "budget": 2, "stream_block": 2}
    with pytest.raises(ValueError, match="`dataset` is no stream: remove it"):
        select_dataset(rows, "column", **given)
    with pytest.raises(ValueError, match="`column` found no row to keep of 3 of the stream: no number in `rating`"):
        select_dataset(rows.to_iterable_dataset(), "column", **given)
    empty = IterableDataset.from_generator(lambda: iter([]), features=rows.features)
    with pytest.raises(ValueError, match="`dataset`: the stream has no rows"):
        select_dataset(empty, "column", **given)
