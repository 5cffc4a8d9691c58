"""
The command `hf-dataselect`: each command is a file of this folder, whose `run` takes the arguments.

This file and what it imports load neither torch nor TRL, so that `--help`, `--version`, `methods` and `recipe` answer
at once. A command's own file may import what it likes: it is imported when the command runs.
"""

import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from .. import __version__
from ..compat.bitsandbytes import bitsandbytes_later
from ..engines.store.files import FULL
from ..errors import DamagedFile, HubError, JudgeError, SelectionError
from ..options import nearest
from .console import refuse, traceback_printable
from .ending import ending
from .parsers import help_of


USAGE = """\
usage: hf-dataselect COMMAND [options]

  train         select rows, train on them, evaluate:  hf-dataselect train --config ifd
  select        select only, and save the rows:        hf-dataselect select --config ifd
  compare       train with several methods, report:    hf-dataselect compare --config compare
  report        compare finished runs:                 hf-dataselect report runs/*
  scenario      a question, and its comparison:        hf-dataselect scenario target
  audit         which scores predict training here?    hf-dataselect audit --config audit
  judge-check   does a judge agree with people?        hf-dataselect judge-check pairs.jsonl --judge openai:MODEL
  train-scorer  train your own scorer for `deita`:     hf-dataselect train-scorer --config scorer/complexity
  fit-rule      fit a rule for a method that has one:  hf-dataselect fit-rule --config instruction_mining
  methods       the methods and their cards:           hf-dataselect methods [NAME]
  recipe        the recipes, or one to change:         hf-dataselect recipe ifd > ifd.yaml
  cache         what the cache holds; to clean it:     hf-dataselect cache clean --older_than 30
  env           versions and devices, for reports:     hf-dataselect env

`hf-dataselect COMMAND --help` lists the options, `--version` says which version this is. `--config` takes a YAML file
or the name of a recipe; options on the command line override it. On several GPUs: `accelerate launch -m hf_dataselect
train --config ...`.
"""
COMMANDS = (
    "train",
    "select",
    "compare",
    "scenario",
    "report",
    "audit",
    "judge-check",
    "train-scorer",
    "fit-rule",
    "methods",
    "recipe",
    "cache",
    "env",
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; wrong options end with one line on stderr and exit code 2."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return
    if argv[0] == "--version":
        print(f"hf_dataselect {__version__}")
        return
    if argv[0] not in COMMANDS:
        refuse(f"unknown command {argv[0]!r}{nearest(argv[0], COMMANDS)}")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a locale without a character must not end a run
    if not {"-h", "--help"}.isdisjoint(argv):
        print(help_of(argv[0]), end="")
        raise SystemExit(0)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "15")  # bars of other packages in a log: seconds between two states
    sys.excepthook = traceback_printable
    sys.path.insert(0, os.getcwd())  # for `selection_method: my_module:MyClass`, as under `python -m`
    with ending():
        try:
            with bitsandbytes_later():
                command = import_module(f".{argv[0].replace('-', '_')}", __package__)
            command.run(argv[1:])
        except (SelectionError, JudgeError, DamagedFile, HubError) as error:
            refuse(error)
        except BrokenPipeError:  # `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        except OSError as error:
            if error.errno not in FULL:
                raise
            refuse(f"{error}: make room, and start again. Cached results are used again.")
        _leave_ranks()


def _leave_ranks() -> None:
    """A rank that exits while others still send to it aborts now and then."""
    if "torch" not in sys.modules:
        return
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        from ..engines.runtime.ranks import leave_ranks

        leave_ranks()
        torch.distributed.destroy_process_group()
