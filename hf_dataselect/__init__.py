"""Data selection for supervised fine-tuning, as a plug-in of the Hugging Face Trainer."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .compat.bitsandbytes import bitsandbytes_later


__version__ = "0.1.1"

#: Public names and the module each comes from; a name is imported when it is first asked for.
_PUBLIC = {
    "Budget": "budget",
    "Card": "card",
    "Context": "context",
    "DataSelectingConfig": "training.config",
    "DataSelectingTrainer": "training.trainer",
    "PIRCallback": "training.callbacks",
    "Record": "data.layouts",
    "Records": "data.records",
    "Scores": "selector",
    "Selection": "selection",
    "SelectionCallback": "training.callbacks",
    "Selector": "selector",
    "load_selector": "registry",
    "select": "pipeline",
    "select_dataset": "service",
}
#: Those that may change in any version, see docs/building-on.md; their docstrings say so too.
_EXPERIMENTAL = {"PIRCallback", "SelectionCallback", "select"}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from .budget import Budget
    from .card import Card
    from .context import Context
    from .data.layouts import Record
    from .data.records import Records
    from .pipeline import select
    from .registry import load_selector
    from .selection import Selection
    from .selector import Scores, Selector
    from .service import select_dataset
    from .training.callbacks import PIRCallback, SelectionCallback
    from .training.config import DataSelectingConfig
    from .training.trainer import DataSelectingTrainer


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with bitsandbytes_later():
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
