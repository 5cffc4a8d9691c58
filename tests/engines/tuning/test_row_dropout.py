"""Dropout by row: a mask depends on the row, the layer, the update and the seed, not on the batch around it."""

from types import SimpleNamespace

import torch
from torch import nn

from hf_dataselect.engines.tuning.row_dropout import RowDropout, dropout_by_row
from tests.tiny import tiny_model, tiny_tokenizer, with_lora


P = 0.25


def dropped(batch, mask, seed=0, update=0, layer="q_proj", width=64):
    """What is left of ones in each row of a batch of padded rows."""
    model = with_lora(tiny_model(tiny_tokenizer()), 0.1, lora_dropout=P)
    with dropout_by_row(model, seed) as rows:
        rows.on_step_begin(None, SimpleNamespace(global_step=update), None)
        rows.see(model, (), {"input_ids": batch, "attention_mask": mask})
        (module,) = [
            module
            for name, module in model.named_modules()
            if isinstance(module, RowDropout) and f"layers.0.self_attn.{layer}" in name
        ]
        return module.train()(torch.ones(*batch.shape, width))


ROWS = torch.tensor([[5, 6, 7, 0], [8, 9, 5, 6]])
MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])


def test_a_row_has_the_same_mask_in_every_batch_and_on_either_side_of_padding():
    both = dropped(ROWS, MASK)
    assert torch.equal(dropped(ROWS[1:], MASK[1:])[0], both[1])
    assert torch.equal(dropped(ROWS[:1, :3], None)[0], both[0, :3])
    left = dropped(torch.tensor([[0, 5, 6, 7]]), torch.tensor([[0, 1, 1, 1]]))
    assert torch.equal(left[0, 1:], both[0, :3])


def test_rows_updates_layers_and_seeds_have_masks_of_their_own():
    masks = [dropped(ROWS[1:], MASK[1:], **given) for given in ({}, {"seed": 1}, {"update": 1}, {"layer": "k_proj"})]
    masks.append(dropped(ROWS[1:] + 1, MASK[1:]))
    assert not any(torch.equal(one, other) for i, one in enumerate(masks) for other in masks[:i])


def test_as_much_is_left_out_as_by_dropout_and_the_mean_is_kept():
    left = dropped(torch.arange(400).reshape(4, 100), None, width=256)
    assert set(left.unique().tolist()) == {0.0, torch.tensor(1 / (1 - P)).item()}
    assert abs((left == 0).double().mean() - P) < 5 * (P * (1 - P) / left.numel()) ** 0.5


def test_what_does_not_see_rows_is_drawn_as_dropout_is_and_all_comes_back():
    model = with_lora(tiny_model(tiny_tokenizer()), 0.1, lora_dropout=P)
    before = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert before
    with dropout_by_row(model, 0) as rows:
        rows.see(model, (), {"input_ids": ROWS, "attention_mask": MASK})
        replaced = [module for module in model.modules() if isinstance(module, RowDropout)]
        tokens = torch.ones(1000, 8)
        assert 0 < (replaced[0].train()(tokens) == 0).double().mean() < 2 * P
        assert torch.equal(replaced[0].eval()(tokens), tokens)
    assert len(replaced) == len(before)
    assert [module for module in model.modules() if isinstance(module, nn.Dropout)] == before
    assert not model._forward_pre_hooks
