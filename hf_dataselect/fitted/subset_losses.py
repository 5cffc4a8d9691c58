"""
Held-out losses of models fine-tuned on subsets, one line a subset in a JSON Lines file that outlives a kill: each is
written as it comes, with a checksum, and read back under the same settings.
"""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..engines.runtime.progress import Series, Task
from ..engines.runtime.runtime import Runtime
from ..engines.store.checked import json_line, read_lines
from ..errors import TrainingDiverged


logger = logging.getLogger(__name__)


class Measured(NamedTuple):
    """What training on a subset gave."""

    #: Held-out loss `(1,)`, or that of each held-out row; NaN where there is none.
    losses: np.ndarray
    #: What else was noted.
    more: dict[str, Any]


class SubsetLosses:
    """
    Losses by the rows of a subset, appended as JSON lines; those of other settings are ignored.

    Args:
        path (`Path`):
            The file.
        settings (`str`):
            Hash of all that a loss depends on besides the rows.
        runtime ([`Runtime`]):
            Ranks; the main process reads and writes.
    """

    def __init__(self, path: Path, settings: str, runtime: Runtime):
        self.path, self.settings, self._runtime = path, settings, runtime
        self.done: dict[tuple[int, ...], Measured] = runtime.broadcast(self._read() if runtime.is_main else None)

    def _read(self) -> dict[tuple[int, ...], Measured]:
        done = {}
        for entry in read_lines(self.path, unchecked=True):  # earlier versions wrote no checksums
            if entry.get("settings") == self.settings and _is_loss(entry):
                losses = np.array(entry.get("losses", [entry["loss"]]), np.float64)
                more = {name: value for name, value in entry.items() if name not in _COLUMNS}
                done[tuple(entry["rows"])] = Measured(losses, more)
        return done

    def measure(
        self, subsets: Sequence[np.ndarray], loss_of: Callable[[np.ndarray], tuple[Any, dict]], name: str = "Subset"
    ) -> list[Measured]:
        """
        The losses of subsets; those not known yet are measured, and written one by one.

        Args:
            subsets (`list[np.ndarray]`):
                Row numbers of each, ascending, the same on all ranks.
            loss_of (`Callable`):
                Rows -> their loss, or the loss of each held-out row; and what else the line notes of them.
            name (`str`, *optional*, defaults to `"Subset"`):
                What the log calls a subset.

        Raises:
            [`TrainingDiverged`]: no held-out row has a loss.
        """
        log = logger.info if self._runtime.is_main else logger.debug
        if (known := sum(tuple(rows.tolist()) in self.done for rows in subsets)) and len(subsets) > 1:
            log("The losses of %d of %d subsets are read from %s.", known, len(subsets), self.path)
        series = Series([Task("")] * len(subsets))
        for number, rows in enumerate(subsets):
            if tuple(rows.tolist()) in self.done:
                series.skip(number)
        for number, rows in enumerate(subsets):
            if tuple(rows.tolist()) in self.done:
                continue
            series.begin(number)
            losses, more = loss_of(rows)
            if not np.isfinite(losses).any():
                raise TrainingDiverged(
                    f"{name}: no held-out row has a loss. The training diverged (lower `learning_rate`), or no row "
                    "has an answer within the window (raise `max_length`)."
                )
            self._add(number, rows.tolist(), losses, more)
            series.end(number)
            place = f" {number + 1} of {len(subsets)}" if len(subsets) > 1 else ""
            log("%s%s: loss %.4f%s", name, place, np.nanmean(losses), series.left)
        return [self.done[tuple(rows.tolist())] for rows in subsets]

    def _add(self, number: int, rows: list[int], losses: Any, more: dict[str, Any]) -> None:
        by_row = np.ndim(losses) > 0
        self.done[tuple(rows)] = Measured(np.atleast_1d(losses), more)
        if not self._runtime.is_main:
            return
        entry = {"settings": self.settings, "subset": number, "loss": float(np.nanmean(losses))}
        entry |= {"losses": [None if np.isnan(loss) else loss for loss in losses.tolist()]} if by_row else {}
        entry |= {**more, "rows": rows}
        with open(self.path, "ab", buffering=0) as file:
            file.write(json_line(entry))
            os.fsync(file.fileno())


_COLUMNS = ("settings", "subset", "loss", "losses", "rows")


def _is_loss(entry: dict[str, Any]) -> bool:
    rows, loss = entry.get("rows"), entry.get("loss")
    return isinstance(rows, list) and {*map(type, rows)} <= {int} and type(loss) is float and np.isfinite(loss)
