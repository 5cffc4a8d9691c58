import json
import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hf_dataselect.engines.store import row_store as cache
from hf_dataselect.engines.store.checked import read_json, with_checksum
from hf_dataselect.engines.store.files import write_atomic
from hf_dataselect.engines.store.row_store import RowStore


REPOSITORY = Path(__file__).resolve().parents[3]
NAMESPACE = {"engine": "test", "model": "a"}


def keys(n, seed=0):
    return np.frombuffer(np.random.default_rng(seed).bytes(16 * n), "V16")


def stored(folder, n=20, seed=0, namespace=None, width=3):
    """A store with `n` rows in one file, their keys and values."""
    values = np.random.default_rng(seed + 1).normal(size=(n, width))
    store = RowStore(folder, namespace or NAMESPACE, width)
    store.append(keys(n, seed), values, np.arange(n))
    store.close()
    return store, keys(n, seed), values


def load(store, some):
    """Values of rows, and which are known."""
    return store.find(some)[:2]


def only_part(store):
    (part,) = store.folder.glob("*.rows")
    return part


# --- the store ---


def test_rows_come_back_exactly_under_their_keys_in_any_order(tmp_path):
    store, known, values = stored(tmp_path)
    values_of = RowStore(tmp_path, NAMESPACE, 3)
    order = np.random.default_rng(5).permutation(20)
    found, is_known = load(values_of, known[order])
    assert is_known.all()
    np.testing.assert_array_equal(found, values[order])
    mixed, is_known = load(values_of, np.concatenate([keys(3, seed=9), known[:2]]))
    assert is_known.tolist() == [False] * 3 + [True] * 2
    assert np.isnan(mixed[:3]).all() and (mixed[3:] == values[:2]).all()


def test_of_several_records_of_a_row_the_fullest_counts(tmp_path):
    for values in ([1, np.nan, np.nan], [1, 2, np.nan], [9, np.nan, np.nan]):
        store = RowStore(tmp_path, NAMESPACE, 3)
        store.append(keys(1), np.array([values]), 1)
        store.close()
    assert load(RowStore(tmp_path, NAMESPACE, 3), keys(1))[0].tolist() == [[1, 2, pytest.approx(np.nan, nan_ok=True)]]


def test_seconds_of_this_run_are_no_earlier_run_s(tmp_path):
    first, known, _ = stored(tmp_path)
    ours = first.files
    found = first.find(known)
    assert found.seconds.tolist() == list(range(20)) and not found.earlier.any()
    again = RowStore(tmp_path, NAMESPACE, 3, files=ours).find(known)
    assert again.seconds.tolist() == list(range(20)) and not again.earlier.any(), "another store of the same run"
    later = RowStore(tmp_path, NAMESPACE, 3).find(np.concatenate([known[[3]], keys(1, seed=9)]))
    assert later.seconds.tolist() == later.earlier.tolist() == [3, 0]
    files = {}
    reads = [
        RowStore(tmp_path, NAMESPACE, 3, files=files).find(known[rows]).earlier.tolist() for rows in ([1, 2], [2, 3])
    ]
    assert reads == [[1, 2], [0, 3]], "rows that one run reads twice count once"


def test_special_values_and_repeated_keys_come_back(tmp_path):
    store = RowStore(tmp_path, NAMESPACE, 2)
    some = keys(3)
    special = np.array([[np.nan, -0.0], [np.inf, 5e-324], [-np.inf, 1e308]])
    store.append(some, special, 0)
    store.append(some, special, 0)
    store.close()
    found, known = load(store, some[[2, 0, 0, 1]])
    assert known.all()
    assert found.tobytes() == special[[2, 0, 0, 1]].tobytes()


def test_an_empty_store_knows_nothing(tmp_path):
    found, known = load(RowStore(tmp_path, NAMESPACE, 2), keys(4))
    assert np.isnan(found).all() and not known.any()
    found, known = load(stored(tmp_path)[0], keys(0))
    assert len(found) == len(known) == 0


def test_without_a_folder_nothing_is_kept_and_nothing_fails():
    store, known, _ = stored(None)
    assert not store.find(known).known.any()


@pytest.mark.parametrize("torn", [1, 30, 51])
def test_a_torn_last_record_is_lost_and_no_other(tmp_path, torn):
    store, known, values = stored(tmp_path)
    part = only_part(store)
    part.write_bytes(part.read_bytes()[:-torn])
    found, is_known = load(store, known)
    assert is_known.tolist() == [True] * 19 + [False]
    np.testing.assert_array_equal(found[:19], values[:19])


@pytest.mark.parametrize("byte", [0, 15, 16, 39, 40, 48, 51])
def test_a_record_with_a_flipped_bit_is_named_and_never_read(tmp_path, byte, caplog):
    store, known, values = stored(tmp_path)
    part = only_part(store)
    data = bytearray(part.read_bytes())
    assert len(data) == 20 * 52
    data[7 * 52 + byte] ^= 4
    part.write_bytes(bytes(data))
    found, is_known = load(store, known)
    assert np.flatnonzero(~is_known).tolist() == [7]
    assert len(caplog.messages) == 1 and f"{part}: 1 of 20 records are damaged" in caplog.text
    np.testing.assert_array_equal(np.delete(found, 7, 0), np.delete(values, 7, 0))


def test_a_file_of_zeros_or_of_noise_is_no_rows(tmp_path):
    store, known, _ = stored(tmp_path)
    part = only_part(store)
    for content in (b"", b"\0" * 20 * 52, np.random.default_rng(0).bytes(20 * 52)):
        part.write_bytes(content)
        assert not store.find(known).known.any()
    assert not store.find(np.zeros(2, "V16")).known.any()


APPEND = """
import sys, time
import numpy as np
from hf_dataselect.engines.store.row_store import RowStore

folder, seed = sys.argv[1], int(sys.argv[2])
draw = np.random.default_rng(seed)
store = RowStore(folder, {"engine": "test", "model": "a"}, 3)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(200):
    store.append(np.frombuffer(draw.bytes(16 * 5), "V16"), np.full((5, 3), float(seed)), 0.5)
"""


def child(code, *arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **options}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )


def test_two_processes_append_at_the_same_time_and_nothing_is_lost(tmp_path):
    children = [child(APPEND, tmp_path, seed) for seed in (1, 2)]
    for process in children:
        assert process.stdout.readline() == "ready\n"
    for process in children:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.wait(60) for process in children] == [0, 0]
    store = RowStore(tmp_path, NAMESPACE, 3)
    assert len(list(store.folder.glob("*.rows"))) == 2
    for seed in (1, 2):
        draw = np.random.default_rng(seed)
        found, known = load(store, np.concatenate([np.frombuffer(draw.bytes(80), "V16") for _ in range(200)]))
        assert known.all() and (found == seed).all()


def test_results_of_another_namespace_are_never_read(tmp_path):
    _, known, _ = stored(tmp_path)
    for other in ({**NAMESPACE, "model": "b"}, {**NAMESPACE, "dtype": "bfloat16"}, {"engine": "test"}):
        assert not RowStore(tmp_path, other, 3).find(known).known.any()


def test_a_namespace_is_written_in_json_beside_its_rows(tmp_path):
    store, _, _ = stored(tmp_path)
    assert read_json(store.folder / "namespace.json") == NAMESPACE


def test_a_folder_that_holds_other_results_than_it_is_named_for_is_refused(tmp_path):
    store, _, _ = stored(tmp_path)
    for content in (with_checksum(NAMESPACE | {"model": "b"}), NAMESPACE | {"model": "b"}):  # the second of 0.1.0
        (store.folder / "namespace.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match="`selection_cache_dir`.*holds other results"):
            RowStore(tmp_path, NAMESPACE, 3)


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "5", None], ids=["empty", "torn", "deep", "5", "flipped"])
def test_a_damaged_description_is_written_again(content, tmp_path, caplog):
    store, rows, values = stored(tmp_path)
    path = store.folder / "namespace.json"
    text = path.read_text()
    path.write_text(text.replace(': "a"', ': "c"') if content is None else content)
    assert path.read_text() != text
    with caplog.at_level(logging.WARNING):
        found, known = load(RowStore(tmp_path, NAMESPACE, 3), rows)
    assert known.all() and path.read_text() == text and str(path) in caplog.text
    np.testing.assert_array_equal(found, values)


def test_a_description_of_an_earlier_version_is_read(tmp_path, caplog):
    store, rows, _ = stored(tmp_path)
    (store.folder / "namespace.json").write_text(json.dumps(NAMESPACE, indent=1, sort_keys=True))
    assert load(RowStore(tmp_path, NAMESPACE, 3), rows)[1].all() and not caplog.messages


def test_a_record_that_was_written_in_part_stops_the_saving(tmp_path, monkeypatch, caplog):
    def almost_full(*args, **options):
        """A file on a disk with room for 60 bytes, and then, because someone else makes room, for any number."""
        file, room = open(*args, **options), [10_000, 60]  # noqa: SIM115
        return SimpleNamespace(write=lambda data: file.write(data[: room.pop()]), close=file.close)

    monkeypatch.setattr(cache, "open", almost_full, raising=False)
    store = RowStore(tmp_path, NAMESPACE, 3)
    with caplog.at_level(logging.WARNING, logger="hf_dataselect"):
        store.append(keys(2), np.zeros((2, 3)), 0)
        store.append(keys(2, seed=1), np.ones((2, 3)), 0)
    assert "can't be saved" in caplog.text
    found, known = load(RowStore(tmp_path, NAMESPACE, 3), np.concatenate([keys(2), keys(2, seed=1)]))
    assert known.tolist() == [True, False, False, False] and (found[0] == 0).all()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    write_atomic(path, "old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError):
        write_atomic(path, "new")
    assert path.read_text() == "old"
