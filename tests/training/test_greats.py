"""`greats`: the rows that it takes, and that a step is the one of these rows only."""

import numpy as np
import pytest
import torch
from peft import LoraConfig
from trl import SFTTrainer

from hf_dataselect.engines.gradients import in_step
from hf_dataselect.policies.greats import Greats, best
from hf_dataselect.policy import Products
from tests.online import examples, sources
from tests.sharded import faint
from tests.shared_data import golden
from tests.tiny_training import tiny_trainer


LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear"}


def products(towards, between, rate) -> Products:
    rows = np.arange(len(towards))
    return Products(rows, np.ones(len(rows)), np.asarray(towards), np.asarray(between), rate)


@pytest.mark.parametrize("number", [0, 1])
def test_greats_takes_the_rows_that_its_authors_do(number):
    case = golden("greats")["cases"][number]
    gradients, target = np.array(case["gradients"]), np.array(case["validation_gradient"])
    given = products(gradients @ target, gradients @ gradients.T, case["learning_rate"])
    assert best(given, case["k"]) == case["picked"]
    factors = Greats(keep=case["k"] / len(gradients)).take(given)
    assert np.flatnonzero(factors).tolist() == sorted(case["picked"]) and factors.sum() == len(gradients)


def test_a_step_that_overflowed_and_a_rate_of_0_are_no_choice_by_place():
    assert Greats().take(products([1.0, np.inf], np.ones((2, 2)), 0.1)).tolist() == [1, 1]
    assert best(products([1.0, 3.0, 2.0], np.ones((3, 3)), 0.0), 2) == [1, 2]


def gradient(trainer, rows, row, weights) -> tuple[list[torch.Tensor], int]:
    """Of the sum of the losses of a row's label tokens, by a plain pass of its own."""
    prepared = SFTTrainer._prepare_dataset(
        trainer, rows.select([row]), trainer.processing_class, trainer.args, False, None, "train"
    )
    ids, labels = (torch.tensor(prepared[name][:]) for name in ("input_ids", "labels"))
    logits = trainer.model(input_ids=ids).logits[0, :-1]
    loss = torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="sum", ignore_index=-100)
    return torch.autograd.grad(loss, weights), int((labels[0, 1:] != -100).sum())


SHAPES = {
    "accumulated": {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2},
    "packed": {"packing": True, "gradient_checkpointing": True, "per_device_train_batch_size": 6},
    "padding-free": {"padding_free": True, "max_length": None, "per_device_train_batch_size": 6},
}


def greats_trainer(folder, **options):
    """A trainer of one step under `greats`, its factors drawn: a second one of 0 gives the first no gradient."""
    given = {"max_steps": 1, "optim": "sgd", "max_grad_norm": 1e6, "max_length": 400}
    given |= {"peft_config": LoraConfig(**LORA), "selection_policy": "greats"}
    given |= {"selection_policy_kwargs": {"keep": 0.6, "examples": 3}}
    given |= {"train_dataset": sources(5), "selection_target": examples(folder)}
    trainer = tiny_trainer(folder, **given | options)
    torch.manual_seed(0)
    for weight in trainer.online.gradients.rows.weights:
        weight.data.normal_(0, 0.3)
    return trainer


@pytest.fixture(scope="module")
def step(tmp_path_factory) -> torch.Tensor:
    """The gradient of the step of the rows that are to be taken, by a plain pass of each row."""
    trainer = greats_trainer(tmp_path_factory.mktemp("plain"))
    trainer.model.eval()
    weights, target = trainer.online.gradients.rows.weights, trainer.plan.target.for_training()

    def by_row(rows) -> tuple[torch.Tensor, np.ndarray]:
        found = [gradient(trainer, rows, row, weights) for row in range(len(rows))]
        flat = torch.stack([torch.cat([part.flatten() for part in one]) for one, _ in found]).double()
        return flat, np.array([count for _, count in found], float)

    flat, tokens = by_row(target)
    towards = (flat / torch.from_numpy(tokens)[:, None]).mean(0)
    flat, tokens = by_row(sources(5))
    flat /= tokens.sum()
    factors = Greats(keep=0.6).take(
        Products(np.arange(5), tokens, (flat @ towards).numpy(), (flat @ flat.T).numpy(), 1e-2)
    )
    assert (factors == 0).sum() == 2
    return torch.from_numpy(factors) @ flat


@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_is_the_one_of_the_rows_that_are_taken(tmp_path, step, shape):
    trainer = greats_trainer(tmp_path, **SHAPES[shape])
    weights = trainer.online.gradients.rows.weights
    before = torch.cat([weight.detach().flatten() for weight in weights]).clone()
    trainer.train()
    after = torch.cat([weight.detach().flatten() for weight in weights])
    assert trainer.online.record.figures()["rows"]["dropped"] == 2
    np.testing.assert_allclose((before - after).double() / 1e-2, step, atol=2e-3 * float(step.abs().max()))


def test_the_gradient_of_the_target_survives_float16(tmp_path, monkeypatch):
    trainer = greats_trainer(tmp_path)
    faint(trainer.model.get_base_model())
    batch = [(np.arange(7, 27, dtype=np.int32), np.array([[9, 19]]))]

    def target() -> torch.Tensor:
        found = trainer.online.gradients.rows.target([batch], 1)
        return torch.nn.functional.normalize(torch.cat([part.flatten() for part in found]), dim=0, eps=1e-30)

    exact = target()
    with torch.autocast("cpu", torch.float16):
        scaled = target()
        monkeypatch.setattr(in_step, "FLOAT16_SCALE", 1.0)
        assert scaled @ exact > 0.97 and target() @ exact < 0.9


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"peft_config": LoraConfig(**LORA), "selection_target": None}, "needs `selection_target`"),
        ({"selection_target": {"a": {"dataset": sources()}, "b": {"dataset": sources(), "weight": 2}}}, "the weights"),
        ({"model": "no-such-model"}, "too large without LoRA"),
        ({"peft_config": LoraConfig(**LORA, use_dora=True)}, "`use_dora` of the adapter"),
        ({"peft_config": LoraConfig(r=4, target_modules=["q_proj", "embed_tokens"])}, "are not factors of linear"),
    ],
)
def test_what_has_no_gradients_of_rows_is_refused_by_name(tmp_path, options, said):
    given = {"selection_target": examples(tmp_path), "train_dataset": sources(), **options}
    with pytest.raises(ValueError, match=f"selection_policy='greats'.*{said}"):
        tiny_trainer(tmp_path, selection_policy="greats", **given)
