"""Loss of each answer of a chat: after all turns before it, after its own question only, and after nothing."""

import dataclasses
from typing import NamedTuple

import numpy as np
from datasets import Features, List, Value

from ..context import Context
from ..data.layouts import Record, content_text
from ..data.records import Records
from ..engines.forward.likelihood import likelihood
from ..engines.runtime.account import Account
from .token_values import answer_token_values


CHATS = Features({"messages": List({"role": Value("string"), "content": Value("string")})})


class TurnLosses(NamedTuple):
    """Of each answer, in the order of records and turns, float64 `(answers,)`; mean losses in nats a token."""

    #: Record, int64, and number of its answer, from 0.
    row: np.ndarray
    turn: np.ndarray
    #: Label tokens.
    tokens: np.ndarray
    #: Loss after all turns before it; after its own question only (and the system's turn); after nothing.
    given_all: np.ndarray
    given_question: np.ndarray
    given_nothing: np.ndarray


def turn_losses(records: Records, ctx: Context) -> TurnLosses:
    """
    Losses of the answers of records with two answers or more, all of them in the window. Other records have none, and
    are entered in `ctx.account` as unscorable.
    """
    values = answer_token_values(records, ctx, "token losses", "Scoring answers in their chats")
    encoded = ctx.encode(records, parts=True)
    tokens, turns = encoded.span_tokens()
    answers = np.array([len(_answers(record)) for record in records])
    found = np.bincount(encoded.row, turns, len(records))
    several = values.usable & (answers > 1)
    ctx.account.note("unscorable", "a single answer: no earlier turn to help it", np.flatnonzero(answers == 1))
    whole = several & (found == answers) & (np.bincount(encoded.row, minlength=len(records)) == 1)
    reason = "an answer is not in the window, or the chat is split"
    ctx.account.note("unscorable", reason, np.flatnonzero(several & ~whole))
    places = np.flatnonzero(whole[encoded.row])
    counts, begins = tokens[np.repeat(whole[encoded.row], turns)], np.cumsum(turns) - turns
    rows = np.repeat(encoded.row[places], turns[places])
    turn = np.arange(len(rows)) - np.searchsorted(rows, rows)
    sums = (_sums(values.values[place], tokens[begins[place] :][: turns[place]]) for place in places)
    with np.errstate(invalid="ignore", divide="ignore"):
        given_all = np.concatenate([np.zeros(0), *sums]) / counts
    if len(rows) == 0:
        return TurnLosses(rows, turn, counts, given_all, given_all, given_all)
    kept, ctx = records.subset(np.flatnonzero(whole)), ctx.whole  # of other parts, none is left
    nothing = _without_context(kept, ctx)
    question = _after_own_question(kept, ctx)
    return TurnLosses(rows, turn, counts.astype(np.float64), given_all, question, nothing)


def _sums(losses: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sum of the token losses of each answer of a row, which has so many tokens."""
    return np.bincount(np.repeat(np.arange(len(counts)), counts), losses.astype(np.float64), len(counts))


def _answers(record: Record) -> list[int]:
    """Answer turns with a text."""
    turns = record.answer_turns if record.problem is None else []
    return [turn for turn in turns if content_text(record.messages[turn])]


def _without_context(records: Records, ctx: Context) -> np.ndarray:
    encoded = ctx.encode(records, unconditional=True)
    loss = likelihood(ctx.model, encoded.tokens, ctx.runtime, "Scoring answers without prompts").mean_loss
    return loss[np.argsort(encoded.row, kind="stable")]


def _split(records: list[Record]) -> dict[str, list]:
    """A chat of each answer: the system's turn, the turns since the last answer, and the answer."""
    chats = []
    for record in records:
        messages, begin = record.messages, 0
        system = [message for message in messages[:1] if message["role"] == "system"]
        for turn in _answers(record):
            own = [*(system if begin > 0 else []), *messages[begin : turn + 1]]
            chats.append([{"role": part["role"], "content": content_text(part)} for part in own])
            begin = turn + 1
    return {"messages": chats}


def _after_own_question(records: Records, ctx: Context) -> np.ndarray:
    """Loss of each answer in a chat of its own."""
    chats = records.map(_split, "a chat of each answer, 1", CHATS, ctx.runtime.num_proc, "Splitting chats")
    # An account of its own: these are not candidates.
    account = Account()
    own = dataclasses.replace(ctx, runtime=dataclasses.replace(ctx.runtime, account=account), wants=frozenset())
    encoded = own.encode(Records(chats, name="turns"), parts=True)
    sums = likelihood(ctx.model, encoded.tokens, ctx.runtime, "Scoring answers after their questions")
    loss, tokens = (np.bincount(encoded.row, part, len(chats)) for part in (sums.loss, sums.tokens))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(tokens > 0, loss / tokens, np.nan)
