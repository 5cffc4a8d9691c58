"""`hf-dataselect judge-check`: does a judge agree with people, on pairs of answers that they compared?"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from accelerate import Accelerator

from ..engines.llm.judge_options import JudgeOptions
from ..engines.llm.load import load_judge
from ..engines.runtime.runtime import Runtime
from ..engines.store.files import cache_folder, write_atomic
from ..errors import printable
from ..evaluation.judging.judge_check import agreement, as_json, as_table, load_pairs
from ..nested import read_value
from ..options import typed_options
from .console import checked, log_to_console, refuse, say
from .parsers import judge_check_parser


if TYPE_CHECKING:
    from ..engines.llm.judge import Judge
    from ..engines.llm.reward_model import RewardModel


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    options = judge_check_parser().parse_args(argv)
    if (options.judge is None) == (options.replay is None):
        refuse("give either `--judge` or `--replay`")
    for option in ("limit", "max_new_tokens"):
        if (value := getattr(options, option)) is not None and value < 1:
            refuse(f"`--{option} {value}` must be at least 1")
    if options.output_file is not None and not options.output_file.resolve().parent.is_dir():
        refuse(f"`--output_file`: there is no folder {str(options.output_file.parent)!r}")
    log_to_console()
    checked(_check, options)


def _check(options: argparse.Namespace) -> None:
    judge = None if options.judge is None else load_judge_of(options)
    names = [Path(name).name.split(".")[0] for name in options.pairs]
    names = names if len(set(names)) == len(names) else options.pairs
    sets = {name: load_pairs(path, options.replay) for name, path in zip(names, options.pairs, strict=True)}
    if options.limit is not None:
        sets = {name: pairs.sample(options.limit) for name, pairs in sets.items()}
    results = {name: agreement(pairs, judge, max_new_tokens=options.max_new_tokens) for name, pairs in sets.items()}
    if judge is None or judge.runtime.is_main:
        say(as_table(results))
        if options.output_file is not None:
            write_atomic(options.output_file, printable(as_json(results, judge, options.replay)))


def load_judge_of(options: argparse.Namespace) -> "Judge | RewardModel":
    """The judge of a command without a recipe."""
    try:
        given = read_value(options.judge_kwargs)
    except ValueError as error:
        raise ValueError(f"`judge_kwargs={options.judge_kwargs}` {error}") from error
    judge_options = typed_options(JudgeOptions, given, "judge_kwargs")
    return load_judge(options.judge, judge_options, Runtime(Accelerator(), cache_folder(options.cache_dir)))
