"""Peak memory of the process, and the memory that it may still take."""

import sys
from pathlib import Path

import psutil
import torch


#: Of control groups, version 2 and 1: mount, controller, limit, usage, and the name of what of it the kernel can drop.
_GROUPS = [
    ("/sys/fs/cgroup", "", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/unified", "", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
]


def peak_memory() -> dict[str, int]:
    """
    Peak memory of this process in bytes: `"process"` (resident set, not available on Windows), and `"gpu"` (allocated
    by torch, maximum over GPUs).
    """
    peak = {}
    if sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak["process"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if torch.cuda.is_available():
        peak["gpu"] = max(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count())))
    return peak


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
