"""LESS from rows to rows: against a plain computation, for every kind of target and model, on ranks, after a kill."""

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model

from hf_dataselect.cli.main import main
from hf_dataselect.data.encoding import encode
from hf_dataselect.data.records import Records
from hf_dataselect.engines.gradients.layers import lora_layers
from hf_dataselect.engines.gradients.projection_error import ProjectionError
from hf_dataselect.engines.gradients.quantized import rank_correlation
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.store.identity import model_identity
from hf_dataselect.engines.subset.matchers import for_target
from hf_dataselect.engines.tuning.warm_up import WarmupSettings, warmed_up_by_epoch
from hf_dataselect.errors import SelectionError
from hf_dataselect.features.tuning import tuning_rows
from hf_dataselect.pipeline import select
from hf_dataselect.selectors.less import LESS
from tests.engines.gradients.test_collect import naive, quantized
from tests.processes import run, start_ranks
from tests.rows import LAYOUTS, alpaca, layout
from tests.test_ranks import selection
from tests.tiny import context_of, tiny_model, tiny_tokenizer
from tests.tiny_training import tiny_trainer, trained_rows, watch_training, write_recipe


SMALL = {"lora_r": 4, "lora_alpha": 8, "warmup_epochs": 2, "warmup_fraction": 0.5, "warmup_learning_rate": 1e-2}
SMALL |= {"warmup_batch_size": 2, "warmup_gradient_accumulation": 2}
WHOLE = SMALL | {"projection": "none"}
SKETCH = {"projection": "sketch", "projection_dim": 512}


def context(target, model=None, **options):
    tokenizer = options.pop("tokenizer", None) or tiny_tokenizer()
    model = tiny_model(tokenizer, hidden=32) if model is None else model
    options = {"max_length": 128, "dtype": "float32", **options}
    return context_of(tokenizer, model, target=Records(target, name="selection_target"), **options)


def subtask_rows(n=6, seed=9):
    return alpaca(n, seed).add_column("subtask", [("code", "math", "code")[i % 3] for i in range(n)])


def plainly(selector, rows, target, ctx):
    """The twin: the same warm-up, then the paper's formulas with one backward pass a row and whole gradients."""
    sides = ctx.trained(Records(rows)).tokens, encode(Records(target), ctx.text_format(end_of_turn=True)).tokens
    chosen = np.sort(
        np.random.default_rng(ctx.seed).permutation(len(rows))[: round(selector.warmup_fraction * len(rows))]
    )
    settings = WarmupSettings(
        epochs=2, learning_rate=1e-2, schedule="linear", batch_size=2, gradient_accumulation=2, lora_r=4, lora_alpha=8,
        lora_dropout=0.1, lora_targets=("q_proj", "k_proj", "v_proj", "o_proj"), seed=ctx.seed,
    )  # fmt: skip
    total, rates = 0, 0
    warm = warmed_up_by_epoch(ctx.model, ctx.tokenizer, tuning_rows(Records(rows), chosen, ctx), settings, Runtime())
    with warm as (tuned, epochs):
        for epoch in epochs:
            epoch.load()
            layers = lora_layers(tuned)
            g, val = (naive(tuned, side, layers)[1].astype(np.float64) for side in sides)
            names = [f"{name}.weight" for name in layers]
            m = torch.cat([epoch.adam.exp_avg[name].flatten() for name in names]).double().numpy()
            v = torch.cat([epoch.adam.exp_avg_sq[name].flatten() for name in names]).double().numpy()
            update = (0.9 * m * selector.momentum + 0.1 * g) / np.sqrt(0.999 * v + 0.001 * g**2 + 1e-8)
            update, val = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (update, val))
            total, rates = total + epoch.learning_rate * update @ val.T, rates + epoch.learning_rate
    names = target["subtask"]
    means = [total[:, [i for i, name in enumerate(names) if name == group]].mean(1) for group in dict.fromkeys(names)]
    return np.stack(means, 1) / rates


@pytest.mark.parametrize("momentum", [True, False])
def test_equals_the_papers_formulas_computed_plainly(momentum):
    rows, target = alpaca(16), subtask_rows()
    selector = LESS(**SMALL, momentum=momentum)  # of 1,792 numbers, which are no more than `projection_dim`
    expected = plainly(selector, rows, target, context(target))
    found = select(rows, selector, 4, context(target))
    assert expected.std() > 0.02
    np.testing.assert_allclose(found.scores, expected.max(1), atol=2e-4)
    assert found.indices.tolist() == np.argsort(-expected.max(1), kind="stable")[:4].tolist()
    assert found.facts["figures"]["gradients are not projected"] == "their 1,792 numbers are no more than 8,192"
    in_turn = select(rows, LESS(**SMALL, momentum=momentum, rule="round_robin"), 4, context(target))
    np.testing.assert_array_equal(in_turn.scores, found.scores)
    best = np.argsort(-expected, axis=0)
    assert in_turn.indices[0] == best[0, 0] and in_turn.indices[1] in best[:2, 1]


def test_rules_by_examples_choose_among_influences_of_each_example():
    rows, target = alpaca(16), subtask_rows()
    alone = target.remove_columns("subtask").add_column("subtask", [str(row) for row in range(6)])
    ctx = context(target)
    expected, features = plainly(LESS(**SMALL), rows, alone, context(alone)).astype(np.float32), None
    for rule in ("doubly_greedy", "round_robin_free", "optimal_transport", "knn_uniform"):
        selector = LESS(**SMALL, rule=rule)
        features = features or selector.featurize(Records(rows), ctx)  # the same for all of them
        np.testing.assert_allclose(features["similarity"], expected, atol=2e-4)
        scores = selector.score(features, ctx)
        np.testing.assert_allclose(scores, expected.max(1), atol=2e-4)
        rule = "max" if rule == "doubly_greedy" else rule
        given = for_target(expected, expected.max(1), 5, rule, ctx.ties(16))
        assert selector.select(scores, Records(rows), features, 5, ctx).tolist() == given.tolist()


def test_an_epoch_is_its_weights_its_optimizer_and_its_mean_learning_rate(tmp_path):
    settings = WarmupSettings(
        epochs=3, learning_rate=1e-2, schedule="linear", batch_size=2, gradient_accumulation=1, lora_r=2
    )
    found = []
    for _ in range(2):  # tuned, then read back
        ctx = context(subtask_rows())
        rows = tuning_rows(Records(alpaca(16)), range(8), ctx)
        runtime = Runtime(cache_dir=tmp_path)
        with warmed_up_by_epoch(ctx.model, ctx.tokenizer, rows, settings, runtime) as (tuned, epochs):
            rates = [epoch.learning_rate for epoch in epochs]
            # 4 updates an epoch, 12 in all, from the peak down to nothing.
            falling = 1e-2 * (1 - np.arange(12) / 12)
            np.testing.assert_allclose(rates, falling.reshape(3, 4).mean(1), rtol=1e-6)
            states = []
            for epoch in epochs:
                epoch.load()
                states.append({n: p.detach().clone() for n, p in tuned.named_parameters() if "lora_" in n})
                assert set(epoch.adam.exp_avg) == set(epoch.adam.exp_avg_sq) == set(states[-1])
            name = min(states[0])
            assert not torch.equal(states[0][name], states[1][name])
            assert not torch.equal(epochs[0].adam.exp_avg[name], epochs[1].adam.exp_avg[name])
            found.append((states, [epoch.adam.identity for epoch in epochs]))
    assert found[0][1] == found[1][1] and all(torch.equal(found[0][0][2][n], found[1][0][2][n]) for n in states[2])


ALL_ROWS = SMALL | {"warmup_fraction": 1.0, "warmup_epochs": 1}


@pytest.mark.parametrize("window", [32, None])
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_warm_up_is_on_the_tokens_and_labels_of_the_training_in_every_layout(name, window, monkeypatch):
    records, ctx = Records(layout(name, 12)), context(layout(name, 3, seed=7), max_length=window)
    trained_on = watch_training(monkeypatch)
    found = select(records, LESS(**ALL_ROWS), 3, ctx)
    assert sorted(trained_on) == sorted(trained_rows(records, ctx)) and len(found.indices) == 3
    assert np.isfinite(found.scores).sum() == len(trained_on)
    if window == 32:
        assert found.truncated and max(len(ids) for ids, _ in trained_on) == 32
    else:
        assert len(trained_on) == 12


FIELD = {"train_dataset": layout("text", 12).rename_column("text", "said"), "dataset_text_field": "said"}
LIKE_TRAINING = {
    "text": {"train_dataset": layout("text", 12)},
    "dataset_text_field": FIELD,
    "formatting_func": {"train_dataset": alpaca(12), "formatting_func": lambda row: row["output"].upper()},
    "prompt-completion": {"train_dataset": layout("prompt-completion", 12)},
}


@pytest.mark.parametrize("given", LIKE_TRAINING.values(), ids=LIKE_TRAINING)
def test_the_warm_up_reads_the_rows_that_training_reads(given, tmp_path, monkeypatch):
    trained_on = watch_training(monkeypatch)
    options = {"selection_target": write_target(tmp_path), "selection_budget": 1.0, "max_length": 40, "max_steps": 6}
    trainer = tiny_trainer(tmp_path, "less", ALL_ROWS, **options, **given)
    trainer.select()
    warmed_up = set(trained_on)
    trained_on.clear()
    trainer.train()
    assert warmed_up == set(trained_on) and len(warmed_up) >= 10


def peft_model():
    torch.manual_seed(0)
    return get_peft_model(
        tiny_model(tiny_tokenizer(), hidden=32), LoraConfig(r=3, target_modules=["down_proj"], task_type="CAUSAL_LM")
    )


def tied():
    model = tiny_model(tiny_tokenizer(), hidden=32)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    return model


MODELS = {"PeftModel": lambda folder: peft_model(), "4-bit": quantized, "tied embeddings": lambda folder: tied()}


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_models_of_every_kind_come_back_as_they_were(build, checkpointing, tmp_path):
    model = build(tmp_path).train()
    before = model_identity(model), [name for name, _ in model.named_parameters()]
    trainable = [parameter.requires_grad for parameter in model.parameters()]
    ctx = context(subtask_rows(3), model, gradient_checkpointing=checkpointing)
    found = select(alpaca(8), LESS(**SMALL), 3, ctx)
    assert np.isfinite(found.scores).all()
    assert (model_identity(model), [name for name, _ in model.named_parameters()]) == before
    assert [parameter.requires_grad for parameter in model.parameters()] == trainable and model.training


def test_plain_layers_are_tuned_and_differentiated_without_an_adapter():
    target, selector = subtask_rows(3), LESS(**SMALL, layers=("layers.1.mlp.down_proj", "k_proj"))
    ctx = context(target)
    before = model_identity(ctx.model)
    first = select(alpaca(8), selector, 3, ctx)
    assert model_identity(ctx.model) == before and np.isfinite(first.scores).all()
    assert not np.array_equal(first.scores, select(alpaca(8), LESS(**SMALL, layers=("k_proj",)), 3, ctx).scores)
    with pytest.raises(ValueError, match="no linear layer 'gate'"):
        select(alpaca(8), LESS(**SMALL, layers=("gate",)), 3, ctx)
    with pytest.raises(ValueError, match=r"lora_targets=\['c_attn'\]. do not fit the model; .\[all-linear\]"):
        select(alpaca(8), LESS(**SMALL, lora_targets=("c_attn",)), 3, ctx)


def test_a_user_s_adapter_is_tuned_on_as_it_is():
    scores = [
        select(alpaca(8), LESS(**(SMALL | {"lora_r": r})), 3, context(subtask_rows(3), peft_model())).scores
        for r in (4, 8)
    ]
    np.testing.assert_array_equal(*scores)


def test_padding_side_and_batches_change_nothing():
    found = []
    for side, tokens in (("left", 10_000), ("right", 160)):
        tokenizer = tiny_tokenizer()
        tokenizer.padding_side = side
        found.append(
            select(alpaca(12), LESS(**SMALL), 3, context(subtask_rows(), batch_tokens=tokens, tokenizer=tokenizer))
        )
    np.testing.assert_allclose(found[0].scores, found[1].scores, atol=2e-4)


def test_an_8_bit_optimizer_s_state_gives_nearly_the_same_scores():
    kinds = ("adamw_torch", "adamw_bnb_8bit")
    exact, small = (
        select(alpaca(16), LESS(**WHOLE, warmup_optimizer=kind), 4, context(subtask_rows())) for kind in kinds
    )
    assert np.corrcoef(exact.scores, small.scores)[0, 1] > 0.9


def test_trained_weights_without_a_gradient_are_named(caplog):
    torch.manual_seed(0)
    config = LoraConfig(r=3, target_modules=["down_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    model = get_peft_model(tiny_model(tiny_tokenizer(), hidden=32), config)
    before = model_identity(model)
    found = select(alpaca(8), LESS(**SMALL), 3, context(subtask_rows(3), model))
    assert np.isfinite(found.scores).all() and model_identity(model) == before
    assert "1 trained weights are excluded" in caplog.text and "lm_head" in caplog.text


# The projection ------------------------------------------------------------------------------------------------------


def free_memory_of(size, monkeypatch):
    monkeypatch.setattr("hf_dataselect.engines.gradients.whole.free_memory", lambda: size)


@pytest.mark.parametrize(("first", "then", "kind"), [(10**12, 0, "none"), (0, 10**12, "sketch")])
def test_a_run_goes_on_as_it_was_decided_before_whatever_memory_is_free(first, then, kind, tmp_path, monkeypatch):
    target, given = subtask_rows(3), SMALL | {"warmup_epochs": 1, "projection_dim": 64}

    def run(**options):
        return select(alpaca(8), LESS(**(given | options)), 3, context(target, cache_dir=tmp_path))

    free_memory_of(first, monkeypatch)
    began = run()
    free_memory_of(then, monkeypatch)
    again = run()
    assert (began.passes["backward_rows"], again.passes["backward_rows"]) == (11, 0)
    np.testing.assert_array_equal(again.scores, began.scores)
    kept = [("are projected" in name, figure) for name, figure in again.facts["figures"].items() if "project" in name]
    assert kept[0] == (kind == "sketch", began.facts["figures"][next(iter(began.facts["figures"]))])
    asked = {name: run(projection=name) for name in ("none", "sketch")}
    assert asked[kind].passes["backward_rows"] == 0 and np.array_equal(asked[kind].scores, began.scores)
    (other,) = asked.keys() - {kind}
    assert asked[other].passes["backward_rows"] == 11 and not np.array_equal(asked[other].scores, began.scores)


@pytest.mark.parametrize("momentum", [True, False])
def test_the_estimated_error_is_near_the_measured_one(momentum):
    rows, given = alpaca(48), SMALL | {"warmup_fraction": 0.25, "momentum": momentum}
    exact = select(rows, LESS(**given), 4, context(subtask_rows()))
    for kind in ("sketch", "rademacher"):
        found = select(rows, LESS(**given, projection=kind, projection_dim=128), 4, context(subtask_rows()))
        figures = found.facts["figures"]
        assert figures["gradients are projected"] == f"1,792 numbers to 128 ({kind})"
        measured = (found.scores - exact.scores).std()  # an error that all rows share reorders none
        assert 0.5 < float(figures["error of a score by the projection, estimated"]) / measured < 2
        assert float(figures["standard deviation of the scores"]) == pytest.approx(found.scores.std(), rel=0.05)


@pytest.mark.parametrize("rule", ["max", "round_robin"])
def test_a_cut_that_the_error_could_decide_is_warned_of_and_no_clear_one(rule, caplog):
    rows = alpaca(24).to_list()
    rows[3] = rows[17] = rows[5]  # the task itself, and others far from it
    given = SMALL | {
        "momentum": False,
        "warmup_epochs": 1,
        "projection": "sketch",
        "projection_dim": 256,
        "rule": rule,
    }
    target, said = Dataset.from_list([rows[3]]), "rows are less than that from the cut"
    for k in (3, 2):
        clear = select(Dataset.from_list(rows), LESS(**given), k, context(target))
        assert {3, 5, 17} >= set(clear.indices.tolist()) and said not in caplog.text
    select(Dataset.from_list(rows), LESS(**given), 6, context(target))
    assert f"{said} at 6: which of them are kept is partly chance. Use a larger `projection_dim` (256)" in caplog.text


def test_gradients_of_few_bits_are_kept_apart_and_measured_beside_those_of_16(tmp_path):
    rows, target, scores, sizes = alpaca(16), subtask_rows(3), {}, {}
    for bits in (16, 8, 1):
        selector = LESS(**SMALL | SKETCH | {"warmup_epochs": 1}, momentum=False, gradient_bits=bits)
        found = select(rows, selector, 4, context(target, cache_dir=tmp_path))
        scores[bits], figures = found.scores, found.facts["figures"]
        sizes[bits] = sum(path.stat().st_size for path in tmp_path.rglob("*.rows"))
        measured = [float(figure) for name, figure in figures.items() if "rank correlation" in name]
        assert measured == pytest.approx([rank_correlation(found.scores, scores[16])] * (bits < 16), abs=6e-4)
        assert found.passes["backward_rows"] == (19 if bits == 16 else 16)  # 16 rows and 3 examples
    assert rank_correlation(scores[8], scores[16]) > 0.99 > rank_correlation(scores[1], scores[16]) > 0.5
    assert sizes[1] - sizes[8] < 0.4 * (sizes[8] - sizes[16])
    uncached = select(rows, selector, 4, context(target))
    np.testing.assert_allclose(uncached.scores, scores[1], atol=1e-6)


@pytest.mark.parametrize(
    ("error", "width", "expected", "figure"),
    [(1e-9, "512", "1.00", "1,792 numbers to 512 (sketch)"),
     (1e3, "65,536", "0.00", "their 1,792 numbers are no more than 65,536")],
)  # fmt: skip
def test_the_width_is_chosen_from_the_error_of_a_sample(error, width, expected, figure, monkeypatch):
    monkeypatch.setattr(ProjectionError, "of_groups", lambda self, compete: np.full(2, error))
    selector = LESS(**SMALL | {"warmup_epochs": 1, "projection": "sketch", "projection_dim": "auto"})
    found = select(alpaca(12), selector, 4, context(subtask_rows()))
    figures = found.facts["figures"]
    said = f"{width}, with a rank correlation of {expected} to expect"
    assert figure in figures.values() and figures["width of the projection, chosen"] == said
    assert found.passes["backward_rows"] == 12 + 6 + 12 + 6  # a sample and the target at the pilot's width


# Targets -------------------------------------------------------------------------------------------------------------


def test_a_target_of_one_row_and_of_the_candidates_themselves():
    rows = alpaca(10)
    one = select(rows, LESS(**WHOLE, momentum=False), 3, context(rows.select([4])))
    assert one.indices[0] == 4
    everything = select(rows, LESS(**WHOLE), 10, context(rows))
    assert np.isfinite(everything.scores).all() and len(everything.indices) == 10


def test_a_subtask_with_one_shot_and_one_that_fills_the_window(caplog):
    target = [{**row, "subtask": name} for row, name in zip(alpaca(4, 9), "aabc", strict=True)]
    without_c = select(alpaca(10), LESS(**SMALL), 3, context(Dataset.from_list(target[:3])))
    target[3]["instruction"] = "red " * 400
    found = select(alpaca(10), LESS(**SMALL), 3, context(Dataset.from_list(target)))
    np.testing.assert_allclose(found.scores, without_c.scores, rtol=1e-5)
    assert "1 of 4 rows are not used (the prompt fills the window): 3" in caplog.text
    for rule in ("max", "round_robin"):
        assert len(select(alpaca(10), LESS(**SMALL, rule=rule), 3, context(Dataset.from_list(target))).indices) == 3


def test_a_target_row_longer_than_the_window_counts_as_far_as_it_goes():
    found = []
    for words in (400, 500, 3):
        target = Dataset.from_list([{"instruction": "Say blue.", "input": "", "output": "blue " * words}])
        found.append(select(alpaca(10), LESS(**SMALL), 3, context(target)).scores)
    np.testing.assert_array_equal(found[0], found[1])
    assert np.isfinite(found).all() and not np.array_equal(found[0], found[2])


def test_a_target_that_is_all_masked_is_refused_before_the_warm_up(monkeypatch):
    monkeypatch.setattr("hf_dataselect.features.gradients.warmed_up_by_epoch", None)
    target = alpaca(2, 9).map(lambda row: {"instruction": "red " * 400})
    with pytest.raises(SelectionError, match="none of its 2 rows can be used: the prompt fills the window"):
        select(alpaca(4), LESS(**SMALL), 2, context(target))


@pytest.mark.parametrize("given", [{}, {"layers": ("k_proj",)}, {"projection": "none"}], ids=str)
def test_room_for_all_epochs_is_asked_for_before_the_warm_up(given, tmp_path, monkeypatch):
    selector, target = LESS(**(SMALL | SKETCH | given)), subtask_rows(6)
    width = 512 if selector.projection != "none" else 2 * 4 * (4 * 32 + 32 + 16 + 16 + 32)
    needed = 2 * (8 + 6) * (16 + 2 * width + 3 * 8 + 4)  # key; vector; loss, norm, seconds; checksum
    free = SimpleNamespace(free=needed - 1)
    monkeypatch.setattr("shutil.disk_usage", lambda _: free)
    monkeypatch.setattr("hf_dataselect.engines.store.tensors.free_bytes", lambda _: 10**9)  # tuned weights
    with monkeypatch.context() as patched, pytest.raises(ValueError, match="and 28 vectors take .*`projection_dim`"):
        patched.setattr("hf_dataselect.engines.tuning.warm_up._train", None)
        select(alpaca(8), selector, 3, context(target, cache_dir=tmp_path))
    free.free = needed
    first = select(alpaca(8), selector, 3, context(target, cache_dir=tmp_path))
    free.free = 0  # all of it is there
    again = select(alpaca(8), selector, 3, context(target, cache_dir=tmp_path))
    assert again.passes["backward_rows"] == 0 and np.array_equal(again.scores, first.scores)


def test_candidates_that_cannot_be_used_are_nan_and_named():
    rows = alpaca(8).to_list()
    rows[2]["output"], rows[4]["instruction"] = "", "red " * 400
    rows[5]["output"] = "blue " * 400
    found = select(Dataset.from_list(rows), LESS(**SMALL), 8, context(subtask_rows()))
    assert np.flatnonzero(np.isnan(found.scores)).tolist() == [2, 4]
    assert found.unscorable == {"no answer": [2], "the prompt fills the window": [4]}
    assert found.truncated == {"the answer is longer than the window": [4, 5]}
    assert sorted(found.indices.tolist()) == [0, 1, 3, 5, 6, 7]
    useless = Dataset.from_list([{**row, "output": ""} for row in rows])
    with pytest.raises(SelectionError, match="no row has an answer within the window to warm up on"):
        select(useless, LESS(**SMALL), 2, context(subtask_rows()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup_fraction": 1.5}, "warmup_fraction=1.5"),
        ({"warmup_epochs": 0}, "warmup_epochs=0"),
        ({"projection_dim": 0}, "projection_dim=0 must be at least 1 or 'auto'"),
        ({"gradient_bits": 2}, "gradient_bits=2 must be one of 16, 8, 4, 1"),
        ({"lora_r": -1}, "lora_r=-1"),
        ({"lora_dropout": 1.5}, "lora_dropout=1.5"),
        ({"lora_dropout": float("nan")}, "lora_dropout=nan"),
        ({"warmup_learning_rate": float("nan")}, "warmup_learning_rate=nan"),
        ({"warmup_fraction": float("nan")}, "warmup_fraction=nan"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LESS(**options)


def test_layers_that_the_model_does_not_have_are_refused_in_one_line(tmp_path, capsys):
    kwargs = {"lora_targets": ["c_attn"]}
    target, recipe = write_target(tmp_path), {"selection_method": "less", "selection_kwargs": kwargs}
    path = write_recipe(tmp_path, **recipe, selection_target=target, selection_budget=3)
    with pytest.raises(SystemExit) as ended:
        main(["select", "--config", str(path)])
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 2 and said.startswith("hf-dataselect: error: `lora_targets=['c_attn']` do not fit")


# Inside the trainer --------------------------------------------------------------------------------------------------


def write_target(folder):
    subtask_rows().to_json(folder / "target.jsonl")
    return str(folder / "target.jsonl")


def test_inside_the_trainer_and_from_the_cache(tmp_path):
    options = {"selection_target": write_target(tmp_path), "selection_budget": 6}
    trainer = tiny_trainer(tmp_path, "less", SMALL, **options)
    before = model_identity(trainer.model)
    first = trainer.select()
    assert model_identity(trainer.model) == before
    assert first.passes["backward_rows"] == 2 * (24 + 6) and first.passes["warmup_rows"] == 24
    trainer.train()
    assert len(trainer.train_dataset) == 6
    again = tiny_trainer(tmp_path, "less", SMALL, **{**options, "selection_budget": 8}).select()
    assert again.passes["backward_rows"] == 0 and again.passes["cached_rows"] == 2 * (24 + 6)
    assert "warmup_rows" not in again.passes
    assert again.cached_seconds > 0 and np.array_equal(again.scores, first.scores)
    assert again.indices[:6].tolist() == first.indices.tolist()
    rows = alpaca(5, seed=77)
    rows.to_json(tmp_path / "other.jsonl")
    other = tiny_trainer(tmp_path, "less", SMALL, **{**options, "selection_target": str(tmp_path / "other.jsonl")})
    assert other.select().passes["backward_rows"] == 2 * 5, "another target needs no candidate again"


def test_with_the_lora_configuration_of_the_trainer(tmp_path):
    lora = LoraConfig(r=2, target_modules=["o_proj"], task_type="CAUSAL_LM")
    trainer = tiny_trainer(
        tmp_path, "less", SMALL, selection_target=write_target(tmp_path), peft_config=lora, selection_budget=6
    )
    before = model_identity(trainer.model)
    assert len(trainer.select().indices) == 6 and model_identity(trainer.model) == before
    trainer.train()


@pytest.mark.parametrize("method", ["less", "rds"])
def test_a_target_without_rows_or_of_unknown_columns_is_refused_early(method, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ValueError, match="empty.jsonl|selection_target"):
        tiny_trainer(tmp_path, method, selection_target=str(tmp_path / "empty.jsonl"))
    Dataset.from_list([{"a": 1}]).to_json(tmp_path / "foreign.jsonl")
    with pytest.raises(ValueError, match="`selection_target` has the columns"):
        tiny_trainer(tmp_path, method, selection_target=str(tmp_path / "foreign.jsonl"))


# Ranks and kills -----------------------------------------------------------------------------------------------------


def recipe_of(folder, n, **options):
    options = {"selection_target": write_target(folder), "selection_dtype": "float32"} | options
    kwargs = SMALL | SKETCH | {"warmup_batch_size": 1, "warmup_fraction": 0.25}
    return write_recipe(folder, n=n, selection_method="less", selection_kwargs=kwargs, **options)


def test_two_ranks_choose_the_rows_of_one(tmp_path):
    recipe, found, scores = recipe_of(tmp_path, 48, selection_batch_tokens=400), [], []
    for processes in (1, 2):
        # A warm-up averages over both ranks' batches: with half the accumulation the updates are the same.
        kwargs = {"warmup_batch_size": 1, "warmup_gradient_accumulation": 4 // processes}
        kwargs = SMALL | SKETCH | kwargs
        folder, cache = tmp_path / f"{processes}", tmp_path / f"cache{processes}"
        options = ["--output_dir", str(folder), "--selection_kwargs", json.dumps(kwargs)]
        options += ["--selection_cache_dir", str(cache)]
        if processes == 1:
            main(["select", "--config", str(recipe), *options])
        else:
            run(processes, recipe, *options, command="select")
        found.append(selection(folder))
        scores.append(np.array(Dataset.from_parquet(str(folder / "scores.parquet"))["score"]))
        assert stored(cache, 512) == 2 * (48 + 6) and found[-1]["facts"]["processes"] == processes
    assert found[0]["indices"] == found[1]["indices"]
    figures = [run["facts"]["figures"].get("warm-up") for run in found]
    assert figures == [None, "4 rows an update, on 2 ranks"]
    np.testing.assert_allclose(scores[1], scores[0], atol=2e-3)
    assert np.ptp(scores[0]) > 0.02


def stored(cache, width):
    """Records of vectors in a cache folder."""
    return sum(path.stat().st_size // (16 + 2 * width + 24 + 4) for path in cache.glob("*/*.rows"))


def test_a_killed_run_differentiates_only_what_is_missing(tmp_path):
    recipe = recipe_of(tmp_path, 48, selection_batch_tokens=160)
    whole, cut, cache = tmp_path / "whole", tmp_path / "cut", tmp_path / "cache"
    given = ["select", "--config", str(recipe), "--output_dir"]
    main([*given, str(whole), "--selection_cache_dir", "none"])
    given += [str(cut), "--selection_cache_dir", str(cache)]
    with start_ranks(given, ranks=1, folder=tmp_path) as killed:
        deadline = time.monotonic() + 120
        while stored(cache, 512) < 20 and time.monotonic() < deadline and killed.running(within=0.002):
            pass
        assert killed.running(), f"the run ended before it could be killed:\n{killed.log()}"
    kept = stored(cache, 512)
    assert not (cut / "selection.json").exists() and 20 <= kept < 2 * 54
    main(given)
    resumed, reference = selection(cut), selection(whole)
    assert resumed["indices"] == reference["indices"]
    passes = resumed["passes"]
    assert passes["cached_rows"] == kept and passes["cached_rows"] + passes["backward_rows"] == 2 * 54
