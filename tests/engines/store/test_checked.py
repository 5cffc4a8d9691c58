"""Files with a checksum: whatever byte of them changes, no other content is read."""

import errno
import json
import logging
import os

import pytest

from hf_dataselect.engines.store.checked import json_line, read_json, read_lines, write_json
from hf_dataselect.engines.store.files import write_atomic, written_atomic
from hf_dataselect.errors import DamagedFile


CONTENT = {
    "method": "ifd",
    "rows": [3, 1],
    "loss": 0.1 + 0.2,
    "nan": float("nan"),
    10: "ä\u2028",
    9: {"b": 1, "a": None},
}


def same(content: dict) -> bool:
    return json.dumps(content, sort_keys=True) == json.dumps(json.loads(json.dumps(CONTENT)), sort_keys=True)


@pytest.mark.parametrize("bit", [0, 3, 6])
def test_no_flipped_bit_is_read_as_another_content(bit, tmp_path):
    path = tmp_path / "a.json"
    write_json(path, CONTENT)
    whole = path.read_bytes()
    assert same(read_json(path))
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        try:
            assert same(read_json(path)), place  # white space between entries
        except DamagedFile as error:
            assert str(path) in str(error)
    for place in range(len(whole) - 2):
        path.write_bytes(whole[:place])
        with pytest.raises(DamagedFile):
            read_json(path)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff\xfe", b"5", b"", b"[]"])
def test_a_foreign_file_is_named(content, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=r"a\.json is damaged .*\. Train it again\."):
        read_json(path, "Train it again.")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


def test_a_file_of_an_earlier_version_is_read_with_a_warning(tmp_path, caplog):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"method": "ifd"}))
    with caplog.at_level(logging.WARNING):
        assert read_json(path) == {"method": "ifd"}
    assert "a.json has no checksum" in caplog.text


def test_damaged_lines_are_counted_and_cost_no_other_line(tmp_path, caplog):
    path = tmp_path / "a.jsonl"
    assert read_lines(path) == []
    lines = [json_line({"row": row, "loss": row / 3}) for row in range(6)]
    torn = [lines[0], lines[1][:20], lines[2].replace(b"0.66", b"0.77"), b"\xff\n", b"[" * 100_000, *lines[3:]]
    path.write_bytes(b"".join(torn))
    with caplog.at_level(logging.WARNING):
        assert [record["row"] for record in read_lines(path)] == [0, 3, 4, 5]
    assert "4 of 8 lines are damaged" in caplog.text


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_atomic(path, "whole")
    with pytest.raises(ZeroDivisionError), written_atomic(path) as temporary:
        temporary.write_text("half")
        1 / 0  # noqa: B018
    assert path.read_text() == "whole" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named_with_its_file(tmp_path):
    with pytest.raises(OSError, match=r"No space left .*a\.txt'$"), written_atomic(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
