"""The command `hf-dataselect`: train · select · compare · report · judge-check · train-scorer · fit-rule · methods."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from ..engines.llm.judge import Judge
    from ..training.recipe import Recipe

USAGE = """\
usage: hf-dataselect COMMAND [options]

  train         select rows, train on them, evaluate:  hf-dataselect train --config recipes/ifd.yaml
  select        select only, and save the rows:        hf-dataselect select --config recipes/ifd.yaml
  compare       train by several methods and compare:  hf-dataselect compare --config recipes/compare.yaml
  report        compare finished runs:                 hf-dataselect report runs/*
  judge-check   does a judge agree with people?        hf-dataselect judge-check pairs.jsonl --judge openai:MODEL
  train-scorer  a scorer of your own for `deita`:      hf-dataselect train-scorer --config scorer.yaml
  fit-rule      fit a rule for a method that has one:  hf-dataselect fit-rule --config recipes/instruction_mining.yaml
  methods       the methods and their cards:           hf-dataselect methods [NAME]

`hf-dataselect COMMAND --help` lists the options. Everything in a recipe can be given again on the command line, which
wins. On several GPUs: `accelerate launch -m hf_dataselect train --config ...`.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; wrong options end with one line on stderr and exit code 2."""
    argv = list(sys.argv[1:] if argv is None else argv)
    commands = {"train": train, "select": select, "compare": compare, "report": report}
    commands |= {"judge-check": judge_check, "train-scorer": train_scorer, "fit-rule": fit_rule, "methods": methods}
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return
    if argv[0] not in commands:
        _refuse(f"unknown command {argv[0]!r}; known: {', '.join(commands)}")
    sys.path.insert(0, os.getcwd())  # where `selection_method: my_module:MyClass` lies, as under `python -m`
    from ..engines.llm.judge import JudgeError
    from ..errors import SelectionError

    try:
        commands[argv[0]](argv[1:])
    except (SelectionError, JudgeError) as error:
        _refuse(str(error))
    _leave_ranks()


def train(argv: Sequence[str]) -> None:
    """Select, train, evaluate, save the model."""
    from ..training.recipe import build_trainer, parse_recipe

    _log_to_console()
    recipe = _checked(parse_recipe, argv)
    trainer = _checked(build_trainer, recipe)
    resume = trainer.args.resume_from_checkpoint
    resume = {"true": True, "false": None, "none": None}.get(str(resume).lower(), resume)
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_model(trainer.args.output_dir)
    trainer.create_model_card()
    if trainer.args.push_to_hub:
        trainer.push_to_hub(dataset_name=recipe.data.dataset_name)
    trainer.accelerator.print(trainer.selection.summary())
    trainer.accelerator.print(f"Run folder: {trainer.args.output_dir}")


def select(argv: Sequence[str]) -> None:
    """Select without training: writes `selection.json`, `scores.parquet` and `selected.parquet`."""
    from ..runs.publish import push_selected, selected_dataset
    from ..training.recipe import parse_recipe

    _log_to_console()
    recipe = _checked(parse_recipe, argv, "select")
    records, choose, main_process = _checked(_prepare_select, recipe)
    selection = choose()
    if not main_process:
        return
    folder = Path(recipe.args.output_dir)
    selected_dataset(records, selection).to_parquet(folder / "selected.parquet")
    print(selection.summary())
    print(f"Rows: {folder / 'selected.parquet'}")
    if recipe.args.push_to_hub:
        resolved = recipe.sources | recipe.args.given
        push_selected(records, selection, resolved, recipe.args.hub_model_id or folder.name)


def compare(argv: Sequence[str]) -> None:
    """Train by every method, budget and seed with equal settings, and report; finished runs are not repeated."""
    from accelerate import PartialState

    from ..engines.llm.load import load_judge
    from ..evaluation.comparison.comparison import add_rows, add_wins, compare_runs
    from ..evaluation.report.report import to_markdown, write_report
    from ..evaluation.report.sections import sections
    from ..training.recipe import parse_recipe
    from .compare import CompareArguments, carry_out, plan

    _log_to_console()
    recipe = _checked(parse_recipe, argv, "compare", CompareArguments)
    records, runs = _checked(plan, recipe)
    for run in runs:
        if run.state != "finished":
            carry_out(run, _checked(run.build), recipe.more.save_models)
    if PartialState().is_main_process:
        found = _checked(compare_runs, [run.folder for run in runs])
        if recipe.args.judge and list(runs[0].folder.glob("answers/*.jsonl")):
            judge = load_judge(recipe.args.judge, recipe.args.judge_options, cache_dir=recipe.args.cache_folder)
            _checked(add_wins, found, judge)
        add_rows(found, records, recipe.more.count_by)
        print(to_markdown(sections(found)))
        written = write_report(found, Path(recipe.args.output_dir) / "report")
        print(f"Written: {', '.join(map(str, written))}")


def report(argv: Sequence[str]) -> None:
    """Finished runs side by side: SDF, PIR by setting, STR, seconds, and what they kept."""
    from ..data.records import Records, load_rows
    from ..evaluation.comparison.comparison import add_rows, add_wins, compare_runs
    from ..evaluation.report.report import to_markdown, write_report
    from ..evaluation.report.sections import sections

    parser = argparse.ArgumentParser("hf-dataselect report", description=report.__doc__)
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
    options = parser.parse_args(argv)
    if options.count_by and not options.dataset_name:
        _refuse("`--count_by` needs `--dataset_name`")
    # `runs/*` of a comparison also holds its report.
    folders = [folder for folder in options.runs if not (folder / "report.json").is_file()]
    found = _checked(compare_runs, folders, options.baseline)
    if options.dataset_name:
        field = found.groups[0].runs[0].recipe.get("dataset_text_field", "text")
        rows = _checked(lambda: load_rows(options.dataset_name, options.dataset_config, options.dataset_train_split))
        records = _checked(Records, rows, field)
        _checked(add_rows, found, records, options.count_by)
    if options.judge is not None:
        _log_to_console()
        _checked(lambda: add_wins(found, _judge(options)))
    print(to_markdown(sections(found)))
    if options.output_dir is not None:
        print(f"Written: {', '.join(map(str, _checked(write_report, found, options.output_dir)))}")


def judge_check(argv: Sequence[str]) -> None:
    """Agreement of a judge with people, on pairs of answers that they compared (PandaLM, Auto-J, LLMBar layouts)."""
    parser = argparse.ArgumentParser("hf-dataselect judge-check", description=judge_check.__doc__)
    parser.add_argument("pairs", nargs="+", help="labelled pairs: hub names, folders or files")
    _add_judge(parser, "to check; more pairs cost more calls")
    parser.add_argument("--replay", metavar="COLUMN", help="check verdicts stored in this column, instead of a judge")
    parser.add_argument("--limit", type=int, help="a seeded sample of so many pairs of each set")
    parser.add_argument("--max_new_tokens", type=int, default=128, help="length of a verdict at most")
    parser.add_argument("--output_file", type=Path, help="also write the result there, as JSON")
    options = parser.parse_args(argv)
    if (options.judge is None) == (options.replay is None):
        _refuse("give either `--judge` or `--replay`")
    if options.limit is not None and options.limit < 1:
        _refuse(f"`--limit {options.limit}` must be at least 1")
    if options.output_file is not None and not options.output_file.resolve().parent.is_dir():
        _refuse(f"`--output_file`: there is no folder {str(options.output_file.parent)!r}")
    _log_to_console()
    _checked(_judge_check, options)


def _judge_check(options: argparse.Namespace) -> None:
    from ..evaluation.judging.judge_check import agreement, as_json, as_table, load_pairs

    judge = None if options.judge is None else _judge(options)
    names = [Path(name).name.split(".")[0] for name in options.pairs]
    names = names if len(set(names)) == len(names) else options.pairs
    sets = {name: load_pairs(path, options.replay) for name, path in zip(names, options.pairs, strict=True)}
    if options.limit is not None:
        sets = {name: pairs.sample(options.limit) for name, pairs in sets.items()}
    found = {name: agreement(pairs, judge, max_new_tokens=options.max_new_tokens) for name, pairs in sets.items()}
    if judge is None or judge.is_main_process:
        print(as_table(found))
        if options.output_file is not None:
            options.output_file.write_text(as_json(found, judge, options.replay))


def _add_judge(parser: argparse.ArgumentParser, purpose: str) -> None:
    """Options of commands that ask a judge without a recipe."""
    parser.add_argument("--judge", help=f"'openai:MODEL', 'model:NAME' or 'reward:NAME': {purpose}")
    parser.add_argument("--judge_kwargs", default="{}", help="options of the judge, JSON")
    parser.add_argument(
        "--cache_dir", type=Path, default=Path("~/.cache/hf_dataselect"), help="where the judge's replies are kept"
    )


def _judge(options: argparse.Namespace) -> "Judge":
    from accelerate import Accelerator

    from ..engines.llm.judge_options import JudgeOptions
    from ..engines.llm.load import load_judge
    from ..options import typed_options

    kwargs = typed_options(JudgeOptions, options.judge_kwargs, "judge_kwargs")
    return load_judge(options.judge, kwargs, accelerator=Accelerator(), cache_dir=options.cache_dir.expanduser())


def train_scorer(argv: Sequence[str]) -> None:
    """Train a scorer for `deita` on rows that a judge evolves and scores."""
    from ..fitted.scorers.train_scorer import train_scorer

    _log_to_console()
    _checked(train_scorer, argv)


def fit_rule(argv: Sequence[str]) -> None:
    """Fit the rule of `instruction_mining` or `instructiongpt4` for one's own model; finished subsets are kept."""
    from ..fitted.rules.fit_rule import FitRuleArguments, fit_rule_command
    from ..training.recipe import parse_recipe

    _log_to_console()
    rule, path = _checked(fit_rule_command, _checked(parse_recipe, argv, "fit-rule", FitRuleArguments))
    print(f"{rule.summary()}\nRule: {path}")


def methods(argv: Sequence[str]) -> None:
    """The cards of the methods, or one in full."""
    from ..registry import selector_class
    from .cards import method_card, method_table

    parser = argparse.ArgumentParser("hf-dataselect methods", description=methods.__doc__)
    parser.add_argument("name", nargs="?", help="a method, or package.module:Class")
    name = parser.parse_args(argv).name
    print(method_table() if name is None else method_card(_checked(selector_class, name)))


def _prepare_select(recipe: "Recipe"):
    """Records, a function that selects, and whether this is the main process; nothing slow has happened yet."""
    from ..training.recipe import build_trainer

    recipe.args.baseline_dir, recipe.args.eval_strategy = None, "no"  # nothing is trained or evaluated here
    recipe.data.eval_dataset_name, recipe.args.named_benchmarks = None, []
    data, args, model = recipe.data, recipe.args, recipe.model
    if "model" in args.needs or args.selection_target or args.judge == "self":
        trainer = build_trainer(recipe)
        return trainer.records, trainer.select, trainer.is_world_process_zero()
    # A method that needs no model gets none loaded.
    from functools import partial

    from accelerate import Accelerator
    from transformers import AutoTokenizer

    from ..context import Context
    from ..data.records import Records, load_rows
    from ..engines.llm.load import load_judge
    from ..training.inputs import check_rows, complete_tokenizer
    from ..training.trainer import select_into_folder

    rows = load_rows(data.dataset_name, data.dataset_config, data.dataset_train_split)
    records = Records(rows, args.dataset_text_field)
    check_rows(args, records, None)
    tokenizer = AutoTokenizer.from_pretrained(model.model_name_or_path, revision=model.model_revision)
    default_template = complete_tokenizer(tokenizer, records, args)
    shared = {"accelerator": Accelerator(cpu=args.use_cpu), "cache_dir": args.cache_folder}
    shared |= {"batch_tokens": args.selection_batch_tokens, "dtype": args.selection_dtype}
    shared["vllm_memory"] = args.vllm_memory
    ctx = Context(
        tokenizer,
        model_id=model.model_name_or_path,
        diversity=args.diversity,
        judge=args.judge and load_judge(args.judge, args.judge_options, **shared),
        seed=args.seed,
        max_length=args.max_length,
        num_proc=args.dataset_num_proc,
        **shared,
    )
    choose = partial(select_into_folder, records, args.selector, args, ctx, recipe.sources, default_template)
    return records, choose, ctx.accelerator.is_main_process


def _leave_ranks() -> None:
    """A rank that just ends while others still send to it aborts now and then."""
    if "torch" not in sys.modules:
        return
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _log_to_console() -> None:
    """The package's own messages on stderr, as Hugging Face trainers show theirs."""
    package = logging.getLogger("hf_dataselect")
    if not package.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("[hf_dataselect] %(message)s"))
        package.addHandler(handler)
        package.setLevel(logging.INFO)


def _checked(function: Callable, *arguments: Any) -> Any:
    """What the function gives; an error that the user can mend becomes one line and exit code 2."""
    try:
        return function(*arguments)
    except (ValueError, TypeError, ImportError, OSError) as error:
        if logging.getLogger("hf_dataselect").isEnabledFor(logging.DEBUG):
            raise
        _refuse(str(error))


def _refuse(message: str) -> None:
    print(f"hf-dataselect: error: {message}", file=sys.stderr)
    raise SystemExit(2)
