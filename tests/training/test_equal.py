"""How many updates train on as many tokens as the baseline."""

import numpy as np
import pytest

from hf_dataselect.training.equal import updates_of
from tests.tiny_training import tiny_trainer


@pytest.mark.parametrize(
    "options", [{}, {"packing": True, "max_length": 48}, {"dataloader_drop_last": True, "selection_budget": 15}]
)
def test_the_number_of_updates_is_the_one_whose_tokens_are_nearest(tmp_path, options):
    """16 rows, or fewer packed ones, in updates of 6, the last of an epoch of what is left."""
    options = {"gradient_accumulation_steps": 3, "selection_budget": 16, "seed": 3} | options
    trainer = tiny_trainer(tmp_path, "random", max_steps=14, **options)
    trainer.train()
    after = np.array([0] + [int(entry["num_tokens"]) for entry in trainer.state.log_history if "num_tokens" in entry])
    assert len(after) == 15 and len(set(np.diff(after))) > 5, "updates are of different numbers of tokens"
    planned = tiny_trainer(tmp_path, "random", **options)
    planned.prepare_subset()
    for tokens in range(1, after[-2], 13):
        assert updates_of(planned, tokens) == max(1, np.abs(after - tokens).argmin())
