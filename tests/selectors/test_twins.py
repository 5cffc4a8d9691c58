"""Methods that score by a model, beside their formula: one plain forward a row, and nothing of the package in it."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from hf_dataselect.context import Context
from hf_dataselect.data.records import Records
from hf_dataselect.errors import SelectionError
from hf_dataselect.pipeline import select
from hf_dataselect.registry import method_names, selector_class
from hf_dataselect.selector import Selector
from hf_dataselect.selectors.alpagasus import AlpaGasus
from hf_dataselect.selectors.column import Column
from hf_dataselect.selectors.ifd import IFD
from hf_dataselect.selectors.indicator import Indicator
from hf_dataselect.selectors.instag import InsTag
from hf_dataselect.selectors.mig import MIG
from hf_dataselect.selectors.mods import MoDS
from hf_dataselect.selectors.nuggets import Nuggets
from hf_dataselect.selectors.pass_rate import PassRate
from hf_dataselect.selectors.perplexity import Perplexity
from hf_dataselect.selectors.rds import RDS
from hf_dataselect.selectors.superfiltering import Superfiltering
from hf_dataselect.selectors.t_shirt import TSHIRT
from hf_dataselect.selectors.tsds import TSDS
from tests.rows import alpaca, layout
from tests.tiny import context_of, tiny_model, tiny_tokenizer


USER, ASSISTANT, END = "<|user|>\n", "<|assistant|>\n", "</s>\n"
#: Some rows do not fit.
WINDOW = 60


def context(**changes) -> Context:
    tokenizer = tiny_tokenizer()
    return context_of(tokenizer, tiny_model(tokenizer), **{"max_length": WINDOW, "dtype": "float32", **changes})


@pytest.fixture
def pairs() -> list[tuple[str, str]]:
    """Prompt and answer of each row of `chats(24)`."""
    return [(row["prompt"][0]["content"], row["completion"][0]["content"]) for row in chats()]


def chats(n: int = 24, seed: int = 0):
    return layout("chat prompt-completion", n, seed)


def tokens(text: str) -> list[int]:
    return tiny_tokenizer()(text)["input_ids"]


@torch.no_grad()
def nll(model, ids: list[int], start: int, end: int | None = None) -> np.ndarray:
    """Negative log-likelihood of the tokens of a text from `start` to `end`, nats; nothing predicts the first."""
    logits = model(input_ids=torch.tensor([ids])).logits[0].double()
    losses = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="none")
    return losses[max(start, 1) - 1 : None if end is None else end - 1].numpy()


@torch.no_grad()
def states(model, ids: list[int]) -> np.ndarray:
    """Last hidden states, float64 `(tokens, width)`."""
    hidden = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[-1]
    return hidden[0].double().numpy()


def two_losses(model, prompt: str, header: str, answer: str) -> tuple[float, float]:
    """Mean loss of an answer given its prompt, and given its header only: over the same tokens of the window."""
    before, alone = len(tokens(prompt + header)), len(tokens(header))
    whole = tokens(prompt + header + answer)[:WINDOW]
    counted = len(whole) - before + (alone == 0)  # without a header, nothing predicts the first token
    conditional = nll(model, whole, before)
    return conditional.mean(), nll(model, tokens(header + answer), alone, alone + counted).mean()


def by_score(scores: np.ndarray, kept: np.ndarray, k: int) -> list[int]:
    return [row for row in np.argsort(-scores, kind="stable") if kept[row]][:k]


# Losses --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", ["loss", "perplexity"])
def test_ifd_is_the_conditional_by_the_unconditional_loss(pairs, ratio):
    ctx = context()
    conditional, unconditional = np.transpose(
        [two_losses(ctx.model, USER + prompt + END, ASSISTANT, answer) for prompt, answer in pairs]
    )
    expected = conditional / unconditional if ratio == "loss" else np.exp(conditional - unconditional)
    found = select(chats(), IFD(warmup="none", ratio=ratio), 6, ctx)
    np.testing.assert_allclose(found.scores, expected, rtol=1e-4)
    np.testing.assert_allclose(found.columns["conditional_loss"], conditional, rtol=1e-4)
    np.testing.assert_allclose(found.columns["unconditional_loss"], unconditional, rtol=1e-4)
    assert found.truncated and 6 < (expected < 1).sum() < 24
    assert found.indices.tolist() == by_score(expected, expected <= 1, 6)
    assert sorted(*found.dropped.values()) == np.flatnonzero(expected > 1).tolist()


@pytest.fixture
def small(tmp_path) -> str:
    """The folder of a small model that is not the context's."""
    tokenizer = tiny_tokenizer()
    for part in (tiny_model(tokenizer, seed=3), tokenizer):
        part.save_pretrained(tmp_path / "small")
    return str(tmp_path / "small")


def greedy_facility_location(vectors: np.ndarray, k: int) -> list[int]:
    """Each pick adds most to the sum of similarities to the nearest pick; similarity: exp(-distance / width)."""
    distances = np.linalg.norm(vectors[:, None] - vectors, axis=-1)
    similarity, covered, picked = np.exp(-distances / vectors.shape[1]), np.zeros(len(vectors)), []
    for _ in range(k):
        gains = np.maximum(similarity, covered[:, None]).sum(0) - covered.sum()
        gains[picked] = -np.inf
        picked.append(int(gains.argmax()))
        covered = np.maximum(covered, similarity[:, picked[-1]])
    return picked


def test_superfiltering_is_the_ratio_of_perplexities_of_plain_texts(pairs, small):
    model = tiny_model(tiny_tokenizer(), seed=3)
    losses = np.array([two_losses(model, f"{prompt}\n", "", answer) for prompt, answer in pairs])
    expected = np.exp(losses[:, 0] - losses[:, 1])
    ctx = context()
    found = select(chats(), Superfiltering(small), 5, ctx)
    np.testing.assert_allclose(found.scores, expected, rtol=2e-4)
    best = by_score(expected, expected < 1, 24)
    assert 12 < len(best) < 24 and found.indices.tolist() == best[:5]

    # Superfiltering.D, by the model's own states at the end of the answer.
    pool = best[:12]
    ends = [tokens(USER + prompt + END + ASSISTANT + answer)[:WINDOW] for prompt, answer in pairs]
    vectors = np.stack([states(ctx.model, ends[row])[-1] for row in pool])
    spread = Superfiltering(small, diversity=True, diversity_pool=0.5, encoder="model")
    picked = [pool[place] for place in greedy_facility_location(vectors, 5)]
    assert select(chats(), spread, 5, context()).indices.tolist() == picked != pool[:5]


@pytest.mark.parametrize("keep", ["top", "middle", "bottom"])
def test_perplexity_is_that_of_the_answer(pairs, keep):
    ctx = context()
    losses = np.array([two_losses(ctx.model, USER + prompt + END, ASSISTANT, answer)[0] for prompt, answer in pairs])
    rank = losses.argsort().argsort() + 1
    expected = {"top": np.exp(losses), "bottom": -np.exp(losses), "middle": -np.abs((rank - 0.5) / 24 - 0.5)}[keep]
    found = select(chats(), Perplexity(keep), 6, ctx)
    np.testing.assert_allclose(found.scores, expected, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(np.sort(expected[found.indices]), np.sort(expected)[-6:])


def test_nuggets_counts_the_tasks_that_a_row_makes_likelier(pairs):
    target = chats(7, seed=5)
    texts = [USER + prompt + END + ASSISTANT + answer + END for prompt, answer in pairs]
    tasks = [(row["prompt"][0]["content"], row["completion"][0]["content"]) for row in target]
    ctx = context(target=Records(target), max_length=200)

    def loss(before: str, prompt: str, answer: str) -> float:
        start = tokens(before + USER + prompt + END + ASSISTANT)
        return nll(ctx.model, start + tokens(answer), len(start)).sum()

    zero_shot = np.array([loss("", *task) for task in tasks])
    one_shot = np.array([[loss(text, *task) for task in tasks] for text in texts])
    assert np.abs(one_shot - zero_shot).min() > 1e-3, "no task is close"
    expected = (one_shot < zero_shot).mean(1)
    found = select(chats(), Nuggets(threshold=None), 24, ctx)
    np.testing.assert_allclose(found.scores, expected, rtol=1e-6)
    assert (np.diff(expected[found.indices]) <= 0).all() and len(set(expected)) == 3
    limit = float(np.sort(expected)[12])
    above = select(chats(), Nuggets(threshold=limit), 1.0, context(target=Records(target), max_length=200))
    assert sorted(above.indices) == np.flatnonzero(expected > limit).tolist()


# Hidden states -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subtasks", [None, ["a", "b", "a", "b"]])
def test_rds_is_the_highest_cosine_of_position_weighted_states(pairs, subtasks):
    target, ctx = chats(4, seed=5), context()

    def vector(prompt: str, answer: str) -> np.ndarray:
        hidden = states(ctx.model, tokens(USER + prompt + END + ASSISTANT + answer + END)[:WINDOW])
        mean = sum(place * state for place, state in enumerate(hidden, 1)) / sum(range(1, len(hidden) + 1))
        return mean / np.linalg.norm(mean)

    rows = np.stack([vector(*pair) for pair in pairs])
    examples = [vector(row["prompt"][0]["content"], row["completion"][0]["content"]) for row in target]
    cosines = rows @ np.transpose(examples)
    if subtasks:
        target = target.add_column("subtask", subtasks)
        cosines = np.stack([cosines[:, [0, 2]].max(1), cosines[:, [1, 3]].max(1)], 1)
    in_turn, queues = [], np.argsort(-cosines, axis=0)
    for place in queues.flatten():  # each subtask its best, then each its second ...
        in_turn += [int(place)] if place not in in_turn else []
    for rule, expected in (("max", np.argsort(-cosines.max(1))), ("round_robin", in_turn)):
        found = select(chats(), RDS(rule), 7, context(target=Records(target, name="selection_target")))
        np.testing.assert_allclose(found.scores, cosines.max(1), atol=1e-5)
        assert found.indices.tolist() == list(expected[:7])
    assert in_turn[:7] != np.argsort(-cosines.max(1))[:7].tolist()


@pytest.mark.parametrize("pool", [60, 45])
def test_ifd_warms_up_on_every_so_many_of_the_middle_half_of_each_cluster(pool):
    ctx = context(max_length=128)
    drawn = np.sort(np.random.default_rng(ctx.seed).permutation(60)[:pool])
    prompts = [tokens(USER + row["prompt"][0]["content"] + END + ASSISTANT) for row in chats(60)]
    prompts = [prompts[row] for row in drawn]
    perplexity = np.exp([nll(ctx.model, ids, 0).mean() for ids in prompts])
    means = np.stack([states(ctx.model, ids).mean(0) for ids in prompts])
    labels, expected = KMeans(3, random_state=0).fit_predict(means.astype(np.float32)), []
    for members in (np.flatnonzero(labels == label) for label in range(3)):
        if len(members) >= 4:
            low, high = np.percentile(perplexity[members], (25, 75))
            members = [row for row in members if low <= perplexity[row] <= high]
            members = members[:: max(1, len(members) // 4)][:4]
        expected += [int(drawn[row]) for row in members]
    selector = IFD(warmup_clusters=3, warmup_rows_per_cluster=4, warmup_pool=pool)
    assert selector._warmup_rows(Records(chats(60)), ctx).tolist() == sorted(expected)
    assert max(np.bincount(labels)) >= 16, "a cluster where every second row of the middle is left out"


# Limits --------------------------------------------------------------------------------------------------------------

VALUES = np.array([1, 2, 3, np.nan], np.float32)
#: Values at, below and above a limit; `None` for a method that excludes none.
LIMITS = {
    "alpagasus": [(AlpaGasus(threshold=2), VALUES, [0])],
    "auto": None,  # the chosen method's
    "blend": None,  # its members', and by an expression
    "car": None,  # its quality's
    "cascade": None,  # the costly method's
    "column": [
        (Column(threshold=2), VALUES, [0]),
        (Column(higher_is_better=False, threshold=2), -VALUES, [2]),
    ],
    "grape": None,  # all but the best of each prompt
    "ifd": [(IFD(), VALUES / 2, [2]), (IFD(drop_above_one=False), VALUES / 2, [])],
    "indicator": [(Indicator(minimum=2), VALUES, [0]), (Indicator(maximum=2), VALUES, [2])],
    "instag": [(InsTag(), VALUES - 2, [1])],
    "mig": [
        (
            MIG("column", encoder=None, tags={"tags_column": "tags"}),
            {"quality": VALUES, "tags": [["a"], [], ["b"], ["c"]]},
            [1],
        )
    ],
    "mods": [(MoDS(quality_threshold=2), VALUES, [0, 1])],
    "nuggets": None,  # above, with its formula
    "pass_rate": [(PassRate(), (VALUES - 1) / 2, [0, 2])],
    "qdit": None,  # its quality's
    "superfiltering": [(Superfiltering(), VALUES / 2, [1, 2])],
    "tsds": [(TSDS(), VALUES - 1, [0])],
    "t_shirt": [(TSHIRT(), {"noisy_ifd": VALUES / 2}, [1, 2])],
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_row_at_a_limit_is_on_the_side_that_the_method_names(name):
    for selector, features, excluded in LIMITS[name] or ():
        scores = VALUES if isinstance(features, dict) else features
        masks = selector.exclude(scores, features, context()).values()
        assert sorted(row for mask in masks for row in np.flatnonzero(mask)) == excluded


def test_every_method_that_excludes_by_a_limit_is_among_these():
    kinds = {name: selector_class(name) for name in method_names()}
    assert {name for name, kind in kinds.items() if kind.exclude is not Selector.exclude} == set(LIMITS)


def test_a_prompt_that_changes_nothing_is_kept_by_ifd_and_not_by_superfiltering_and_wins_no_task(small):
    ctx = context(target=Records(alpaca(4, seed=5)), max_length=200)
    with torch.no_grad():
        ctx.model.lm_head.weight.zero_()  # every token costs log(vocabulary), whatever precedes it
    ctx.model.save_pretrained(small)
    kept = select(alpaca(6), IFD(warmup="none"), 1.0, ctx)
    assert len(kept.indices) == 6 and set(kept.scores) == {1} and kept.dropped == {}
    with pytest.raises(SelectionError, match="IFD of 1 or more"):
        select(alpaca(6), Superfiltering(small), 1.0, ctx)
    assert set(select(alpaca(6), Nuggets(threshold=None), 1.0, ctx).scores) == {0}
