"""What is scored, warmed up on and evaluated is what TRL trains on, token by token, over layouts and options."""

import numpy as np
import pytest
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from hf_dataselect.data.records import Records
from tests.rows import LAYOUTS, layout
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer
from tests.tiny_training import PLAIN, tiny_trainer


UNMARKED = CHAT_TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")
#: Writes the tools, and what else is given to it.
ARGUMENTS = (
    "{% if tools is not none and tools is defined %}{{ '<|system|>tools ' + tools | tojson }}{% endif %}"
    "{% if mood is defined %}{{ 'mood ' + (mood or 'none') + '\n' }}{% endif %}" + CHAT_TEMPLATE
)


def turns(*pairs: tuple[str, str]) -> list[dict]:
    return [{"role": role, "content": content} for role, content in pairs]


def with_column(name: str, column: str, values: list) -> Dataset:
    rows = layout(name, 6)
    return rows.add_column(column, [values[i % len(values)] for i in range(6)])


LONG = [
    turns(("user", "x " * (40 * (i % 3))), ("assistant", "yes " * (20 + 9 * i)), ("user", "And?")) for i in range(6)
]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
#: Rows, and how the tokenizer renders them.
ROWS = {
    **{name: (layout(name, 6), CHAT_TEMPLATE) for name in LAYOUTS},
    "roles of the template": (
        Dataset.from_list(
            [
                {
                    "messages": turns(
                        ("developer", "Be terse."), ("user", "2 + 2?"), ("tool_call", "add(2, 2)"),
                        ("tool_response", "4"), ("assistant", f"It is 4{'!' * i}"),
                    )
                }
                for i in range(6)
            ]
        ),
        CHAT_TEMPLATE,
    ),
    "tools, some of them none": (with_column("messages", "tools", ["[]", '[{"type": "function"}]', None]), ARGUMENTS),
    "blank tools": (with_column("sharegpt", "tools", ["", " ", '[{"type": "function"}]']), ARGUMENTS),
    "arguments of the template": (
        with_column("messages", "chat_template_kwargs", [{"mood": "glad"}, {"mood": None}, None]), ARGUMENTS,
    ),
    "a prompt beside messages": (with_column("messages", "prompt", ["p"]), CHAT_TEMPLATE),
    "a text beside completions": (with_column("prompt-completion", "text", ["t"]), CHAT_TEMPLATE),
    "a column of the system turn": (with_column("alpaca", "system", ["Be glad.", "", None]), CHAT_TEMPLATE),
    "longer than the window": (Dataset.from_list([{"messages": chat} for chat in LONG]), CHAT_TEMPLATE),
    "long prompts": (
        Dataset.from_list([{"prompt": chat[:1], "completion": chat[1:2]} for chat in LONG]), CHAT_TEMPLATE,
    ),
}  # fmt: skip
OPTIONS = {
    "keep_end": {"truncation_mode": "keep_end"},
    "assistant only": {"assistant_only_loss": True},
    "all tokens": {"completion_only_loss": False},
    "packed": {"packing": True},
    "split": {"packing": True, "packing_strategy": "bfd_split"},
    "wrapped": {"packing": True, "packing_strategy": "wrapped"},
}
VARIED = ["messages", "chat prompt-completion", "prompt-completion", "text", "longer than the window", "long prompts"]
CASES = [(name, "plain", {}) for name in ROWS] + [
    (name, option, given)
    for name in VARIED
    for option, given in OPTIONS.items()
    if not (option == "assistant only" and name in ("prompt-completion", "text"))
]


def as_pairs(rows) -> list[tuple[list, list]]:
    """Token ids and label places of prepared rows."""
    return sorted((row["input_ids"], [i for i, label in enumerate(row["labels"]) if label != -100]) for row in rows)


def unpacked(rows: Dataset, window: int) -> list[dict]:
    """The parts of rows that share a packed one."""
    parts = []
    for row in rows:
        ends = np.cumsum(row.get("seq_lengths") or [len(row["input_ids"])]).tolist()
        parts += [
            {name: row[name][start:end] for name in ("input_ids", "labels")}
            for start, end in zip([0, *ends], ends, strict=False)
        ]
    assert all(len(part["input_ids"]) <= window for part in parts)
    return parts


def taken(encoded) -> list[tuple[list, list]]:
    """Token ids and label places of the token rows of usable records."""
    rows = np.flatnonzero(~encoded.problematic[encoded.row])
    found = encoded.tokens.take(rows)
    return [(ids.tolist(), [i for start, end in spans for i in range(start, end)]) for ids, spans in found]


@pytest.mark.filterwarnings("ignore:The `'keep_end'` truncation mode is deprecated:FutureWarning")
@pytest.mark.parametrize("name, option, given", CASES, ids=[f"{name}-{option}" for name, option, _ in CASES])
def test_what_is_scored_is_what_is_trained_on(name, option, given, tmp_path):
    rows, template = ROWS[name]
    options = {"max_length": 48 if name in VARIED else 256, **given}
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    made = tiny_trainer(tmp_path, train_dataset=rows, eval_dataset=rows, processing_class=tokenizer, **options)
    plain = SFTTrainer(
        made.model,
        SFTConfig("unused", **{**PLAIN, **options}),
        train_dataset=Records(rows).for_training(),
        processing_class=tokenizer,
    )
    made.prepare_subset()
    assert made.train_dataset.to_list() == made.eval_dataset.to_list() == plain.train_dataset.to_list()
    ctx = made.context()
    scored = ctx.encode(made.records, ctx.text_format(end_of_turn=True), parts=True)
    trained, usable = taken(ctx.trained(made.records, parts=True)), taken(scored)
    if option == "wrapped":  # rows follow each other there: the same tokens, with their labels, in another division
        given = as_pairs(plain.train_dataset)
        assert sorted(i for ids, _ in trained for i in ids) == sorted(i for ids, _ in given for i in ids)
        assert sum(len(labels) for _, labels in trained) == sum(len(labels) for _, labels in given)
    else:
        given = as_pairs(unpacked(plain.train_dataset, options["max_length"]))
        assert all(given.count(row) for row in trained)
        assert sorted(trained) == given or (scored.problems and len(trained) < len(given))
    assert [ids for ids, _ in usable] == [ids for ids, _ in trained]
    for (_, counted), (_, labels) in zip(usable, trained, strict=True):
        assert set(counted) <= set(labels)
    if option in ("keep_end", "split", "wrapped") or name not in ("longer than the window", "long prompts"):
        assert not scored.problems
