"""Options of all commands, for `--help` and for those without a recipe. Nothing here imports torch or TRL."""

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..declared import Option, options_of
from ..engines.store.files import default_cache_dir
from ..options import misspelt
from .console import refuse


#: Options of TRL that most recipes have; `--help-all` lists all.
OF_TRL = {
    "dataset_name": "candidate rows: hub name, folder, or file (.json, .jsonl, .parquet, .csv)",
    "dataset_config": "its configuration",
    "dataset_train_split": "its split of candidates",
    "dataset_test_split": "its split of held-out rows",
    "model_name_or_path": "the model to be fine-tuned: hub name or folder",
    "output_dir": "the run folder",
    "seed": "of selection and training",
    "max_length": "tokens of a row, in training as in scoring",
    "num_train_epochs": "passes over the rows kept; or `max_steps`",
    "per_device_train_batch_size": "rows of a step on one device",
    "gradient_accumulation_steps": "steps of an update",
    "learning_rate": "of training",
    "eval_strategy": "no, steps or epoch",
    "use_peft": "train a LoRA adapter: `lora_r`, `lora_alpha`, `lora_target_modules`",
    "load_in_4bit": "quantize the model; or `load_in_8bit`",
    "use_cpu": "even where there is a GPU",
    "report_to": "none, tensorboard, wandb, ...",
    "resume_from_checkpoint": "true, or the folder of a checkpoint",
    "push_to_hub": "upload model and card (`train`), or rows (`select`)",
}

_SELECTION = ("training.config", "DataSelectingConfig")
_ROWS = ("training.recipe", "DataArguments")
#: Commands that take a recipe: what they do, and the dataclasses of their own options.
RECIPE_COMMANDS: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "train": (
        "Select rows, train on them, evaluate, save the model.",
        [("cli.train", "TrainArguments"), _SELECTION, _ROWS],
    ),
    "select": ("Select rows and save them, without training.", [_SELECTION, _ROWS]),
    "compare": (
        "Train with every method, budget and seed and equal settings, and report.",
        [("training.compare_arguments", "CompareArguments"), _SELECTION, _ROWS],
    ),
    "audit": (
        "Whose scores predict what training on rows does, with this model and these rows?",
        [("training.audit_arguments", "AuditArguments"), _SELECTION, _ROWS],
    ),
    "fit-rule": (
        "Fit the rule of `instruction_mining` or `instructiongpt4` for your own model.",
        [("fitted.rules.fit_rule", "FitRuleArguments"), _SELECTION, _ROWS],
    ),
    "train-scorer": (
        "Train a scorer for `deita` on rows that a judge evolves and scores.",
        [("fitted.scorers.train_scorer", "ScorerArguments")],
    ),
}
#: Those that say what they would do.
FORECASTING = ("train", "select", "compare", "audit")


def recipe_help(command: str) -> str:
    """The help of a command that takes a recipe: its own options first, of TRL's those that most recipes have."""
    said, kinds = RECIPE_COMMANDS[command]
    lines = [f"usage: hf-dataselect {command} --config RECIPE [--OPTION VALUE ...]", "", said, ""]
    first = [("--config RECIPE", "a YAML file, or the name of a recipe (`hf-dataselect recipe` lists them); options "
              "on the command line override it")]  # fmt: skip
    if command in FORECASTING:
        first.append(("--dry_run", "say what the command would do and cost, and do nothing of it"))
    if command == "select":
        first.append(("--part i/N", "compute and cache part i of N only, in a job of its own; `select` without it "
                      "then reads them all"))  # fmt: skip
    first.append(("--help-all", "list TRL's options, too"))
    lines += _listed(first)
    for module, name in kinds:
        options = options_of(module, name)
        title = "Where the rows come from" if name == "DataArguments" else f"Options of {_named(module)}"
        lines += ["", f"{title}:", "", *_listed([(_flag(option), option.help) for option in options])]
    lines += ["", "TRL's options, of which these are needed or often changed:", ""]
    lines += _listed([(f"--{name}", said) for name, said in OF_TRL.items()])
    lines += [
        "",
        "One option of a mapping: `--selection_kwargs.warmup none`. A whole mapping, in YAML or JSON: ",
        "`--selection_kwargs '{warmup: none}'`. The options of a method: `hf-dataselect methods NAME`.",
    ]
    return "\n".join(lines)


def _named(module: str) -> str:
    return {"training.config": "selection and evaluation"}.get(module, "this command")


def _flag(option: Option) -> str:
    default = "" if option.default in ("", "[]") else f" (default {option.default})"
    return f"--{option.name}{default}"


def _listed(options: Sequence[tuple[str, str]]) -> list[str]:
    lines = []
    for flag, said in options:
        lines += [f"  {flag}", *textwrap.wrap(said, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)]
    return lines


class Parser(argparse.ArgumentParser):
    """A parser that names the nearest option where one is misspelt, and takes no abbreviations."""

    def __init__(self, command: str, description: str, epilog: str | None = None):
        self.names: list[str] = []
        super().__init__(f"hf-dataselect {command}", description=description, epilog=epilog, allow_abbrev=False)

    def add_argument(self, *flags: Any, **options: Any) -> argparse.Action:
        self.names += [flag.removeprefix("--") for flag in flags if flag.startswith("--")]
        return super().add_argument(*flags, **options)

    def error(self, message: str) -> NoReturn:
        before, said, unknown = message.partition("unrecognized arguments: ")
        if said:
            message = misspelt(unknown.split(), self.names)
        refuse(f"{message}. `{self.prog} --help` lists the options.")


def methods_parser() -> Parser:
    """Options of `methods`."""
    parser = Parser("methods", "The methods and their cards, one in full, or which of them to take for a question.")
    parser.add_argument("name", nargs="?", help="a method, a policy, or package.module:Class")
    parser.add_argument(
        "--for", dest="question", metavar="QUESTION", help="which method: for target, general, noise, redundancy, ..."
    )
    return parser


def recipe_parser() -> Parser:
    """Options of `recipe`."""
    parser = Parser("recipe", "The recipes that come with the package: list them, or print one.")
    parser.add_argument("name", nargs="?", help="a recipe, to print it: hf-dataselect recipe ifd > ifd.yaml")
    return parser


def env_parser() -> Parser:
    """Options of `env`."""
    return Parser("env", "Versions, devices and settings, for reports of faults.")


def cache_parser() -> Parser:
    """Options of `cache`."""
    parser = Parser("cache", "What the cache holds (list), what takes the room (size), removing some of it (clean).")
    parser.add_argument("action", nargs="?", default="list", choices=("list", "size", "clean"), help="default: list")
    parser.add_argument("--cache_dir", default=default_cache_dir(), help="the folder (`selection_cache_dir`)")
    parser.add_argument("--older_than", type=float, metavar="DAYS", help="clean: what was last written before")
    parser.add_argument(
        "--kind",
        nargs="+",
        help="clean: only these, as `size` names them. `replies`, for which a judge was paid, go only if named",
    )
    parser.add_argument("--all", action="store_true", help="clean: everything but replies and names of models")
    parser.add_argument("--dry_run", action="store_true", help="clean: say what would go, remove nothing")
    return parser


def report_parser() -> Parser:
    """Options of `report`."""
    parser = Parser("report", "Finished runs side by side, with SDF, PIR by setting, STR, seconds, and the rows kept.")
    parser.add_argument("runs", nargs="+", type=Path, help="run folders; one of `full` is the baseline")
    parser.add_argument("--baseline", type=Path, help="the baseline's folder, if several runs are `full`")
    parser.add_argument(
        "--output_dir", type=Path, help="also write report.html, report.md, report.json and the pictures there"
    )
    parser.add_argument("--dataset_name", help="the candidate dataset, to show rows kept and left out")
    parser.add_argument("--dataset_config", help="its configuration")
    parser.add_argument("--dataset_train_split", default="train", help="its split")
    parser.add_argument("--count_by", metavar="COLUMN", help="count the rows kept by this column of it")
    _add_judge(parser, "compares the runs' answers to the test sets (`benchmarks` of the kind instructions)")
    parser.add_argument(
        "--update_cards", action="store_true", help="write PIR, control, interval and verdict to the runs' model cards"
    )
    parser.add_argument(
        "--hub_report_id",
        metavar="USER/NAME",
        help="push the page to the Hub as a static Space, private if it is new; the folder is kept in space/",
    )
    return parser


def scenario_parser() -> Parser:
    """Options of `scenario`."""
    parser = Parser(
        "scenario",
        "A question that users have, answered by a comparison on rows drawn for it.",
        "All other options are those of `hf-dataselect compare`, and override the scenario's.",
    )
    parser.add_argument("name", nargs="?", help="a scenario (see --list), or a .yaml file of your own")
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    parser.add_argument(
        "--sources", type=Path, help="YAML: hub name of a dataset or model -> file or folder in its place"
    )
    parser.add_argument("--pool_seed", type=int, help="draw other rows: of pool, target and test sets")
    parser.add_argument("--equal", nargs="+", metavar="WHAT", help="epochs, updates or tokens; a comparison for each")
    parser.add_argument("--output_dir", type=Path, help="default: runs/scenarios/NAME, with the pool's seed if not 0")
    parser.add_argument("--dry_run", action="store_true", help="draw the rows and check every run, train nothing")
    return parser


def judge_check_parser() -> Parser:
    """Options of `judge-check`."""
    parser = Parser("judge-check", "Does a judge agree with people, on pairs of answers that they compared?")
    parser.add_argument(
        "pairs", nargs="+", help="labelled pairs in the layout of PandaLM, Auto-J or LLMBar: hub names, folders, files"
    )
    _add_judge(parser, "to check; more pairs cost more calls")
    parser.add_argument("--replay", metavar="COLUMN", help="check verdicts stored in this column, instead of a judge")
    parser.add_argument("--limit", type=int, help="check a seeded sample of each set, of this many pairs")
    parser.add_argument("--max_new_tokens", type=int, default=128, help="maximum length of a verdict in tokens")
    parser.add_argument("--output_file", type=Path, help="also write the result there, as JSON")
    return parser


def _add_judge(parser: argparse.ArgumentParser, purpose: str) -> None:
    parser.add_argument("--judge", help=f"'openai:MODEL', 'model:NAME' or 'reward:NAME': {purpose}")
    parser.add_argument("--judge_kwargs", default="{}", help="options of the judge, in YAML or JSON")
    parser.add_argument(
        "--cache_dir", default=default_cache_dir(), help="where the judge's replies are kept; 'none' keeps none"
    )


#: Commands whose options are no recipe's.
PARSERS = {
    "methods": methods_parser,
    "recipe": recipe_parser,
    "cache": cache_parser,
    "env": env_parser,
    "report": report_parser,
    "scenario": scenario_parser,
    "judge-check": judge_check_parser,
}


def help_of(command: str) -> str:
    """What `--help` shows."""
    return PARSERS[command]().format_help() if command in PARSERS else recipe_help(command) + "\n"
