"""The contract suite over every selector file, and the suite itself on selectors that break a rule."""

import ast
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from accelerate import Accelerator

import hf_dataselect
from hf_dataselect.context import Context
from hf_dataselect.data.records import Records
from hf_dataselect.diversity import Diversity
from hf_dataselect.engines.llm.judge_options import JudgeOptions
from hf_dataselect.fitted.rules.fit_rule import FitRuleArguments
from hf_dataselect.options import Interval, declared
from hf_dataselect.pipeline import select
from hf_dataselect.registry import load_selector, method_names, selector_class
from hf_dataselect.selector import Card, Scores, Selector
from hf_dataselect.selectors.length import Length
from hf_dataselect.testing import check_selector, tiny_context
from tests.processes import succeed
from tests.rows import alpaca, layout
from tests.scripted import ScriptedJudge
from tests.selectors.small import LAYOUTS, OPTIONS, in_folders, save_models, with_columns
from tests.selectors.test_auto import certain_context
from tests.tiny import context_of, tiny_model, tiny_tokenizer


PACKAGE = Path(hf_dataselect.__file__).parent


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    return save_models(tmp_path_factory.mktemp("models"))


def context() -> Context:
    tokenizer = tiny_tokenizer()
    target = Records(alpaca(3, seed=9), name="selection_target")
    given = {"judge": ScriptedJudge(_some_judgement), "max_length": 128, "dtype": "float32", "target": target}
    return context_of(tokenizer, tiny_model(tokenizer), **given)


def _some_judgement(text: str) -> str:
    """A rating or tags, always the same for the same question."""
    number = len(text) + text.count("e")
    return f'["all", "kind {number % 5}", "kind {number % 11}"]' if "JSON" in text else f"{number % 6}\nFor a reason."


@pytest.mark.parametrize("name", method_names())
def test_every_selector_keeps_the_contract(name, folders):
    options = in_folders(OPTIONS.get(name, {}), folders)
    rows = with_columns(layout(LAYOUTS.get(name, "alpaca")), name)
    check_selector(load_selector(name, options), certain_context if name == "auto" else context, rows)


def test_small_options_are_those_of_selectors():
    assert set(OPTIONS) <= set(method_names())


@pytest.mark.parametrize("name", method_names())
def test_a_module_opens_with_what_the_method_claims(name):
    kind = selector_class(name)
    assert len(inspect.getmodule(kind).__doc__.strip()) > 80
    assert kind.card.title and kind.card.steps and kind.card.multi_turn


# Selectors that break a rule -----------------------------------------------------------------------------------------


@dataclass
class Sound(Selector):
    """A selector of a test: the number of characters of an answer, and nothing else that matters here or there."""

    card: ClassVar[Card] = Card(title="long answers")

    def score(self, features, ctx):
        lengths = np.array([len(record.answer) if record.problem is None else np.nan for record in features])
        return Scores(lengths.astype(np.float32), {"characters": lengths})


@dataclass
class ByPlace(Sound):
    __doc__ = Sound.__doc__

    def score(self, features, ctx):
        return np.arange(len(features), dtype=np.float32)


@dataclass
class ByFileOrder(Sound):
    __doc__ = Sound.__doc__

    def select(self, scores, records, features, k, ctx):
        rows = np.argsort(-scores, kind="stable")
        return rows[np.isfinite(scores[rows])][:k]


@dataclass
class Silent(Sound):
    __doc__ = Sound.__doc__

    def score(self, features, ctx):
        return np.array([len(r.answer or "") or np.nan for r in features], np.float32)


@dataclass
class Loses(Sound):
    __doc__ = Sound.__doc__

    def select(self, scores, records, features, k, ctx):
        return ctx.best(scores, k // 2)


@dataclass
class Undocumented(Sound):
    __doc__ = Sound.__doc__

    secret: int = 3


@dataclass
class Needy(Sound):
    __doc__ = Sound.__doc__

    def needs(self):
        return frozenset({"luck"})


@dataclass
class ByRank(Sound):
    __doc__ = Sound.__doc__

    def score(self, features, ctx):
        return super().score(features, ctx).values + np.float32(ctx.runtime.rank)


@dataclass
class Tunes(Sound):
    __doc__ = Sound.__doc__

    def needs(self):
        return frozenset({"model"})

    def score(self, features, ctx):
        next(ctx.model.parameters()).data.add_(1)
        return super().score(features, ctx)


@dataclass
class NeedsAModel(Sound):
    __doc__ = Sound.__doc__

    def score(self, features, ctx):
        assert ctx.model is not None, "needs a model"
        return super().score(features, ctx)


@dataclass
class Infinite(Sound):
    __doc__ = Sound.__doc__

    def score(self, features, ctx):
        values = super().score(features, ctx).values
        values[0] = np.inf
        return values


@dataclass
class ColumnByPlace(Sound):
    __doc__ = Sound.__doc__

    def score(self, features, ctx):
        return Scores(super().score(features, ctx).values, {"place": np.arange(len(features))})


@dataclass
class ExcludesByPlace(Sound):
    __doc__ = Sound.__doc__

    def exclude(self, scores, features, ctx):
        return {"short, of the first": (scores < 20) & (np.arange(len(scores)) < 12)}


@dataclass
class NearestTheMean(Sound):
    __doc__ = Sound.__doc__

    by_row: ClassVar[bool] = True

    def score(self, features, ctx):
        values = super().score(features, ctx).values
        return -np.abs(values - np.nanmean(values))


@dataclass
class InPlace(Sound):
    __doc__ = Sound.__doc__

    def featurize(self, records, ctx):
        return super().score(records, ctx).values

    def score(self, features, ctx):
        features += 1
        return features


@dataclass
class Rangeless(Sound):
    """A selector of a test with an option, `least`, of which nothing says what it may be, in spite of the contract."""

    least: int = 3


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (NeedsAModel, "needs a model"),
        (Infinite, "a score is finite"),
        (ColumnByPlace, "permuted columns: 'place'"),
        (ExcludesByPlace, "and of permuted rows"),
        (NearestTheMean, "declares `by_row`"),
        (InPlace, "changes the features in place"),
        (Rangeless, "the option 'least' declares no range"),
        (ByPlace, "permuted rows must get permuted scores"),
        (ByFileOrder, "settles equal scores by file order"),
        (Silent, "gives no reason why rows"),
        (Loses, "loses rows without a reason"),
        (Undocumented, "the option 'secret' is not documented"),
        (Needy, "needs\\(\\) names {'luck'}"),
        (Tunes, "left the model's weights changed"),
    ],
)
def test_the_suite_finds_what_is_broken(kind, says):
    with pytest.raises((AssertionError, ValueError), match=says):
        check_selector(kind())


def test_the_suite_passes_a_sound_selector_of_another_package():
    check_selector(Sound())


def test_a_contract_that_is_broken_ends_the_run():
    def broken(**methods) -> Selector:
        return dataclass(type("Broken", (Length,), methods))()

    for methods, says in (
        ({"score": lambda self, features, ctx: features[:-1]}, "must give 8 numbers as `score`"),
        ({"score": lambda self, f, ctx: Scores(f, {"reason": f})}, "columns \\['reason'\\], which scores.parquet has"),
        ({"score": lambda self, f, ctx: Scores(f, {"more": f[1:]})}, "must give 8 numbers as `more`"),
        ({"exclude": lambda self, s, f, ctx: {"odd": np.array([1, 2])}}, "must exclude by a mask of 8"),
        ({"select": lambda self, s, r, f, k, ctx: np.arange(k + 1)}, "at most 3 different row numbers"),
        (
            {
                "exclude": lambda self, s, f, ctx: {"odd": np.arange(8) == 1},
                "select": lambda self, s, r, f, k, ctx: np.arange(k),
            },
            "chose rows without a score: \\[1\\]",
        ),
    ):
        with pytest.raises(ValueError, match=says):
            select(alpaca(8), broken(**methods), 3, tiny_context())


# Declared ranges -----------------------------------------------------------------------------------------------------

DECLARING = {name: selector_class(name) for name in method_names()}
DECLARING |= {"Diversity": Diversity, "JudgeOptions": JudgeOptions, "FitRuleArguments": FitRuleArguments}
CASES = [(name, option) for name, kind in DECLARING.items() for option in declared(kind)]


@pytest.mark.parametrize(("name", "option"), CASES)
def test_values_out_of_a_declared_range_are_refused_by_name(name, option):
    kind, allowed = DECLARING[name], declared(DECLARING[name])[option]
    wrong = ["no such choice"]
    if isinstance(allowed, Interval):
        wrong = ["ten", True, float("nan")]
        wrong += [allowed.low - 1, allowed.low - 1e-9] if np.isfinite(allowed.low) else []
        wrong += [allowed.high + 1e-9, float("inf")] if np.isfinite(allowed.high) else []
        wrong += [allowed.low] if allowed.closed in ("neither", "right") else []
        wrong += [allowed.high] if allowed.closed in ("neither", "left") else []
    for value in wrong:
        with pytest.raises(ValueError) as refused:
            kind(**{option: value})
        assert f"{option}={value!r}" in str(refused.value)
        assert str(allowed) in str(refused.value) or all(repr(choice) in str(refused.value) for choice in allowed)
        assert name in ("Diversity", "JudgeOptions", "FitRuleArguments") or "`selection_kwargs`" in str(refused.value)


def test_a_range_says_what_it_allows():
    assert str(Interval(0, 5)) == "in [0, 5]" and str(Interval(0, 1, closed="right")) == "in (0, 1]"
    assert str(Interval(1)) == "at least 1" and str(Interval(0, closed="neither")) == "positive and finite"
    assert str(Interval()) == "a number" and str(Interval(0, closed="left")) == "at least 0 and finite"
    assert 5 in Interval(0, 5) and np.float32(1) in Interval(0, 5) and float("nan") not in Interval()


# Two ranks, and the laws of imports ----------------------------------------------------------------------------------


def check_on_rank() -> None:
    accelerator = Accelerator(cpu=True)
    check_selector(load_selector("perplexity"), lambda: tiny_context(accelerator=accelerator))
    try:
        check_selector(ByRank(), lambda: tiny_context(accelerator=accelerator))
    except AssertionError as error:
        accelerator.print(error)
    accelerator.end_training()


def test_the_suite_compares_ranks(tmp_path):
    printed = succeed(check_on_rank, folder=tmp_path)
    assert f"`{__name__}:ByRank`: the ranks compute different scores or masks" in printed


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
