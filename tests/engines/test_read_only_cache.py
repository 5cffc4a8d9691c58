"""A cache folder that can be read but not written, and one that is none."""

import logging
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from hf_dataselect.engines.forward.likelihood import likelihood
from hf_dataselect.engines.llm.generator import Generator
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.stored_vectors import stored_vectors
from hf_dataselect.engines.store import files
from hf_dataselect.engines.store.files import check_cache
from hf_dataselect.engines.tuning.warm_up import warmed_up
from hf_dataselect.errors import SelectionError
from tests.engines.tuning.test_warm_up import ROWS, SETTINGS, TOKENIZER, plain, pretend_to_train, weights


NOBODY = 65534


@contextmanager
def as_nobody():
    """Inside, file permissions hold, for root too."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def cache():
    """A folder below one that everybody may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder / "cache"
    for place, _, _ in os.walk(folder):
        os.chmod(place, 0o755)
    shutil.rmtree(folder)


@contextmanager
def read_only(folder: Path):
    for place, _, _ in os.walk(folder):
        os.chmod(place, 0o555)
    files._tell_kept_no_more.cache_clear()
    with as_nobody():
        yield


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def keys(n: int) -> np.ndarray:
    return np.frombuffer(np.random.default_rng(0).bytes(16 * n), "V16")


def test_hits_are_used_and_misses_are_computed_and_not_kept(cache, monkeypatch, caplog):
    calls, model = pretend_to_train(monkeypatch), plain()
    some, tuned = ROWS.select(np.arange(6)), []

    def everything() -> list[Runtime]:
        score, generate, tune = (Runtime(None, cache, dtype="float32") for _ in range(3))
        likelihood(model, some, score)
        Generator(model, TOKENIZER, generate, "r").generate([[5, 6, 7]], max_new_tokens=3)
        with warmed_up(model, TOKENIZER, ROWS, SETTINGS, tune) as lent:
            tuned.append(weights(lent))
        return [score, generate, tune]

    everything()
    before = contents(cache)
    with caplog.at_level(logging.WARNING), read_only(cache):
        score, generate, tune = everything()
        expected = likelihood(model, ROWS, Runtime(dtype="float32")).loss
        rest = Runtime(None, cache, dtype="float32")
        np.testing.assert_allclose(likelihood(model, ROWS, rest).loss, expected, rtol=1e-5)
    (warning,) = (record.message for record in caplog.records if record.levelno == logging.WARNING)
    assert f"`selection_cache_dir='{cache}'` can't be written" in warning
    assert score.account.passes == {"cached_rows": 6, "forward_rows": 0, "forward_tokens": 0}
    assert generate.account.passes == {"answered_rows": 0, "cached_rows": 1}
    assert tune.account.cached_seconds > 0 and not tune.account.passes and len(calls) == 1
    assert all((tuned[0][name] == tuned[1][name]).all() for name in tuned[0])
    assert rest.account.passes["cached_rows"] == 6 and rest.account.passes["forward_rows"] == len(ROWS) - 6
    assert contents(cache) == before


def test_what_a_read_only_cache_lacks_is_made_and_not_kept(cache, monkeypatch):
    calls = pretend_to_train(monkeypatch)
    cache.mkdir()
    with read_only(cache):
        for _ in range(2):
            with warmed_up(plain(), TOKENIZER, ROWS, SETTINGS, Runtime(None, cache)):
                pass
        (reply,) = Generator(plain(), TOKENIZER, Runtime(None, cache), "r").generate([[5, 6, 7]], max_new_tokens=3)
    assert len(calls) == 2 and reply.completion_tokens and not list(cache.iterdir())


def test_vectors_that_would_be_kept_there_are_refused_before_they_are_computed(cache):
    def vectors(n: int, compute) -> np.ndarray:
        runtime = Runtime(None, cache)
        store = runtime.vector_store({"engine": "test"}, 3)
        return stored_vectors(store, keys(n), compute, runtime).vectors[:]

    expected = vectors(4, lambda rows: np.ones((len(rows), 3)) * rows[:, None])
    with read_only(cache):
        np.testing.assert_array_equal(vectors(4, None), expected)
        with pytest.raises(SelectionError, match="`selection_cache_dir=.*can't be written, and 2 vectors.*'none'"):
            vectors(6, None)


def test_a_folder_that_can_not_be_read_or_made_is_refused(cache, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="`selection_cache_dir=.*can't be written .it is a file.*'none'"):
        check_cache(tmp_path / "file")
    if os.geteuid() != 0:  # root reads everything, also as nobody
        cache.mkdir(mode=0)
        with pytest.raises(ValueError, match="`selection_cache_dir=.*can't be (read|written)"):
            check_cache(cache)
    cache.parent.chmod(0o555)
    with as_nobody(), pytest.raises(ValueError, match="`selection_cache_dir=.*can't be written"):
        check_cache(cache / "new")


def test_a_folder_that_is_full_is_refused_before_the_run_and_ends_none_that_has_begun(tmp_path, caplog):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (files.PROBE // 2, before[1]))
    try:
        with pytest.raises(ValueError, match="`selection_cache_dir=.*can't be written .File too large.*'none'"):
            check_cache(tmp_path, begun=False)
        runtime = Runtime(None, tmp_path, dtype="float32")
        expected = likelihood(plain(), ROWS, Runtime(dtype="float32")).loss
        np.testing.assert_array_equal(likelihood(plain(), ROWS, runtime).loss, expected)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(caplog.messages) == 1 and "is not kept" in caplog.text
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
