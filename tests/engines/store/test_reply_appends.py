"""Replies are appended whatever becomes of the folder meanwhile: none is lost, and no run ends."""

import logging
import resource
import shutil

import pytest

from hf_dataselect.engines.store import replies
from hf_dataselect.engines.store.replies import Reply, ReplyStore


KEYS = [f"{i:032x}" for i in range(6)]
REPLIES = {key: Reply(f"reply {i}", None, 3, 4) for i, key in enumerate(KEYS)}


@pytest.fixture(autouse=True)
def always_tried(monkeypatch):
    monkeypatch.setattr(replies, "SECONDS_BETWEEN_TRIES", 0.0)


def append(store: ReplyStore, keys: list[str]) -> None:
    for key in keys:
        store.append(key, "j", REPLIES[key])


@pytest.mark.parametrize("what", ["file", "folder", "all of the cache", "file, by another run that went on"])
def test_a_deleted_file_is_made_again_with_what_this_run_wrote(what, tmp_path, caplog):
    folder = tmp_path / "cache" / "judge"
    mine, other = ReplyStore(folder), ReplyStore(folder)
    append(other, KEYS[:1])
    append(mine, KEYS[1:3])
    assert mine.load(KEYS).keys() == {*KEYS[:3]}
    if what.startswith("file"):
        (folder / "responses.jsonl").unlink()
    else:
        shutil.rmtree(folder if what == "folder" else folder.parent)
    there = set()
    if "another" in what:
        append(ReplyStore(folder), KEYS[5:])
        there = {KEYS[5]}
    with caplog.at_level(logging.WARNING):
        append(mine, KEYS[3:5])
    assert len(caplog.messages) == 1 and "was deleted while it was written" in caplog.text
    kept = {key: REPLIES[key] for key in (*KEYS[1:5], *there)}
    assert mine.load(KEYS) == ReplyStore(folder).load(KEYS) == kept
    assert other.load(KEYS) == kept, "its index is of the file that is gone"


def test_a_folder_that_can_not_be_made_again_costs_this_run_nothing(tmp_path, caplog):
    folder = tmp_path / "cache" / "judge"
    store = ReplyStore(folder)
    append(store, KEYS[:2])
    shutil.rmtree(folder.parent)
    folder.parent.write_text("a file in its place")
    with caplog.at_level(logging.WARNING):
        append(store, KEYS[2:4])
        store.save()
    assert store.load(KEYS) == {key: REPLIES[key] for key in KEYS[:4]}
    told = [message for message in caplog.messages if "held in memory" in message]
    assert len(told) == 1 and "4 replies could not be saved" in caplog.messages[-1]
    folder.parent.unlink()
    append(store, KEYS[4:])
    assert ReplyStore(folder).load(KEYS) == REPLIES


def test_a_disk_that_is_full_for_a_while_delays_the_saving_only(tmp_path, caplog):
    store, before = ReplyStore(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    append(store, KEYS[:2])
    room = (tmp_path / "responses.jsonl").stat().st_size + 20
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        append(store, KEYS[2:4])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "can't be saved" in caplog.text and store.load(KEYS) == {key: REPLIES[key] for key in KEYS[:4]}
    assert ReplyStore(tmp_path).load(KEYS).keys() == {*KEYS[:2]}
    append(store, KEYS[4:])
    assert ReplyStore(tmp_path).load(KEYS) == REPLIES
