"""Numbers of tokens come back as they were, and damaged ones do not."""

import numpy as np
import pytest

from hf_dataselect.engines.store.ragged_store import RaggedStore


KEYS = np.array([bytes([i]) * 16 for i in range(1, 6)], "V16")
VALUES = [np.arange(i, dtype=np.float32) * 0.5 for i in range(5)]


def test_rows_of_any_length_come_back_in_any_order_from_several_files(tmp_path):
    for part in (slice(0, 3), slice(3, 5)):
        store = RaggedStore(tmp_path, {"of": "a"})
        store.append(KEYS[part][:1], VALUES[part][:1], 1.0)
        store.append(KEYS[part][1:], VALUES[part][1:], 2.0)
        store.close()
    order = [4, 0, 3, 1, 2]
    found = RaggedStore(tmp_path, {"of": "a"}).find(KEYS[order])
    assert found.known.all() and found.seconds.tolist() == [2, 1, 1, 2, 2]
    for row, place in enumerate(order):
        np.testing.assert_array_equal(found.values[row], VALUES[place])
    other = RaggedStore(tmp_path, {"of": "b"}).find(KEYS)
    assert not other.known.any() and len(other.values[2]) == 0


@pytest.mark.parametrize("damage", ["changed", "cut"])
def test_damaged_numbers_are_named_and_those_computed_again_count(tmp_path, damage, caplog):
    store = RaggedStore(tmp_path, {})
    store.append(KEYS, VALUES, 1.0)
    store.close()
    (path,) = store.folder.glob("*.numbers")
    raw = path.read_bytes()
    path.write_bytes(raw[:-4] if damage == "cut" else raw[:-1] + bytes([raw[-1] ^ 1]))
    again = RaggedStore(tmp_path, {})
    found = again.find(KEYS)
    assert found.known.tolist() == [True, True, True, True, False] and len(found.values[4]) == 0
    assert "the numbers of 1 of 5 rows are damaged" in caplog.text
    again.append(KEYS[4:], VALUES[4:], 1.0)
    again.close()
    np.testing.assert_array_equal(RaggedStore(tmp_path, {}).find(KEYS).values[4], VALUES[4])


def test_without_a_folder_they_are_in_memory():
    store = RaggedStore(None, {})
    store.append(KEYS[:3], VALUES[:3], 1.0)
    np.testing.assert_array_equal(store.in_memory(KEYS)[2], VALUES[2])
    assert len(store.in_memory(KEYS)[4]) == 0
