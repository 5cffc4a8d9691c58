"""
Row embeddings: the mean or the last of a causal model's last hidden states, or a sentence encoder's vectors; and a
store that keeps them by content.
"""

import hashlib
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import is_peft_model
from torch import nn

from . import batching, tokens
from .batching import found_by_main, map_batches
from .cache import RowStore, code_version, model_identity
from .state import cast, evaluating, scoring_dtype
from .tokens import TokenRows


def mean_hidden_state(model: nn.Module, rows: TokenRows, **options: Any) -> np.ndarray:
    """[`hidden_state`] with `pool="mean"`."""
    return hidden_state(model, rows, pool="mean", **options)


def hidden_state(
    model: nn.Module,
    rows: TokenRows,
    *,
    pool: Literal["mean", "last", "position"],
    batch_tokens: int = 4096,
    dtype: str = "auto",
    accelerator: Accelerator | None = None,
    progress: str | None = None,
) -> np.ndarray:
    """
    Last hidden state (after the final norm): its mean over all positions of a row, or that of the row's last token.

    Args:
        pool (`str`):
            `"mean"`; `"last"`; or `"position"`: the mean with position i (from 1) weighed by i, as in RDS+ (arXiv
            2503.01807), since in a causal model the later states have seen more.

    Returns:
        `np.ndarray`: float32 `(n, width)`; NaN for an empty row or one that did not fit in memory.
    """
    inner = model.get_base_model() if is_peft_model(model) else model
    device = next(model.parameters()).device

    def compute(batch: np.ndarray) -> np.ndarray:
        ids = [torch.from_numpy(ids.astype(np.int64)) for ids, _ in rows.take(batch)]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).to(device)
        lengths = torch.tensor([[len(row)] for row in ids])
        if padded.shape[1] == 0:
            return np.full((len(ids), inner.config.get_text_config().hidden_size), np.nan, np.float32)
        hidden = inner.base_model(input_ids=padded, use_cache=False).last_hidden_state
        places = torch.arange(padded.shape[1])
        weights = (places == lengths - 1 if pool == "last" else places < lengths).float()
        weights = (weights * (places + 1) if pool == "position" else weights).to(hidden.device)
        total = (hidden.float() * weights[..., None]).sum(1)
        return (total / weights.sum(1, keepdim=True)).cpu().numpy()

    with torch.no_grad(), evaluating(model), cast(model, scoring_dtype(model, dtype)):
        return map_batches(
            compute,
            rows.lengths,
            inner.config.get_text_config().hidden_size,
            batch_tokens=batch_tokens,
            accelerator=accelerator,
            progress=progress,
            dtype=np.float32,
        )


def sentence_embeddings(
    texts: Sequence[str], encoder: str | Any, accelerator: Accelerator | None = None, unit: bool = True
) -> np.ndarray:
    """
    Vectors of a sentence-transformers encoder, float32 `(n, width)`; texts are dealt over the ranks.

    Args:
        encoder (`str` or [`~sentence_transformers.SentenceTransformer`]):
            Hub name or folder, or the encoder itself.
        unit (`bool`, *optional*, defaults to `True`):
            Whether they are scaled to length 1.

    Raises:
        `ImportError`: sentence-transformers is missing (extra `embed`).
    """
    model = load_sentence_encoder(encoder, accelerator) if isinstance(encoder, str) else encoder
    # A lone surrogate is no text to a tokenizer.
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    world, rank = (accelerator.num_processes, accelerator.process_index) if accelerator else (1, 0)
    shown = rank == 0 and isinstance(encoder, str)
    mine = model.encode(texts[rank::world], normalize_embeddings=unit, show_progress_bar=shown)
    vectors = np.zeros((len(texts), model.get_embedding_dimension()), np.float32)
    vectors[rank::world] = mine
    if world > 1:
        vectors = accelerator.reduce(torch.from_numpy(vectors).to(accelerator.device), "sum").cpu().numpy()
    return vectors


def load_sentence_encoder(encoder: str, accelerator: Accelerator | None = None) -> Any:
    """
    A sentence-transformers encoder on this rank's device.

    Raises:
        `ValueError`: it can't be loaded.
    """
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(encoder, device=str(accelerator.device) if accelerator else None)
    except (OSError, ValueError) as error:
        raise ValueError(f"Can't load the sentence encoder {encoder!r}: {error}") from error


def text_keys(texts: Sequence[str]) -> np.ndarray:
    """Content key of each text, `(n,)` of 16 bytes (`V16`)."""
    digests = (hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts)
    return np.frombuffer(b"".join(digests), dtype="V16")


class VectorStore(RowStore):
    """
    Vectors by content key: as [`RowStore`], but float32, and read through a memory map, so that asking for some rows
    reads these only.

    Args:
        folder (`Path` or `None`):
            The cache folder; `None` keeps nothing.
        model ([`~torch.nn.Module`]):
            The encoder; its weights and its printed form name the store.
        width (`int`):
            Numbers a vector.
        **options:
            All else that decides the numbers.
    """

    def __init__(self, folder: Path | None, model: nn.Module, width: int, **options: Any):
        described = {
            "engine": "embedding",
            "code": code_version(sys.modules[__name__], tokens, batching),
            "model": model_identity(model) if folder else None,
            "modules": str(model),
            **options,
        }
        # One number more: the seconds that the row took.
        super().__init__(folder, described, width + 1)
        self.record = np.dtype([("key", "V16"), ("values", "<f4", (width + 1,)), ("check", "<u4")])
        self._places: dict[bytes, np.memmap] | None = None

    def load(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Stored vectors `(n, width + 1)` of the given keys, float32, and which of them are known, bool `(n,)`."""
        if self._places is None:
            self._places = {}
            for part in sorted(self.folder.glob("*.rows")) if self.folder else []:
                if count := part.stat().st_size // self.record.itemsize:
                    records = np.memmap(part, self.record, "r", shape=(count,))
                    self._places |= {key.tobytes(): (records, place) for place, key in enumerate(records["key"])}
        width = self.record["values"].shape[0]
        values, known = np.full((len(keys), width), np.nan, np.float32), np.zeros(len(keys), bool)
        for row, key in enumerate(keys):
            records, place = self._places.get(key.tobytes(), (None, 0))
            if records is not None:
                record = records[place]
                known[row] = zlib.crc32(record.tobytes()[:-4]) == record["check"]
                values[row] = record["values"] if known[row] else np.nan
        return values, known


def stored_vectors(
    store: VectorStore,
    keys: np.ndarray,
    compute: Callable[[np.ndarray], np.ndarray],
    accelerator: Accelerator | None = None,
    chunk: int = 2048,
    on_rows: Callable[[int], Any] = lambda rows: None,
) -> tuple[np.ndarray, int, float]:
    """
    Vectors of rows: those that the store knows are read, the others computed and added to it chunk by chunk.

    Args:
        store ([`VectorStore`]):
            Where they are kept.
        keys (`np.ndarray`):
            Content keys `(n,)`.
        compute (`Callable`):
            Places among the keys `(b,)` -> float32 `(b, width)`, the same on all ranks.
        chunk (`int`, *optional*, defaults to `2048`):
            Rows computed before they are saved.
        on_rows (`Callable`, *optional*):
            Called with the number of rows that are done since the last call.

    Returns:
        `tuple`: float32 `(n, width)`; rows that the store knew; seconds that these took when they were computed.
    """
    values, known = found_by_main(accelerator, *store.load(keys))
    main = accelerator is None or accelerator.is_main_process
    on_rows(int(known.sum()))
    todo = np.flatnonzero(~known)
    for first in range(0, len(todo), chunk):
        places, started = todo[first : first + chunk], time.perf_counter()
        vectors = compute(places)
        seconds = np.full(len(places), (time.perf_counter() - started) / len(places))
        values[places] = np.column_stack([vectors, seconds])
        if main:  # what did not fit in memory may fit another time
            whole = places[np.isfinite(vectors).all(1)]
            store.append(keys[whole], values[whole])
        on_rows(len(places))
    return values[:, :-1], int(known.sum()), float(values[known, -1].sum())
