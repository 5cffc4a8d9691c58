"""No test reaches a hub or the user's own cache; tiny models are fastest on one thread."""

import gc
import os
from pathlib import Path

import pytest
from datasets import disable_progress_bars


os.environ.update(
    HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1"
)
# Processes that tests start import this package, wherever they run.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.getenv("PYTHONPATH")]))

disable_progress_bars()  # a trainer maps some twenty times


def pytest_collection_modifyitems(items):
    """Tests that take long start first, so that no worker waits for another at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish():
    """Trainers collect garbage several times each; this spares them looking through all that is imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    # A kill loses nothing that is written, only a power cut does: no training waits for the disk, twenty times each.
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setenv("HF_DATASELECT_CACHE", str(tmp_path / "cache"))
