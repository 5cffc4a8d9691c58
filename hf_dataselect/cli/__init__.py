"""`hf-dataselect`: one file a command, each with a `run(argv)`; [`main`] runs one. Imported by nothing else."""

from .main import main


__all__ = ["main"]
