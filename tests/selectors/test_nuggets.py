"""Nuggets agrees with its authors' code, and sharing keys and values or stopping early changes no row."""

import dataclasses

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_dataselect.engines.likelihood import likelihood
from hf_dataselect.engines.one_shot import of_like_length, one_shot_loss
from hf_dataselect.engines.tokens import TokenRows
from hf_dataselect.preprocessing.one_shot import task_tokens
from hf_dataselect.preprocessing.records import Records
from hf_dataselect.preprocessing.text import encode
from hf_dataselect.selector import Context, SelectionError, select
from hf_dataselect.selectors.nuggets import Nuggets, Plan
from tests.engines.test_likelihood import MODELS
from tests.rows import alpaca, layout
from tests.shared_data import golden, golden_path, smollm2_path
from tests.test_ranks import run, selection
from tests.tiny import tiny_model, tiny_tokenizer
from tests.training import tiny_trainer, write_recipe


def context(**changes) -> Context:
    tokenizer = changes.pop("tokenizer", None) or tiny_tokenizer()
    return Context(tokenizer, tiny_model(tokenizer), **{"max_length": 256, "dtype": "float32", **changes})


# The authors' numbers ------------------------------------------------------------------------------------------------


def fields(rows: list[dict]) -> Dataset:
    """Rows as the reference spells them: each field below its name."""
    texts = []
    for row in rows:
        between = f"\nInput:\n{row['input']}" if row["input"] else ""
        prompt = f"Instruction:\n{row['instruction']}{between}\nResponse:\n"
        texts.append({"prompt": prompt, "completion": row["output"]})
    return Dataset.from_list(texts)


@pytest.fixture(params=["tiny", "smollm2"])
def reference(request):
    """The reference's run, its rows (SmolLM2: six of them), and a context with its model and tasks."""
    folder = golden_path("tiny_model") if request.param == "tiny" else smollm2_path()
    content = golden("nuggets")
    run = next(run for run in content["runs"] if run["model"] == request.param)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    tasks, rows = fields(content["task_rows"]), fields(content["candidate_rows"])
    rows = rows if request.param == "tiny" else rows.select(range(6))
    ctx = Context(tokenizer, model, target=Records(tasks), max_length=2048, dtype="float32")
    return run, rows, ctx


@pytest.mark.parametrize("quirks", [True, False], ids=["quirks", "plain"])
def test_golden_scores_equal_the_authors_code(reference, quirks, tmp_path):
    run, rows, ctx = reference
    plain = "no_pad_row_bos_first" if run["model"] == "tiny" else "no_pad_row_no_bos"
    expected = run["reference" if quirks else plain]
    ctx = dataclasses.replace(ctx, cache_dir=tmp_path)
    tasks = task_tokens(ctx.target, ctx.text_format(max_length=200), bos=not quirks)
    assert [ids.tolist() for ids, _ in tasks.behind.take(range(8))] == [task["input_ids"] for task in run["tasks"]]
    candidates, n = encode(Records(rows), ctx.text_format(max_length=None)).tokens, len(rows)
    assert [ids.tolist() for ids, _ in candidates.take(range(n))] == run["candidate_ids"][:n]
    options = {"dtype": "float32", "mean_logit": quirks, "cache_dir": tmp_path}
    alone = likelihood(ctx.model, tasks.alone, **options)
    np.testing.assert_allclose(-alone.loss, expected["zero_shot"], rtol=1e-5, atol=3e-3)
    behind = one_shot_loss(ctx.model, candidates, tasks.behind, **options)
    np.testing.assert_allclose(-behind.loss, expected["one_shot"][:n], rtol=1e-5, atol=3e-3)
    selector = Nuggets(threshold=None, task_window=200, reference_quirks=quirks)
    selection = select(rows, selector, 1.0, ctx)
    answered = [row for row, text in enumerate(rows["completion"]) if text]
    assert selection.unscorable == ({"no answer": [11]} if n == 12 else {})
    assert selection.scores[answered].tolist() == np.array(expected["golden_score"])[answered].tolist()
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


@pytest.mark.parametrize("batch_tokens", [1, 90, 10**6])
@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_sharing_an_exemplars_keys_and_values_changes_no_number(build, batch_tokens):
    model, (exemplars, tasks) = build(), pairs()
    found = one_shot_loss(model, exemplars, tasks, batch_tokens=batch_tokens, dtype="float32")
    np.testing.assert_allclose(found.loss, one_by_one(model, exemplars, tasks), rtol=1e-5, atol=1e-5)


def test_an_exemplar_is_computed_once_and_tasks_alone_behind_it():
    model, (exemplars, tasks), seen = MODELS["llama"](), pairs(), []
    model.get_input_embeddings().register_forward_hook(lambda module, args, out: seen.append(args[0].numel()))
    found = one_shot_loss(model, exemplars, tasks, batch_tokens=10**6, dtype="float32")
    once = exemplars.lengths.sum() + len(exemplars) * tasks.lengths.sum()
    assert found.forward_tokens == once
    probe = min(64, exemplars.lengths[0])
    assert once <= sum(seen) - (8 + 8 + probe + (probe + 8) + 8) <= 1.12 * once


def test_tasks_of_like_length_go_together():
    lengths = np.array([10, 100, 9, 95, 50, 10, 98])
    groups = [group.tolist() for group in of_like_length(lengths, range(7), 0.1)]
    assert groups == [[1, 6, 3], [4], [0, 5, 2]]
    assert [group.tolist() for group in of_like_length(lengths, [4, 0], 0.1)] == [[4], [0]]


def test_pairs_are_kept_one_by_one_and_a_killed_run_goes_on(tmp_path):
    model, (exemplars, tasks), asked = MODELS["llama"](), pairs(), []

    def some(losses):
        asked.append(1)
        if len(asked) == 5:
            raise KeyboardInterrupt
        return np.flatnonzero(np.isnan(losses))[:2] if np.isnan(losses).sum() > 3 else np.zeros(0, int)

    with pytest.raises(KeyboardInterrupt):
        one_shot_loss(model, exemplars, tasks, wanted=some, cache_dir=tmp_path, dtype="float32")
    again = one_shot_loss(model, exemplars, tasks, cache_dir=tmp_path, dtype="float32")
    assert again.cached == 6 and again.cached_seconds > 0
    np.testing.assert_allclose(again.loss, one_by_one(model, exemplars, tasks), rtol=1e-5, atol=1e-5)
    third = one_shot_loss(model, exemplars, tasks, cache_dir=tmp_path, dtype="float32")
    assert (third.cached, third.forward_tokens) == (35, 0) and (third.loss == again.loss).all()
    other = one_shot_loss(model, exemplars, tasks, cache_dir=tmp_path, dtype="float32", mean_logit=True)
    assert other.cached == 0 and (other.loss[:, [0, 1, 3, 4, 5, 6]] > third.loss[:, [0, 1, 3, 4, 5, 6]]).all()


def test_an_exemplar_that_does_not_fit_is_nan_and_a_batch_that_does_not_is_halved():
    model, (exemplars, tasks) = MODELS["llama"](), pairs()

    def refuse(module, args, kwargs):
        rows, width = kwargs["input_ids"].shape
        if rows > 2 or (kwargs.get("past_key_values") is None and width == exemplars.lengths.max()):
            raise MemoryError
        return None

    expected = one_by_one(model, exemplars, tasks)
    model.base_model.register_forward_pre_hook(refuse, with_kwargs=True)
    found = one_shot_loss(model, exemplars, tasks, dtype="float32").loss
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
    alone, behind, silent = task_tokens(records, ctx.text_format())
    joined = [*records[1].messages, *records[0].messages]
    text = tokenizer.apply_chat_template(joined, tokenize=False)
    exemplar = tokenizer.apply_chat_template(list(records[1].messages), tokenize=False)
    ids, spans = behind.take([0])[0]
    assert exemplar + tokenizer.decode(ids) == text and len(silent) == 0
    whole, places = alone.take([0])[0]
    assert tokenizer.decode(whole).startswith("<s><|system|>")
    answers = [[tokenizer.decode(row[start:end]) for start, end in s] for row, s in ((ids, spans), (whole, places))]
    assert answers[0] == answers[1] == [message["content"] for message in records[0].messages[1::2]]


def test_a_cut_task_counts_the_same_tokens_alone_and_behind():
    tokenizer = tiny_tokenizer(bos=True)
    for name, window in (("prompt-completion", 25), ("messages", 35)):
        text_format = context(tokenizer=tokenizer).text_format(max_length=window)
        alone, behind, silent = task_tokens(Records(layout(name, 20)), text_format)
        counted = [
            [int((spans[:, 1] - spans[:, 0]).sum()) for _, spans in part.take(range(20))] for part in (alone, behind)
        ]
        assert counted[0] == counted[1] and behind.lengths.max() == window and 0 < len(silent) < 20, name
        assert np.flatnonzero(np.array(counted[0]) == 0).tolist() == silent.tolist()


def test_a_task_without_a_prompt_counts_the_same_tokens_alone_and_behind():
    tokenizer = tiny_tokenizer(bos=True)
    records = Records(
        Dataset.from_list([{"prompt": "", "completion": "red fox"}, {"prompt": "a:", "completion": "red"}])
    )
    alone, behind, _ = task_tokens(records, context(tokenizer=tokenizer).text_format())
    for (ids, spans), (other, places) in zip(alone.take([0, 1]), behind.take([0, 1]), strict=True):
        assert ids[1:].tolist() == other.tolist() and (spans == places + 1).all() and places[0, 0] >= 1


@pytest.mark.parametrize("answer", ["", None])
def test_a_task_without_an_answer_is_refused_by_name(answer):
    target = alpaca(3).to_list()
    target[1]["output"] = answer
    ctx = context(target=Records(Dataset.from_list(target)))
    with pytest.raises(ValueError, match="Row 1 of the tasks can't be one"):
        select(alpaca(4), Nuggets(), 1.0, ctx)


# The selector --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.3, 0.4, 0.5])
@pytest.mark.parametrize("stop", ["dropped", "sealed"])
def test_stopping_early_gives_the_same_selection_with_fewer_passes(stop, threshold):
    rows, options = alpaca(24, seed=2), {"tasks": 20, "threshold": threshold}
    whole = select(rows, Nuggets(stop="never", **options), 1.0, context())
    early = select(rows, Nuggets(stop=stop, **options), 1.0, context())
    assert 0 < len(whole.indices) < 24
    assert set(early.indices) == set(whole.indices)
    assert early.passes["forward_rows"] < whole.passes["forward_rows"]
    if stop == "dropped":
        assert early.indices.tolist() == whole.indices.tolist()
        kept = whole.scores > np.float32(threshold)
        assert (early.scores[kept] == whole.scores[kept]).all()
        few = select(rows, Nuggets(stop=stop, **options), 2, context())
        assert few.indices.tolist() == whole.indices[:2].tolist()
    dropped = {row for found in early.dropped.values() for row in found}
    assert dropped | set(early.indices.tolist()) == set(range(24))


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
        alone, behind = np.ones(n), draw.choice([0.5, 1.0, 1.5], n, p=draw.dirichlet([1, 1, 1]))
        plan, losses = Plan(alone, threshold, stop), np.full(n, np.nan)
        while len(todo := plan(losses)):
            assert np.isnan(losses[todo]).all()
            losses[todo] = behind[todo]
        wins, left = int((losses < alone).sum()), int(np.isnan(losses).sum())
        above = (behind < alone).sum() / n > threshold
        assert (wins / n > threshold) == above if left == 0 else plan.sealed(wins, left) == (1 if above else -1)


def test_tasks_are_the_rows_nearest_the_centroids_of_their_prompts():
    rows = alpaca(30, seed=4)
    selection = select(rows, Nuggets(tasks=6, threshold=None), 5, context())
    assert selection.facts["figures"]["predetermined tasks"] == 6
    assert selection.facts["figures"]["tasks run"] == "180 of 180"
    assert set((selection.scores * 6).round(4)) <= set(range(7))


def test_identical_rows_and_fewer_rows_than_tasks():
    same = Dataset.from_list([alpaca(1).to_list()[0]] * 5)
    selection = select(same, Nuggets(tasks=100, threshold=None), 3, context())
    assert selection.facts["figures"]["predetermined tasks"] == 1
    assert selection.indices.tolist() == [0, 1, 2] and len(set(selection.scores)) == 1


def test_rows_that_need_more_positions_than_there_are_left_out_by_name():
    rows = alpaca(6).to_list()
    rows[4]["output"] = "red fox " * 400
    ctx = context(max_length=2000)
    ctx.model.config.max_position_embeddings = 600
    selection = select(Dataset.from_list(rows), Nuggets(tasks=3, threshold=None, task_window=64), 1.0, ctx)
    assert selection.unscorable == {"the row and a task need more than 600 positions": [4]}
    assert len(selection.indices) == 5


@pytest.mark.parametrize(
    "options, named",
    [
        ({"tasks": 0}, "tasks=0"),
        ({"threshold": 1.0}, "threshold=1.0"),
        ({"threshold": None, "stop": "sealed"}, "stop"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, named):
    with pytest.raises(ValueError, match=named):
        Nuggets(**options)


def test_a_model_with_an_adapter_is_trained_on_what_it_chose(tmp_path):
    peft = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    options = {"peft_config": peft, "gradient_checkpointing": True, "selection_budget": 6}
    trainer = tiny_trainer(tmp_path, "nuggets", {"tasks": 5, "threshold": None}, **options)
    trainer.train()
    assert len(trainer.selection.indices) == 6 and trainer.state.global_step == 3
    assert trainer.selection.facts["figures"]["tasks run"] == "120 of 120"


def test_two_ranks_choose_the_rows_of_one_and_share_a_cache(tmp_path):
    options = {"tasks": 12, "threshold": 0.4}
    given = {"selection_method": "nuggets", "selection_kwargs": options, "selection_budget": 1.0}
    recipe = write_recipe(tmp_path, n=24, selection_dtype="float32", max_length=256, **given)
    found, ways = [], ("--output_dir", "--selection_cache_dir")
    for processes, cache in ((1, "none"), (2, "shared"), (2, "shared"), (1, "shared")):
        folders = tmp_path / f"run{len(found)}", tmp_path / cache
        folders = folders if cache == "shared" else (folders[0], cache)
        given = [item for pair in zip(ways, map(str, folders), strict=True) for item in pair]
        run(processes, recipe, *given, command="select")
        found.append(selection(tmp_path / f"run{len(found)}"))
    assert all(one["indices"] == found[0]["indices"] and one["dropped"] == found[0]["dropped"] for one in found)
    assert 0 < found[0]["kept"] < 24 and found[1]["facts"]["processes"] == 2
    assert found[2]["passes"]["forward_rows"] == found[3]["passes"]["forward_rows"] == 24  # embeddings of the prompts
