"""Tensors on disk: whatever byte of the file changes, no other numbers are read."""

import logging
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_dataselect.engines.store import tensors
from hf_dataselect.engines.store.tensors import load_tensors, save_tensors


logger = logging.getLogger("hf_dataselect.test")
STATE = {
    "a.weight": torch.arange(6.0).reshape(2, 3),
    "half": torch.randn(5).to(torch.bfloat16),
    "step": torch.tensor(3),
    "empty": torch.zeros(0, 4),
    "mask": torch.tensor([True, False]),
    "view": torch.arange(8.0).reshape(2, 4).T,
}
FACTS = {"seconds": 0.1 + 0.2, "epochs": [{"learning_rate": 1e-5}]}


def same(found) -> bool:
    state, facts = found
    return (
        facts == FACTS
        and state.keys() == STATE.keys()
        and all(torch.equal(state[name], STATE[name]) and state[name].dtype == STATE[name].dtype for name in STATE)
    )


@pytest.fixture
def kept(tmp_path):
    path = tmp_path / "a.safetensors"
    (tmp_path / ".a.safetensors.0123").write_text("what a kill left")
    save_tensors(path, STATE, FACTS)
    assert same(load_tensors(path)) and list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o666 == tmp_path.stat().st_mode & 0o666, "who can read the folder can read it"
    return path


def test_no_flipped_bit_is_read_as_other_numbers(kept):
    whole = kept.read_bytes()
    for place in range(0, len(whole), 2):
        kept.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        found = load_tensors(kept)
        assert found is None or same(found), place  # white space behind the header


def another_model_s(path):
    save_tensors(path.with_name("b.safetensors"), STATE | {"step": torch.tensor(4)}, FACTS)
    os.replace(path.with_name("b.safetensors"), path)


DAMAGES = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "one byte short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "another model's": another_model_s,
    "a file under another name": lambda path: (
        save_tensors(path.with_name("b.safetensors"), STATE, FACTS)
        or os.replace(path.with_name("b.safetensors"), path)
    ),
    "without metadata": lambda path: save_file(load_file(path), path),
    "without a checksum": lambda path: save_file(load_file(path), path, metadata={"facts": '{"seconds": 0}'}),
    "a folder": lambda path: path.unlink() or path.mkdir(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_and_not_read(damage, kept, caplog):
    DAMAGES[damage](kept)
    assert load_tensors(kept, logger.warning) is None
    said = "can't be read" if damage == "a folder" else "is damaged"
    assert f"{kept} {said}" in caplog.text and len(caplog.messages) == 1


def test_no_file_is_no_damage(tmp_path, caplog):
    assert load_tensors(tmp_path / "none", logger.warning) is None and not caplog.messages


def test_a_file_that_does_not_fit_is_refused_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tensors, "free_bytes", lambda _: 50)
    with pytest.raises(OSError, match="are left"):
        save_tensors(tmp_path / "a", STATE, FACTS)
    assert not list(tmp_path.iterdir())
