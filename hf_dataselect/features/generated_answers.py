"""Model-generated responses to the prompts of rows."""

import numpy as np

from ..context import Context
from ..data.records import Records
from ..engines.llm.generator import Generator


def generated_answers(records: Records, ctx: Context, max_new_tokens: int) -> tuple[list[str | None], np.ndarray]:
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
    text_format, prompts = ctx.text_format(), []
    for record in records:
        try:
            ids = text_format.prompt_ids(record)
        except Exception:  # templates raise any type
            ids = []
        prompts.append(np.asarray(ids, np.int32))
    generator = Generator(ctx.model, ctx.tokenizer, ctx.runtime, text_format.key)
    replies = generator.generate(prompts, max_new_tokens=max_new_tokens, label="Generating responses")
    ctx.account.figures["model-generated responses that were cut off"] = sum(reply.cut for reply in replies)
    pairs = zip(prompts, replies, strict=True)
    short = np.array([reply.cut and generator.room(ids) < max_new_tokens for ids, reply in pairs], bool)
    return ["" if reply.problem == "empty" else reply.text for reply in replies], short
