"""Peak memory of a selection: what it holds itself, whatever the process held before."""

import json
import mmap
import threading
import time
from dataclasses import dataclass

import numpy as np
import psutil
import pytest
import torch

from hf_dataselect.engines.runtime import memory
from hf_dataselect.engines.runtime.memory import INTERVAL, peak_memory
from hf_dataselect.pipeline import select
from hf_dataselect.runs.folder import read_selection, write_selection
from hf_dataselect.selectors.full import Full
from tests.rows import alpaca
from tests.run_folders import as_earlier_version
from tests.test_contract import context


MIB = 2**20


def hold(mebibytes: int) -> np.ndarray:
    """Pages of their own: a block of malloc may lie where something else was freed, and the process does not grow."""
    pages = np.frombuffer(mmap.mmap(-1, mebibytes * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
    pages[:] = 1  # or they are not in memory
    return pages


@dataclass
class Hungry(Full):
    """Holds some memory while it scores."""

    mebibytes: int = 0

    def score(self, features, ctx):
        held = hold(self.mebibytes)
        time.sleep(10 * INTERVAL)
        return np.zeros(len(features), np.float32) * held.mean()


@pytest.fixture(params=["by the kernel", "sampled"])
def measured(request, monkeypatch, tmp_path) -> bool:
    """Whether the kernel measures it, or, as where it can't be reset, samples do."""
    if request.param == "sampled":
        monkeypatch.setattr(memory, "_CLEAR", tmp_path / "no such folder" / "clear_refs")
    elif not memory._reset():
        pytest.skip("this system has no peak that can be reset")
    return request.param == "by the kernel"


def test_the_peak_is_that_of_the_selection_and_not_of_what_was_before(measured):
    hold(512)  # and freed
    freed, kept = psutil.Process().memory_info().rss + 512 * MIB, hold(64)
    peaks = [select(alpaca(6), Hungry(mebibytes), 1.0, context()).peak_memory for mebibytes in (192, 1, 96)]
    for peak, mebibytes in zip(peaks, (192, 1, 96), strict=True):
        assert kept.nbytes < peak["process_before"] <= psutil.Process().memory_info().rss * 1.05
        grown = (peak["process"] - peak["process_before"]) / MIB
        assert mebibytes - 2 <= grown <= mebibytes + 48, (mebibytes, grown)
        assert peak["process"] < freed - 128 * MIB


def test_the_peak_of_the_kernel_is_exact_however_short():
    if not memory._reset():
        pytest.skip("this system has no peak that can be reset")
    for mebibytes in (96, 40, 64):
        with peak_memory() as peak:
            hold(mebibytes)
        assert mebibytes - 2 <= (peak["process"] - peak["process_before"]) / MIB <= mebibytes + 4


def test_a_block_that_fails_leaves_no_thread(measured):
    threads = threading.active_count()
    with pytest.raises(ZeroDivisionError), peak_memory() as peak:
        assert threading.active_count() == threads + (not measured)
        1 / 0  # noqa: B018
    assert threading.active_count() == threads and peak["process"] >= peak["process_before"] > MIB


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_peak_of_a_gpu_is_that_of_the_block():
    torch.ones(64 * MIB, device="cuda")  # and freed
    kept = torch.ones(4 * MIB, device="cuda")
    with peak_memory() as peak:
        torch.ones(16 * MIB, device="cuda")
    assert kept.nbytes <= peak["gpu_before"] < 64 * MIB
    assert 64 * MIB <= peak["gpu"] - peak["gpu_before"] < 80 * MIB


def test_a_run_folder_tells_it_and_one_from_before_is_still_read(tmp_path):
    selection = select(alpaca(6), Full(), 1.0, context())
    write_selection(tmp_path, selection)
    assert read_selection(tmp_path).peak_memory == selection.peak_memory and selection.peak_memory["process"] > MIB
    path = tmp_path / "selection.json"
    as_earlier_version(tmp_path)
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
