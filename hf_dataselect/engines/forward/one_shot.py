"""
One-shot loss: summed negative log-likelihood of reference answers after each of many exemplars.

What makes it fast without changing the result: an exemplar's KV cache is computed once and shared, without copies, by
all tasks after it; tasks of similar length share a batch, with little padding; the head runs on label tokens only; the
caller can decide early to score no more tasks of an exemplar.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from ...compat.accelerate import device_of
from ...compat.transformers import attention_implementation
from ..forward import likelihood
from ..runtime.model_state import scoring, scoring_dtype
from ..runtime.runtime import Runtime
from ..runtime.shared_work import missing, of_part
from ..runtime.token_rows import TokenRows
from ..store.identity import digest
from .likelihood import keys_and_values


#: Raise it when a loss of an unchanged exemplar, task and model changes by more than rounding.
VERSION = 1
#: Largest fraction of padding in a batch of tasks. A CPU gains little from larger batches.
PADDING = {"cpu": 0.1}
#: Losses that are in memory at a time.
LOSSES = 2**22


def one_shot_losses(
    model: nn.Module,
    exemplars: TokenRows,
    tasks: TokenRows,
    runtime: Runtime,
    give: Callable[[np.ndarray, np.ndarray], None],
    *,
    rows: np.ndarray | None = None,
    wanted: Callable[[np.ndarray], np.ndarray] | None = None,
    label: str | None = None,
    mean_logit: bool = False,
) -> None:
    """
    Score the label tokens of each task after each exemplar.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            Any causal language model.
        exemplars ([`TokenRows`]):
            Token ids; their spans are ignored.
        tasks ([`TokenRows`]):
            Token ids and label spans. Nothing is inserted between an exemplar and a task, whose first token is never a
            label token.
        give (`Callable`):
            Called with some exemplars `(b,)` and their losses `(b, tasks)`, float64: summed negative log-likelihood of
            the task's label tokens after the exemplar, nats; infinite where it is not finite; NaN for tasks that were
            not `wanted`, and from the one on that did not fit in memory. No more are in memory.
        rows (`np.ndarray`, *optional*):
            Exemplars to score, all by default.
        wanted (`Callable`, *optional*):
            From an exemplar's losses so far `(tasks,)`, NaN where not computed, to the tasks to compute next (an empty
            result ends it). By default all. The order of exemplars is not fixed.
        runtime, label, mean_logit:
            As in [`likelihood`]. Exemplars are sharded across ranks; the losses of each are cached at once.
    """
    rows = np.arange(len(exemplars)) if rows is None else np.asarray(rows)
    target = scoring_dtype(model, runtime.dtype)
    namespace = {
        "engine": "one-shot",
        "version": [VERSION, likelihood.VERSION],
        "model": runtime.identity(model),
        "dtype": str(target),
        "attention": attention_implementation(model),
        "mean_logit": mean_logit,
        "tasks": digest(tasks.keys().tobytes().hex()) if runtime.cache_dir else None,
    }
    # A cached row holds the losses of an exemplar so far, and the seconds they took.
    store = runtime.store(namespace, width=len(tasks))
    keys = exemplars.keys() if runtime.cache_dir else np.zeros(len(exemplars), "V16")
    rows = rows[of_part(runtime, keys[rows])]
    runtime = replace(runtime, part=None)
    plan = wanted or (lambda losses: np.flatnonzero(np.isnan(losses)))
    # Tokens of forward passes: exemplars once, tasks once per exemplar, padding excluded.
    spent, size = np.zeros(1, np.int64), max(1, LOSSES // len(tasks))
    with torch.no_grad(), scoring(model, target):
        score = _pair_scorer(model, exemplars, tasks, rows, mean_logit, runtime, spent)
        for part in np.split(rows, range(size, len(rows), size)):
            several = label is not None and len(rows) > size
            told = f"{label}, rows from {part[0]:,} on" if several else label
            with missing(runtime, store, keys[part], "scoring tasks one-shot") as (known, _, seconds, earlier):

                def compute(batch: np.ndarray, known=known, seconds=seconds, part=part) -> np.ndarray:
                    (place,) = batch
                    losses, score_tasks, started = known[place].copy(), None, time.perf_counter()
                    while len(todo := plan(losses)):
                        todo = todo[np.isnan(losses[todo])]
                        score_tasks = score_tasks or score(part[place])
                        losses[todo] = score_tasks(todo)
                        if np.isnan(losses[todo]).any():
                            break  # did not fit in memory
                    if score_tasks is not None:
                        spent_on_row = seconds[place] + (time.perf_counter() - started) / runtime.world
                        store.append(keys[part[batch]], losses[None], spent_on_row)
                    return losses[None]

                options = {"batch_tokens": 1, "label": told}  # one exemplar at a time
                loss = runtime.map(compute, exemplars.lengths[part], len(tasks), **options)
            cached = int((~np.isnan(known)).sum())
            computed = int((~np.isnan(loss)).sum()) - cached
            runtime.book(forward_rows=computed, cached_rows=cached, cached_seconds=float(earlier.sum()))
            give(part, loss)
    store.close()
    runtime.book(forward_tokens=int(runtime.sum(spent)[0]))


def _pair_scorer(
    model: nn.Module,
    exemplars: TokenRows,
    tasks: TokenRows,
    rows: np.ndarray,
    mean_logit: bool,
    runtime: Runtime,
    spent: np.ndarray,
) -> Callable[[int], Callable[[np.ndarray], np.ndarray]]:
    """A function from an exemplar to a function from tasks to their losses after it; adds its tokens to `spent`."""
    examples = tasks.take(range(len(tasks)))
    one_process = replace(runtime, accelerator=None)  # ranks have different exemplars
    padding = PADDING.get(device_of(model).type, 0.25)
    probe = exemplars.take(rows[:1])[0][0][:64].copy() if len(rows) else np.zeros(0, np.int32)
    _, score_after, proven = likelihood.scorer(model, probe, mean_logit)

    def scorer_of(row: int) -> Callable[[np.ndarray], np.ndarray]:
        ids = exemplars.take([row])[0][0]
        past = keys_and_values(model, ids) if proven and len(ids) else None
        spent[0] += 0 if past is None else len(ids)
        skip = 0 if past is None else len(ids)

        def score(batch: np.ndarray) -> np.ndarray:
            pairs = [
                (np.concatenate([ids, task]), np.maximum(spans, 1) + len(ids))
                for task, spans in (examples[place] for place in batch)
            ]
            spent[0] += int(tasks.lengths[batch].sum()) + (len(batch) * len(ids) if past is None else 0)
            summed = score_after(skip, pairs, past)[:, :1]
            return np.where(np.isnan(summed), np.inf, summed)

        def losses(todo: np.ndarray) -> np.ndarray:
            result = np.full(len(tasks), np.nan)
            for group in of_like_length(tasks.lengths, todo, padding):
                values = one_process.map(score, tasks.lengths + len(ids), 1, rows=group)
                result[group] = values[group, 0]
            return result[todo]

        return losses

    return scorer_of


def of_like_length(lengths: np.ndarray, rows: Sequence[int], padding: float) -> list[np.ndarray]:
    """Rows in groups, longest first, of which at most this fraction is padding if each is one batch."""
    groups, tokens = [], 0
    for row in np.asarray(rows)[np.argsort(-lengths[rows], kind="stable")]:
        if groups and tokens + lengths[row] >= (1 - padding) * lengths[groups[-1][0]] * (len(groups[-1]) + 1):
            groups[-1].append(row)
            tokens += lengths[row]
        else:
            groups.append([row])
            tokens = lengths[row]
    return [np.array(group) for group in groups]
