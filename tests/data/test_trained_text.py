"""Tokens count where training has labels."""

import pytest
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from hf_dataselect.data.records import Records
from hf_dataselect.data.text import TextFormat
from tests.data.test_plain_text import appending
from tests.data.test_text import CHATS, MARKED, chat, encoded, text_of, written
from tests.tiny import tiny_model, tiny_tokenizer


def trained_on(tokenizer, rows, **options):
    """Token ids and trained places of rows as `SFTTrainer` prepares them."""
    args = SFTConfig(
        "unused",
        max_length=None,
        report_to="none",
        use_cpu=True,
        bf16=False,
        chat_template_path=None,
        **options,
    )
    model = tiny_model(tiny_tokenizer(), layers=1, hidden=16)
    trainer = SFTTrainer(model, args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    return [
        (row["input_ids"], [i for i, label in enumerate(row["labels"]) if label != -100])
        for row in trainer.train_dataset
    ]


def counted_in(tokenizer, rows):
    """Token ids and counted places of the same rows here, the end of the turn included."""
    found = []
    for record in Records(Dataset.from_list(rows)):
        ((ids, spans, _, _),) = encoded(TextFormat(tokenizer, end_of_turn=True), record)
        found.append((ids, [place for start, end in spans for place in range(start, end)]))
    return found


STRINGS = [
    {"prompt": "What is the capital?\n", "completion": "Paris."},
    {"prompt": "Sum?\n", "completion": "7"},
    {"prompt": "春天\n", "completion": "来了 🙂"},
    {"prompt": "Q ", "completion": "ends</s>"},
]


def split_chats(names):
    turns = [list(chat(CHATS[name]).messages) for name in names]
    return [{"prompt": messages[:-1], "completion": messages[-1:]} for messages in turns]


@pytest.mark.parametrize("make", [written, lambda: written(bos=True), appending, lambda: appending(bos=True)])
def test_strings_count_where_training_has_labels(make):
    assert counted_in(make(), STRINGS) == trained_on(make(), STRINGS)


def test_strings_whose_tokens_merge_at_the_border_count_one_token_less_than_training():
    # Training takes the completion to start where prompt and whole diverge; scores start after the prompt's tokens.
    rows = [{"prompt": "The cap", "completion": "ital of France"}]
    ((ids, counted),), ((trained_ids, trained),) = counted_in(written(), rows), trained_on(written(), rows)
    assert ids == trained_ids and set(counted) < set(trained)


def test_chats_count_where_training_has_labels():
    closed = MARKED.replace("{{ '\n' }}", "")  # nothing behind the token that ends an answer
    rows = split_chats(["single", "system", "many", "other scripts", "special tokens in it", "one token"])
    assert counted_in(written(closed), rows) == trained_on(written(closed), rows)


def test_what_a_template_writes_behind_the_end_of_an_answer_is_trained_on_but_not_counted():
    rows = split_chats(["single", "many"])
    for (ids, counted), (trained_ids, trained) in zip(
        counted_in(written(), rows), trained_on(written(), rows), strict=True
    ):
        assert ids == trained_ids and trained == [*counted, len(ids) - 1]
        assert text_of(written(), ids[-1:]) == "\n"


def test_a_completion_of_several_turns_counts_its_answers_where_training_has_labels_on_the_user_s_too():
    turns = list(chat(CHATS["many"]).messages)
    rows = [{"prompt": turns[:1], "completion": turns[1:]}]
    ((ids, counted),), ((trained_ids, trained),) = counted_in(written(), rows), trained_on(written(), rows)
    assert ids == trained_ids and set(counted) < set(trained)


def test_with_assistant_only_loss_the_marked_turns_are_the_counted_ones():
    names = ["single", "system", "many", "the user last", "the same answer thrice", "other scripts", "assistant first"]
    rows = [{"messages": list(chat(CHATS[name]).messages)} for name in names]
    assert counted_in(written(), rows) == trained_on(written(), rows, assistant_only_loss=True)
