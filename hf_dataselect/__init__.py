"""Data selection for supervised fine-tuning, as a plug-in of the Hugging Face Trainer."""

from importlib import import_module
from typing import TYPE_CHECKING, Any


__version__ = "0.1.1"

#: Public names and the module each comes from; a name is imported when it is first asked for.
_PUBLIC = {
    "Card": "selector",
    "Context": "selector",
    "DataSelectingConfig": "config",
    "DataSelectingTrainer": "trainer",
    "PIRCallback": "callbacks",
    "Record": "preprocessing.layouts",
    "Records": "preprocessing.records",
    "Selection": "selector",
    "SelectionCallback": "callbacks",
    "Selector": "selector",
    "load_selector": "registry",
    "select": "selector",
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from .callbacks import PIRCallback, SelectionCallback
    from .config import DataSelectingConfig
    from .preprocessing.layouts import Record
    from .preprocessing.records import Records
    from .registry import load_selector
    from .selector import Card, Context, Selection, Selector, select
    from .trainer import DataSelectingTrainer


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
