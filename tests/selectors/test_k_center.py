"""`k_center`, and DiverseEvol: the same under a schedule by which the rows grow."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import TrainerCallback

from hf_dataselect.data.records import Records
from hf_dataselect.engines.runtime.stored_vectors import Vectors
from hf_dataselect.engines.subset.choose import k_center
from hf_dataselect.selectors.k_center import KCenter
from tests.rows import alpaca, layout
from tests.shared_data import golden, golden_arrays
from tests.tiny import context_of, tiny_model, tiny_tokenizer
from tests.tiny_training import tiny_trainer


RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "k_center.yaml"


@pytest.mark.parametrize("number", [0, 1])
def test_rows_are_added_as_diverse_evol_does(number):
    case = golden("diverse_evol")["cases"][number]
    vectors = golden_arrays("bins_vectors")[case["vectors"]]
    candidates = np.setdiff1d(np.arange(len(vectors)), case["labelled"])
    parts = (vectors[rows] for rows in (candidates, case["labelled"]))
    features = {
        name: Vectors(part, np.ones(len(part), bool)) for name, part in zip(("vectors", "kept"), parts, strict=True)
    }
    selector, ctx = KCenter(), context_of(tiny_tokenizer())
    scores = selector.score(features, ctx)
    chosen = candidates[selector.select(scores, None, features, case["n"], ctx)]
    assert chosen.tolist() == case["pick_order"]
    assert scores.max() == pytest.approx(case["radius"][0], rel=1e-4)


def test_rows_are_as_far_apart_as_the_mean_states_of_the_model_say():
    tokenizer = tiny_tokenizer()
    ctx, records = context_of(tokenizer, tiny_model(tokenizer), max_length=128, dtype="float32"), Records(alpaca(8))
    features = KCenter().featurize(records, ctx)
    for (ids, _), vector in zip(ctx.encode(records).tokens.take(range(8)), features["vectors"].vectors, strict=True):
        with torch.no_grad():
            states = ctx.model(input_ids=torch.from_numpy(ids.astype(np.int64))[None], output_hidden_states=True)
        np.testing.assert_allclose(vector, states.hidden_states[-1][0].mean(0), atol=1e-5)


class Watch(TrainerCallback):
    """The rows that a plain k-center adds to those kept, by the model as it is after a step."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 4:
            vectors = KCenter().featurize(self.trainer.records, self.trainer.context(cached=False))["vectors"].vectors
            kept = self.trainer.online.policy.state["kept"]
            self.expected = np.sort(k_center(vectors, len(kept) + 3, kept)[0]).tolist()


def test_the_recipe_of_diverse_evol_adds_rows_by_the_model_as_it_is(tmp_path):
    schedule = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))["selection_schedule"] | {"every": 2, "grow": 3}
    given = {"method": "k_center", "kwargs": None, "selection_budget": 4, "save_strategy": "no", "max_steps": 5}
    watch = Watch()
    trainer = tiny_trainer(
        tmp_path,
        train_dataset=layout("prompt-completion", 20),
        callbacks=[watch],
        selection_schedule=schedule,
        **given,
    )
    watch.trainer = trainer
    trainer.train()
    first, second = trainer.online.figures(5)["selections"]
    assert (first["candidates"], second["candidates"], first["kept"], second["kept"]) == (16, 13, 7, 10)
    assert {*trainer.selection.indices.tolist()} < {*first["rows"]} < {*second["rows"]}
    assert second["rows"] == watch.expected
