"""Peak memory of the process."""

import sys

import torch


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
