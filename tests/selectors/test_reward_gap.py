"""`reward_gap` against the authors' numbers and against one row at a time."""

import copy
import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_dataselect import select_dataset
from hf_dataselect.cli.main import main
from hf_dataselect.context import Context
from hf_dataselect.data.preferences import rejected_answers, scored_columns
from hf_dataselect.data.records import Records
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.selectors.reward_gap import RewardGap, implicit_rewards
from tests.rows import alpaca
from tests.shared_data import golden, golden_path
from tests.tiny import tiny_evaluator, tiny_model, tiny_tokenizer


def pairs(n: int = 12) -> Dataset:
    return Dataset.from_list(
        [
            {"prompt": f"{row['instruction']}\n", "chosen": row["output"], "rejected": f"No. {row['input']}".strip()}
            for row in alpaca(n)
        ]
    )


def as_chats(rows: Dataset) -> Dataset:
    turns = [{"role": "user"}, {"role": "assistant"}]
    return Dataset.from_list(
        [
            {name: [{**turns[0], "content": row["prompt"]}, {**turns[1], "content": row[name]}] for name in row}
            for row in rows.to_list()
        ]
    ).remove_columns("prompt")


def with_chats_rejected() -> Dataset:
    return pairs().remove_columns("rejected").add_column("rejected", as_chats(pairs())["rejected"][:])


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory) -> str:
    folder, tokenizer = str(tmp_path_factory.mktemp("evaluator")), tiny_tokenizer()
    for part in (tiny_evaluator(tokenizer), tokenizer):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> str:
    folder, tokenizer = str(tmp_path_factory.mktemp("policy")), tiny_tokenizer()
    for part in (tiny_model(tokenizer, seed=3), tokenizer):
        part.save_pretrained(folder)
    return folder


def test_rewards_and_order_are_those_of_the_authors_code():
    given = golden("reward_gap")
    folder = str(golden_path("tiny_model"))
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    policy, rule = copy.deepcopy(model), torch.Generator().manual_seed(given["policy"]["seed"])
    with torch.no_grad():
        for weight in policy.parameters():
            weight += 0.02 * weight.std() * torch.randn(weight.shape, generator=rule)

    def rewards(name: str) -> np.ndarray:
        rows = [
            {"prompt": tokenizer.decode(ids[1:border]), "completion": tokenizer.decode(ids[border:])}
            for ids, border in ((row[f"ids_{name}"], row["n_prompt"]) for row in given["rows"])
        ]
        # All rows in one padded batch, where the authors' code would count padding.
        ctx = Context(tokenizer, model.eval(), Runtime(dtype="float32", batch_tokens=100_000), max_length=None)
        found = 0.1 * implicit_rewards(Records(Dataset.from_list(rows)), ctx, ctx.using(policy.eval()))
        assert not ctx.account.rows("unscorable")
        return found

    for name in ("chosen", "rejected"):
        expected = [row[f"reward_{name}"] for row in given["rows"]]
        np.testing.assert_allclose(rewards(name), expected, atol=given["tolerance"]["gap"]["absolute"] / 2)
    gaps = rewards("chosen") - rewards("rejected")
    # The authors' code ranks the signed gap, the paper its size.
    signed = [row["gap"] for row in given["rows"]]
    for keep, order in (("lowest", given["hardest_first"]), ("smallest", np.argsort(np.abs(signed)).tolist())):
        scored = RewardGap("policy", keep=keep).score({"reward_chosen": gaps, "reward_rejected": 0 * gaps}, ctx=None)
        assert np.argsort(-scored.values).tolist() == order
    assert order != given["hardest_first"]


@pytest.mark.parametrize("shape", ["strings", "chats"])
def test_gaps_are_those_of_one_row_at_a_time_and_both_directions_are_kept(policy, shape):
    tokenizer, rows = tiny_tokenizer(), pairs()
    if shape == "chats":
        rows = as_chats(rows)
    model = tiny_model(tokenizer)
    options = {"budget": 4, "cache_dir": None, "dtype": "float32", "max_length": 256, "batch_tokens": 4096}
    kwargs = {"policy": policy}
    kept, hard = select_dataset(rows, "reward_gap", model, tokenizer, method_kwargs=kwargs, **options)
    easy = select_dataset(rows, "reward_gap", model, tokenizer, method_kwargs={**kwargs, "keep": "highest"}, **options)
    assert kept.column_names[:2] == rows.column_names[:2] and "rejected" in kept.column_names
    gaps = hard.columns["gap"]
    assert hard.indices.tolist() == np.argsort(np.abs(gaps))[:4].tolist()
    assert easy[1].indices.tolist() == np.argsort(-gaps)[:4].tolist()
    assert hard.passes["forward_rows"] == RewardGap(policy).forecast(len(rows), 0, 4)["forward_rows"]
    models = tiny_model(tokenizer, seed=3), model
    for row in range(3):
        gap = 0.0
        for name, sign in (("chosen", 1), ("rejected", -1)):
            if shape == "chats":
                ids = tokenizer.apply_chat_template(rows[row][name], tokenize=True, return_dict=False)
                before = tokenizer.apply_chat_template(
                    rows[row][name][:1], tokenize=True, add_generation_prompt=True, return_dict=False
                )
                ids = ids[: len(ids) - ids[::-1].index(tokenizer.eos_token_id) - 1]
            else:
                before = tokenizer(rows[row]["prompt"])["input_ids"]
                ids = tokenizer(rows[row]["prompt"] + rows[row][name])["input_ids"]
            for model_of, side in zip(models, (1, -1), strict=True):
                with torch.no_grad():
                    logits = model_of(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
                taken = logits.gather(1, torch.tensor(ids[1:])[:, None])[len(before) - 1 :]
                gap += 0.1 * sign * side * float(taken.sum())
        assert gaps[row] == pytest.approx(gap, abs=1e-4)


def test_the_other_answer_is_read_in_every_layout():
    for rows in (pairs(3), as_chats(pairs(3))):
        records = Records(scored_columns(rows, "text"))
        chosen, rejected = [r.answer for r in records], [r.answer for r in rejected_answers(records)]
        assert chosen == pairs(3)["chosen"][:] and rejected == pairs(3)["rejected"][:]


@pytest.mark.parametrize(
    "rows, kwargs, message",
    [
        (pairs(), {}, "policy is required"),
        (pairs(), {"policy": "x", "keep": "hard"}, "keep='hard' must be one of"),
        (alpaca(12), {"policy": "x"}, "`chosen` and `rejected`"),
        (with_chats_rejected(), {"policy": "x"}, "both must be strings, or both lists of messages"),
        (pairs(), {"policy": "./none"}, "policy='./none' can't be found"),
        (pairs(), {"policy": "POLICY", "reference": "./none"}, "reference='./none' can't be found"),
        (pairs(), {"policy": "EVALUATOR"}, "policy=.* is a 't5', which does not predict the next token"),
    ],
)
def test_wrong_input_is_refused_before_a_model_loads(policy, evaluator, rows, kwargs, message):
    places = {"POLICY": policy, "EVALUATOR": evaluator}
    kwargs = {name: places.get(value, value) for name, value in kwargs.items()}
    with pytest.raises(ValueError, match=message):
        select_dataset(rows, "reward_gap", "some/model", method_kwargs=kwargs)


def test_a_formatting_function_is_refused_by_name(policy):
    options = {"method_kwargs": {"policy": policy}, "formatting_func": lambda row: row["prompt"] + row["chosen"]}
    with pytest.raises(ValueError, match="`formatting_func` makes one text of a row"):
        select_dataset(pairs(), "reward_gap", "some/model", **options)


def test_the_command_selects_whole_pairs_as_select_dataset_does(policy, tmp_path, capsys):
    rows = as_chats(pairs()).add_column("source", [str(i) for i in range(12)])
    rows = rows.map(lambda row, i: {"rejected": None if i == 3 else row["rejected"]}, with_indices=True)
    rows.to_json(tmp_path / "pairs.jsonl")
    folder, out = tmp_path / "model", tmp_path / "run"
    for part in (tiny_model(tiny_tokenizer()), tiny_tokenizer()):
        part.save_pretrained(folder)
    given = ["--dataset_name", tmp_path / "pairs.jsonl", "--model_name_or_path", folder, "--output_dir", out]
    given += ["--selection_method", "reward_gap", "--selection_kwargs", json.dumps({"policy": policy})]
    given += ["--selection_budget", "4", "--max_length", "256", "--use_cpu", "true", "--bf16", "false"]
    with pytest.raises(SystemExit):
        main(["train", *map(str, given)])
    assert "Pairs for DPO and prompts for GRPO: `hf-dataselect select`" in capsys.readouterr().err
    main(["select", *map(str, given)])
    kept = Dataset.from_parquet(str(out / "selected.parquet"))
    model = AutoModelForCausalLM.from_pretrained(folder)
    expected, selection = select_dataset(
        rows, "reward_gap", model, tiny_tokenizer(), 4, method_kwargs={"policy": policy}, max_length=256
    )
    assert kept["selection_row"][:] == selection.indices.tolist() and 3 not in selection.indices
    assert list(selection.unscorable.values()) == [[3]] and np.isnan(selection.scores[3])
    assert set(kept.column_names) == {*rows.column_names, "selection_row", "selection_score"}
    assert kept["chosen"][:] == expected["chosen"][:] and kept["source"][:] == expected["source"][:]
