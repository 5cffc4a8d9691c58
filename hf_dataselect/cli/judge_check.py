"""`hf-dataselect judge-check`: does a judge agree with people, on pairs of answers that they compared?"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from accelerate import Accelerator

from ..engines.llm.judge_options import JudgeOptions
from ..engines.llm.load import load_judge
from ..engines.runtime.runtime import Runtime
from ..engines.store.files import cache_folder, default_cache_dir, write_atomic
from ..errors import printable
from ..evaluation.judging.judge_check import agreement, as_json, as_table, load_pairs
from ..options import typed_options
from .console import checked, log_to_console, refuse, say


if TYPE_CHECKING:
    from ..engines.llm.judge import Judge
    from ..engines.llm.reward_model import RewardModel


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser("hf-dataselect judge-check", description=__doc__)
    parser.add_argument(
        "pairs", nargs="+", help="labelled pairs in the layout of PandaLM, Auto-J or LLMBar: hub names, folders, files"
    )
    add_judge(parser, "to check; more pairs cost more calls")
    parser.add_argument("--replay", metavar="COLUMN", help="check verdicts stored in this column, instead of a judge")
    parser.add_argument("--limit", type=int, help="check a seeded sample of each set, of this many pairs")
    parser.add_argument("--max_new_tokens", type=int, default=128, help="maximum length of a verdict in tokens")
    parser.add_argument("--output_file", type=Path, help="also write the result there, as JSON")
    options = parser.parse_args(argv)
    if (options.judge is None) == (options.replay is None):
        refuse("give either `--judge` or `--replay`")
    if options.limit is not None and options.limit < 1:
        refuse(f"`--limit {options.limit}` must be at least 1")
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


def add_judge(parser: argparse.ArgumentParser, purpose: str) -> None:
    """Options of commands that ask a judge without a recipe."""
    parser.add_argument("--judge", help=f"'openai:MODEL', 'model:NAME' or 'reward:NAME': {purpose}")
    parser.add_argument("--judge_kwargs", default="{}", help="options of the judge, JSON")
    parser.add_argument(
        "--cache_dir", default=default_cache_dir(), help="where the judge's replies are kept; 'none' keeps none"
    )


def load_judge_of(options: argparse.Namespace) -> "Judge | RewardModel":
    """The judge of [`add_judge`]'s options."""
    judge_options = typed_options(JudgeOptions, options.judge_kwargs, "judge_kwargs")
    return load_judge(options.judge, judge_options, Runtime(Accelerator(), cache_folder(options.cache_dir)))
