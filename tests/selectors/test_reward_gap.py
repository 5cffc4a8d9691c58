"""`reward_gap` against the authors' numbers and against one row at a time."""

import copy

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_dataselect import select_dataset
from hf_dataselect.context import Context
from hf_dataselect.data.preferences import rejected_answers, scored_columns
from hf_dataselect.data.records import Records
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.selectors.reward_gap import implicit_rewards
from tests.rows import alpaca
from tests.shared_data import golden, golden_path
from tests.tiny import tiny_model, tiny_tokenizer


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
    assert np.argsort(gaps).tolist() == given["hardest_first"]


@pytest.mark.parametrize("shape", ["strings", "chats"])
def test_gaps_are_those_of_one_row_at_a_time_and_both_directions_are_kept(policy, shape):
    tokenizer, rows = tiny_tokenizer(), pairs()
    if shape == "chats":
        rows = as_chats(rows)
    model = tiny_model(tokenizer)
    options = {"budget": 4, "cache_dir": None, "dtype": "float32", "max_length": 256, "batch_tokens": 4096}
    kwargs = {"policy": policy}
    kept, hard = select_dataset(rows, "reward_gap", model, tokenizer, method_kwargs=kwargs, **options)
    easy = select_dataset(rows, "reward_gap", model, tokenizer, method_kwargs={**kwargs, "keep": "largest"}, **options)
    assert kept.column_names[:2] == rows.column_names[:2] and "rejected" in kept.column_names
    gaps = hard.columns["gap"]
    assert hard.indices.tolist() == np.argsort(gaps)[:4].tolist()
    assert easy[1].indices.tolist() == np.argsort(-gaps)[:4].tolist()
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
    ],
)
def test_wrong_input_is_refused_before_a_model_loads(monkeypatch, rows, kwargs, message):
    with pytest.raises(ValueError, match=message):
        select_dataset(rows, "reward_gap", "some/model", method_kwargs=kwargs)
