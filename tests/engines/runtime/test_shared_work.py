"""Several processes on one cache folder: the second waits for the first, says so, and reads what it kept."""

import logging
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator

from hf_dataselect.engines.runtime.cached_map import cached_map
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.shared_work import alone
from hf_dataselect.engines.store import locks
from tests.processes import start_ranks, succeed


ROWS = 12
KEYS = np.frombuffer(np.random.default_rng(0).bytes(16 * ROWS), "V16")


def scored(folder: Path, keys: np.ndarray = KEYS, before=lambda row: None, accelerator=None) -> tuple[np.ndarray, int]:
    """A score of each row, one row a batch, and how many were computed."""

    def compute(batch: np.ndarray) -> np.ndarray:
        before(int(batch[0]))
        return batch[:, None] ** 0.5

    ones, runtime = np.ones(len(keys), np.int64), Runtime(accelerator, folder, batch_tokens=1)
    found = cached_map(lambda todo: compute, keys, ones, 1, {"engine": "test"}, runtime)
    return found.values[:, 0], found.computed


def slowly(folder: Path) -> None:
    """A run that stops at its fourth row until it may go on."""

    def before(row: int) -> None:
        while row == 3 and not (folder / "go on").exists():
            time.sleep(0.005)

    scored(folder, before=before)


@pytest.fixture
def other(tmp_path):
    """Another process at work on the same rows."""
    with start_ranks(slowly, tmp_path, ranks=1, folder=tmp_path) as run:
        while sum(path.stat().st_size for path in tmp_path.glob("*/*.rows")) < 3 * 36 and run.running(within=0.005):
            pass
        assert run.running(), run.log()
        yield run


def test_a_second_run_waits_says_for_whom_and_computes_nothing(other, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(locks, "TELL", 0.05)

    def told(record: logging.LogRecord) -> bool:
        if len(caplog.records) == 2:
            (tmp_path / "go on").touch()
        return True

    with caplog.at_level(logging.WARNING, logger="hf_dataselect"):
        caplog.handler.addFilter(told)
        values, computed = scored(tmp_path)
        caplog.handler.removeFilter(told)
    np.testing.assert_array_equal(values, np.arange(ROWS) ** 0.5)
    assert computed == 0 and len(caplog.messages) >= 3, "it is told again and again"
    pid = other.processes[0].pid
    assert f"Another run (process {pid} on " in caplog.text and "`selection_cache_dir`" in caplog.text
    assert not list(tmp_path.glob("*/*.lock"))


def test_a_run_that_is_killed_is_not_waited_for(other, tmp_path):
    other.kill(signal.SIGKILL)
    other.wait()
    assert list(tmp_path.glob("*/*.lock")), "it left its file, which nobody holds"
    values, computed = scored(tmp_path)
    np.testing.assert_array_equal(values, np.arange(ROWS) ** 0.5)
    assert computed == ROWS - 3 and not list(tmp_path.glob("*/*.lock"))


def on_rank(folder: Path) -> None:
    locks.TELL = 0.05
    said, accelerator = [], Accelerator(cpu=True)
    locks.logger.addFilter(lambda record: said.append(record) or len(said) < 3 or (folder / "go on").touch() is None)
    values, computed = scored(folder, accelerator=accelerator)
    np.testing.assert_array_equal(values, np.arange(ROWS) ** 0.5)
    assert computed == 0 and bool(said) == accelerator.is_main_process, "the main process waits and says so"
    accelerator.end_training()


def test_several_ranks_wait_together(other, tmp_path):
    succeed(on_rank, tmp_path, folder=tmp_path)


def test_a_run_on_other_rows_is_not_waited_for(other, tmp_path):
    assert scored(tmp_path, KEYS[4:])[1] == ROWS - 4


def test_what_can_not_be_locked_is_done_with_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with alone(Runtime(), tmp_path / "file" / "x.lock", "testing"):
        pass
    assert "can't be locked" in caplog.text
    (tmp_path / "x.lock").mkdir()
    with alone(Runtime(), tmp_path / "x.lock", "testing"):
        pass
    assert len(caplog.messages) == 2


def test_an_exception_ends_the_work(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), alone(Runtime(), tmp_path / "x.lock", "testing"):
            1 / 0  # noqa: B018
    assert not list(tmp_path.iterdir())
