"""Two ranks end with the weights, optimizer state and losses of plain `SFTTrainer` on the rows that were kept."""

import json
from pathlib import Path

import pytest

from tests.parity import CASES, on_rank
from tests.processes import succeed


def on_two_ranks(folder: Path, name: str) -> list[dict]:
    succeed(on_rank, folder, name, folder=folder)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_ranks_end_as_with_plain_sft_trainer(tmp_path, name):
    one, two = on_two_ranks(tmp_path, name)
    assert one == two, "the ranks differ"
    assert one["ours"] == one["plain"], "not as plain SFTTrainer"
    assert all(len(run["losses"]) > 1 for run in one["ours"])


def test_ranks_that_hold_different_weights_are_noticed(tmp_path):
    one, two = on_two_ranks(tmp_path, "diverged")
    assert one["select"] == two["select"] and "different models" in one["select"]
    assert one["warm-up"] == two["warm-up"] and "not averaged" in one["warm-up"]
    assert (one["evaluate"], two["evaluate"]) == (1, 0)  # said once
