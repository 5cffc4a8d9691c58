"""One suite for every selector file: whatever lies in `hf_dataselect/selectors` has to keep the contract."""

import ast
import dataclasses
import inspect
from pathlib import Path

import numpy as np
import pytest
import torch

import hf_dataselect
from hf_dataselect.context import Context
from hf_dataselect.data.records import Records
from hf_dataselect.engines.store.identity import model_identity
from hf_dataselect.pipeline import select
from hf_dataselect.registry import load_selector, method_names, selector_class
from hf_dataselect.selector import Card, Selector, method_name
from tests.engines.llm.test_local import reward_model
from tests.rows import alpaca
from tests.scripted import ScriptedJudge
from tests.tiny import tiny_evaluator, tiny_model, tiny_tokenizer
from tests.tiny_vision import save_clip


PACKAGE = Path(hf_dataselect.__file__).parent

#: Options that make a method small enough for a test, or that it can't do without.
SMALL = {
    "column": {"name": "rating"},
    "ifd": {"warmup_clusters": 2, "warmup_rows_per_cluster": 2},
    "less": {"lora_r": 4, "warmup_epochs": 2, "projection_dim": 256},
    "rds": {"rule": "max"},
    "superfiltering": {"model": "TINY"},
    "alpagasus": {"threshold": None},
    "instag": {"min_count": 1, "similarity": 0, "support": 0},
    "nuggets": {"tasks": 4, "threshold": None},
    "mods": {
        "reward_model": "REWARD",
        "quality_threshold": -1e9,
        "encoder": "model",
        "warmup_epochs": 1,
        "max_new_tokens": 4,
    },
    "instruction_mining": {"reward_model": "REWARD", "evaluator": "EVALUATOR"},
    "instructiongpt4": {"rule": "mean", "clip": "CLIP", "reward_model": "REWARD", "clusters": 3},
    "deita": {"complexity_scorer": "TINY", "quality_scorer": "TINY"},
}


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory) -> str:
    folder, tokenizer = str(tmp_path_factory.mktemp("model")), tiny_tokenizer()
    tiny_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reward_folder(tmp_path_factory) -> str:
    folder, tokenizer = str(tmp_path_factory.mktemp("reward")), tiny_tokenizer()
    reward_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def evaluator_folder(tmp_path_factory) -> str:
    folder, tokenizer = str(tmp_path_factory.mktemp("evaluator")), tiny_tokenizer()
    tiny_evaluator(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> str:
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(params=method_names())
def selector(request, tiny_folder, reward_folder, evaluator_folder, clip_folder) -> Selector:
    folders = {"TINY": tiny_folder, "REWARD": reward_folder, "EVALUATOR": evaluator_folder, "CLIP": clip_folder}
    options = {k: folders.get(v, v) if isinstance(v, str) else v for k, v in SMALL.get(request.param, {}).items()}
    return load_selector(request.param, options)


def context(**changes) -> Context:
    tokenizer = tiny_tokenizer()
    given = {"judge": ScriptedJudge(_some_judgement), "max_length": 128, "dtype": "float32"}
    given["target"] = Records(alpaca(3, seed=9), name="selection_target")
    return Context(tokenizer, tiny_model(tokenizer), **given | changes)


def _some_judgement(text: str) -> str:
    """A rating or tags, always the same for the same question."""
    number = len(text) + text.count("e")
    return f'["all", "kind {number % 5}", "kind {number % 11}"]' if "JSON" in text else f"{number % 6}\nFor a reason."


def test_names_and_cards(selector):
    kind = type(selector)
    assert dataclasses.is_dataclass(kind) and isinstance(kind.card, Card)
    assert selector_class(method_name(selector)) is kind
    assert kind.card.title and kind.card.steps and kind.card.multi_turn
    module = inspect.getmodule(kind)
    assert len(module.__doc__.strip()) > 80, "a selector module opens with what the method claims"
    if kind.card.paper:
        assert kind.card.paper in module.__doc__
    documented = inspect.cleandoc(kind.__doc__)
    assert all(field.name in documented for field in dataclasses.fields(kind)), "every option is documented"


def test_scores_and_rows_keep_the_contract(selector):
    rows, ctx = alpaca(24), context()
    before = model_identity(ctx.model)
    selection = select(rows, selector, 0.25, ctx)
    assert selection.scores.dtype == np.float32 and selection.scores.shape == (24,)
    assert selection.indices.dtype == np.int64
    assert len(set(selection.indices.tolist())) == len(selection.indices) <= (24 if selector.fixed_budget else 6)
    assert np.isfinite(selection.scores[selection.indices]).all()
    assert model_identity(ctx.model) == before
    scored = selection.scores[selection.indices]
    assert (np.diff(scored) <= 0).all(), "best first"


def test_same_seed_same_rows(selector):
    first, second = (select(alpaca(24), selector, 6, context(seed=3)).indices.tolist() for _ in range(2))
    assert first == second


def test_random_state_is_untouched(selector):
    torch.manual_seed(5)
    before = torch.get_rng_state().clone(), str(np.random.get_state())
    select(alpaca(12), selector, 3, context())
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == str(np.random.get_state())


def test_rows_that_cannot_be_scored_are_nan_and_named(selector):
    rows = alpaca(16).to_list()
    rows[2]["output"], rows[5]["output"], rows[5]["rating"] = "", None, None
    rows = [{**row, "rating": float("nan")} if i == 2 else row for i, row in enumerate(rows)]
    records = Records(type(alpaca(1)).from_list(rows))
    selection = select(records, selector, 4, context())
    assert 5 not in selection.indices
    nan = set(np.flatnonzero(np.isnan(selection.scores)).tolist())
    named = {row for kind in (selection.unscorable, selection.dropped) for rows in kind.values() for row in rows}
    assert nan <= named and not nan & set(selection.indices.tolist())


def test_one_row_is_enough(selector):
    if method_name(selector) in ("ifd", "superfiltering"):
        selector = dataclasses.replace(selector)
    rows = next(alpaca(1, seed) for seed in range(50) if _selectable(selector, alpaca(1, seed)))
    assert select(rows, selector, 1.0, context()).indices.tolist() == [0]


def _selectable(selector: Selector, rows) -> bool:
    """Whether the method does not refuse this very row (IFD drops ratios above 1)."""
    try:
        return len(select(rows, selector, 1.0, context()).indices) == 1
    except ValueError as error:
        assert "no row to keep" in str(error)
        return False


# The laws of imports -------------------------------------------------------------------------------------------------


def test_the_optional_packages_of_other_methods_are_never_imported():
    optional = ("sentence_transformers", "rouge_score", "sacrebleu", "matplotlib", "gguf", "openai", "lm_eval")
    for path in PACKAGE.rglob("*.py"):
        top = {
            name
            for node in ast.parse(path.read_text()).body
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        }
        assert not {name.split(".")[0] for name in top} & set(optional), path
