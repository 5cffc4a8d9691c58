"""Two ranks end with the weights, optimizer state and losses of plain `SFTTrainer` on the rows that were kept."""

import json

import pytest

from tests.parity import CASES
from tests.processes import launch


@pytest.mark.parametrize("part", range(3))
def test_ranks_end_as_with_plain_sft_trainer(tmp_path, part):
    names = list(CASES)[part::3]
    launch(2, "tests.parity", str(tmp_path), *names, cwd=tmp_path)
    for name in names:
        one, two = (json.loads((tmp_path / f"{name}-{rank}.json").read_text()) for rank in (0, 1))
        assert one == two, f"{name}: the ranks differ"
        assert one["ours"] == one["plain"], f"{name}: not as plain SFTTrainer"
        assert all(len(run["losses"]) > 1 for run in one["ours"])


def test_ranks_that_hold_different_weights_are_noticed(tmp_path):
    launch(2, "tests.parity", str(tmp_path), "diverged", cwd=tmp_path)
    one, two = (json.loads((tmp_path / f"diverged-{rank}.json").read_text()) for rank in (0, 1))
    assert one["select"] == two["select"] and "different models" in one["select"]
    assert one["warm-up"] == two["warm-up"] and "not averaged" in one["warm-up"]
    assert (one["evaluate"], two["evaluate"]) == (1, 0)  # said once
