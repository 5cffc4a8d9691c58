"""`hf-dataselect compare`: train with every method, budget and seed and equal settings, and report."""

import logging
from collections.abc import Sequence
from pathlib import Path

from accelerate import PartialState

from ..engines.llm.load import load_judge
from ..evaluation.comparison.comparison import add_rows, add_wins, compare_runs
from ..evaluation.report.model_card import update_cards
from ..evaluation.report.report import in_short, to_markdown, write_report
from ..evaluation.report.sections import sections
from ..evaluation.report.verdict import conclusion
from ..runs.hub import make_repo
from ..training.compare_arguments import CompareArguments
from ..training.comparison import carry_out, plan, series_of
from ..training.dry_run import forecast_comparison
from ..training.recipe import parse_recipe
from .console import alone_in, checked, log_to_console, say, without_dry_run
from .report import push_report


logger = logging.getLogger(__name__)


def run(argv: Sequence[str]) -> None:
    """Run the command; finished runs are not repeated."""
    log_to_console()
    argv, dry_run = without_dry_run(argv)
    recipe = checked(parse_recipe, argv, "compare", CompareArguments)
    args = recipe.args
    if dry_run:
        say("\n".join(checked(forecast_comparison, recipe, *checked(plan, recipe))))
        return
    if recipe.more.hub_report_id and PartialState().is_main_process:
        checked(make_repo, "hub_report_id", recipe.more.hub_report_id, "space", token=args.hub_token)
    with alone_in(args.output_dir):
        records, runs = checked(plan, recipe)
        series, main = series_of(runs, len(records)), PartialState().is_main_process
        for number, planned in enumerate(runs):
            if planned.state == "finished":
                series.skip(number, planned.work)
        for number, planned in enumerate(runs):
            if (state := planned.state) == "finished":
                continue
            line = series.begin(number)
            if main and not args.disable_tqdm:
                logger.info(line)
            done = carry_out(planned, checked(planned.build), recipe.more.save_models)
            series.end(number, **done, resumed=state == "begun")
        if main:
            compared = checked(compare_runs, [planned.folder for planned in runs])
            if args.judge and list(runs[0].folder.glob("answers/*.jsonl")):
                judge = load_judge(args.judge, args.judge_options, args.runtime(None))
                checked(add_wins, compared, judge)
            add_rows(compared, records, recipe.more.count_by)
            say(to_markdown(sections(compared)))
            written = write_report(compared, Path(args.output_dir) / "report")
            say("\n".join(["", f"Written: {in_short(written)}.", "", *conclusion(compared)]))
            update_cards(compared)
            if recipe.more.hub_report_id:
                push_report(compared, Path(args.output_dir) / "report", recipe.more.hub_report_id)
