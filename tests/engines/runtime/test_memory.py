"""Peak memory: what a process holds now is no more than its peak, and a selection tells it."""

import json

import numpy as np
import psutil
import pytest
import torch

from hf_dataselect.engines.runtime import memory
from hf_dataselect.engines.runtime.memory import peak_memory
from hf_dataselect.pipeline import select
from hf_dataselect.runs.folder import read_selection, write_selection
from hf_dataselect.selectors.full import Full
from tests.rows import alpaca
from tests.test_contract import context


def test_the_peak_is_at_least_what_is_held_now():
    block = np.ones(2**24)  # 128 MiB, written to
    held = psutil.Process().memory_info().rss
    assert block.nbytes < held <= peak_memory()["process"] * 1.01


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_peak_of_a_gpu_outlasts_what_is_freed():
    block = torch.ones(2**24, device="cuda")
    size = block.nbytes
    del block
    assert peak_memory()["gpu"] >= size


def test_a_run_folder_tells_it_and_one_from_before_is_still_read(tmp_path):
    selection = select(alpaca(6), Full(), 1.0, context())
    write_selection(tmp_path, selection)
    assert read_selection(tmp_path).peak_memory == selection.peak_memory and selection.peak_memory["process"] > 2**20
    path = tmp_path / "selection.json"
    described = json.loads(path.read_text())
    del described["peak_memory"]
    path.write_text(json.dumps(described))
    assert read_selection(tmp_path).peak_memory == {}
    del described["method"]
    path.write_text(json.dumps(described))
    with pytest.raises(ValueError, match="no readable selection"):
        read_selection(tmp_path)


@pytest.mark.parametrize("version", [1, 2])
def test_free_memory_is_what_a_container_leaves(version, tmp_path, monkeypatch):
    limit, usage, cached, controller, own = (
        (
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
            "memory",
            "9:cpu:/\n4:memory:/a/b\n",
        ),
        ("memory.max", "memory.current", "inactive_file", "", "0::/a/b\n"),
    )[version - 1]
    (tmp_path / "own").write_text(own)
    for folder, allowed, used in (("a", 1000, 300), ("a/b", "max", 100), ("other", 1, 1)):
        (tmp_path / "mount" / folder).mkdir(parents=True)
        for name, value in ((limit, allowed), (usage, used), ("memory.stat", f"anon 200\n{cached} 50")):
            (tmp_path / "mount" / folder / name).write_text(f"{value}\n")
    monkeypatch.setattr(memory, "_GROUPS", [(str(tmp_path / "mount"), controller, limit, usage, cached)])
    assert memory._left_in_groups(tmp_path / "own") == [750]
    assert memory._left_in_groups(tmp_path / "absent") == []
    monkeypatch.setattr(memory, "_left_in_groups", lambda: [750, 10**30])
    assert memory.free_memory() == 750
    monkeypatch.setattr(memory, "_left_in_groups", list)
    assert 0 < memory.free_memory() <= psutil.virtual_memory().total
