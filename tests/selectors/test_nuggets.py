"""Nuggets agrees with its authors' code, and sharing keys and values or stopping early changes no row."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from peft import LoraConfig
from sklearn.cluster import KMeans
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.nuggets import one_shot_loss
from hf_dataselect.context import Context
from hf_dataselect.data.encoding import encode
from hf_dataselect.data.records import Records
from hf_dataselect.engines.forward import one_shot
from hf_dataselect.engines.forward.likelihood import likelihood
from hf_dataselect.engines.forward.one_shot import of_like_length
from hf_dataselect.engines.runtime.account import Account
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.token_rows import TokenRows
from hf_dataselect.errors import SelectionError
from hf_dataselect.features.one_shot_tasks import task_tokens
from hf_dataselect.pipeline import select
from hf_dataselect.selectors.nuggets import Nuggets, Plan
from tests.engines.forward.test_likelihood import MODELS
from tests.processes import succeed
from tests.rows import alpaca, layout
from tests.shared_data import golden, golden_path, smollm2_path
from tests.tiny import context_of, tiny_model, tiny_tokenizer
from tests.tiny_training import tiny_trainer


def context(**changes) -> Context:
    tokenizer = changes.pop("tokenizer", None) or tiny_tokenizer()
    return context_of(tokenizer, tiny_model(tokenizer), **{"max_length": 256, "dtype": "float32", **changes})


# The authors' numbers ------------------------------------------------------------------------------------------------


def fields(rows: list[dict]) -> Dataset:
    """Rows as the reference spells them: each field below its name."""
    texts = []
    for row in rows:
        between = f"\nInput:\n{row['input']}" if row["input"] else ""
        prompt = f"Instruction:\n{row['instruction']}{between}\nResponse:\n"
        texts.append({"prompt": prompt, "completion": row["output"]})
    return Dataset.from_list(texts)


@pytest.fixture(scope="module", params=["tiny", "smollm2"])
def reference(request):
    """The reference's run, and a context with its model and tasks."""
    folder = golden_path("tiny_model") if request.param == "tiny" else smollm2_path()
    content = golden("nuggets")
    run = next(run for run in content["runs"] if run["model"] == request.param)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    ctx = Context(
        tokenizer,
        model,
        runtime=Runtime(dtype="float32"),
        target=Records(fields(content["task_rows"])),
        max_length=2048,
    )
    return run, fields(content["candidate_rows"]), ctx


@pytest.mark.parametrize("quirks", [True, False], ids=["quirks", "plain"])
def test_golden_scores_equal_the_authors_code(reference, quirks, tmp_path):
    run, rows, ctx = reference
    plain = "no_pad_row_bos_first" if run["model"] == "tiny" else "no_pad_row_no_bos"
    expected = run["reference" if quirks else plain]
    # SmolLM2: two rows each way; the tiny model: all of them both ways.
    part = np.arange(12) if run["model"] == "tiny" else np.arange(2) + (0 if quirks else 2)
    runtime = Runtime(dtype="float32", cache_dir=tmp_path)
    rows, ctx = rows.select(part), dataclasses.replace(ctx, runtime=runtime)
    tasks = task_tokens(ctx.target, ctx.text_format(max_length=200), bos=not quirks)
    assert [ids.tolist() for ids, _ in tasks.one_shot.take(range(8))] == [task["input_ids"] for task in run["tasks"]]
    candidates = encode(Records(rows), ctx.text_format(max_length=None)).tokens
    assert [ids.tolist() for ids, _ in candidates.take(range(len(part)))] == [run["candidate_ids"][i] for i in part]
    zero_shot = likelihood(ctx.model, tasks.zero_shot, runtime, mean_logit=quirks).loss
    np.testing.assert_allclose(-zero_shot, expected["zero_shot"], rtol=1e-5, atol=3e-3)
    one_shot = one_shot_loss(ctx.model, candidates, tasks.one_shot, runtime, mean_logit=quirks)
    np.testing.assert_allclose(-one_shot, np.array(expected["one_shot"])[part], rtol=1e-5, atol=3e-3)
    ctx = dataclasses.replace(ctx, runtime=dataclasses.replace(runtime, account=Account()))
    selector = Nuggets(threshold=None, task_window=200, reference_quirks=quirks)
    selection = select(rows, selector, 1.0, ctx)
    answered = [row for row, text in enumerate(rows["completion"]) if text]
    assert selection.unscorable == ({"no answer": [11]} if len(part) == 12 else {})
    assert selection.scores[answered].tolist() == np.array(expected["golden_score"])[part[answered]].tolist()
    assert selection.facts["figures"]["predetermined tasks"] == 8
    assert selection.passes["cached_rows"] == 8 + 8 * len(answered)


# The engine, beside pairs joined and scored one by one ---------------------------------------------------------------


def pairs(n: int = 5, m: int = 7, vocabulary: int = 96):
    draw = np.random.default_rng(1)
    exemplars = [draw.integers(3, vocabulary, size).tolist() for size in draw.integers(1, 30, n)]
    tasks = [draw.integers(3, vocabulary, size).tolist() for size in draw.integers(4, 40, m)]
    spans = [[(int(draw.integers(0, len(ids) - 2)), len(ids) - 1)] for ids in tasks]
    spans[2], spans[3] = [], [(1, 2), (3, 4)]
    return TokenRows.from_lists(exemplars, [[]] * n), TokenRows.from_lists(tasks, spans)


def one_by_one(model, exemplars: TokenRows, tasks: TokenRows) -> np.ndarray:
    found = np.zeros((len(exemplars), len(tasks)))
    for i, (exemplar, _) in enumerate(exemplars.take(range(len(exemplars)))):
        for j, (task, spans) in enumerate(tasks.take(range(len(tasks)))):
            ids = torch.tensor(np.concatenate([exemplar, task])).long()
            with torch.no_grad():
                logits = model(input_ids=ids[None], use_cache=False).logits[0, -len(ids) :]
            scores = logits.double().log_softmax(-1)
            for start, end in spans.tolist():
                for place in range(len(exemplar) + max(start, 1), len(exemplar) + end):
                    found[i, j] -= float(scores[place - 1, ids[place]])
    return found


def scored(model, exemplars, tasks, wanted=None, rows=None, mean_logit=False, **given) -> SimpleNamespace:
    """Losses of tasks after exemplars, and what was booked for them."""
    runtime = Runtime(**{"dtype": "float32", **given})
    loss = one_shot_loss(model, exemplars, tasks, runtime, rows=rows, wanted=wanted, mean_logit=mean_logit)
    passes = runtime.account.passes
    spent = {"cached": passes["cached_rows"], "forward_tokens": passes["forward_tokens"]}
    return SimpleNamespace(loss=loss, cached_seconds=runtime.account.cached_seconds, **spent)


@pytest.mark.parametrize(("name", "batch_tokens"), [*((name, 90) for name in MODELS), ("llama", 1), ("llama", 10**6)])
def test_sharing_an_exemplars_keys_and_values_changes_no_number(name, batch_tokens):
    model, (exemplars, tasks) = MODELS[name](), pairs()
    found = scored(model, exemplars, tasks, batch_tokens=batch_tokens)
    np.testing.assert_allclose(found.loss, one_by_one(model, exemplars, tasks), rtol=1e-5, atol=1e-5)


def test_an_exemplar_is_computed_once_and_tasks_alone_behind_it():
    model, (exemplars, tasks), seen = MODELS["llama"](), pairs(), []
    model.get_input_embeddings().register_forward_hook(lambda module, args, out: seen.append(args[0].numel()))
    found = scored(model, exemplars, tasks, batch_tokens=10**6)
    once = exemplars.lengths.sum() + len(exemplars) * tasks.lengths.sum()
    assert found.forward_tokens == once
    probe = min(64, exemplars.lengths[0])
    assert once <= sum(seen) - (8 + 8 + probe + (probe + 8) + 8) <= 1.12 * once


def test_tasks_of_like_length_go_together():
    lengths = np.array([10, 100, 9, 95, 50, 10, 98])
    groups = [group.tolist() for group in of_like_length(lengths, range(7), 0.1)]
    assert groups == [[1, 6, 3], [4], [0, 5, 2]]
    assert [group.tolist() for group in of_like_length(lengths, [4, 0], 0.1)] == [[4], [0]]


def test_exemplars_are_kept_as_they_come_and_a_killed_run_goes_on(tmp_path):
    model, (exemplars, tasks), asked = MODELS["llama"](), pairs(), []

    def some(losses):
        asked.append(1)
        if len(asked) == 8:
            raise KeyboardInterrupt
        return np.flatnonzero(np.isnan(losses))[:2] if np.isnan(losses).sum() > 3 else np.zeros(0, int)

    options = {"cache_dir": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        scored(model, exemplars, tasks, wanted=some, **options)
    again = scored(model, exemplars, tasks, **options)
    assert again.cached == 2 * 4 and again.cached_seconds > 0, "two exemplars, of each the tasks that were asked for"
    np.testing.assert_allclose(again.loss, one_by_one(model, exemplars, tasks), rtol=1e-5, atol=1e-5)
    third = scored(model, exemplars, tasks, **options)
    assert (third.cached, third.forward_tokens) == (35, 0) and (third.loss == again.loss).all()
    few = scored(model, exemplars, tasks, rows=np.array([3, 1]), **options)
    assert (few.cached, few.forward_tokens) == (14, 0) and (few.loss[[1, 3]] == again.loss[[1, 3]]).all()
    assert np.isnan(few.loss[[0, 2, 4]]).all()


def test_results_of_other_settings_or_tasks_are_not_used(tmp_path):
    model, (exemplars, tasks) = MODELS["llama"](), pairs()
    options = {"cache_dir": tmp_path}
    first = scored(model, exemplars, tasks, **options)
    other = scored(model, exemplars, tasks, mean_logit=True, **options)
    counted = [0, 1, 3, 4, 5, 6]
    assert other.cached == 0 and (other.loss[:, counted] > first.loss[:, counted]).all()
    turned = TokenRows(tasks.dataset.select(range(6, -1, -1)))
    backwards = scored(model, exemplars, turned, **options)
    assert backwards.cached == 0
    np.testing.assert_allclose(backwards.loss[:, ::-1], first.loss, rtol=1e-5, atol=1e-5)
    model.set_attn_implementation("eager")
    assert scored(model, exemplars, tasks, **options).cached == 0


@pytest.mark.parametrize("ranks", [1, 2])
def test_cached_seconds_are_those_an_exemplar_took_on_all_ranks(ranks, tmp_path, monkeypatch):
    model, (exemplars, tasks) = MODELS["llama"](), pairs()
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr(one_shot, "time", clock)
    own = {"num_processes": ranks, "process_index": 0, "is_main_process": True, "device": torch.device("cpu")}
    accelerator = SimpleNamespace(**own, reduce=lambda tensor, how: tensor)  # each rank computes its part for itself
    options = {"cache_dir": tmp_path}

    def tick(module, args, kwargs):
        clock.now += 1.0 if kwargs.get("past_key_values") is None else 0.125

    model.base_model.register_forward_pre_hook(tick, with_kwargs=True)
    tokens = scored(model, exemplars, tasks, wanted=lambda losses: np.zeros(0, int), **options).forward_tokens
    probes, clock.now = clock.now, 0.0
    for wanted in (lambda losses: np.flatnonzero(np.isnan(losses[:3])), None):  # a part, and then the rest
        for rank in range(ranks):
            accelerator.process_index = rank
            scored(model, exemplars, tasks, wanted, accelerator=accelerator, **options)
    passes = clock.now - 2 * ranks * probes
    assert tokens == 0 and passes > len(exemplars) * 1.125
    again = scored(model, exemplars, tasks, **options)
    assert again.cached == 35 and again.cached_seconds == pytest.approx(passes / ranks)


def test_an_exemplar_that_does_not_fit_is_nan_and_a_batch_that_does_not_is_halved():
    model, (exemplars, tasks) = MODELS["llama"](), pairs()

    def refuse(module, args, kwargs):
        rows, width = kwargs["input_ids"].shape
        if rows > 2 or (kwargs.get("past_key_values") is None and width == exemplars.lengths.max()):
            raise MemoryError
        return None

    expected = one_by_one(model, exemplars, tasks)
    model.base_model.register_forward_pre_hook(refuse, with_kwargs=True)
    found = scored(model, exemplars, tasks).loss
    longest = int(exemplars.lengths.argmax())
    assert np.isnan(found[longest]).all()
    rest = np.arange(len(exemplars)) != longest
    np.testing.assert_allclose(found[rest], expected[rest], rtol=1e-5, atol=1e-5)


# Tasks as text -------------------------------------------------------------------------------------------------------


def test_a_task_goes_on_the_chat_of_the_candidate():
    tokenizer = tiny_tokenizer(bos=True)
    system = "{{ '<|system|>\n' + 'Be brief.' + '</s>\n' }}"
    tokenizer.chat_template = tokenizer.chat_template.replace("{{ bos_token }}", "{{ bos_token }}" + system)
    ctx, records = context(tokenizer=tokenizer), Records(layout("messages", 3))
    zero_shot, one_shot, without_answer = task_tokens(records, ctx.text_format())
    joined = [*records[1].messages, *records[0].messages]
    text = tokenizer.apply_chat_template(joined, tokenize=False)
    exemplar = tokenizer.apply_chat_template(list(records[1].messages), tokenize=False)
    ids, spans = one_shot.take([0])[0]
    assert exemplar + tokenizer.decode(ids) == text and len(without_answer) == 0
    whole, places = zero_shot.take([0])[0]
    assert tokenizer.decode(whole).startswith("<s><|system|>")
    answers = [[tokenizer.decode(row[start:end]) for start, end in s] for row, s in ((ids, spans), (whole, places))]
    assert answers[0] == answers[1] == [message["content"] for message in records[0].messages[1::2]]


def test_a_truncated_task_has_the_same_labels_zero_shot_and_one_shot():
    tokenizer = tiny_tokenizer(bos=True)
    for name, window in (("prompt-completion", 25), ("messages", 35)):
        text_format = context(tokenizer=tokenizer).text_format(max_length=window)
        zero_shot, one_shot, without = task_tokens(Records(layout(name, 20)), text_format)
        counted = [
            [int((spans[:, 1] - spans[:, 0]).sum()) for _, spans in part.take(range(20))]
            for part in (zero_shot, one_shot)
        ]
        assert counted[0] == counted[1] and one_shot.lengths.max() == window and 0 < len(without) < 20, name
        assert np.flatnonzero(np.array(counted[0]) == 0).tolist() == without.tolist()


def test_a_task_without_a_prompt_has_the_same_labels_zero_shot_and_one_shot():
    tokenizer = tiny_tokenizer(bos=True)
    records = Records(
        Dataset.from_list([{"prompt": "", "completion": "red fox"}, {"prompt": "a:", "completion": "red"}])
    )
    zero_shot, one_shot, _ = task_tokens(records, context(tokenizer=tokenizer).text_format())
    for (ids, spans), (other, places) in zip(zero_shot.take([0, 1]), one_shot.take([0, 1]), strict=True):
        assert ids[1:].tolist() == other.tolist() and (spans == places + 1).all() and places[0, 0] >= 1


@pytest.mark.parametrize("answer", ["", None])
def test_a_task_without_an_answer_is_refused_by_name(answer):
    target = alpaca(3).to_list()
    target[1]["output"] = answer
    ctx = context(target=Records(Dataset.from_list(target)))
    with pytest.raises(ValueError, match="Row 1 of the tasks can't be one"):
        select(alpaca(4), Nuggets(), 1.0, ctx)


# The selector --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stop", "threshold"), [("dropped", 0.4), ("sealed", 0.3), ("sealed", 0.5)])
def test_stopping_early_gives_the_same_selection_with_fewer_passes(stop, threshold):
    rows, options = alpaca(24, seed=2), {"tasks": 20, "threshold": threshold}
    whole = select(rows, Nuggets(stop="never", **options), 1.0, context())
    early = select(rows, Nuggets(stop=stop, **options), 1.0, context())
    assert 0 < len(whole.indices) < 24
    assert set(early.indices) == set(whole.indices)
    assert early.passes["forward_rows"] < whole.passes["forward_rows"]
    kept = whole.scores > np.float32(threshold)
    assert np.isnan(early.scores[~kept]).all() and early.dropped == whole.dropped
    if stop == "sealed":
        least = (np.floor(threshold * 20 + 1e-9) + 1) / 20
        assert (early.scores[kept] == np.float32(least)).all()
        assert early.facts["figures"]["golden score of every kept row, at least"] == pytest.approx(least)
    else:
        assert early.indices.tolist() == whole.indices.tolist()
        assert (early.scores[kept] == whole.scores[kept]).all()
        few = select(rows, Nuggets(stop=stop, **options), 2, context())
        assert few.indices.tolist() == whole.indices[:2].tolist()
    dropped = {row for found in early.dropped.values() for row in found}
    assert dropped | set(early.indices.tolist()) == set(range(24))


@pytest.mark.parametrize("stop", ["dropped", "sealed"])
def test_scores_do_not_depend_on_what_the_cache_holds(stop, tmp_path):
    rows, options = alpaca(24, seed=2), {"tasks": 20, "threshold": 0.4}
    fresh = select(rows, Nuggets(stop=stop, **options), 1.0, context())
    select(rows, Nuggets(stop="never", **options), 1.0, context(cache_dir=tmp_path))
    full = select(rows, Nuggets(stop=stop, **options), 1.0, context(cache_dir=tmp_path))
    assert full.facts["figures"]["tasks run"] == "480 of 480" != fresh.facts["figures"]["tasks run"]
    np.testing.assert_array_equal(fresh.scores, full.scores)
    assert fresh.indices.tolist() == full.indices.tolist() and fresh.dropped == full.dropped
    assert full.passes["forward_rows"] == full.passes["embedded_rows"] == 0 and full.cached_seconds > 0


def test_rows_whose_order_is_open_are_not_cut_to_a_budget(tmp_path):
    options = {"tasks": 20, "threshold": 0.3, "stop": "sealed"}
    with pytest.raises(SelectionError, match="rows are above the threshold, and the budget is 2"):
        select(alpaca(24, seed=2), Nuggets(**options), 2, context(cache_dir=tmp_path))
    again = select(alpaca(24, seed=2), Nuggets(**{**options, "stop": "dropped"}), 2, context(cache_dir=tmp_path))
    assert len(again.indices) == 2 and again.passes["cached_rows"] > 24 * 6


@pytest.mark.parametrize("stop", ["dropped", "sealed"])
def test_a_plan_ends_on_the_side_that_all_tasks_would_show(stop):
    draw = np.random.default_rng(0)
    for _ in range(200):
        n, threshold = int(draw.integers(1, 30)), float(draw.choice([0, 0.29, 0.5, 0.55, 0.7, 0.8, 0.95]))
        zero_shot, one_shot = np.ones(n), draw.choice([0.5, 1.0, 1.5, np.inf], n, p=draw.dirichlet([1, 1, 1, 0.5]))
        plan, losses = Plan(zero_shot, threshold, stop), np.full(n, np.nan)
        while len(todo := plan(losses)):
            assert np.isnan(losses[todo]).all()
            losses[todo] = one_shot[todo]
        wins, left = int((losses < zero_shot).sum()), int(np.isnan(losses).sum())
        finite, known = np.isfinite(one_shot).sum(), n - int(np.isinf(losses).sum())
        above = (one_shot < zero_shot).sum() / max(1, finite) > threshold  # no score, if there is no finite loss
        if left == 0:
            assert (wins / max(1, finite) > threshold) == above
        else:
            assert plan.decided(wins, left, known) == (1 if above else -1) or finite == 0


def test_tasks_are_the_rows_nearest_the_centroids_of_their_prompts():
    rows, ctx = Records(alpaca(30, seed=4)), context()
    selection = select(rows, Nuggets(tasks=6, threshold=None), 5, ctx)
    prompts = []
    for ids, spans in encode(rows, ctx.text_format()).tokens.take(range(30)):
        with torch.no_grad():
            hidden = ctx.model.model(torch.tensor(ids[None, : spans[0, 0]]).long()).last_hidden_state
        prompts.append(hidden[0].mean(0).numpy())
    centroids = KMeans(6, random_state=0).fit(np.stack(prompts)).cluster_centers_
    distances = np.linalg.norm(centroids[:, None] - np.stack(prompts), axis=-1)
    chosen = np.unique((distances < distances.min(1, keepdims=True) + 1e-4).argmax(1))
    given = select(rows, Nuggets(threshold=None), 5, context(target=rows.subset(chosen)))
    assert selection.scores.tolist() == given.scores.tolist()
    assert selection.facts["figures"]["predetermined tasks"] == len(chosen) == 6
    assert selection.facts["figures"]["tasks run"] == "180 of 180"
    assert set((selection.scores * 6).round(4)) <= set(range(7))


@pytest.mark.filterwarnings("error:Number of distinct clusters")
def test_identical_rows_and_fewer_rows_than_tasks():
    same = Dataset.from_list([alpaca(1).to_list()[0]] * 5)
    selection = select(same, Nuggets(tasks=100, threshold=None), 3, context())
    assert selection.facts["figures"]["predetermined tasks"] == 1
    assert len(selection.indices) == 3 and len(set(selection.scores)) == 1
    assert selection.facts["figures"]["rows tied at the cut"] == {"tied": 5, "kept": 3}


def broken(token: str = "~") -> Context:
    """A context whose model has no finite embedding of a token."""
    ctx = context()
    (id,) = ctx.tokenizer(token, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        ctx.model.get_input_embeddings().weight[id] = float("nan")
    return ctx


@pytest.mark.parametrize(
    "options", [{"threshold": None}, {"threshold": 0.3}, {"threshold": 0.3, "stop": "sealed"}], ids=str
)
def test_a_task_without_a_finite_loss_costs_no_row_and_such_a_row_no_other(options):
    rows, tasks = alpaca(9).to_list(), alpaca(6, seed=9).to_list()
    clean = dataclasses.replace(broken(), target=Records(Dataset.from_list(tasks)))
    expected = select(Dataset.from_list(rows), Nuggets(**options), 1.0, clean)
    rows[4]["output"] = "red ~ fox stone."
    tasks.insert(2, rows[4])
    ctx = dataclasses.replace(broken(), target=Records(Dataset.from_list(tasks)))
    found = select(Dataset.from_list(rows), Nuggets(**options), 1.0, ctx)
    others = np.arange(9) != 4
    np.testing.assert_array_equal(found.scores[others], expected.scores[others])
    assert np.isfinite(expected.scores[others]).any() and np.isnan(found.scores[4])
    assert found.unscorable == {"its losses are not finite": [4]} and not expected.unscorable
    assert found.facts["figures"]["tasks left out, without a finite zero-shot loss"] == [2]
    assert found.facts["figures"]["one-shot losses left out, not finite"] == "6 of 1 rows and 6 tasks"
    with pytest.raises(SelectionError, match="no task has a finite zero-shot loss"):
        select(
            Dataset.from_list(rows), Nuggets(**options), 1.0, dataclasses.replace(ctx, target=ctx.target.subset([2]))
        )


def test_a_task_that_is_not_finite_after_one_row_is_left_out_for_that_row(monkeypatch):
    one_shot = np.array([[0.5, np.inf, 2.0], [0.5, 0.5, 2.0], [np.inf] * 3, [0.5, np.nan, np.nan]])
    engines = "hf_dataselect.features.one_shot_tasks."
    monkeypatch.setattr(engines + "likelihood", lambda *_, **__: SimpleNamespace(loss=np.ones(3)))
    monkeypatch.setattr(engines + "one_shot_losses", lambda *given, **__: given[4](np.arange(4), one_shot))
    found = select(alpaca(4), Nuggets(tasks=3, threshold=None), 1.0, context())
    np.testing.assert_array_equal(found.scores, np.array([1 / 2, 2 / 3, np.nan, np.nan], np.float32))
    assert found.unscorable == {"its losses are not finite": [2], "did not fit in memory": [3]}


def test_rows_that_need_more_positions_than_there_are_left_out_by_name():
    rows = alpaca(6).to_list()
    rows[4]["output"] = "red fox " * 400
    ctx = context(max_length=2000)
    ctx.model.config.max_position_embeddings = 600
    selection = select(Dataset.from_list(rows), Nuggets(tasks=3, threshold=None, task_window=64), 1.0, ctx)
    assert selection.unscorable == {"the row and a task need more than 600 positions": [4]}
    assert len(selection.indices) == 5


def test_stopping_once_a_row_is_above_the_threshold_needs_one():
    with pytest.raises(ValueError, match="stop='sealed' needs a `threshold`"):
        Nuggets(threshold=None, stop="sealed")


def test_a_model_with_an_adapter_is_trained_on_what_it_chose(tmp_path):
    peft = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    options = {"peft_config": peft, "gradient_checkpointing": True, "selection_budget": 6}
    trainer = tiny_trainer(tmp_path, "nuggets", {"tasks": 5, "threshold": None}, **options)
    trainer.train()
    assert len(trainer.selection.indices) == 6 and trainer.state.global_step == 3
    assert trainer.selection.facts["figures"]["tasks run"] == "120 of 120"


TWO_RANKS = {"tasks": 12, "threshold": 0.4}


def on_each_rank(folder: Path) -> None:
    """Choose with an empty cache and then with what it holds."""
    accelerator = Accelerator(cpu=True)
    for name in ("fresh", "again"):
        ctx = context(accelerator=accelerator, cache_dir=folder / "cache")
        found = select(alpaca(24), Nuggets(**TWO_RANKS), 1.0, ctx)
        run = {"name": f"{name}{accelerator.process_index}", "processes": accelerator.num_processes}
        run |= {"indices": found.indices.tolist(), "scores": found.scores.tolist(), "dropped": found.dropped}
        run |= {"forward_rows": found.passes["forward_rows"]}
        (folder / f"{run['name']}.json").write_text(json.dumps(run))
        accelerator.wait_for_everyone()
    accelerator.end_training()


def test_two_ranks_choose_the_rows_of_one_and_share_a_cache(tmp_path):
    succeed(on_each_rank, tmp_path, folder=tmp_path)
    one = select(alpaca(24), Nuggets(**TWO_RANKS), 1.0, context())
    found = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*.json"))]
    assert [run["name"] for run in found] == ["again0", "again1", "fresh0", "fresh1"] and 0 < len(one.indices) < 24
    for run in found:
        assert run["indices"] == one.indices.tolist() and run["dropped"] == one.dropped, run["name"]
        np.testing.assert_array_equal(np.array(run["scores"], np.float32), one.scores)
        assert run["processes"] == 2 and (run["forward_rows"] == 0) == run["name"].startswith("again")
    later = select(alpaca(24), Nuggets(**TWO_RANKS), 1.0, context(cache_dir=tmp_path / "cache"))
    assert later.passes["forward_rows"] == later.passes["embedded_rows"] == 0
    np.testing.assert_array_equal(later.scores, one.scores)
