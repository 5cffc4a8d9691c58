"""Cached replies on a disk that damages them: no other reply is read, and one broken line costs no other."""

import json
import logging
from dataclasses import asdict

import pytest

from hf_dataselect.engines.store.checked import json_line
from hf_dataselect.engines.store.replies import Reply, ReplyStore


KEYS = [f"{number:032x}" for number in range(8)]
REPLIES = {key: Reply(f"{number}\nFor a reason.", None, 3, 4, False, 0.5) for number, key in enumerate(KEYS)}


def record(of: str, **changed) -> dict:
    return {"key": of, "judge": "j", **asdict(REPLIES[of]), **changed}


@pytest.fixture
def kept(tmp_path):
    """The file of eight replies, and its lines."""
    store = ReplyStore(tmp_path)
    for key, reply in REPLIES.items():
        store.append(key, "j", reply)
    store.close()
    assert ReplyStore(tmp_path).load(KEYS) == REPLIES
    return tmp_path / "responses.jsonl", [line for line in store.path.read_bytes().split(b"\n") if line]


def test_no_flipped_bit_of_a_record_is_read_as_another_reply(kept):
    path, lines = kept
    for place in range(len(lines[3])):
        damaged = bytearray(lines[3])
        damaged[place] ^= 1
        path.write_bytes(b"\n" + b"\n".join([*lines[:3], bytes(damaged), *lines[4:]]) + b"\n")
        found = ReplyStore(path.parent).load(KEYS)
        assert found.pop(KEYS[3], REPLIES[KEYS[3]]) == REPLIES[KEYS[3]], place
        assert len(found) == 7 and all(reply == REPLIES[key] for key, reply in found.items())


BROKEN = {
    "rating": lambda line: line.replace(b"3\\nFor", b"5\\nFor"),
    "key is no hex": lambda line: json_line(record(KEYS[3], key="zz" + KEYS[3][2:])),
    "key is a number": lambda line: json_line(record(KEYS[3], key=5)),
    "key is missing": lambda line: json_line({"text": "4", "problem": None}),
    "invalid UTF-8": lambda line: line.replace(b"For", b"\xff\xfe"),
    "text is a list": lambda line: json_line(record(KEYS[3], text=["4"])),
    "seconds is a text": lambda line: json_line(record(KEYS[3], seconds="x")),
    "seconds is not finite": lambda line: json_line(record(KEYS[3], seconds=float("nan"))),
    "torn": lambda line: line[:40],
    "deeply nested": lambda line: b"[" * 100_000,
    "no object": lambda line: b"5",
    "zeros": lambda line: bytes(len(line)),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_line_costs_no_other_and_is_asked_for_again(how, kept, caplog):
    path, lines = kept
    path.write_bytes(b"\n" + b"\n".join([*lines[:3], BROKEN[how](lines[3]).strip(), *lines[4:]]) + b"\n")
    with caplog.at_level(logging.WARNING):
        store = ReplyStore(path.parent)
        assert store.load(KEYS) == {key: reply for key, reply in REPLIES.items() if key != KEYS[3]}
        store.load(KEYS)
    assert len(caplog.messages) == 1 and "1 lines are torn or damaged (5)" in caplog.text
    assert str(path) in caplog.text
    store.append(KEYS[3], "j", REPLIES[KEYS[3]])
    assert store.load(KEYS) == ReplyStore(path.parent).load(KEYS) == REPLIES


def test_records_of_earlier_versions_are_read_with_one_warning(tmp_path, caplog):
    (tmp_path / "responses.jsonl").write_text("".join(f"\n{json.dumps(record(key))}" for key in KEYS))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert ReplyStore(tmp_path).load(KEYS) == REPLIES
    assert len(caplog.messages) == 1 and "without a checksum" in caplog.text


@pytest.mark.parametrize("name", ["checksum", "blake2b:"])
def test_a_damaged_checksum_does_not_make_a_record_one_of_an_earlier_version(name, kept):
    path, lines = kept
    for place in range(len(name)):
        damaged = name[:place] + chr(ord(name[place]) ^ 1) + name[place + 1 :]
        changed = lines[3].replace(name.encode(), damaged.encode()).replace(b"3\\nFor", b"5\\nFor")
        path.write_bytes(b"\n".join([*lines[:3], changed, *lines[4:], b""]))
        assert ReplyStore(path.parent).load(KEYS[3:4]) == {}


def test_a_file_that_was_replaced_gives_no_other_reply(kept):
    path, lines = kept
    store = ReplyStore(path.parent)
    assert store.load(KEYS[2:3]) == {KEYS[2]: REPLIES[KEYS[2]]}
    path.write_bytes(b"\n".join([b"", *lines[:1], b""]))
    assert store.load(KEYS[2:3]) == {}


def test_half_a_surrogate_pair_in_what_a_server_says_can_be_kept(tmp_path):
    reply = Reply(None, "HTTP 400: \ud800")
    ReplyStore(tmp_path).append(KEYS[0], "j", reply)
    assert ReplyStore(tmp_path).load(KEYS) == {KEYS[0]: reply}
