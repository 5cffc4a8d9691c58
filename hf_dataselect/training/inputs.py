"""The trainer's arguments made ready before any weights load: options, the plan of the selection, evaluation rows."""

import copy
import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from datasets import Dataset, disable_progress_bars

from ..compat.sharding import sharding_by_args
from ..data.images import undecodable
from ..data.preparation import Preparation
from ..data.records import Records
from ..data.text import TextFormat
from ..engines.runtime.sharding import WAYS
from ..evaluation.benchmark import Benchmark, load_benchmarks
from ..evaluation.benchmarks.held_out import HeldOut
from ..plan import SelectionPlan
from ..selector import Selector, method_name
from ..service import load_tokenizer_of, name_of
from ..sharding_refusals import WHOLE
from .callbacks import by_pir
from .config import DataSelectingConfig


logger = logging.getLogger(__name__)


def as_config(model: Any, args: Any, selector: Selector | None = None) -> DataSelectingConfig:
    """
    What the user gave as a [`DataSelectingConfig`], as [`~trl.SFTTrainer`] does with its own; a copy that names the
    selector where an instance was given.
    """
    if args is None:
        args = DataSelectingConfig(f"{(name_of(model) or 'model').split('/')[-1]}-SFT")
    elif not isinstance(args, DataSelectingConfig):
        given = {item.name: getattr(args, item.name) for item in dataclasses.fields(args) if item.init}
        known = {item.name for item in dataclasses.fields(DataSelectingConfig)}
        if foreign := sorted(given.keys() - known):
            logger.warning("Arguments that `DataSelectingConfig` does not have are ignored: %s.", ", ".join(foreign))
        args = DataSelectingConfig(**{name: value for name, value in given.items() if name in known})
    if selector is None:
        return args
    options = dataclasses.asdict(selector) if dataclasses.is_dataclass(selector) else {}
    named = {"selection_method": method_name(selector), "selection_kwargs": options}
    args = copy.copy(args)
    vars(args).update(named, _given=args._given | named)
    return args


def selection_plan(
    args: DataSelectingConfig, records: Records, target: Records | None, selector: Selector | None = None
) -> SelectionPlan:
    """The plan of a selection under these arguments; of their selector, if no other instance is given."""
    if args.disable_tqdm:  # of reading and tokenizing rows, TRL's too
        disable_progress_bars()
    return SelectionPlan(
        records,
        selector or args.selector,
        budget=args.selection_budget,
        budget_by=args.selection_budget_by,
        target=target,
        diversity=args.diversity,
        judge=args.judge,
        judge_options=args.judge_options,
        seed=args.seed,
        max_length=args.max_length,
        preparation=Preparation.of(args),
    )


def load_processing_class_of(model: Any, args: DataSelectingConfig) -> Any:
    """The tokenizer or processor of a model under these arguments, for selecting alone as for training."""
    options = (args.model_init_kwargs or {}) if isinstance(model, str) else {}
    trust = options.get("trust_remote_code", args.trust_remote_code)
    return load_tokenizer_of(model, revision=options.get("revision"), trust_remote_code=trust)


def sample_row(records: Records) -> int:
    """
    A row that TRL can tell the layout from.

    Raises:
        `ValueError`: no row can be read.
    """
    if records.layout == "tokens":
        return 0
    readable = (record.index for record in records if record.problem is None and record.messages)
    row = next((i for i in readable if not len(undecodable(records.dataset.select([i])))), None)
    if row is None:
        reasons = {record.problem or "an image can't be decoded" for record in records}
        raise ValueError(f"`{records.name}` has no row that can be read: {', '.join(sorted(map(str, reasons)))}.")
    return row


def prepare_benchmarks(
    args: DataSelectingConfig, eval_dataset: Any, formatting_func: Callable | None = None
) -> list[Benchmark]:
    """
    One for each set of evaluation rows, and those that `benchmarks` names, with their rows read.

    Raises:
        `ValueError`: two of one name, rows that can't be loaded or asked, no `judge` for a benchmark that needs it, or
        no PIR during training for a `metric_for_best_model` that is it.
    """
    sets = eval_dataset if isinstance(eval_dataset, dict) else {"": eval_dataset}
    length = args.benchmark_max_new_tokens
    options = {"metrics": args.benchmark_metrics} | ({} if length is None else {"max_new_tokens": length})
    held_out: list[HeldOut] = [
        HeldOut.of(records, name=name, **options)
        for name, rows in sets.items()
        if isinstance(rows, Dataset)
        for records in [Records(rows, args.dataset_text_field, formatting_func, name="eval_dataset")]
        if records.layout != "tokens"
    ]
    named = load_benchmarks(args.benchmarks, length)
    for benchmark in named:
        if benchmark.name in sets:
            raise ValueError(f"`benchmarks`: a set of `eval_dataset` is called {benchmark.name!r} too.")
        if "judge" in benchmark.needs:
            benchmark.judge = args.judge
        benchmark.prepare()
    if by_pir(args):
        _check_best_by_pir(args, [*held_out, *named])
    return evaluable(args, held_out, named)


def evaluable(args: DataSelectingConfig, held_out: list[HeldOut], named: list[Benchmark]) -> list[Benchmark]:
    """
    The benchmarks that can run on the model as the run shards it; a warning names sets of evaluation rows that can't.

    Raises:
        `ValueError`: a benchmark that can't run on a model that is sharded, or none of those that decide for the best
            checkpoint.
    """
    sharding, benchmarks = sharding_by_args(args), [*held_out, *named]
    if sharding in WHOLE:
        return benchmarks
    if args.use_vllm:
        raise ValueError(f"`use_vllm=True`: vLLM can't take the weights of a model that {sharding} shards. Remove it.")
    elsewhere = [benchmark.name for benchmark in benchmarks if benchmark.runs_elsewhere]
    if sharding in WAYS and elsewhere:
        raise ValueError(
            f"`benchmarks`: {', '.join(elsewhere)} can't run on a model that {sharding} shards. Remove it, and "
            "evaluate the saved model in a launch without sharding."
        )
    if sharding in WAYS and not any(rows.records.images for rows in held_out):
        return benchmarks
    if by_pir(args):
        raise ValueError(f"`metric_for_best_model={args.metric_for_best_model!r}`: {NO_PIR % sharding} Use 'loss'.")
    if benchmarks:
        logger.warning("%s This run will have no PIR.", NO_PIR % sharding)
    return []


#: What is said of benchmarks that don't run.
NO_PIR = "Benchmarks can't run on a model that %s shards, nor on rows with images where it is FSDP2 or ZeRO-3."


def _check_best_by_pir(args: DataSelectingConfig, benchmarks: list[Benchmark]) -> None:
    option = f"`metric_for_best_model={args.metric_for_best_model!r}`"
    if args.baseline_dir is None:
        raise ValueError(f"{option} needs `baseline_dir`: PIR compares with it. Use 'loss' for the baseline itself.")
    if all(benchmark.at_end for benchmark in benchmarks):
        raise ValueError(f"{option} needs an `eval_dataset` or `benchmarks` that run before training ends.")
    if not args.greater_is_better:
        raise ValueError(f"{option} with `greater_is_better=False` would keep the worst checkpoint. Leave it out.")
    logger.warning("%s: the PIR of a checkpoint that is chosen by it is biased upwards.", option)


def readable_rows(
    dataset: Any,
    args: DataSelectingConfig,
    text_format: TextFormat,
    formatting_func: Callable | None = None,
    name: str = "eval_dataset",
) -> Any:
    """
    Evaluation rows as TRL takes them; unreadable ones are excluded, and counted in the log.

    Raises:
        `ValueError`: no row can be read.
    """
    if isinstance(dataset, dict):
        return {
            key: readable_rows(rows, args, text_format, formatting_func, f"eval_dataset[{key!r}]")
            for key, rows in dataset.items()
        }
    if not isinstance(dataset, Dataset):
        return dataset
    records = Records(dataset, args.dataset_text_field, formatting_func, name=name)
    unreadable = records.unreadable(text_format, args.dataset_num_proc)
    kept = np.setdiff1d(np.arange(len(records)), np.concatenate([[], *unreadable.values()]))
    for reason, rows in unreadable.items():
        logger.warning("`%s`: %s rows are excluded: %s.", name, len(rows), reason)
    if len(kept) == 0:
        raise ValueError(f"`{name}`: none of its {len(records)} rows can be used: {'; '.join(unreadable)}.")
    return records.for_training(kept if unreadable else None)
