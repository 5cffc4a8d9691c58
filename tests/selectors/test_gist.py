"""GIST from rows to rows, against one backward pass a row and NumPy; what can't be done is refused or named."""

import numpy as np
import pytest
from datasets import Dataset

from hf_dataselect.data.encoding import encode
from hf_dataselect.data.records import Records
from hf_dataselect.engines.gradients.layers import lora_layers
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.tuning.warm_up import WarmupSettings, warmed_up_by_epoch
from hf_dataselect.errors import SelectionError
from hf_dataselect.features.tuning import tuning_rows
from hf_dataselect.pipeline import select
from hf_dataselect.selectors.gist import GIST
from hf_dataselect.service import select_dataset
from tests.engines.gradients.test_collect import naive
from tests.rows import alpaca
from tests.selectors.test_less import SMALL, context, subtask_rows
from tests.tiny import tiny_model, tiny_tokenizer


def plainly(selector, rows, target, ctx):
    """Cosines of each row and subtask, and the parts of gradients in the subspace, by the SVD of whole gradients."""
    sides = ctx.trained(Records(rows)).tokens, encode(Records(target), ctx.text_format(end_of_turn=True)).tokens
    drawn = np.random.default_rng(ctx.seed).permutation(len(rows))[: round(selector.warmup_fraction * len(rows))]
    settings = WarmupSettings(
        epochs=2, learning_rate=1e-2, schedule="linear", batch_size=2, gradient_accumulation=2, lora_r=4, lora_alpha=8,
        lora_dropout=0.1, lora_targets=("q_proj", "k_proj", "v_proj", "o_proj"), seed=ctx.seed,
    )  # fmt: skip
    names, found = np.array(target["subtask"]), []
    warm = tuning_rows(Records(rows), np.sort(drawn), ctx)
    with warmed_up_by_epoch(ctx.model, ctx.tokenizer, warm, settings, Runtime()) as (tuned, epochs):
        for epoch in epochs:
            epoch.load()
            g, val = (naive(tuned, side, lora_layers(tuned))[1].astype(np.float64) for side in sides)
            basis = np.linalg.svd(val, full_matrices=False)[2][: selector.dimensions]
            within, wanted = g @ basis.T, val @ basis.T
            means = np.stack([wanted[names == name].mean(0) for name in dict.fromkeys(names)])
            cosines = within @ means.T / np.linalg.norm(within, axis=1)[:, None] / np.linalg.norm(means, axis=1)
            part = np.linalg.norm(within, axis=1) / np.linalg.norm(g, axis=1)
            found.append((epoch.learning_rate, cosines, part))
    return found


def test_equals_whole_gradients_and_a_plain_decomposition(tmp_path):
    rows, target = alpaca(16), subtask_rows()
    plain = plainly(GIST(**SMALL, dimensions=4), rows, target, context(target))
    for checkpoints, epochs in (("last", plain[-1:]), ("all", plain)):
        shares = np.array([rate for rate, *_ in epochs]) / sum(rate for rate, *_ in epochs)
        cosines, part = (sum(s * epoch[i] for s, epoch in zip(shares, epochs, strict=True)) for i in (1, 2))
        selector, ctx = GIST(**SMALL, dimensions=4, checkpoints=checkpoints), context(target, cache_dir=tmp_path)
        found = select(rows, selector, 4, ctx)
        np.testing.assert_allclose(found.scores, cosines.max(1), atol=5e-4)
        np.testing.assert_allclose(found.columns["captured"], part, atol=5e-4)
        assert found.indices.tolist() == np.argsort(-cosines.max(1), kind="stable")[:4].tolist()
        figures = found.facts["figures"]
        assert figures["directions of the target"].startswith("4 of the 6 that its 6 rows span, with ")
        assert figures["part of a row's gradient in the target's directions"].startswith(f"{np.median(part):.3f} at")
        assert found.passes["backward_rows"] == 22  # the last epoch's were known
    again = select(rows, selector, 4, context(target, cache_dir=tmp_path))
    np.testing.assert_array_equal(again.scores, found.scores)
    assert again.passes["backward_rows"] == 0


def test_repeated_target_rows_change_nothing_and_no_direction_of_theirs_is_divided_by_zero():
    rows, target = alpaca(12), subtask_rows(3)
    twice = Dataset.from_list([*target, *target])
    once, found = (select(rows, GIST(**SMALL), 4, context(given)) for given in (target, twice))
    assert found.facts["figures"]["directions of the target"].startswith(
        "3 of the 3 that its 6 rows span, with 100.0%"
    )
    np.testing.assert_allclose(found.scores, once.scores, atol=1e-4)


def test_targets_in_which_rows_can_not_be_told_apart_are_refused():
    row = alpaca(1, 9)
    given = alpaca(8), GIST(**SMALL), tiny_model(tiny_tokenizer()), tiny_tokenizer(), 3
    with pytest.raises(ValueError, match="`gist` needs 2 rows in `selection_target` at least"):
        select_dataset(*given, target=row, cache_dir=None)
    with pytest.raises(SelectionError, match="gradients of its 3 rows have one direction"):
        select(alpaca(8), GIST(**SMALL), 3, context(Dataset.from_list([*row] * 3)))


def test_rows_without_a_gradient_are_named_and_whole_gradients_must_fit(monkeypatch):
    rows = alpaca(8).to_list()
    rows[2]["output"] = ""
    found = select(Dataset.from_list(rows), GIST(**SMALL), 8, context(subtask_rows()))
    assert found.unscorable == {"no answer": [2]} and np.isnan(found.columns["captured"][2])
    monkeypatch.setattr("hf_dataselect.engines.gradients.subspace.free_memory", lambda: 1000)
    with pytest.raises(SelectionError, match="Give fewer rows, or a smaller adapter"):
        select(alpaca(8), GIST(**SMALL), 3, context(subtask_rows()))
