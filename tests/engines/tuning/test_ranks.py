"""What the report says of a warm-up on several ranks."""

import pytest

from hf_dataselect.engines.tuning.ranks import of_ranks
from hf_dataselect.engines.tuning.warm_up import WarmupSettings
from tests.tiny import tiny_gpt2, tiny_model, tiny_tokenizer, with_lora


SETTINGS = WarmupSettings(batch_size=2, gradient_accumulation=3)


@pytest.mark.parametrize(("rows", "world", "repeated"), [(12, 2, 0), (12, 3, 0), (13, 2, 3)])
def test_rows_that_are_repeated_are_counted(rows, world, repeated):
    model = with_lora(tiny_model(tiny_tokenizer()), 0.1, lora_dropout=0.1)
    more = f"; an epoch has {repeated} of the {rows} rows once more, so that all ranks have equally many"
    assert of_ranks(model, rows, SETTINGS, world) == f"{6 * world} rows an update, on {world} ranks" + more * bool(
        repeated
    )


def test_dropout_of_the_model_s_own_is_named():
    assert of_ranks(tiny_gpt2(), 12, SETTINGS, 2).endswith("; the model's own dropout is drawn anew on each rank")
