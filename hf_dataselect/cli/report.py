"""`hf-dataselect report`: finished runs side by side, with SDF, PIR by setting, STR, seconds, and the rows kept."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..data.load import load_rows
from ..data.records import Records
from ..evaluation.comparison.comparison import add_rows, add_wins, compare_runs
from ..evaluation.report.report import in_short, to_markdown, write_report
from ..evaluation.report.sections import sections
from .console import checked, log_to_console, refuse, say
from .judge_check import add_judge, load_judge_of


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser("hf-dataselect report", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders; one of `full` is the baseline")
    parser.add_argument("--baseline", type=Path, help="the baseline's folder, if several runs are `full`")
    parser.add_argument(
        "--output_dir", type=Path, help="also write report.html, report.md, report.json and the pictures there"
    )
    parser.add_argument("--dataset_name", help="the candidate dataset, to show rows kept and left out")
    parser.add_argument("--dataset_config", help="its configuration")
    parser.add_argument("--dataset_train_split", default="train", help="its split")
    parser.add_argument("--count_by", metavar="COLUMN", help="count the rows kept by this column of it")
    add_judge(parser, "compares the runs' answers to the test sets (`benchmarks` of the kind instructions)")
    options = parser.parse_args(argv)
    if options.count_by and not options.dataset_name:
        refuse("`--count_by` needs `--dataset_name`")
    # `runs/*` of a comparison also holds its report.
    log_to_console()
    folders = [folder for folder in options.runs if not (folder / "report.json").is_file()]
    compared = checked(compare_runs, folders, options.baseline)
    if options.dataset_name:
        rows = checked(load_rows, options.dataset_name, options.dataset_config, options.dataset_train_split)
        text_field = compared.groups[0].runs[0].recipe.get("dataset_text_field", "text")
        checked(add_rows, compared, checked(Records, rows, text_field), options.count_by)
    if options.judge is not None:
        checked(lambda: add_wins(compared, load_judge_of(options)))
    say(to_markdown(sections(compared)))
    if options.output_dir is not None:
        say(f"Written: {in_short(checked(write_report, compared, options.output_dir))}.")
