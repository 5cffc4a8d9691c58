"""`hf-dataselect report`: finished runs side by side, with SDF, PIR by setting, STR, seconds, and the rows kept."""

from collections.abc import Sequence
from pathlib import Path

from ..data.load import load_rows
from ..data.records import Records
from ..evaluation.comparison.comparison import Comparison, add_rows, add_wins, compare_runs
from ..evaluation.report.model_card import update_cards
from ..evaluation.report.report import in_short, to_markdown, write_report, write_space
from ..evaluation.report.sections import sections
from ..evaluation.report.verdict import conclusion
from ..runs.hub import make_repo, push_folder
from .console import checked, log_to_console, refuse, say
from .judge_check import load_judge_of
from .parsers import report_parser


def push_report(compared: Comparison, folder: Path, repo: str) -> None:
    """Make a static Space of a written report, and push it."""
    address = checked(push_folder, "hub_report_id", repo, "space", checked(write_space, compared, folder))
    say(f"Pushed: {address}")


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    options = report_parser().parse_args(argv)
    if options.hub_report_id and options.output_dir is None:
        refuse("`--hub_report_id` needs `--output_dir`")
    if options.count_by and not options.dataset_name:
        refuse("`--count_by` needs `--dataset_name`")
    # `runs/*` of a comparison also holds its report.
    log_to_console()
    folders = [folder for folder in options.runs if not (folder / "report.json").is_file()]
    compared = checked(compare_runs, folders, options.baseline)
    if options.hub_report_id:
        checked(make_repo, "hub_report_id", options.hub_report_id, "space")
    if options.dataset_name:
        rows = checked(load_rows, options.dataset_name, options.dataset_config, options.dataset_train_split)
        text_field = compared.groups[0].runs[0].recipe.get("dataset_text_field", "text")
        checked(add_rows, compared, checked(Records, rows, text_field), options.count_by)
    if options.judge is not None:
        checked(lambda: add_wins(compared, load_judge_of(options)))
    say(to_markdown(sections(compared)))
    if options.update_cards:
        say(f"Model cards: {', '.join(map(str, checked(update_cards, compared))) or 'none of the runs has one'}.")
    if options.output_dir is not None:
        say(f"\nWritten: {in_short(checked(write_report, compared, options.output_dir))}.")
    say("\n".join(["", *conclusion(compared)]))
    if options.hub_report_id:
        push_report(compared, options.output_dir, options.hub_report_id)
