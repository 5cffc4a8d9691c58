"""No test reaches a hub or the user's own cache; tiny models are fastest on one thread."""

import functools
import gc
import os
from pathlib import Path


# Before the imports below, which read it once.
os.environ.update(
    HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1"
)
# Processes that tests start import this package, wherever they run.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.getenv("PYTHONPATH")]))

import accelerate.utils.imports
import datasets
import pytest
from datasets import disable_progress_bars
from datasets.fingerprint import generate_random_fingerprint


# A trainer maps some twenty times, asks for packages some forty times, and hashes each function that it maps.
disable_progress_bars()
accelerate.utils.imports._is_package_available = functools.cache(accelerate.utils.imports._is_package_available)
_HASHED, _HASHING = datasets.fingerprint.update_fingerprint, (datasets.arrow_dataset, datasets.fingerprint)
for module in _HASHING:
    module.update_fingerprint = lambda *given: generate_random_fingerprint()


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


@pytest.fixture
def fingerprints(monkeypatch):
    """Datasets are known by their content, as outside the tests."""
    for module in _HASHING:
        monkeypatch.setattr(module, "update_fingerprint", _HASHED)
