"""`hf-dataselect report`: finished runs side by side, with SDF, PIR by setting, STR, seconds, and the rows kept."""

from collections.abc import Sequence

from ..data.load import load_rows
from ..data.records import Records
from ..evaluation.comparison.comparison import add_rows, add_wins, compare_runs
from ..evaluation.report.report import in_short, to_markdown, write_report
from ..evaluation.report.sections import sections
from ..evaluation.report.verdict import conclusion
from .console import checked, log_to_console, refuse, say
from .judge_check import load_judge_of
from .parsers import report_parser


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    options = report_parser().parse_args(argv)
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
        say(f"\nWritten: {in_short(checked(write_report, compared, options.output_dir))}.")
    say("\n".join(["", *conclusion(compared)]))
