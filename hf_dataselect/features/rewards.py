"""Rewards of the answers of rows, or of others in their place."""

from collections.abc import Iterable, Iterator
from itertools import repeat

import numpy as np

from ..context import Context
from ..data.layouts import Record, content_text
from ..data.records import Records
from ..engines.llm.judge import Conversation
from ..engines.llm.load import load_reward_model
from ..engines.llm.reward_model import RewardModel


def conversation(record: Record, answer: str | None = None) -> Conversation:
    """A row up to its last answer, as a chat; with `answer` in its place, if given."""
    turn = record.answer_turns[-1]
    before = [{"role": message["role"], "content": content_text(message)} for message in record.messages[:turn]]
    return [*before, {"role": "assistant", "content": record.answer if answer is None else answer}]


def answer_rewards(
    records: Records, ctx: Context, reward_model: str | RewardModel, answers: Iterable[str | None] | None = None
) -> np.ndarray:
    """
    Rewards of the last answers, float64 `(n,)`, higher is better.

    Args:
        records ([`Records`]):
            The rows.
        ctx ([`Context`]):
            Device, ranks, cache.
        reward_model (`str` or [`RewardModel`]):
            Sequence-classification model with one label, by hub name or folder, or loaded.
        answers (`Iterable[str]`, *optional*):
            Answers to score in place of the rows' own; `None` for a row without an answer.

    Returns:
        `np.ndarray`: NaN for a row without an answer or a finite reward; without `answers`, these rows are entered in
        `ctx.account`.
    """
    model = load_reward_model(reward_model, ctx.runtime) if isinstance(reward_model, str) else reward_model
    asked, own = [], answers is None

    def chats() -> Iterator[Conversation]:
        for record, given in zip(records, repeat(None) if answers is None else answers, strict=False):
            answer = record.answer if own else given
            if record.problem is None and record.answer_turns and answer is not None and (answer.strip() or not own):
                asked.append(record.index)
                yield conversation(record, answer)

    scores, rewards = model.score(chats(), "Scoring with the reward model"), np.full(len(records), np.nan)
    rewards[asked] = scores
    if own:
        unscored = np.flatnonzero(np.isnan(rewards))
        ctx.account.note("unscorable", "no answer", np.setdiff1d(unscored, asked))
        why = "no reward: not a number, longer than the reward model's window, or does not fit in memory"
        ctx.account.note("unscorable", why, unscored)
    return rewards
