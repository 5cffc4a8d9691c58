"""
How likely a model finds given answers: negative log-likelihood, token count and top-1 hits of each row.

What makes it fast without changing a number: rows sorted by length; no attention mask, since the padding stands on
the right where no answer token can see it; the start that most rows share (a system prompt, a template's header) is
computed once; the head only where a token is counted, in slices; softmax and sums in float32, totals of a row in
float64.
"""

import copy
import sys
from collections.abc import Callable
from os.path import commonprefix
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import is_peft_model
from torch import nn
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

from ..runtime.cached_map import measured
from ..runtime.token_rows import TokenRows


#: Float32 logits held at a time, in bytes: small enough for a CPU's cache hierarchy and never a concern on a GPU.
LOGIT_BYTES = {"cpu": 2**25, "cuda": 2**28}
#: Of these, what a CPU takes the softmax of at a time.
SOFTMAX_BYTES = 2**22
#: A shared start of fewer tokens than this is not worth its masks.
SHORTEST_START = 8


class Likelihood(NamedTuple):
    """Per row, in the order of the token rows. All are NaN for a row that did not fit in memory."""

    #: Summed negative log-likelihood of the counted tokens, nats, float64 `(n,)`.
    loss: np.ndarray
    #: Counted tokens, float64 `(n,)`. A token at position 0 has no context and is never counted.
    tokens: np.ndarray
    #: Counted tokens that the model ranks first, float64 `(n,)`.
    hits: np.ndarray
    #: Rows that took no computing: read from the cache, or equal to another row.
    cached: int
    #: Tokens of the others.
    forward_tokens: int
    #: Seconds that the cached rows took when they were computed.
    cached_seconds: float

    @property
    def mean_loss(self) -> np.ndarray:
        """Mean loss a token, nats, float64 `(n,)`; NaN where no token is counted."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.tokens > 0, self.loss / self.tokens, np.nan)


def likelihood(
    model: nn.Module,
    rows: TokenRows,
    *,
    batch_tokens: int = 4096,
    dtype: str = "auto",
    accelerator: Accelerator | None = None,
    cache_dir: Path | None = None,
    progress: str | None = None,
    mean_logit: bool = False,
) -> Likelihood:
    """
    Score the counted tokens of each row under `model`.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            Any causal language model; full, half precision or quantized.
        rows ([`TokenRows`]):
            Token ids and counted spans.
        batch_tokens (`int`, *optional*, defaults to `4096`):
            Tokens of a batch, padding included. More needs more memory and helps only while the device is not busy.
        dtype (`str`, *optional*, defaults to `"auto"`):
            See [`scoring_dtype`].
        accelerator ([`~accelerate.Accelerator`], *optional*):
            Deals the batches over its ranks.
        cache_dir (`Path`, *optional*):
            Rows found there are not computed again; new ones are appended batch by batch.
        progress (`str`, *optional*):
            Label of the progress bar.
        mean_logit (`bool`, *optional*, defaults to `False`):
            Put one more token into the softmax, with the mean of all logits for its own: what a token does that was
            added with the mean of all embeddings.

    Returns:
        [`Likelihood`]
    """
    namespace = {"engine": "likelihood", "attention": getattr(model.config, "_attn_implementation", None)}
    namespace |= {"mean_logit": True} if mean_logit else {}

    def begin(todo: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        score, _, _ = _scorer(model, shared_start(rows, todo), mean_logit)
        return lambda batch: score(rows.take(batch))

    found = measured(
        model,
        rows,
        3,
        namespace,
        (sys.modules[__name__],),
        begin,
        batch_tokens=batch_tokens,
        dtype=dtype,
        accelerator=accelerator,
        cache_dir=cache_dir,
        progress=progress,
    )
    return Likelihood(*found.values.T, found.cached, found.computed_tokens, found.cached_seconds)


Batch = list[tuple[np.ndarray, np.ndarray]]


def shared_start(rows: TokenRows, places: np.ndarray) -> np.ndarray:
    """
    Token ids that at least half of the rows begin with, before the first token that is counted or predicts one; empty
    where these are too few to matter. Taken from a sample, always the same for the same rows.
    """
    sample = rows.take(places[:: max(1, len(places) // 512)])
    contexts = sorted(ids[: max(0, int(spans[:, 0].min()) - 1)].tolist() for ids, spans in sample if len(spans))
    if len(contexts) < 2:
        return np.zeros(0, np.int32)
    # In sorted order, what two rows share is shared by all rows between them.
    start = commonprefix([contexts[len(contexts) // 4], contexts[3 * len(contexts) // 4]])
    return np.array(start if len(start) >= SHORTEST_START else [], np.int32)


def _scorer(
    model: nn.Module, start: np.ndarray, mean_logit: bool = False
) -> tuple[Callable[[Batch], np.ndarray], Callable[..., np.ndarray], int]:
    """
    A function from a batch of `(ids, spans)` to `(rows, 3)`: summed loss, counted tokens, hits. A second one, from
    `(skip, batch, past)`, for rows that begin with the same `skip` tokens, whose keys and values are `past`. And how
    many tokens of `start` may be left out: none if caches prove of no use.
    """
    device = next(model.parameters()).device
    inner = model.get_base_model() if is_peft_model(model) else model
    filler = 1 if getattr(inner.config, "pad_token_id", None) == 0 else 0  # padding ids only cause warnings
    logits_of, skipped = _answer_logits(model, inner, device, start)

    def score(batch: Batch) -> np.ndarray:
        shares = [
            len(spans) and spans[:, 0].min() > skipped > 0 and np.array_equal(ids[:skipped], start)
            for ids, spans in batch
        ]
        result = np.zeros((len(batch), 3))
        for group, skip in ((np.flatnonzero(shares), skipped), (np.flatnonzero(np.logical_not(shares)), 0)):
            if len(group):
                result[group] = score_behind(skip, [batch[row] for row in group])
        return result

    def score_behind(skip: int, batch: Batch, past: Cache | None = None) -> np.ndarray:
        width = max(len(ids) for ids, _ in batch) - skip
        padded = np.full((len(batch), width), filler, np.int64)
        places, targets, owners = [], [], []
        for row, (ids, spans) in enumerate(batch):
            padded[row, : len(ids) - skip] = ids[skip:]
            for first, end in spans:
                positions = np.arange(max(first, 1), min(end, len(ids)))
                places.append(row * width + positions - skip - 1)  # the hidden state before a token predicts it
                targets.append(ids[positions])
                owners.append(np.full(len(positions), row))
        places, targets, owners = (
            np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)
            for parts in (places, targets, owners)
        )
        loss, hit = np.zeros(0), np.zeros(0)
        if len(places):
            counted = torch.from_numpy(targets).to(device)
            tensors = torch.from_numpy(padded).to(device), torch.from_numpy(places).to(device)
            chunks = logits_of(*tensors, skip) if past is None else logits_of(*tensors, skip, past)
            parts = [_token_losses(logits, counted[part].to(logits.device), mean_logit) for logits, part in chunks]
            loss, hit = (torch.cat(column).double().cpu().numpy() for column in zip(*parts, strict=True))
        return np.column_stack(
            [np.bincount(owners, weights, minlength=len(batch)) for weights in (loss, np.ones(len(owners)), hit)]
        )

    return score, score_behind, skipped


def _token_losses(
    logits: torch.Tensor, targets: torch.Tensor, mean_logit: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Float32 `(positions,)` each: -log p of the target, and whether no token has a higher logit."""
    # On a CPU, the passes over the float32 copy are as fast as the cache that holds it.
    rows = max(1, SOFTMAX_BYTES // (4 * logits.shape[-1])) if logits.device.type == "cpu" else len(logits)
    losses, hits = [], []
    for part, target in zip(logits.split(rows), targets.split(rows), strict=True):
        if mean_logit:
            part = torch.cat([part.float(), part.float().mean(-1, keepdim=True)], -1)
        part = part.log_softmax(-1, dtype=torch.float32)
        chosen = part.gather(-1, target[:, None])[:, 0]
        losses.append(-chosen)
        hits.append((chosen >= part.amax(-1)).float())
    return torch.cat(losses), torch.cat(hits)


def _answer_logits(
    model: nn.Module, inner: nn.Module, device: torch.device, start: np.ndarray, ids: torch.Tensor | None = None
) -> tuple[Callable, int]:
    """
    A generator function `(input_ids (rows, width), places (positions,), skipped) -> (logits, slice of places)` a
    chunk, and how many tokens of `start` it lets the caller leave out (`skipped` says of a batch whether it did).
    With `ids`, logits of these tokens only. Where caches are of use, the generator also takes keys and values to use
    in place of the start's, [`keys_and_values`] of other tokens.

    The fast way takes the backbone's hidden states at the places and applies the head, and after it what the config
    says of scaling and soft-capping; the start's keys and values come from a cache. Each of the two is used only where
    it proves equal to the model's own logits on one short row; adapters that change the input (prompt learning) and
    unusual models go through the model's own forward.
    """
    config = inner.config.get_text_config()
    head, backbone = inner.get_output_embeddings(), getattr(inner, "base_model", None)
    chunk = max(16, LOGIT_BYTES.get(device.type, 2**28) // (4 * config.vocab_size))
    scale = _logit_scale(config)
    cap = getattr(config, "final_logit_softcapping", None)
    past = None

    def head_of(hidden: torch.Tensor) -> torch.Tensor:
        if ids is None:
            return head(hidden)
        if type(head) is not nn.Linear:
            return head(hidden)[:, ids]
        # A few ids cost nothing in float32, and bfloat16 has but a few steps between logits that are compared.
        bias = None if head.bias is None else head.bias[ids].float()
        return nn.functional.linear(hidden.float(), head.weight[ids].float(), bias)

    def fast(input_ids: torch.Tensor, places: torch.Tensor, skipped: int, other: Cache | None = None):
        begun = {"use_cache": False}
        if skipped:
            begun = {"use_cache": True, "past_key_values": _for_rows(other or past, len(input_ids))}
        hidden = backbone(input_ids=input_ids, **begun).last_hidden_state.flatten(0, 1)
        del begun
        hidden = hidden[places.to(hidden.device)]  # a model split over devices ends on another than it begins
        for first in range(0, len(places), chunk):
            part = slice(first, first + chunk)
            logits = head_of(hidden[part].to(next(head.parameters()).device))
            logits = logits * scale if scale != 1 else logits
            yield (torch.tanh(logits / cap) * cap if cap else logits), part

    def plain(input_ids: torch.Tensor, places: torch.Tensor, skipped: int = 0):
        logits = model(input_ids=input_ids, use_cache=False).logits
        logits = logits[:, -input_ids.shape[1] :].flatten(0, 1)  # learned prompt tokens come in front
        for first in range(0, len(places), chunk):
            part = slice(first, first + chunk)
            found = logits[places[part].to(logits.device)]
            yield (found if ids is None else found[:, ids]), part

    def proves_equal(skipped: int) -> bool:
        begin = torch.from_numpy(start[:skipped]).long().to(device)
        probe = torch.cat([begin, torch.arange(3, 11, device=device) % config.vocab_size])[None]
        last = torch.arange(8, device=device)
        own = next(plain(probe, last + skipped))[0]
        mine = next(fast(probe[:, skipped:], last, skipped))[0].to(own.device)
        if not torch.isfinite(own).all():  # nothing to compare; the losses will say so
            return not skipped
        tolerance = 1e-4 if own.dtype == torch.float32 else 2e-2
        return torch.allclose(own.float(), mine.float(), rtol=tolerance, atol=tolerance * float(own.abs().max()))

    learns_prompt = is_peft_model(model) and model.active_peft_config.is_prompt_learning
    if learns_prompt or head is None or backbone is None or backbone is inner or not proves_equal(0):
        return plain, 0
    if len(start):
        past = keys_and_values(model, start)
        if past is not None:
            return fast, len(start) if proves_equal(len(start)) else 0
    return fast, 0


def keys_and_values(model: nn.Module, ids: np.ndarray) -> Cache | None:
    """Cache of the model behind these tokens; `None` if it is not one that grows by adding tokens behind them."""
    inner = model.get_base_model() if is_peft_model(model) else model
    begin = torch.from_numpy(ids.astype(np.int64)).to(next(model.parameters()).device)[None]
    past = getattr(inner.base_model(input_ids=begin, use_cache=True), "past_key_values", None)
    growing = {DynamicLayer, DynamicSlidingWindowLayer}
    return past if isinstance(past, Cache) and {type(layer) for layer in past.layers} <= growing else None


def _for_rows(past: Cache, rows: int) -> Cache:
    """The cache of one row for several. Nothing is copied: its layers grow by joining tensors, never in place."""
    shared = copy.copy(past)
    shared.layers = [copy.copy(layer) for layer in past.layers]
    for layer in shared.layers:
        if layer.get_seq_length():  # layers that use another one's keep nothing
            layer.keys, layer.values = (part.expand(rows, *part.shape[1:]) for part in (layer.keys, layer.values))
    return shared


def _logit_scale(config) -> float:
    """What the logits are multiplied by after the head: names differ from family to family."""
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        if getattr(config, name, None) is not None:
            return getattr(config, name)
    scaling = getattr(config, "logits_scaling", None)
    return 1.0 if scaling is None else scaling if config.model_type == "hyperclovax" else 1 / scaling
