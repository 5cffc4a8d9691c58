"""Of every engine that keeps results: a second run reads them, and one with anything else that decides them none."""

import numpy as np
import pytest

from benchmarks.nuggets import one_shot_loss
from hf_dataselect.data.records import Records
from hf_dataselect.engines.forward.likelihood import likelihood
from hf_dataselect.engines.forward.one_shot import one_shot_losses
from hf_dataselect.engines.forward.seq2seq import yes_probability
from hf_dataselect.engines.gradients.collect import gradients
from hf_dataselect.engines.gradients.projection import Projection
from hf_dataselect.engines.llm.generator import Generator
from hf_dataselect.engines.llm.local_model import LocalModel
from hf_dataselect.engines.llm.reward_model import RewardModel
from hf_dataselect.engines.runtime.part import Part
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.token_rows import TokenRows
from hf_dataselect.features.hidden_states import cached_states
from hf_dataselect.features.row_vectors import RowVectors
from tests.engines.llm.test_local import reward_model
from tests.rows import alpaca
from tests.tiny import context_of, tiny_evaluator, tiny_model, tiny_tokenizer, with_lora


IDS = [[9, 30, 41, 52], [7, 80, 81], [33, 34, 35, 36, 37]]
ROWS = TokenRows.from_lists(IDS, [[(1, len(ids))] for ids in IDS])
TASKS = {end: TokenRows.from_lists([[5, 6, 7, 8]], [[(1, end)]]) for end in (3, 4)}
CHATS = [[{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}] for text in ("One", "Two")]


def states(model, runtime, pool="mean", **options):
    return cached_states(ROWS, context_of(tiny_tokenizer(), model, **vars(runtime)), "", pool, **options)


def ends(model, runtime):
    ctx = context_of(tiny_tokenizer(), model, **vars(runtime))
    return RowVectors(Records(alpaca(3)), ctx, "model")(ROWS.lengths * 0 + [0, 1, 2])


def answers(model, runtime, max_new_tokens=3, text="one format"):
    return Generator(model, tiny_tokenizer(), runtime, text).generate(IDS, max_new_tokens=max_new_tokens)


def digits(model, runtime, wanted="123"):
    return LocalModel(model, tiny_tokenizer()).digit_logits(["a", "b"], wanted, runtime)


#: A model, a computation, and other options for it.
ENGINES = {
    "losses": (tiny_model, lambda *given, **o: likelihood(given[0], ROWS, given[1], **o), [{"mean_logit": True}]),
    "one-shot losses": (
        tiny_model,
        lambda model, runtime, end=3, **o: one_shot_loss(model, ROWS, TASKS[end], runtime, **o),
        [{"mean_logit": True}, {"end": 4}],
    ),
    "gradients": (
        lambda tokenizer: with_lora(tiny_model(tokenizer), 0.2),
        lambda model, runtime, **o: gradients(model, ROWS, runtime, project=Projection(**{"dim": 64, **o})),
        [{"dim": 32}, {"seed": 1}, {"kind": "rademacher"}],
    ),
    "hidden states": (tiny_model, states, [{"pool": "position"}, {"scaled": True}, {"with_loss": True}]),
    "states of rows": (tiny_model, ends, []),
    "responses": (tiny_model, answers, [{"max_new_tokens": 4}, {"text": "another format"}]),
    "digits": (tiny_model, digits, [{"wanted": "456"}]),
    "rewards": (
        reward_model,
        lambda model, runtime: RewardModel("r", model, tiny_tokenizer(), runtime).score(CHATS),
        [],
    ),
    "yes or no": (
        tiny_evaluator,
        lambda model, runtime, **o: yes_probability(model, tiny_tokenizer(), ["a b", "c d e"], runtime, **o),
        [],
    ),
}
CHANGES = [(name, change) for name, (_, _, options) in ENGINES.items() for change in ("weights", *options)]
CHANGES += [(name, "dtype") for name in ENGINES if name != "responses"]  # generated in the model's own dtype
CHANGES += [(name, "attention") for name in ("losses", "one-shot losses", "gradients")]


@pytest.mark.parametrize(("name", "change"), CHANGES, ids=str)
def test_results_of_other_settings_are_never_read(name, change, tmp_path):
    make, compute, _ = ENGINES[name]

    def read(options=None, dtype="float32", model=None) -> int:
        """Results read from the cache."""
        runtime = Runtime(dtype=dtype, cache_dir=tmp_path)
        compute(model or make(tiny_tokenizer()), runtime, **(options or {}))
        return runtime.account.passes["cached_rows"]

    assert read() == 0 < read()
    model = make(tiny_tokenizer())
    if change == "weights":
        next(model.parameters()).data.add_(0.1)
    if change == "attention":
        model.set_attn_implementation("eager")
    options = change if isinstance(change, dict) else None
    assert read(options, "bfloat16" if change == "dtype" else "float32", model) == 0


def test_what_a_part_scores_one_shot_no_other_run_scores_meanwhile(tmp_path):
    locked, given = [], {}

    def wanted(losses):
        locked.append(len(list(tmp_path.glob("*/*.lock"))))
        return np.flatnonzero(np.isnan(losses))

    def give(rows, losses):
        given.update(zip(rows.tolist(), losses[:, 0], strict=True))

    runtime = Runtime(cache_dir=tmp_path, part=Part(2, 2))
    one_shot_losses(tiny_model(tiny_tokenizer()), ROWS.select([0, 1]), TASKS[3], runtime, give, wanted=wanted)
    assert locked == [1, 1] and np.isfinite([*given.values()]).tolist() == [True]
