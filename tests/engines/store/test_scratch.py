"""What one computation needs lies in files that nothing else sees, and a full disk is told from other errors."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from hf_dataselect.engines.store import scratch as module
from hf_dataselect.engines.store.scratch import scratch, scratch_table
from hf_dataselect.errors import SelectionError


SCHEMA = pa.schema({"a": pa.int64()})
ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture(autouse=True)
def little_is_held(monkeypatch):
    monkeypatch.setattr(module, "HELD", 10)


def tables():
    return (pa.table({"a": pa.array([i, i + 1])}, schema=SCHEMA) for i in range(3))


def kinds(folder, tables, arrays):
    return [scratch_table(folder, SCHEMA, tables), scratch(folder, arrays, ROWS.shape)]


def test_a_file_has_no_name_and_holds_what_memory_would(tmp_path):
    for folder in (tmp_path, None):
        made = kinds(folder, tables(), iter([ROWS[:1], ROWS[1:]]))
        with made[0] as table, made[1] as vectors:
            assert not [*tmp_path.iterdir()], "a kill leaves nothing"
            assert isinstance(vectors, np.memmap) == (folder is not None)
            assert table["a"].to_pylist() == [0, 1, 1, 2, 2, 3]
            vectors[0] += 1
            np.testing.assert_array_equal(vectors, ROWS + [[1], [0], [0], [0]])
    assert table["a"].to_pylist() == [0, 1, 1, 2, 2, 3], "as long as it is referred to"


def test_an_error_of_the_parts_is_their_own(tmp_path):
    def failing(parts):
        yield from parts
        raise ConnectionError("the server went away")

    for made in kinds(tmp_path, failing(tables()), failing([ROWS[:2]])):
        with pytest.raises(ConnectionError, match="went away"), made:
            pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("kind", [0, 1])
def test_a_full_disk_is_said(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(module.tempfile, "TemporaryFile", lambda dir: open("/dev/full", "r+b"))  # noqa: SIM115
    what = ["Tokens", "Vectors"][kind]
    with pytest.raises(SelectionError, match=f"{what} can't be written in .*No space left.*: make room"):
        kinds(tmp_path, tables(), [ROWS])[kind].__enter__()
