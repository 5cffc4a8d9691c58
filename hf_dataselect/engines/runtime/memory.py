"""Peak memory of a block of code, and the memory that the process may still take."""

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
#: Of control groups, version 2 and 1: mount, controller, limit, usage, and the name of what of it the kernel can drop.
_GROUPS = [
    ("/sys/fs/cgroup", "", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/unified", "", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
]


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


def free_memory() -> int:
    """
    Bytes of main memory that this process may still take: what the machine has available, or less where a container or
    a job of a cluster is limited to less (control groups).
    """
    return max(0, min([psutil.virtual_memory().available, *_left_in_groups()]))


def _left_in_groups(own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """What each control group of this process has left below its limit."""
    left = []
    try:
        groups = [line.split(":", 2)[1:] for line in own.read_text(encoding="utf-8").splitlines()]
    except OSError:  # not Linux
        return []
    for mount, controller, limit, usage, cached in _GROUPS:
        for controllers, name in groups:
            if controller not in controllers.split(","):
                continue
            inner = Path(mount) / name.lstrip("/")  # in a container its own group is the mount itself
            for folder in (inner, *inner.parents):
                if not folder.is_relative_to(mount):
                    break
                try:
                    allowed, used = ((folder / file).read_text(encoding="utf-8").strip() for file in (limit, usage))
                    facts = dict(
                        line.split() for line in (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
                    )
                    left.append(int(allowed) - int(used) + int(facts.get(cached, 0)))
                except (OSError, ValueError):  # `max`: without a limit
                    continue
    return left
