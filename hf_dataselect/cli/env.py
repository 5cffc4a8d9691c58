"""`hf-dataselect env`: what a report of a fault should say of the machine."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from .. import __version__
from ..engines.store.files import cache_folder, default_cache_dir
from ..runs.files import installed_versions
from ..runs.secrets import without_secrets
from .console import say
from .parsers import env_parser


#: Beginnings of the names of environment variables that change what a run does.
VARIABLES = ("HF_", "ACCELERATE_", "CUDA_", "OMP_", "NCCL_", "TOKENIZERS_", "TORCH_", "TRANSFORMERS_", "PYTORCH_")


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    env_parser().parse_args(argv)
    for name, value in facts().items():
        say(f"- {name}: {value}")


def facts() -> dict[str, str]:
    """What is told, by name; no key and no token is."""
    cache = cache_folder(default_cache_dir())
    told = {"hf_dataselect": f"{__version__} ({Path(__file__).resolve().parents[1]})"}
    told["python"] = platform.python_version()
    told |= {name: value or "not installed" for name, value in installed_versions().items()}
    told["system"] = f"{platform.platform()}, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads of torch"
    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    told["GPUs"] = ", ".join(devices) or ("MPS" if torch.backends.mps.is_available() else "none")
    told["cache"] = "none" if cache is None else str(cache)
    given = {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)}
    return told | without_secrets(given)
