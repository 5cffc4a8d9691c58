"""Peak memory: what a process holds now is no more than its peak, and a selection tells it."""

import json

import numpy as np
import psutil
import pytest
import torch

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
