"""
Log-likelihood of reference answers: summed negative log-likelihood, label tokens and top-1 hits of each row; and what
else the same pass gives, see [`~engines.forward.wants`].

What makes it fast without changing the result: rows are sorted by length; padding is on the right, where no label
token attends to it, so that no attention mask is needed; the KV cache of the common prefix of most rows (a system
prompt, a template's header) is computed once; the head runs on label tokens only, in slices. Softmax and sums are in
float32, totals of a row in float64.
"""

from collections.abc import Callable, Collection
from os.path import commonprefix
from typing import NamedTuple

import numpy as np
import torch
from accelerate.utils import is_peft_model
from torch import nn
from transformers import Cache

from ...compat.accelerate import device_of, forward_on_device
from ...compat.peft import adapts_layers_only
from ...compat.sharding import unsharded_type
from ...compat.transformers import attention_implementation, cache_for_rows, growing_cache
from ..runtime.batching import HEAD_ROWS, WIDTHS, rounded
from ..runtime.cached_map import measured
from ..runtime.model_state import positions as positions_of
from ..runtime.runtime import Runtime
from ..runtime.token_rows import TokenRows
from .pooling import pooled, states_of
from .token_losses import token_losses, token_ranks
from .wants import STATES, Want


#: Raise it when a loss, count or hit of an unchanged row and model changes by more than rounding.
VERSION = 1
#: Bytes of float32 logits in memory at a time: small enough for a CPU's caches, and negligible on a GPU.
LOGIT_BYTES = {"cpu": 2**25, "cuda": 2**28}
#: A common prefix of fewer tokens is not worth its attention masks.
SHORTEST_PREFIX = 8


class Likelihood(NamedTuple):
    """Per row, in the order of the token rows. All are NaN for a row that did not fit in memory."""

    #: Summed negative log-likelihood of the label tokens, nats, float64 `(n,)`.
    loss: np.ndarray
    #: Number of label tokens, float64 `(n,)`. A token at position 0 has no context and is never one.
    tokens: np.ndarray
    #: Label tokens that the model ranks first, float64 `(n,)`.
    hits: np.ndarray

    @property
    def mean_loss(self) -> np.ndarray:
        """Mean loss per token, nats, float64 `(n,)`; NaN without label tokens."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.tokens > 0, self.loss / self.tokens, np.nan)


def likelihood(
    model: nn.Module, rows: TokenRows, runtime: Runtime, label: str | None = None, mean_logit: bool = False
) -> Likelihood:
    """
    Score the label tokens of each row with `model`.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            Any causal language model; full, half precision or quantized.
        rows ([`TokenRows`]):
            Token ids and label spans.
        runtime ([`Runtime`]):
            Ranks, batches, dtype, cache; forward passes are booked there.
        label (`str`, *optional*):
            Label of the progress bar.
        mean_logit (`bool`, *optional*, defaults to `False`):
            Add one token to the softmax, whose logit is the mean of all logits, like a token that is added with the
            mean of all embeddings.

    Returns:
        [`Likelihood`]
    """
    namespace = namespace_of(model) | ({"mean_logit": True} if mean_logit else {})

    def begin(todo: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        score, _, _ = scorer(model, common_prefix(rows, todo), mean_logit)
        return lambda batch: score(rows.take(batch))

    return Likelihood(*measured(model, rows, runtime, 3, namespace, begin, label).values.T)


def namespace_of(model: nn.Module) -> dict:
    """What decides a row's likelihood besides the row, the weights and the dtype."""
    return {"engine": "likelihood", "version": VERSION, "attention": attention_implementation(model)}


#: Token ids `(tokens,)` and label spans `(spans, 2)` of each row.
Batch = list[tuple[np.ndarray, np.ndarray]]


def common_prefix(rows: TokenRows, places: np.ndarray) -> np.ndarray:
    """
    Common prefix of at least half of the rows, up to the first token that is a label or predicts one; empty if it is
    too short to matter. Determined on a sample that depends on the rows only.
    """
    sample = rows.take(places[:: max(1, len(places) // 512)])
    contexts = sorted(ids[: max(0, int(spans[:, 0].min()) - 1)].tolist() for ids, spans in sample if len(spans))
    if len(contexts) < 2:
        return np.zeros(0, np.int32)
    # In sorted order, the common prefix of two rows is that of all rows between them.
    prefix = commonprefix([contexts[len(contexts) // 4], contexts[3 * len(contexts) // 4]])
    return np.array(prefix if len(prefix) >= SHORTEST_PREFIX else [], np.int32)


def scorer(
    model: nn.Module, prefix: np.ndarray, mean_logit: bool = False, wants: Collection[Want] = ()
) -> tuple[Callable[..., np.ndarray], Callable[..., np.ndarray], int]:
    """
    A function from a batch of `(ids, spans)` to `(rows, 3)`: summed loss, label tokens, hits; what else is wanted is
    put into a dict, if given, as a list of an array a row. A second one, from `(skip, batch, past)`, for rows that
    share their first `skip` tokens, whose KV cache is `past`. And the number of tokens of `prefix` that may be
    skipped: 0 if KV caches can't be used.
    """
    device = device_of(model)
    inner = model.get_base_model() if is_peft_model(model) else model
    filler = 1 if getattr(inner.config, "pad_token_id", None) == 0 else 0  # padding ids only cause warnings
    logits_of, skipped = logits_at(model, inner, device, prefix)
    weights, limit = next(model.parameters()), positions_of(model)
    pools = [want for want in wants if want in STATES]
    begin = states_of(inner, prefix[:skipped]) if pools and skipped else None

    def score(batch: Batch, more: dict[str, list] | None = None) -> np.ndarray:
        has_prefix = [
            len(spans) and spans[:, 0].min() > skipped > 0 and np.array_equal(ids[:skipped], prefix)
            for ids, spans in batch
        ]
        result = np.zeros((len(batch), 3))
        for group, skip in ((np.flatnonzero(has_prefix), skipped), (np.flatnonzero(np.logical_not(has_prefix)), 0)):
            if len(group):
                others: dict[str, list] = {}
                result[group] = score_after(skip, [batch[row] for row in group], more=others)
                for want, values in others.items() if more is not None else ():
                    column = more.setdefault(want, [None] * len(batch))
                    for row, value in zip(group, values, strict=True):
                        column[row] = value
        return result

    def score_after(
        skip: int, batch: Batch, past: Cache | None = None, more: dict[str, list] | None = None
    ) -> np.ndarray:
        width = max(len(ids) for ids, _ in batch) - skip
        width = rounded(width, WIDTHS, weights, limit and limit - skip)
        padded = np.full((len(batch), width), filler, np.int64)
        positions, targets, owners = [], [], []
        for row, (ids, spans) in enumerate(batch):
            padded[row, : len(ids) - skip] = ids[skip:]
            for first, end in spans:
                label_positions = np.arange(max(first, 1), min(end, len(ids)))
                positions.append(row * width + label_positions - skip - 1)  # a token is predicted one position before
                targets.append(ids[label_positions])
                owners.append(np.full(len(label_positions), row))
        positions, targets, owners = (
            np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)
            for parts in (positions, targets, owners)
        )
        loss, hit, states = np.zeros(0), np.zeros(0), []
        ranks = [np.zeros(0, np.float32)]
        if len(positions):
            labels = torch.from_numpy(targets).to(device)
            tensors = torch.from_numpy(padded).to(device), torch.from_numpy(positions).to(device)
            options = {"states": states} if pools else {}
            chunks = logits_of(*tensors, skip, **options) if past is None else logits_of(*tensors, skip, past)
            parts = []
            for logits, part in chunks:
                target = labels[part].to(logits.device)
                parts.append(token_losses(logits, target, mean_logit))
                if "token ranks" in wants:
                    ranks.append(token_ranks(logits, target))
            loss, hit = (torch.cat(column).double().cpu().numpy() for column in zip(*parts, strict=True))
        if more is not None and wants:
            ends = np.cumsum(np.bincount(owners, minlength=len(batch)))[:-1]
            for want, values in (("token losses", loss), ("token ranks", np.concatenate(ranks))):
                if want in wants:
                    more[want] = np.split(values.astype(np.float32), ends)
            if pools:
                hidden = states[0] if states else states_of(inner, padded)
                lengths = [len(ids) for ids, _ in batch]
                more.update({pool: list(pooled(hidden, lengths, pool, begin if skip else None)) for pool in pools})
        return np.column_stack(
            [np.bincount(owners, weights, minlength=len(batch)) for weights in (loss, np.ones(len(owners)), hit)]
        )

    return score, score_after, skipped


def logits_at(
    model: nn.Module, inner: nn.Module, device: torch.device, prefix: np.ndarray, ids: torch.Tensor | None = None
) -> tuple[Callable, int]:
    """
    A function that computes logits at given positions, and the number of tokens of `prefix` that its batches may skip.

    It is a generator function `(input_ids (rows, width), positions (p,), skipped) -> (logits, slice of positions)`, by
    chunks; `skipped` is the number of skipped tokens. With `ids`, it yields the logits of these tokens only. If KV
    caches can be used, it also accepts the [`keys_and_values`] of other tokens in place of the prefix's. The hidden
    states `(rows, width, size)` are appended to a list `states`.

    The fast way applies the head, and the scaling and soft-capping of the config, to the backbone's hidden states at
    the positions; the prefix comes from a KV cache. Both are used only if they match the model's own logits on a short
    row; adapters that change more than layers (learned prompts) and unusual models run their own forward.
    """
    config = inner.config.get_text_config()
    head, backbone = inner.get_output_embeddings(), getattr(inner, "base_model", None)
    chunk = max(16, LOGIT_BYTES.get(device.type, 2**28) // (4 * config.vocab_size))
    scale = logit_scale(config)
    cap = getattr(config, "final_logit_softcapping", None)
    past = None

    def head_logits(run: Callable, hidden: torch.Tensor) -> torch.Tensor:
        if ids is None:
            return run(hidden)
        if unsharded_type(head) is not nn.Linear:
            return run(hidden)[:, ids]
        # A few ids cost nothing in float32, and bfloat16 is too coarse for logits that are compared.
        bias = None if head.bias is None else head.bias[ids].float()
        return nn.functional.linear(hidden.float(), head.weight[ids].float(), bias)

    def fast(
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        skipped: int,
        other: Cache | None = None,
        states: list | None = None,
    ):
        cache = {"use_cache": False}
        if skipped:
            cache = {"use_cache": True, "past_key_values": cache_for_rows(other or past, len(input_ids))}
        hidden = backbone(input_ids=input_ids, **cache).last_hidden_state
        del cache
        if states is not None:
            states.append(hidden)
        hidden = hidden.flatten(0, 1)
        hidden = hidden[positions.to(hidden.device)]  # the last device of a model split over devices
        with forward_on_device(head) as run:
            for first in range(0, len(positions), chunk):
                part = slice(first, min(first + chunk, len(positions)))
                size, weight = part.stop - first, next(head.parameters())
                taken = nn.functional.pad(hidden[part], (0, 0, 0, rounded(size, HEAD_ROWS, weight, chunk) - size))
                logits = head_logits(run, taken.to(device_of(head)))[:size]
                logits = logits * scale if scale != 1 else logits
                yield (torch.tanh(logits / cap) * cap if cap else logits), part

    def plain(input_ids: torch.Tensor, positions: torch.Tensor, skipped: int = 0, *_, states: list | None = None):
        if states is not None:
            states.append(inner.base_model(input_ids=input_ids, use_cache=False).last_hidden_state)
        logits = model(input_ids=input_ids, use_cache=False).logits
        logits = logits[:, -input_ids.shape[1] :].flatten(0, 1)  # learned prompt tokens come first
        for first in range(0, len(positions), chunk):
            part = slice(first, first + chunk)
            selected = logits[positions[part].to(logits.device)]
            yield (selected if ids is None else selected[:, ids]), part

    def proves_equal(skipped: int) -> bool:
        begin = torch.from_numpy(prefix[:skipped]).long().to(device)
        probe = torch.cat([begin, torch.arange(3, 11, device=device) % config.vocab_size])[None]
        last = torch.arange(8, device=device)
        own = next(plain(probe, last + skipped))[0]
        return same_logits(own, next(fast(probe[:, skipped:], last, skipped))[0])

    whole = is_peft_model(model) and not adapts_layers_only(model)
    if whole or head is None or backbone is None or backbone is inner:
        return plain, 0
    past = keys_and_values(model, prefix) if len(prefix) else None
    if past is not None and proves_equal(len(prefix)):  # so it is without the prefix
        return fast, len(prefix)
    return (fast if proves_equal(0) else plain), 0


def same_logits(own: torch.Tensor, other: torch.Tensor) -> bool:
    """
    Whether logits equal the model's own, up to rounding, infinite ones included. With NaN among them, they do not.
    """
    tolerance = 1e-4 if own.dtype == torch.float32 else 2e-2
    own, other = own.float(), other.to(own.device, torch.float32)
    largest = own.abs().nan_to_num(0, posinf=0).max()
    return torch.allclose(own, other, rtol=tolerance, atol=tolerance * float(largest))


def keys_and_values(model: nn.Module, ids: np.ndarray) -> Cache | None:
    """The model's KV cache of these tokens; `None` if the cache can't be extended by appending tokens."""
    inner = model.get_base_model() if is_peft_model(model) else model
    begin = torch.from_numpy(ids.astype(np.int64)).to(device_of(model))[None]
    return growing_cache(getattr(inner.base_model(input_ids=begin, use_cache=True), "past_key_values", None))


def logit_scale(config) -> float:
    """The factor applied to the logits after the head: its name differs between model families."""
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        if getattr(config, name, None) is not None:
            return getattr(config, name)
    scaling = getattr(config, "logits_scaling", None)
    return 1.0 if scaling is None else scaling if config.model_type == "hyperclovax" else 1 / scaling
