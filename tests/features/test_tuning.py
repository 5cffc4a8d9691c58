"""Warm-ups of models whose layers do not all take an adapter."""

import numpy as np
import pytest
from peft import PromptTuningConfig, get_peft_model

from hf_dataselect import select_dataset
from tests.engines.tuning.test_adapters import mamba
from tests.rows import alpaca
from tests.tiny import tiny_model, tiny_tokenizer


OPTIONS = {"cache_dir": None, "dtype": "float32"}


def test_a_model_that_cannot_be_warmed_up_is_refused_before_a_row_is_scored():
    tokenizer, forwards = tiny_tokenizer(), []
    config = PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    model = get_peft_model(tiny_model(tokenizer), config).requires_grad_(False)
    model.get_base_model().model.register_forward_hook(lambda *_: forwards.append(1))
    with pytest.raises(ValueError, match="`warmup: lora`.*no trainable weights"):
        select_dataset(alpaca(8), "ifd", model, tokenizer, 2, **OPTIONS)
    assert not forwards


def test_layers_whose_adapters_never_get_a_gradient_are_left_out_by_name(caplog):
    given = {"warmup_epochs": 1, "warmup_fraction": 0.5, "lora_targets": ["all-linear"], "lora_r": 2}
    options = {"method_kwargs": given | {"projection": "none"}, "target": alpaca(3, seed=1), **OPTIONS}
    _, selection = select_dataset(alpaca(8), "less", mamba(), tiny_tokenizer(), 4, **options)
    assert np.isfinite(selection.scores).all() and len(selection.indices) == 4
    assert "2 trained weights are excluded from the gradients" in caplog.text and "mixer.dt_proj.lora_A" in caplog.text
