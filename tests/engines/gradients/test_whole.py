"""When gradients are taken whole: by their size, by memory and disk, and as the run decided that was killed."""

from types import SimpleNamespace

import pytest
from torch import nn

from hf_dataselect.engines.gradients import whole
from hf_dataselect.engines.gradients.projection import Projection
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.token_rows import TokenRows


#: Six rows of 10 tokens and two examples of 4; batches of 20 tokens have 2 rows, or 5 of the examples' length.
ROWS = TokenRows.from_lists([[i, *range(9)] for i in range(6)], [[(5, 10)]] * 6)
EXAMPLES = TokenRows.from_lists([[1, 2, 3, 4]] * 2, [[(2, 4)]] * 2)
LAYERS = {"a": nn.Linear(10, 60, bias=False), "b": nn.Linear(20, 20, bias=False)}  # 1,000 numbers
#: 2 bytes of each row, 4 more of each example, 16 of each row of a batch; 2 on disk, a row and epoch.
NEEDED, ON_DISK = 1000 * (2 * 8 + 4 * 2 + 16 * 2), 1000 * 2 * 8 * 3


def why(monkeypatch, memory=10**12, disk=10**12, rows=ROWS, examples=EXAMPLES, cache_dir=None, dim=64, model="m"):
    monkeypatch.setattr(whole, "free_memory", lambda: memory)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=disk))
    runtime = Runtime(cache_dir=cache_dir, batch_tokens=80)
    return whole.why_whole(Projection(dim=dim), LAYERS, rows, examples, runtime, 3, model)


@pytest.mark.parametrize(("dim", "memory", "expected"), [(1000, 0, "1,000"), (1001, 0, "1,000"), (999, 0, None)])
def test_no_more_numbers_than_the_projection_need_none(dim, memory, expected, monkeypatch):
    assert why(monkeypatch, memory, dim=dim) == (expected and f"their 1,000 numbers are no more than {dim:,}")


def test_a_quarter_of_the_free_memory_and_of_the_disk_is_enough(monkeypatch, tmp_path):
    assert "fit in the 0.0 GB of free memory" in why(monkeypatch, 4 * NEEDED)
    assert why(monkeypatch, 4 * NEEDED - 4) is None
    assert why(monkeypatch, disk=0) is not None, "nothing is written without a cache"
    assert why(monkeypatch, disk=4 * ON_DISK - 4, cache_dir=tmp_path / "1") is None
    assert why(monkeypatch, disk=4 * ON_DISK, cache_dir=tmp_path / "2") is not None


@pytest.mark.parametrize(("first", "then"), [(10**12, 0), (0, 10**12)])
def test_a_decision_is_kept_beside_the_vectors(first, then, monkeypatch, tmp_path):
    given = {"cache_dir": tmp_path}
    decided = why(monkeypatch, first, **given)
    assert (decided is None) is (first == 0)
    fewer = EXAMPLES.select([0])
    assert why(monkeypatch, then, **given) == why(monkeypatch, then, examples=fewer, **given) == decided
    for other in ({"model": "other"}, {"rows": ROWS.select([0, 1])}, {"dim": 65}, {"model": None}):
        assert (why(monkeypatch, then, **given, **other) is None) is (then == 0), other


def test_more_examples_than_were_decided_on_and_a_damaged_file_are_decided_anew(monkeypatch, tmp_path):
    decided = why(monkeypatch, examples=EXAMPLES.select([0]), cache_dir=tmp_path)
    assert decided is not None and why(monkeypatch, 0, cache_dir=tmp_path) is None
    (path,) = tmp_path.glob("projection/*")
    path.write_text("{")
    assert why(monkeypatch, cache_dir=tmp_path) is not None and '"examples": 2' in path.read_text()
    path.write_text(path.read_text().replace('"examples": 2', '"examples": 9'))
    assert why(monkeypatch, 0, cache_dir=tmp_path) is None, "a flipped bit is not believed"
