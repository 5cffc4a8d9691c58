"""The command `hf-dataselect`: train · select · report · methods."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .trainer import DataSelectingTrainer

USAGE = """\
usage: hf-dataselect COMMAND [options]

  train    select rows, train on them, evaluate:  hf-dataselect train --config recipes/ifd.yaml
  select   select only, and save the rows:        hf-dataselect select --config recipes/ifd.yaml
  report   compare finished runs:                 hf-dataselect report runs/*
  methods  the methods and their cards:           hf-dataselect methods [NAME]

`hf-dataselect COMMAND --help` lists the options. Everything in a recipe can be given again on the command line, which
wins. On several GPUs: `accelerate launch -m hf_dataselect train --config ...`.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; wrong options end with one line on stderr and exit code 2."""
    argv = list(sys.argv[1:] if argv is None else argv)
    commands = {"train": train, "select": select, "report": report, "methods": methods}
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return
    if argv[0] not in commands:
        _refuse(f"unknown command {argv[0]!r}; known: {', '.join(commands)}")
    sys.path.insert(0, os.getcwd())  # where `selection_method: my_module:MyClass` lies, as under `python -m`
    from .selector import SelectionError

    try:
        commands[argv[0]](argv[1:])
    except SelectionError as error:
        _refuse(str(error))


def train(argv: Sequence[str]) -> None:
    """Select, train, evaluate, save the model."""
    trainer, arguments = _checked(_build_trainer, argv)
    resume = trainer.args.resume_from_checkpoint
    resume = {"true": True, "false": None, "none": None}.get(str(resume).lower(), resume)
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_model(trainer.args.output_dir)
    trainer.create_model_card()
    if trainer.args.push_to_hub:
        trainer.push_to_hub(dataset_name=arguments.data.dataset_name)
    trainer.accelerator.print(trainer.selection.summary())
    trainer.accelerator.print(f"Run folder: {trainer.args.output_dir}")


def select(argv: Sequence[str]) -> None:
    """Select without training: writes `selection.json`, `scores.parquet` and `selected.parquet`."""
    from .publish import push_selected, selected_dataset

    arguments = _checked(_parse, argv, "select")
    records, choose, main_process = _checked(_prepare_select, arguments)
    selection = choose()
    if not main_process:
        return
    folder = Path(arguments.args.output_dir)
    selected_dataset(records, selection).to_parquet(folder / "selected.parquet")
    print(selection.summary())
    print(f"Rows: {folder / 'selected.parquet'}")
    if arguments.args.push_to_hub:
        recipe = arguments.recipe | arguments.args.given
        push_selected(records, selection, recipe, arguments.args.hub_model_id or folder.name)


def report(argv: Sequence[str]) -> None:
    """Table of finished runs: SDF, PIR by setting, STR, seconds."""
    from .evaluation.report import add_rows, compare_runs, to_markdown, write_report
    from .preprocessing.records import Records, load_rows

    parser = argparse.ArgumentParser("hf-dataselect report", description=report.__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders; one of `full` is the baseline")
    parser.add_argument("--baseline", type=Path, help="the baseline's folder, if several runs are `full`")
    parser.add_argument("--output_dir", type=Path, help="also write report.md, report.json and report.png there")
    parser.add_argument("--dataset_name", help="the candidate dataset, to show rows kept and left out")
    parser.add_argument("--dataset_train_split", default="train", help="its split")
    parser.add_argument("--count_by", metavar="COLUMN", help="count the rows kept by this column of it")
    options = parser.parse_args(argv)
    if options.count_by and not options.dataset_name:
        _refuse("`--count_by` needs `--dataset_name`")
    found = _checked(compare_runs, options.runs, options.baseline)
    if options.dataset_name:
        records = _checked(lambda: Records(load_rows(options.dataset_name, split=options.dataset_train_split)))
        _checked(add_rows, found, records, options.count_by)
    print(to_markdown(found))
    if options.output_dir is not None:
        print(f"Written: {', '.join(map(str, write_report(found, options.output_dir)))}")


def methods(argv: Sequence[str]) -> None:
    """The cards of the methods, or one in full."""
    from .cards import method_card, method_table
    from .registry import selector_class

    parser = argparse.ArgumentParser("hf-dataselect methods", description=methods.__doc__)
    parser.add_argument("name", nargs="?", help="a method, or package.module:Class")
    name = parser.parse_args(argv).name
    print(method_table() if name is None else method_card(_checked(selector_class, name)))


@dataclass
class _Arguments:
    """Parsed options of a run."""

    data: Any
    args: Any
    model: Any

    @property
    def recipe(self) -> dict[str, Any]:
        """What the run folder's `recipe.yaml` holds besides the changed training arguments."""
        import dataclasses

        recipe = {}
        for part in (self.data, self.model):
            for item in dataclasses.fields(part):
                default = item.default_factory() if item.default is dataclasses.MISSING else item.default
                if item.init and getattr(part, item.name) != default:
                    recipe[item.name] = getattr(part, item.name)
        return recipe


def _parse(argv: Sequence[str], command: str = "train") -> _Arguments:
    from trl import ModelConfig, ScriptArguments, TrlParser

    from .config import DataSelectingConfig

    @dataclass
    class DataArguments(ScriptArguments):
        """Where the rows come from: hub name, local folder, or path of a .json, .jsonl, .parquet or .csv file."""

        eval_dataset_name: str | None = field(
            default=None,
            metadata={
                "help": "Held-out rows: hub name, folder or file. Default: `dataset_test_split` of `dataset_name`, if "
                "`eval_strategy` is not 'no'. More rows cost more time at every evaluation."
            },
        )

    _log_to_console()
    parser = TrlParser((DataArguments, DataSelectingConfig, ModelConfig), prog=f"hf-dataselect {command}")
    data, args, model = parser.parse_args_and_config(argv)
    if not data.dataset_name:
        raise ValueError("`dataset_name` is required: a hub name, a local folder, or a file.")
    if not model.model_name_or_path:
        raise ValueError("`model_name_or_path` is required: a hub name or a local folder.")
    if data.dataset_streaming:
        raise ValueError("`dataset_streaming` can't be used: rows that are only streamed past can't be chosen from.")
    return _Arguments(data, args, model)


def _build_trainer(argv: Sequence[str] | _Arguments) -> "tuple[DataSelectingTrainer, _Arguments]":
    from trl import get_peft_config, get_quantization_config

    from .preprocessing.records import load_rows
    from .trainer import DataSelectingTrainer

    arguments = argv if isinstance(argv, _Arguments) else _parse(argv)
    data, args, model = arguments.data, arguments.args, arguments.model
    eval_dataset = None
    if data.eval_dataset_name:
        eval_dataset = load_rows(data.eval_dataset_name, split=data.dataset_test_split)
    elif args.eval_strategy != "no":
        eval_dataset = load_rows(data.dataset_name, data.dataset_config, data.dataset_test_split)
    args.model_init_kwargs = {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        **(args.model_init_kwargs or {}),
    }
    trainer = DataSelectingTrainer(
        model.model_name_or_path,
        args,
        train_dataset=load_rows(data.dataset_name, data.dataset_config, data.dataset_train_split),
        eval_dataset=eval_dataset,
        quantization_config=get_quantization_config(model),
        peft_config=get_peft_config(model),
    )
    trainer.recipe = arguments.recipe
    return trainer, arguments


def _prepare_select(arguments: _Arguments):
    """Records, a function that selects, and whether this is the main process; nothing slow has happened yet."""
    arguments.args.baseline_dir, arguments.args.eval_strategy = None, "no"  # nothing is trained or evaluated here
    arguments.data.eval_dataset_name = None
    if "model" in arguments.args.selector.card.needs or arguments.args.selection_target:
        trainer, _ = _build_trainer(arguments)
        return trainer.records, trainer.select, trainer.is_world_process_zero()
    # A method that needs no model gets none loaded.
    from functools import partial

    from accelerate import Accelerator
    from transformers import AutoTokenizer

    from .preprocessing.records import Records, load_rows
    from .selector import Context, rows_to_keep
    from .trainer import complete_tokenizer, select_into_folder

    data, args, model = arguments.data, arguments.args, arguments.model
    rows = load_rows(data.dataset_name, data.dataset_config, data.dataset_train_split)
    records = Records(rows, args.dataset_text_field)
    rows_to_keep(args.budget_of(args.selector), len(records))
    args.selector.check(records)
    tokenizer = AutoTokenizer.from_pretrained(model.model_name_or_path, revision=model.model_revision)
    default_template = complete_tokenizer(tokenizer, records, args)
    ctx = Context(
        tokenizer,
        accelerator=Accelerator(cpu=args.use_cpu),
        model_id=model.model_name_or_path,
        seed=args.seed,
        cache_dir=args.cache_folder,
        max_length=args.max_length,
        batch_tokens=args.selection_batch_tokens,
        dtype=args.selection_dtype,
        num_proc=args.dataset_num_proc,
    )
    choose = partial(select_into_folder, records, args.selector, args, ctx, arguments.recipe, default_template)
    return records, choose, ctx.accelerator.is_main_process


def _log_to_console() -> None:
    """The package's own messages on stderr, as Hugging Face trainers show theirs."""
    package = logging.getLogger(__package__)
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
        if logging.getLogger(__package__).isEnabledFor(logging.DEBUG):
            raise
        _refuse(str(error))


def _refuse(message: str) -> None:
    print(f"hf-dataselect: error: {message}", file=sys.stderr)
    raise SystemExit(2)
