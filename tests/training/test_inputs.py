"""What TRL would refuse is refused before anything is scored; rows that it can't use are excluded for every method."""

import numpy as np
import pytest
import torch
from datasets import Dataset

from hf_dataselect.data.preparation import Preparation
from tests.rows import layout
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer
from tests.tiny_training import tiny_trainer


CHATS = layout("messages", 8)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turns') }}{% endif %}" + CHAT_TEMPLATE
)
UNMARKED = CHAT_TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")


def tokenizer_with(template: str):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    "rows, options, message",
    [
        (CHATS, {"packing": True, "max_length": None}, "TRL can't prepare the rows of `train_dataset`: .*max_length"),
        (CHATS.add_column("labels", [1] * 8), {}, "`train_dataset` has a column `labels`, .*rename or remove it"),
        (CHATS.with_transform(lambda batch: batch), {}, "`train_dataset` has a transform"),
        (layout("text", 8), {"assistant_only_loss": True}, "assistant_only_loss"),
        (CHATS, {"assistant_only_loss": True, "processing_class": tokenizer_with(UNMARKED)}, "template"),
    ],
    ids=["packing without a window", "labels", "transform", "plain texts without turns", "no training template"],
)
def test_what_trl_refuses_is_refused_before_the_model_loads(rows, options, message, tmp_path, monkeypatch):
    monkeypatch.setattr("trl.SFTTrainer.__init__", None)
    with pytest.raises(ValueError, match=message):
        tiny_trainer(tmp_path, "perplexity", train_dataset=rows, selection_budget=4, **options)


@pytest.mark.parametrize("method", ["full", "random", "length", "perplexity"])
def test_a_row_that_only_the_template_refuses_is_excluded_for_every_method(method, tmp_path):
    system = [{"role": "system", "content": "Be brief."}, *CHATS[0]["messages"]]
    rows = Dataset.from_list([*CHATS, {"messages": system}])
    options = {} if method == "full" else {"selection_budget": 8}
    given = {"train_dataset": rows, "eval_dataset": rows, "processing_class": tokenizer_with(NO_SYSTEM)}
    trainer = tiny_trainer(tmp_path, method, **given, **options)
    trainer.train()
    assert sorted(trainer.selection.indices) == list(range(8)) and len(trainer.eval_dataset) == 8
    assert trainer.selection.dropped == {"the chat template refuses the turns (no system turns)": [8]}


def test_an_edited_train_dataset_is_refused_and_the_rows_kept_may_be_edited(tmp_path):
    trainer = tiny_trainer(tmp_path, train_dataset=CHATS)
    trainer.train_dataset = trainer.train_dataset.select(range(2))
    for start in (trainer.train, trainer.select, trainer.get_train_dataloader):
        with pytest.raises(ValueError, match="`train_dataset` was replaced"):
            start()
    trainer = tiny_trainer(tmp_path, train_dataset=CHATS)
    trainer.prepare_subset()
    trainer.train_dataset = trainer.train_dataset.select([5, 3])
    assert sum(len(batch["input_ids"]) for batch in trainer.get_train_dataloader()) == 2
    trainer.select()
    trainer.prepare_subset()
    assert len(trainer.train_dataset) == 8


@pytest.mark.parametrize("method", ["full", "perplexity"])
def test_a_row_without_the_assistant_is_excluded_under_assistant_only_loss(method, tmp_path):
    lost = [{"messages": [{"role": "user", "content": "Hi"}]}]
    rows = Dataset.from_list([*lost, *CHATS, *lost])
    given = {"train_dataset": rows, "eval_dataset": rows, "assistant_only_loss": True}
    trainer = tiny_trainer(tmp_path, method, **given, **({} if method == "full" else {"selection_budget": 8}))
    trainer.train()
    assert sorted(trainer.selection.indices) == list(range(1, 9)) and len(trainer.eval_dataset) == 8
    assert trainer.selection.dropped == {"no turn of the assistant (`assistant_only_loss`)": [0, 9]}


def test_evaluation_rows_of_which_none_can_be_read_are_refused_by_name(tmp_path):
    system = [{"role": "system", "content": "Be brief."}, *CHATS[0]["messages"]]
    given = {"train_dataset": CHATS, "processing_class": tokenizer_with(NO_SYSTEM)}
    lost = {"held out": Dataset.from_list([{"messages": system}] * 2)}
    with pytest.raises(ValueError, match=r"`eval_dataset\['held out'\]`: none of its 2 rows can be used: the chat"):
        tiny_trainer(tmp_path, eval_dataset=lost, **given)


def test_a_token_row_without_ids_does_not_break_the_others(tmp_path):
    rows = Dataset.from_list([{"input_ids": None}, *({"input_ids": [5, 6, 7]} for _ in range(5))])
    trainer = tiny_trainer(tmp_path, train_dataset=rows)
    trainer.train()
    assert trainer.selection.dropped == {"missing value in `input_ids`": [0]}


@pytest.mark.parametrize("name", ["text", "prompt-completion", "messages", "long"])
def test_no_row_is_said_to_be_scored_with_other_tokens(name, tmp_path, caplog):
    options = {"packing": True, "packing_strategy": "bfd_split", "max_length": 32} if name == "long" else {}
    asked = [{"messages": [{"role": "user", "content": "x " * 90}]}]
    rows = Dataset.from_list([*asked, *CHATS]) if name == "long" else layout(name, 8)
    tiny_trainer(tmp_path, "random", train_dataset=rows, **options)
    assert "other tokens" not in caplog.text


def test_a_row_that_is_scored_with_other_tokens_is_named(tmp_path, caplog, monkeypatch):
    prepare = Preparation.prepare

    def changed(*given, **options):
        shorter = lambda row, i: {"input_ids": row["input_ids"][: -1 if i == 3 else None]}  # noqa: E731
        return prepare(*given, **options).map(shorter, with_indices=True)

    monkeypatch.setattr(Preparation, "prepare", changed)
    tiny_trainer(tmp_path, "random", train_dataset=CHATS)
    assert "`train_dataset`: rows 3 are scored with other tokens than TRL trains on" in caplog.text


@pytest.mark.parametrize("method", ["random", "less"])
def test_split_rows_are_embedded_and_differentiated_by_a_part_with_an_answer(method, tmp_path):
    """Beside five equal rows, of which a diverse filter keeps one, stands a row of several windows."""
    long = {
        "prompt": [{"role": "user", "content": "x " * 90}],
        "completion": [{"role": "assistant", "content": "yes"}],
    }
    same = {"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Hello"}]}
    rows = Dataset.from_list([long, *[same] * 5])
    options = {"packing": True, "packing_strategy": "bfd_split", "max_length": 64, "selection_budget": 6}
    options["selection_diversity"] = {"kind": "filter", "encoder": "model", "threshold": 0.999}
    kwargs = None
    if method == "less":
        rows.select([1]).to_json(tmp_path / "target.jsonl")
        options["selection_target"] = str(tmp_path / "target.jsonl")
        kwargs = {"warmup_fraction": 1.0, "warmup_epochs": 1, "lora_targets": ["q_proj"], "lora_r": 2}
    found = tiny_trainer(tmp_path, method, kwargs, train_dataset=rows, **options).select()
    assert len(found.indices) == 2 and 0 in found.indices and not found.unscorable


def test_rows_that_are_split_are_scored_whole(tmp_path):
    """The loss of a row in two windows is that of both windows, each read by itself."""
    rows = Dataset.from_list(
        [{"messages": [{"role": "user", "content": "x " * 60}, *CHATS[i]["messages"]]} for i in range(4)]
    )
    options = {"packing": True, "packing_strategy": "bfd_split", "max_length": 64, "selection_budget": 4}
    trainer = tiny_trainer(tmp_path, "perplexity", {"keep": "top"}, train_dataset=rows, **options)
    found = trainer.select()
    assert not found.unscorable and not found.truncated
    ctx = trainer.context()
    parts = ctx.encode(trainer.records, parts=True).tokens
    assert len(parts) > 4 and parts.lengths.max() == 64
    whole = np.zeros((4, 2))
    for row, (ids, spans) in zip(
        ctx.encode(trainer.records, parts=True).row, parts.take(range(len(parts))), strict=True
    ):
        with torch.no_grad():
            logits = trainer.model(torch.from_numpy(ids.astype(np.int64))[None]).logits[0, :-1].log_softmax(-1)
        losses = -logits[np.arange(len(ids) - 1), ids[1:]].numpy()
        places = [place - 1 for start, end in spans for place in range(max(start, 1), end)]
        whole[row] += losses[places].sum(), len(places)
    np.testing.assert_allclose(found.scores, np.exp(whole[:, 0] / whole[:, 1]), rtol=1e-3)
