"""Peak memory of a block of code, apart from what the process held at other times."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch


#: Seconds between two samples of the resident set, where Linux does not tell its peak.
INTERVAL = 0.01
#: Writing 5 resets the peak of the resident set (`VmHWM`) to what is held now, see proc_pid_clear_refs(5).
_CLEAR = Path("/proc/self/clear_refs")


@contextmanager
def peak_memory() -> Iterator[dict[str, int]]:
    """
    Measure the peak memory of this process while the block runs. Its worker processes are not included.

    Yields:
        `dict[str, int]`: Bytes, filled in when the block ends:

        - `"process"`: the peak of the resident set. Linux keeps it, and it is reset when the block starts; where that
          is not possible, it is sampled every [`INTERVAL`] seconds, and a shorter peak may be missed.
        - `"gpu"`: the peak that torch allocated, on the GPU where it is highest. The peak statistics of torch are
          reset when the block starts.
        - `"process_before"`, `"gpu_before"`: what was held when the block started, part of the peak.
    """
    gpus = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    allocated = [torch.cuda.memory_allocated(gpu) for gpu in gpus]
    for gpu in gpus if torch.cuda.is_initialized() else ():
        torch.cuda.reset_peak_memory_stats(gpu)
    process, done, peak = psutil.Process(), threading.Event(), dict[str, int]()
    before = process.memory_info().rss
    samples = [before]

    def sample() -> None:
        while not done.wait(INTERVAL):
            samples[0] = max(samples[0], process.memory_info().rss)

    sampler = None if _reset() else threading.Thread(target=sample, name="peak memory", daemon=True)
    if sampler is not None:
        sampler.start()
    try:
        yield peak
    finally:
        done.set()
        if sampler is not None:
            sampler.join()
        highest = samples[0] if sampler is not None else _since_reset()
        peak["process"], peak["process_before"] = max(highest, process.memory_info().rss), before
        if gpus:
            most = max(gpus, key=torch.cuda.max_memory_allocated)
            peak["gpu"], peak["gpu_before"] = torch.cuda.max_memory_allocated(most), allocated[most]


def _reset() -> bool:
    """Reset the peak that the kernel keeps of this process; whether that is possible."""
    try:
        _CLEAR.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _since_reset() -> int:
    """`getrusage` also holds the peak of a program that this process ran before by `exec`, which stays."""
    found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
