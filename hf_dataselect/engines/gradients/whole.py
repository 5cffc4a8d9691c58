"""Whether gradients are taken whole, without a projection: where they are short, or fit in memory."""

import logging
from pathlib import Path

import torch
from torch import nn

from ...errors import DamagedFile
from ..runtime.batching import batches_by_tokens
from ..runtime.memory import free_memory
from ..runtime.runtime import Runtime
from ..runtime.token_rows import TokenRows
from ..store.checked import read_json, write_json
from ..store.files import check_cache
from ..store.identity import digest
from ..store.vector_store import free_bytes
from .collect import backward_tokens
from .projection import Projection


logger = logging.getLogger(__name__)

#: Part of the memory that is free, and of the disk, that whole gradients may take.
SHARE = 0.25


def why_whole(
    project: Projection,
    layers: dict[str, nn.Linear],
    rows: TokenRows,
    examples: TokenRows,
    runtime: Runtime,
    epochs: int,
    model: str | None = None,
) -> str | None:
    """
    Why gradients need no projection, or `None` if they do; the main process decides for all ranks.

    They need none if they have at most `project.dim` numbers, or if whole ones take at most a quarter

    - of the free main memory: 2 bytes a number of all rows, as if they were held there, and for each rank 4 more of
      the examples and the buffers of the largest batch;
    - of the free memory of a GPU: the buffers;
    - of the free disk, with a cache: 2 bytes a number of all rows and epochs.

    Free memory differs from run to run: the decision is kept in the cache folder, so that a killed run goes on with
    the vectors that it has.

    Args:
        project ([`Projection`]):
            The projection in question.
        layers (`dict[str, nn.Linear]`):
            Layers that are differentiated, by module name.
        rows, examples ([`TokenRows`]):
            Candidates and target-task examples.
        runtime ([`Runtime`]):
            Ranks, batches, cache.
        epochs (`int`):
            Checkpoints at which all of them are differentiated.
        model (`str`, *optional*):
            Identity of the model, under which the decision is kept, with that of the rows; by default it is not kept.
    """
    numbers = sum(layer.weight.numel() for layer in layers.values())
    if numbers <= project.dim:
        return f"their {numbers:,} numbers are no more than {project.dim:,}"
    device = next(iter(layers.values())).weight.device

    def decide() -> str | None:
        if model is None or runtime.cache_dir is None:
            return _fit(numbers, rows, examples, runtime, epochs, device)
        key = digest([model, rows.keys().tobytes().hex(), numbers, project.dim, epochs])
        path = Path(runtime.cache_dir) / "projection" / f"{key}.json"
        try:
            kept = read_json(path, "It is decided again.")
            if not {"why whole", "examples"} <= kept.keys():
                raise DamagedFile(path, "entries are missing", "It is decided again.")
            if kept["why whole"] is None or kept["examples"] >= len(examples):
                return kept["why whole"]
        except FileNotFoundError:
            pass
        except DamagedFile as error:
            logger.warning("%s", error)
        reason = _fit(numbers, rows, examples, runtime, epochs, device)
        if check_cache(runtime.cache_dir):
            path.parent.mkdir(exist_ok=True)
            write_json(path, {"why whole": reason, "examples": len(examples)})
        return reason

    return runtime.on_main(decide)


def _fit(
    numbers: int, rows: TokenRows, examples: TokenRows, runtime: Runtime, epochs: int, device: torch.device
) -> str | None:
    """Why vectors of so many numbers fit in memory and on the disk; `None` if they don't."""
    batches = [batches_by_tokens(side.lengths, backward_tokens(runtime, side.lengths)) for side in (rows, examples)]
    buffers = 16 * max(map(len, sum(batches, [])), default=0)  # float32: the sum, its squares, the quotient, a copy
    vectors = 2 * (len(rows) + len(examples))
    needed, free = numbers * (vectors + runtime.world * (4 * len(examples) + buffers)), free_memory()
    fit = needed <= SHARE * free
    if device.type == "cuda":
        fit = fit and numbers * buffers <= SHARE * torch.cuda.mem_get_info(device)[0]
    if runtime.cache_dir is not None:
        fit = fit and numbers * vectors * epochs <= SHARE * free_bytes(runtime.cache_dir)
    return f"the {needed / 1e9:.2f} GB that they take fit in the {free / 1e9:.1f} GB of free memory" if fit else None
