"""What a process has taken of the memory."""

import sys

import torch


def peak_memory() -> dict[str, int]:
    """
    Most bytes that this process has held at once since it began: `"process"` (resident, not known on Windows), and
    `"gpu"` (allocated by torch on the fullest GPU, where there is one).
    """
    found = {}
    if sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        found["process"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if torch.cuda.is_available():
        found["gpu"] = max(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count())))
    return found
