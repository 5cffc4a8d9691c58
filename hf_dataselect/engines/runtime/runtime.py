"""[`Runtime`]: ranks, batches, dtype, cache, account and progress, passed to every engine as one argument."""

import gc
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, broadcast_object_list, gather_object
from torch import nn

from ...compat.accelerate import out_of_memory
from ...errors import sendable
from ..store.contents import note_model
from ..store.identity import identity_of
from ..store.ragged_store import RaggedStore
from ..store.row_store import RecordStore, RowStore, Stored
from ..store.vector_store import VectorStore
from .account import Account
from .batching import MOST_PADDING, batches_by_tokens
from .lockstep import in_step, refuse_to_halve
from .part import Part
from .phase import Phased
from .progress import progress_bar
from .ranks import meeting, ranks


@dataclass(frozen=True)
class Runtime:
    """
    Device, ranks, batch size, dtype and cache of the engines, and the account of what they compute.

    Args:
        accelerator ([`~accelerate.Accelerator`], *optional*):
            Device and ranks; by default one process on the model's device.
        cache_dir (`Path`, *optional*):
            Folder of cached results; `None` disables the cache.
        batch_tokens (`int`, *optional*):
            Tokens of a forward batch, padding included; by default 1,536 on a CPU and 16,384 elsewhere. A batch that
            runs out of memory is halved.
        dtype (`str`, *optional*, defaults to `"auto"`):
            Dtype to score in, see [`scoring_dtype`].
        num_proc (`int`, *optional*):
            Number of tokenization processes.
        gradient_checkpointing (`bool`, *optional*, defaults to `False`):
            Whether backward passes trade compute for memory.
        vllm_memory (`float`, *optional*):
            Fraction of the GPU's memory for vLLM; `None` generates without vLLM.
        silent (`bool`, *optional*, defaults to `False`):
            Whether to show no progress.
        part ([`Part`], *optional*):
            The rows that cached computations are restricted to; other rows that are not cached are NaN.
        account ([`Account`], *optional*):
            Account of rows, tokens and seconds.
    """

    accelerator: Accelerator | None = None
    cache_dir: Path | None = None
    batch_tokens: int | None = None
    dtype: str = "auto"
    num_proc: int | None = None
    gradient_checkpointing: bool = False
    vllm_memory: float | None = None
    silent: bool = False
    part: Part | None = None
    account: Account = field(default_factory=Account)

    def __post_init__(self):
        if self.batch_tokens is not None and self.batch_tokens < 1:
            raise ValueError(f"`batch_tokens` must be at least 1, got {self.batch_tokens}.")
        if self.batch_tokens is None:
            on_cpu = self.accelerator is None or self.accelerator.device.type == "cpu"
            object.__setattr__(self, "batch_tokens", 1536 if on_cpu else 16384)
        if self.world > 1:
            ranks()

    @property
    def world(self) -> int:
        """Number of ranks."""
        return 1 if self.accelerator is None else self.accelerator.num_processes

    @property
    def rank(self) -> int:
        """Rank of this process, from 0."""
        return 0 if self.accelerator is None else self.accelerator.process_index

    @property
    def is_main(self) -> bool:
        """Whether this rank logs, writes files and calls servers."""
        return self.accelerator is None or self.accelerator.is_main_process

    @property
    def device(self) -> torch.device:
        """Device of models and vectors."""
        return torch.device("cpu") if self.accelerator is None else self.accelerator.device

    @property
    def precision(self) -> str:
        """Mixed precision of training: `"no"`, `"bf16"` or `"fp16"`."""
        return self.accelerator.mixed_precision if self.accelerator else "no"

    @property
    def described(self) -> dict[str, Any]:
        """Settings that determine the result of training, for cache keys."""
        return {"dtype": self.dtype, "processes": self.world, "precision": self.precision}

    def uncached(self, account: Account | None = None) -> "Runtime":
        """A copy without a cache, and with another account if given."""
        return replace(self, cache_dir=None, account=account or self.account)

    def broadcast(self, value: Any) -> Any:
        """The main process's (picklable) value on every rank."""
        if self.world == 1:
            return value
        with meeting():
            return broadcast_object_list([value])[0]

    def broadcast_arrays(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        """The main process's arrays on every rank, so that all ranks shard the same rows. NaN is preserved."""
        if self.world == 1:
            return arrays
        sent = (torch.from_numpy(np.ascontiguousarray(array)).to(self.device) for array in arrays)
        with meeting():
            return tuple(broadcast(tensor).cpu().numpy() for tensor in sent)

    def on_main(self, function: Callable[[], Any]) -> Any:
        """
        Call the function on the main process; its result or exception is that of every rank. The others wait outside
        of a collective, so that it may take longer than the time-out of those.
        """
        if self.world == 1:
            return function()
        outcome, told = None, ranks()
        number = told.begin_on_main() if told is not None else 0
        if self.is_main:
            try:
                outcome = function(), None
                pickle.dumps(outcome)
            except Exception as error:  # the other ranks would wait forever
                outcome = None, sendable(error)
            if told is not None:
                told.finish_on_main(number)
        elif told is not None:
            told.wait_for_main(number)
        value, error = self.broadcast(outcome)
        if error is not None:
            raise error
        return value

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, ordered by rank."""
        if self.world == 1:
            return [value]
        with meeting():
            return gather_object([value])

    def agree(self, value: Any) -> bool:
        """Whether all ranks have the same (hashable) value."""
        return len(set(self.gather(value))) == 1

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sum over the ranks; exact where at most one of them has a nonzero value."""
        if self.world == 1:
            return values
        tensor = torch.from_numpy(values)
        tensor = tensor.float() if self.device.type == "mps" else tensor
        with meeting():
            return self.accelerator.reduce(tensor.to(self.device), "sum").cpu().numpy().astype(values.dtype)

    def wait(self) -> None:
        """Wait for all ranks."""
        if self.world > 1:
            with meeting():
                self.accelerator.wait_for_everyone()

    def progress(self, total: int | None, label: str | None, unit: str = "row") -> Phased:
        """Progress on the main process, see [`progress_bar`]; disabled without a label, and where all is silent."""
        return progress_bar(total, label, unit, disable=label is None or self.silent or not self.is_main)

    def book(self, cached_seconds: float = 0.0, **passes: int) -> None:
        """Record rows and tokens by kind of pass (`forward_rows`, ..., `cached_rows`), and seconds of cached rows."""
        self.account.count(**passes)
        self.account.add_cached_seconds(cached_seconds)

    def store(self, namespace: dict[str, Any], width: int) -> RowStore:
        """The cache of per-row values under a namespace."""
        return RowStore(self.cache_dir, namespace, width, self.account.cache_files)

    def vector_store(self, namespace: dict[str, Any], width: int, **options: Any) -> VectorStore:
        """The cache of per-row vectors under a namespace."""
        return VectorStore(self.cache_dir, namespace, width, files=self.account.cache_files, **options)

    def token_store(self, namespace: dict[str, Any]) -> RaggedStore:
        """The cache of numbers of each row's tokens under a namespace."""
        return RaggedStore(self.cache_dir, namespace, self.account.cache_files)

    def find(self, store: RecordStore, keys: np.ndarray) -> Stored:
        """Look keys up on the main process, for every rank; rows that any rank of this run wrote count 0 seconds."""
        if self.world == 1:
            return store.find(keys)
        for names in self.gather([name for name, counted in store.files.items() if counted is None]):
            store.files.update(dict.fromkeys(names))
        values, *rest = store.find(keys)
        if isinstance(values, np.ndarray):  # others are read from the disk as they are indexed
            (values,) = self.broadcast_arrays(values)
        return Stored(values, *self.broadcast_arrays(*rest))

    def identity(self, model: nn.Module) -> str | None:
        """Content hash of a model, for the namespace of a store; `None` without a cache."""
        if not self.cache_dir:
            return None
        with meeting():
            identity = identity_of(model)
        if self.is_main:
            note_model(self.cache_dir, identity, model)
        return identity

    def map(
        self,
        compute: Callable[[np.ndarray], np.ndarray],
        lengths: Sequence[int],
        width: int,
        *,
        rows: np.ndarray | None = None,
        batch_tokens: int | None = None,
        label: str | None = None,
        on_batch: Callable[[np.ndarray, np.ndarray], None] | None = None,
        dtype: type = np.float64,
        most_padding: float = MOST_PADDING,
        make_pass: Callable[[], Any] | None = None,
    ) -> np.ndarray:
        """
        Compute `width` values per row, batch by batch, sharded across ranks.

        Args:
            compute (`Callable`):
                Row numbers of a batch `(b,)` -> array `(b, width)`.
            lengths (`Sequence[int]`):
                Tokens of each row, `(n,)`.
            width (`int`):
                Values per row.
            rows (`np.ndarray`, *optional*):
                Rows to compute, all by default.
            batch_tokens (`int`, *optional*):
                Tokens of a batch, padding included; by default the runtime's. A batch that runs out of memory is
                halved, and so is every later one.
            label (`str`, *optional*):
                Label of the progress bar.
            on_batch (`Callable`, *optional*):
                Called on the rank that computed a batch with its rows and results, before the next batch starts.
            most_padding (`float`, *optional*):
                As in [`batches_by_tokens`].
            make_pass (`Callable`, *optional*):
                As in [`in_step`], for passes of a sharded model.

        Returns:
            `np.ndarray`: `(n, width)`, the same on all ranks; NaN for rows that are not in `rows`, and for a row that
            does not fit in memory even as a batch of one.
        """
        lengths = np.asarray(lengths)
        batches = batches_by_tokens(lengths, batch_tokens or self.batch_tokens, rows, most_padding)
        queue, result = batches[self.rank :: self.world][::-1], np.zeros((len(lengths), width), dtype=dtype)
        limit = None  # rows x longest row that may fit, once a batch did not
        with self.progress(sum(map(len, batches)), label) as bar, in_step(make_pass):
            while queue:
                batch = queue.pop()
                size = len(batch) * int(lengths[batch].max())
                if limit is not None and size > limit and len(batch) > 1:
                    queue.extend(np.array_split(batch, 2)[::-1])
                    continue
                try:
                    result[batch] = compute(batch)
                except Exception as error:
                    if not out_of_memory(error):
                        raise
                    refuse_to_halve(error)
                    if len(batch) > 1:
                        limit = min(size // 2, limit or size)
                        queue.append(batch)
                    else:
                        result[batch] = np.nan
                        bar.update(self.world)
                    failed = True
                else:
                    failed = False
                    if on_batch is not None:
                        on_batch(batch, result[batch])
                    bar.update(min(len(batch) * self.world, bar.total - bar.n))
                if failed:  # outside the handler, where the traceback holds the tensors that did not fit
                    gc.collect()
                    if torch.cuda.is_available():
                        torch.cuda.empty_cache()
        result = self.sum(result)  # ranks hold disjoint rows, and zeros elsewhere
        if rows is not None:
            result[np.setdiff1d(np.arange(len(lengths)), rows)] = np.nan
        return result
