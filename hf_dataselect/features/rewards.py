"""What a reward model makes of rows, with their own answers or with others."""

from collections.abc import Iterator, Sequence

import numpy as np

from ..context import Context
from ..data.layouts import Record, content_text
from ..data.records import Records
from ..engines.llm.judge import Conversation
from ..engines.llm.reward_model import load_reward_model


def conversation(record: Record, answer: str | None = None) -> Conversation:
    """A row up to its last answer, as a chat; with another `answer` in that one's place, if given."""
    turn = record.answer_turns[-1]
    said = [{"role": message["role"], "content": content_text(message)} for message in record.messages[:turn]]
    return [*said, {"role": "assistant", "content": record.answer if answer is None else answer}]


def answer_rewards(
    records: Records, ctx: Context, reward_model: str, answers: Sequence[str | None] | None = None
) -> np.ndarray:
    """
    Rewards of the last answers, float64 `(n,)`, higher is better.

    Args:
        records ([`Records`]):
            The rows.
        ctx ([`Context`]):
            Device, ranks, cache.
        reward_model (`str`):
            Sequence-classification model with one label, by hub name or folder.
        answers (`Sequence[str]`, *optional*):
            Answers to judge in place of the rows' own; `None` for a row that has none.

    Returns:
        `np.ndarray`: NaN for a row without an answer, and where the model gives no number. With the rows' own answers
        these are entered in `ctx.account`.
    """
    model = load_reward_model(
        reward_model,
        accelerator=ctx.accelerator,
        cache_dir=ctx.cache_dir,
        batch_tokens=ctx.batch_tokens,
        dtype=ctx.dtype,
    )
    ctx.account.figures["identity of reward_model"] = model.identity
    asked, own = [], answers is None

    def chats() -> Iterator[Conversation]:
        for record in records:
            answer = record.answer if own else answers[record.index]
            if record.problem is None and record.answer_turns and answer is not None and (answer.strip() or not own):
                asked.append(record.index)
                yield conversation(record, answer)

    found, rewards = model.score(chats(), "Rewarding answers"), np.full(len(records), np.nan)
    rewards[asked] = found
    ctx.account.add_cached_seconds(model.cost.cached_seconds)
    ctx.account.count(
        forward_rows=model.cost.calls, forward_tokens=model.cost.prompt_tokens, cached_rows=model.cost.cached
    )
    if own:
        lost = np.flatnonzero(np.isnan(rewards))
        ctx.account.note("unscorable", "no answer", np.setdiff1d(lost, asked))
        why = "no reward: not a number, longer than the reward model's window, or too big for the memory"
        ctx.account.note("unscorable", why, lost)
    return rewards
