"""
How likely a model finds fixed answers behind each of many exemplars: summed negative log-likelihood of every pair.

What makes it fast without changing a number: an exemplar's keys and values are computed once and shared, uncopied, by
all tasks behind it; tasks of like length share a batch, so that next to nothing is padding; the head runs only where a
token is counted; a caller that knows enough of an exemplar asks for no more tasks.
"""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from ..forward import likelihood
from ..runtime import batching
from ..runtime import token_rows as tokens
from ..runtime.batching import found_by_main, map_batches
from ..runtime.model_state import cast, evaluating, scoring_dtype
from ..runtime.token_rows import TokenRows
from ..store.identity import code_version, digest, model_identity
from ..store.row_store import RowStore
from .likelihood import keys_and_values


#: Padding allowed in a batch of tasks, as a part of its tokens. A CPU gains little from larger batches.
PADDING = {"cpu": 0.1}


class OneShot(NamedTuple):
    """Per pair, in the order of exemplars and tasks."""

    #: Summed negative log-likelihood of the task's counted tokens behind the exemplar, nats, float64
    #: `(exemplars, tasks)`; NaN where it was not asked for, and for an exemplar that did not fit in memory.
    loss: np.ndarray
    #: Pairs that were read from the cache.
    cached: int
    #: Tokens that went through the model: exemplars once, tasks once for each of theirs, padding left out.
    forward_tokens: int
    #: Seconds that the cached pairs took when they were computed.
    cached_seconds: float


def one_shot_loss(
    model: nn.Module,
    exemplars: TokenRows,
    tasks: TokenRows,
    *,
    rows: np.ndarray | None = None,
    wanted: Callable[[np.ndarray], np.ndarray] | None = None,
    batch_tokens: int = 4096,
    dtype: str = "auto",
    accelerator: Accelerator | None = None,
    cache_dir: Path | None = None,
    progress: str | None = None,
    mean_logit: bool = False,
) -> OneShot:
    """
    Score the counted tokens of each task behind each exemplar.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            Any causal language model.
        exemplars ([`TokenRows`]):
            Token ids; their spans mean nothing here.
        tasks ([`TokenRows`]):
            Token ids and counted spans. Nothing is put between an exemplar and a task; a task's first token is never
            counted.
        rows (`np.ndarray`, *optional*):
            Exemplars to score, all by default.
        wanted (`Callable`, *optional*):
            From an exemplar's losses so far `(tasks,)`, NaN where there is none yet, to the tasks to compute next
            (none ends it). By default all. It is asked in no fixed order of exemplars.
        batch_tokens, dtype, accelerator, cache_dir, progress, mean_logit:
            As in [`likelihood`]. Exemplars are dealt over the ranks; what is known of one is kept as it comes.

    Returns:
        [`OneShot`]
    """
    rows = np.arange(len(exemplars)) if rows is None else np.asarray(rows)
    target = scoring_dtype(model, dtype)
    namespace = {
        "engine": "one-shot",
        "code": code_version(sys.modules[__name__], likelihood, tokens, batching),
        "model": model_identity(model) if cache_dir else None,
        "dtype": str(target),
        "attention": getattr(model.config, "_attn_implementation", None),
        "mean_logit": mean_logit,
        "tasks": digest(tasks.keys().tobytes().hex()) if cache_dir else None,
    }
    # A record is what is known of an exemplar so far: its losses, and the seconds they took.
    store = RowStore(cache_dir, namespace, width=len(tasks) + 1)
    keys = exemplars.keys() if cache_dir else np.zeros(len(exemplars), "V16")
    found = np.full((len(exemplars), len(tasks) + 1), np.nan)
    found[rows], _ = store.load(keys[rows])
    (found,) = found_by_main(accelerator, found)
    known, known_seconds = found[:, :-1], np.nan_to_num(found[:, -1])
    ranks = accelerator.num_processes if accelerator else 1
    plan = wanted or (lambda losses: np.flatnonzero(np.isnan(losses)))
    spent = [0]
    with torch.no_grad(), evaluating(model), cast(model, target):
        score = _pair_scorer(model, exemplars, tasks, rows, mean_logit, batch_tokens, spent)

        def compute(batch: np.ndarray) -> np.ndarray:
            (row,) = batch
            losses, behind, started = known[row].copy(), None, time.perf_counter()
            while len(todo := plan(losses)):
                todo = todo[np.isnan(losses[todo])]
                behind = behind or score(row)
                losses[todo] = behind(todo)
                if np.isnan(losses[todo]).any():
                    break  # did not fit in memory, or no number
            if behind is not None:
                seconds = known_seconds[row] + (time.perf_counter() - started) / ranks
                store.append(keys[batch], np.append(losses, seconds)[None])
            return losses[None]

        options = {"batch_tokens": 1, "accelerator": accelerator, "progress": progress}  # one exemplar at a time
        loss = map_batches(compute, exemplars.lengths, len(tasks), rows=rows, **options)
    store.close()
    if ranks > 1:
        spent = accelerator.reduce(torch.tensor(spent, device=accelerator.device), "sum").tolist()
    return OneShot(loss, int(np.isfinite(known).sum()), int(spent[0]), float(known_seconds.sum()))


def _pair_scorer(
    model: nn.Module,
    exemplars: TokenRows,
    tasks: TokenRows,
    rows: np.ndarray,
    mean_logit: bool,
    batch_tokens: int,
    spent: list[int],
) -> Callable[[int], Callable[[np.ndarray], np.ndarray]]:
    """A function from an exemplar to a function from tasks to their losses behind it; adds its tokens to `spent`."""
    examples = tasks.take(range(len(tasks)))
    padding = PADDING.get(next(model.parameters()).device.type, 0.25)
    probe = exemplars.take(rows[:1])[0][0][:64].copy() if len(rows) else np.zeros(0, np.int32)
    _, score_behind, proven = likelihood._scorer(model, probe, mean_logit)

    def behind(row: int) -> Callable[[np.ndarray], np.ndarray]:
        ids = exemplars.take([row])[0][0]
        past = keys_and_values(model, ids) if proven and len(ids) else None
        spent[0] += 0 if past is None else len(ids)
        skip = 0 if past is None else len(ids)

        def score(batch: np.ndarray) -> np.ndarray:
            joined = [
                (np.concatenate([ids, task]), np.maximum(spans, 1) + len(ids))
                for task, spans in (examples[place] for place in batch)
            ]
            spent[0] += int(tasks.lengths[batch].sum()) + (len(batch) * len(ids) if past is None else 0)
            return score_behind(skip, joined, past)[:, :1]

        def losses(todo: np.ndarray) -> np.ndarray:
            result = np.full(len(tasks), np.nan)
            for group in of_like_length(tasks.lengths, todo, padding):
                found = map_batches(score, tasks.lengths + len(ids), 1, batch_tokens=batch_tokens, rows=group)
                result[group] = found[group, 0]
            return result[todo]

        return losses

    return behind


def of_like_length(lengths: np.ndarray, rows: Sequence[int], padding: float) -> list[np.ndarray]:
    """Rows in groups, longest first, of which at most this part would be padding if each were one batch."""
    groups, held = [], 0
    for row in np.asarray(rows)[np.argsort(-lengths[rows], kind="stable")]:
        if groups and held + lengths[row] >= (1 - padding) * lengths[groups[-1][0]] * (len(groups[-1]) + 1):
            groups[-1].append(row)
            held += lengths[row]
        else:
            groups.append([row])
            held = lengths[row]
    return [np.array(group) for group in groups]
