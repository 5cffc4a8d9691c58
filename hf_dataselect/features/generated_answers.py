"""Model-generated responses to the prompts of rows."""

from itertools import islice

import numpy as np

from ..context import Context
from ..data.layouts import Record
from ..data.records import Records
from ..data.text import TextFormat
from ..engines.llm.generator import Generator, Texts


#: Rows whose prompts and responses are in memory at once.
BLOCK = 16_384


def generated_answers(records: Records, ctx: Context, max_new_tokens: int) -> tuple[Texts, np.ndarray]:
    """
    Greedy responses of the context's model in place of the rows' last answers.

    Args:
        records ([`Records`]):
            The rows.
        ctx ([`Context`]):
            Model, tokenizer, ranks, cache.
        max_new_tokens (`int`):
            Maximum length of a response; it is shorter where the prompt leaves fewer positions.

    Returns:
        `tuple`: one response per row, `None` if the prompt is empty, fills the model's window or does not fit in
        memory; and whether it was cut off at the model's last position, bool `(n,)`.
    """
    text_format, asked = ctx.text_format(), iter(records)
    generator = Generator(ctx.model, ctx.tokenizer, ctx.runtime, text_format.key)
    texts, short, cut = Texts(generator), [], 0
    while prompts := [_prompt(record, text_format) for record in islice(asked, BLOCK)]:
        replies = generator.generate(prompts, max_new_tokens=max_new_tokens, label="Generating responses")
        texts.add(generator, prompts, max_new_tokens)
        cut += sum(reply.cut for reply in replies)
        pairs = zip(prompts, replies, strict=True)
        short += [reply.cut and generator.room(ids) < max_new_tokens for ids, reply in pairs]
    ctx.account.figures["model-generated responses that were cut off"] = cut
    return texts, np.array(short, bool)


def _prompt(record: Record, text_format: TextFormat) -> np.ndarray:
    try:
        ids = text_format.prompt_ids(record)
    except Exception:  # templates raise any type
        ids = []
    return np.asarray(ids, np.int32)
