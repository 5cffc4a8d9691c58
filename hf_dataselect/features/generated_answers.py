"""What the model at hand answers to rows."""

from typing import Any

import numpy as np

from ..context import Context
from ..data.records import Records
from ..engines.llm.local import ModelJudge
from ..engines.store.replies import Reply


class _Answering(ModelJudge):
    """The tuned model, asked with token ids: the very prompts that it is trained on. Answers are kept as they come."""

    chats = False

    def __init__(self, **options: Any):
        super().__init__("", **options)
        self.name = "the tuned model"

    def prompt_ids(self, question: Any, reply: bool = True) -> list[int] | None:
        return [int(token) for token in question[0]["content"].split()]

    def room(self, question: Any) -> float:
        """Positions that the model has left for an answer."""
        return self._window - max(1, len(self.prompt_ids(question)))

    def _answer(self, questions: dict[str, Any], max_new_tokens: int, progress: str | None) -> dict[str, Reply]:
        groups, replies = {}, {}
        for key, question in questions.items():
            groups.setdefault(max(1, min(self.room(question), max_new_tokens)), {})[key] = question
        for length in sorted(groups, reverse=True):
            replies |= super()._answer(groups[length], length, progress)
        return replies


def own_answers(records: Records, ctx: Context, max_new_tokens: int) -> tuple[list[str | None], np.ndarray]:
    """
    Greedy answers of the context's model in place of the rows' last ones.

    Args:
        records ([`Records`]):
            The rows.
        ctx ([`Context`]):
            Model, tokenizer, ranks, cache.
        max_new_tokens (`int`):
            Length of an answer at most; a row whose prompt leaves fewer positions has as many as that.

    Returns:
        `tuple`: an answer a row, `None` where the prompt is empty, fills the model's window or does not fit in memory;
        and whether it was cut for want of positions, bool `(n,)`.
    """
    text_format, questions = ctx.text_format(), []
    for record in records:
        try:
            ids = text_format.prompt_ids(record)
        except Exception:  # templates raise what they like
            ids = []
        questions.append([{"role": text_format.key, "content": " ".join(map(str, ids))}])
    judge = _Answering(
        model=ctx.model,
        tokenizer=ctx.tokenizer,
        cache_dir=ctx.cache_dir,
        accelerator=ctx.accelerator,
        batch_tokens=ctx.batch_tokens,
        dtype=ctx.dtype,
        vllm_memory=ctx.vllm_memory,
    )
    replies = judge.ask(questions, max_new_tokens=max_new_tokens, progress="Answering rows of high quality")
    ctx.account.add_cached_seconds(judge.cost.cached_seconds)
    ctx.account.count(answered_rows=judge.cost.calls, cached_rows=judge.cost.cached)
    ctx.account.figures["answers of the model that were cut off"] = sum(reply.cut for reply in replies)
    pairs = zip(questions, replies, strict=True)
    short = np.array([reply.cut and judge.room(question) < max_new_tokens for question, reply in pairs], bool)
    return ["" if reply.problem == "empty" else reply.text for reply in replies], short
