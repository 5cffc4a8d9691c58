"""Rows by name: every kind of file and folder, splits and slices of them, and the line where a file is broken."""

import codecs
import gzip
import json

import pytest
from datasets import Dataset, DatasetDict

from hf_dataselect.data.load import load_rows, take_split
from hf_dataselect.data.records import Records


TABLE = [{"prompt": f'p{row}, "x"\n', "completion": f"ä{row}"} for row in range(4)]


def written(folder, name):
    """A file or folder with the rows of `TABLE`."""
    path, rows = folder / name, Dataset.from_list(TABLE)
    if name.endswith(".json"):
        path.write_text(json.dumps(TABLE, ensure_ascii=False), encoding="utf-8")
    elif name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in TABLE), encoding="utf-8")
    elif name.endswith(".jsonl.gz"):
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in TABLE).encode()))
    elif name.endswith(".parquet"):
        rows.to_parquet(path)
    elif name.endswith((".csv", ".tsv")):
        rows.to_csv(path, index=False, sep="," if name.endswith(".csv") else "\t")
    elif name == "dict":
        DatasetDict({"train": rows, "test": rows.select([0])}).save_to_disk(path)
    else:
        rows.save_to_disk(path)
    return str(path)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


FILES = ["rows.json", "rows.jsonl", "rows.v2.jsonl.gz", "rows.parquet", "rows.csv", "rows.tsv", "folder", "dict"]


@pytest.mark.parametrize("name", FILES)
def test_rows_of_every_kind_of_file_are_loaded(tmp_path, name):
    rows = load_rows(written(tmp_path, name))
    assert rows.to_list() == TABLE
    assert Records(rows).layout == "prompt-completion"


def test_a_text_file_is_a_row_a_line_and_a_home_folder_is_expanded(tmp_path, monkeypatch):
    (tmp_path / "rows.txt").write_text("one\ntwo\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_rows("~/rows.txt")["text"] == ["one", "two"]


def test_a_folder_of_data_files_is_loaded(tmp_path):
    (tmp_path / "data").mkdir()
    written(tmp_path / "data", "train.jsonl")
    assert load_rows(str(tmp_path / "data")).to_list() == TABLE


def test_a_split_of_a_saved_folder_is_taken(tmp_path):
    assert load_rows(written(tmp_path, "dict"), split="test").to_list() == TABLE[:1]


@pytest.mark.parametrize("name", ["missing.jsonl", "./missing.parquet", "nowhere/missing", "missing"])
def test_a_missing_file_or_dataset_is_named(tmp_path, name):
    with pytest.raises(ValueError, match="Can't load the dataset .*missing"):
        load_rows(str(tmp_path / name))


def test_a_missing_split_is_named_beside_those_there_are(tmp_path):
    with pytest.raises(ValueError, match=r"\(split 'validation'\).*train.*test"):
        load_rows(written(tmp_path, "dict"), split="validation")


def test_a_file_that_is_no_table_is_an_error_that_names_it(tmp_path):
    (tmp_path / "rows.parquet").write_text("this is no parquet")
    with pytest.raises(ValueError, match="Can't load the dataset .*rows.parquet"):
        load_rows(str(tmp_path / "rows.parquet"))


# --- splits ---


def numbered(folder, kind):
    """Ten rows as the only split, and three as another one where the kind has several."""
    rows, path = Dataset.from_list([{"text": f"row {i}"} for i in range(10)]), folder / kind
    if kind == "rows.jsonl":
        rows.to_json(path)
    elif kind == "rows.csv":
        rows.to_csv(path)
    elif kind == "saved":
        rows.save_to_disk(path)
    elif kind == "dict":
        DatasetDict({"train": rows, "test": rows.select(range(3))}).save_to_disk(path)
    else:
        path.mkdir()
        rows.to_json(path / "train.jsonl")
        rows.select(range(3)).to_json(path / "test.jsonl")
    return str(path)


SPLITS = {"train": range(10), "train[:50%]": range(5), "train[-2:]": (8, 9), "train[:2]+train[9:]": (0, 1, 9)}
SINGLE = ("rows.jsonl", "rows.csv", "saved")


@pytest.mark.parametrize("kind", [*SINGLE, "dict", "folder"])
def test_a_slice_of_a_split_is_taken(tmp_path, kind):
    name = numbered(tmp_path, kind)
    for split, rows in SPLITS.items():
        assert load_rows(name, split=split)["text"][:] == [f"row {i}" for i in rows], split


@pytest.mark.parametrize("kind", ["dict", "folder"])
def test_splits_are_added(tmp_path, kind):
    assert load_rows(numbered(tmp_path, kind), split="test[1:]+train[:1]")["text"][:] == ["row 1", "row 2", "row 0"]


@pytest.mark.parametrize("kind", [*SINGLE, "dict", "folder"])
def test_a_split_that_is_not_there_is_refused(tmp_path, kind):
    name = numbered(tmp_path, kind)
    for split in ("validation", "validation[:2]", "train+validation"):
        with pytest.raises(ValueError, match="Unknown split .validation.. Should be one of .*train"):
            load_rows(name, split=split)


@pytest.mark.parametrize("kind", SINGLE)
def test_a_single_file_has_no_other_split_unless_it_is_called_so(tmp_path, kind):
    name = numbered(tmp_path, kind)
    with pytest.raises(ValueError, match="Unknown split"):
        load_rows(name, split="test[:2]")
    assert load_rows(name, split="test[:2]", file_split="test")["text"][:] == ["row 0", "row 1"]
    assert len(load_rows(name, split="train", file_split="test")) == 10


def test_a_saved_split_also_goes_by_its_own_name(tmp_path):
    Dataset.from_dict({"text": ["a", "b"]}, split="validation").save_to_disk(tmp_path / "saved")
    assert len(load_rows(str(tmp_path / "saved"), split="validation[:1]")) == 1
    assert len(load_rows(str(tmp_path / "saved"))) == 2


@pytest.mark.parametrize(
    ("split", "message"),
    [("train[5:3]", "holds none of the 10 rows"), ("train[:x]", "Unrecognized"), ("train[:150%]", "Percent")],
)
def test_a_slice_that_means_nothing_is_refused(tmp_path, split, message):
    with pytest.raises(ValueError, match=message):
        load_rows(numbered(tmp_path, "rows.jsonl"), split=split)


def test_a_configuration_of_a_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="only a dataset on the Hub has configurations: remove 'main'"):
        load_rows(numbered(tmp_path, "rows.jsonl"), "main")


def test_any_name_of_a_split_is_taken():
    rows = Dataset.from_list([{"text": "a"}])
    assert take_split({"my split": rows}, "my split") is rows


# --- text ---

WORDS = ["None", "NA", "null", "nan", "", "007", "1.0", "1e5", " x ", "true"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz"])
@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_text_in_a_table_is_as_written(tmp_path, suffix, folder):
    sep = "\t" if suffix == ".tsv" else ","
    lines = [sep.join(("instruction", "output", "rating", "source"))]
    lines += [sep.join((str(i), word, "" if i == 3 else f"{i}.5", "NA")) for i, word in enumerate(WORDS)]
    data = codecs.BOM_UTF8 + "\n".join([*lines, ""]).encode()
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / f"rows{suffix}"
    path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    rows = load_rows(str(path.parent if folder else path))
    assert rows["output"][:] == WORDS and rows["instruction"][:] == [str(i) for i in range(len(WORDS))]
    assert rows["source"][:] == ["NA"] * len(WORDS)
    assert rows["rating"][:] == [None if i == 3 else i + 0.5 for i in range(len(WORDS))]


def test_a_long_answer_is_read(tmp_path):
    (tmp_path / "rows.csv").write_text(f"instruction,output\na,{'long ' * 100_000}\n")
    assert len(load_rows(str(tmp_path / "rows.csv"))[0]["output"]) == 500_000


def test_a_column_that_is_said_to_be_text_is_as_written(tmp_path):
    (tmp_path / "rows.csv").write_text("body,n\n007,007\n")
    assert load_rows(str(tmp_path / "rows.csv")).to_list() == [{"body": 7, "n": 7}]
    assert load_rows(str(tmp_path / "rows.csv"), text_columns=["body"]).to_list() == [{"body": "007", "n": 7}]


# --- broken files ---

ROW = b'{"text": "a", "n": 1}\n'


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("rows.jsonl", ROW + b'{"text": [}\n' + ROW, "rows.jsonl, line 2, column 11: not JSON: Expecting value"),
        ("rows.jsonl", ROW * 3 + b'{"text": "a"', "line 4, column 13: not JSON"),
        ("rows.jsonl", ROW + b"[1, 2]\n", "line 2: list in place of an object"),
        ("rows.jsonl", ROW + b'{"text": "\xe9"}\n', "line 2: byte 0xe9 is not UTF-8"),
        ("rows.jsonl", b"", "rows.jsonl is empty"),
        ("rows.jsonl.gz", gzip.compress(ROW * 2 + b"{\n"), "line 3, column 2: not JSON"),
        ("rows.jsonl.gz", ROW, "Not a gzipped file"),
        ("rows.json", b'[\n{"text": "a"},\n{"text" "b"}\n]', "rows.json, line 3, column 9: not JSON"),
        ("rows.json", b'{\n"rows": [\n}', "rows.json, line 3, column 1: not JSON"),
        ("rows.json", b"[]", "holds an empty list"),
        ("rows.csv", b"text,n\na,1\nb,2,3\n", "rows.csv, line 3: 3 fields, and the header has 2"),
        ("rows.csv", b"text,n\na,1,2\nb,2,3\n", "rows.csv, line 2: 3 fields, and the header has 2"),
        ("rows.csv", b'text,n\na,1\n"b,2\n', "rows.csv, line 3: unexpected end of data"),
        ("rows.csv", b"text,n\n\xe9,1\n", "rows.csv, line 2: byte 0xe9 is not UTF-8"),
        ("rows.csv", b"text,n\n" + b"a,1\n" * 10_000 + b"a,x\n", "line 10002: `n` is 'x', and a number in the rows"),
        ("rows.csv", b"text,n\n", "no rows below the header"),
        ("rows.csv", b"", "rows.csv is empty"),
        ("rows.txt", "é\n".encode("latin-1"), "rows.txt, line 1: byte 0xe9 is not UTF-8"),
        ("rows.txt", b"", "rows.txt is empty"),
        ("rows.parquet", b"this is no parquet", "not a parquet file"),
        ("rows.bin", ROW, "the name of a file must end in .json, .jsonl"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("rows") and " " not in value else "",
)
def test_a_broken_file_is_told_by_its_line(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError) as refused:
        load_rows(str(tmp_path / name))
    assert str(tmp_path / name) in str(refused.value) and message in str(refused.value)


def test_the_broken_file_of_a_folder_is_named(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-0.jsonl").write_bytes(ROW)
    (tmp_path / "data" / "train-1.jsonl").write_bytes(ROW + b"oh\n")
    with pytest.raises(ValueError, match="train-1.jsonl, line 2, column 1: not JSON"):
        load_rows(str(tmp_path / "data"))


@pytest.mark.parametrize("name", ["ROWS.JSONL", "rows.ndjson", "rows[1]*.jsonl"])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8], ids=["", "byte order mark"])
def test_unusual_names_and_byte_order_marks_are_read(tmp_path, name, mark):
    (tmp_path / name).write_bytes(mark + ROW)
    assert load_rows(str(tmp_path / name)).to_list() == [{"text": "a", "n": 1}]


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "rows.txt").write_bytes(codecs.BOM_UTF8 + b"one\ntwo\n")
    assert load_rows(str(tmp_path / "rows.txt"))["text"][:] == ["one", "two"]


def test_values_of_mixed_types_are_read_and_counted(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a", "completion": 3}\n')
    problems = [record.problem for record in Records(load_rows(str(tmp_path / "rows.jsonl")))]
    assert problems == [None, "`completion` is not text"]


def test_two_names_of_the_same_rows_are_no_sum():
    rows = Dataset.from_dict({"text": list("abcdef")})
    with pytest.raises(ValueError, match=r"'train\+test' names the same rows twice"):
        take_split({"train": rows, "test": rows}, "train+test")
    with pytest.raises(ValueError, match="holds none of the 6 rows"):
        take_split({"train": rows, "test": rows}, "test[:1%]")
