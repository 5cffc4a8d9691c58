"""`hf-dataselect compare`: train with every method, budget and seed and equal settings, and report."""

from collections.abc import Sequence
from pathlib import Path

from accelerate import PartialState

from ..engines.llm.load import load_judge
from ..evaluation.comparison.comparison import add_rows, add_wins, compare_runs
from ..evaluation.report.report import to_markdown, write_report
from ..evaluation.report.sections import sections
from ..training.compare_arguments import CompareArguments
from ..training.comparison import carry_out, plan
from ..training.recipe import parse_recipe
from .console import alone_in, checked, log_to_console, say


def run(argv: Sequence[str]) -> None:
    """Run the command; finished runs are not repeated."""
    log_to_console()
    recipe = checked(parse_recipe, argv, "compare", CompareArguments)
    args = recipe.args
    with alone_in(args.output_dir):
        records, runs = checked(plan, recipe)
        for planned in runs:
            if planned.state != "finished":
                carry_out(planned, checked(planned.build), recipe.more.save_models)
        if PartialState().is_main_process:
            compared = checked(compare_runs, [planned.folder for planned in runs])
            if args.judge and list(runs[0].folder.glob("answers/*.jsonl")):
                judge = load_judge(args.judge, args.judge_options, args.runtime(None))
                checked(add_wins, compared, judge)
            add_rows(compared, records, recipe.more.count_by)
            say(to_markdown(sections(compared)))
            written = write_report(compared, Path(args.output_dir) / "report")
            say(f"Written: {', '.join(map(str, written))}")
