"""[`select_dataset`]: selection for any trainer. The trainer and the commands select by the same plan."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from datasets import Dataset

from .budget import Budget
from .compat.sharding import sharding_by_accelerator
from .data.preferences import scored_columns
from .data.records import Records
from .data.streams import blocks_on_disk, on_disk
from .data.targets import load_target
from .diversity import load_diversity
from .engines.llm.judge_options import JudgeOptions
from .engines.runtime.loading import load_processing_class, load_tuned_model
from .engines.runtime.model_state import preserved_accelerate_state
from .engines.runtime.runtime import Runtime
from .engines.runtime.sharding import place
from .engines.store.files import cache_folder, check_writable, default_cache_dir
from .options import typed_options
from .plan import SelectionPlan
from .registry import load_selector
from .runs.begin import enter_selection
from .runs.lock import locked
from .runs.publish import selected_dataset
from .selection import Selection
from .selector import Selector
from .streamed import check_by_row, of_block, select_blocks


def select_dataset(
    dataset: Dataset,
    method: str | Selector,
    model: Any = None,
    tokenizer: Any = None,
    budget: float | int | str | None = None,
    *,
    method_kwargs: dict[str, Any] | str | None = None,
    budget_by: dict[str, Any] | str | None = None,
    target: Dataset | str | dict[str, Any] | None = None,
    judge: str | None = None,
    judge_kwargs: dict[str, Any] | str | None = None,
    diversity: dict[str, Any] | str | None = None,
    seed: int = 42,
    max_length: int | None = 1024,
    text_field: str = "text",
    formatting_func: Callable[[dict], str] | None = None,
    model_kwargs: dict[str, Any] | None = None,
    dtype: str = "auto",
    batch_tokens: int | None = None,
    num_proc: int | None = None,
    stream_rows: int | None = None,
    stream_block: int | None = None,
    gradient_checkpointing: bool = False,
    cache_dir: str | Path | None = "default",
    accelerator: Accelerator | None = None,
    output_dir: str | Path | None = None,
) -> tuple[Dataset, Selection]:
    """
    Select the rows worth training on, for any trainer: the rows that [`DataSelectingTrainer`] would keep. What would
    be refused is refused before a model loads, and a method that needs no model loads none.

    Args:
        dataset ([`~datasets.Dataset`], or [`~datasets.IterableDataset`] with `stream_rows` or `stream_block`):
            Candidate dataset: messages, prompt-completion, text, Alpaca or ShareGPT columns. Of preference rows
            (`chosen` and `rejected`, with or without `prompt`), the chosen answer is scored, by `reward_gap` both.
            Prompts alone (for GRPO) are read as texts.
        method (`str` or [`Selector`]):
            Name of a method (`hf-dataselect methods` lists them), `package.module:Class`, or an instance.
        model (`str` or [`~transformers.PreTrainedModel`], *optional*):
            The model to be fine-tuned (PFM), for methods that score with it. An object is returned unchanged: weights,
            mode, gradients, hooks.
        tokenizer (`str`, [`~transformers.PreTrainedTokenizerBase`] or [`~transformers.ProcessorMixin`], *optional*):
            The model's, which is the default. One without a chat template gets the package's own where rows are chats.
        budget (`float`, `int` or `str`, *optional*):
            How much to keep: at most 1 is a fraction, more is a count; `"2M tokens"`, `"score >= 4.5"`; by default the
            method's own.
        budget_by (`str` or `dict`, *optional*):
            Groups among which the budget is shared out: a column, or `{"column": ..., "how": "equal"}`.
        method_kwargs (`dict` or `str`, *optional*):
            Hyper-parameters of the method, a mapping or JSON.
        target ([`~datasets.Dataset`], `str` or `dict`, *optional*):
            Target-task examples, for methods that need them; hub name, folder or file. Of several tasks, a mapping:
            `{"math": "math.jsonl", "code": {"dataset": rows, "weight": 2}}`.
        judge, judge_kwargs (*optional*):
            Model that judges answers, such as `"openai:MODEL"`, and its options ([`JudgeOptions`]).
        diversity (`str` or `dict`, *optional*):
            `"filter"`, `"facility_location"`, or options of [`Diversity`].
        seed (`int`, *optional*, defaults to `42`):
            Same seed, same rows.
        max_length (`int`, *optional*, defaults to `1024`):
            Window in tokens: take the trainer's.
        text_field, formatting_func (*optional*):
            As `dataset_text_field` and `formatting_func` of [`~trl.SFTTrainer`].
        model_kwargs (`dict`, *optional*):
            For a model by name: `revision`, `trust_remote_code`, `dtype`, `attn_implementation` ...
        dtype (`str`, *optional*, defaults to `"auto"`):
            Dtype to score in: `"auto"`, `"float32"`, `"bfloat16"` or `"float16"`.
        batch_tokens (`int`, *optional*):
            Tokens of a scoring batch, padding included.
        num_proc (`int`, *optional*):
            Processes that tokenize.
        stream_rows (`int`, *optional*):
            Of a streamed dataset, how many rows are written to disk and chosen from.
        stream_block (`int`, *optional*):
            Of a streamed dataset that is larger than the disk, how many rows are on disk at a time: the best rows of
            all are held in memory. For methods whose score of a row depends on no other row, and a count or a
            threshold as `budget`.
        gradient_checkpointing (`bool`, *optional*, defaults to `False`):
            Whether methods that fine-tune or take gradients trade compute for memory.
        cache_dir (`str`, *optional*, defaults to `$HF_DATASELECT_CACHE` or `"~/.cache/hf_dataselect"`):
            Where scores are kept, so that no row is scored twice; `None` keeps none.
        accelerator ([`~accelerate.Accelerator`], *optional*):
            That of the training loop, if there is one. If it, or the one made before in this process, shards by FSDP2
            or ZeRO-3, the model is sharded before it is run, as `accelerator.prepare` would: make the optimizer
            afterwards, and give both to `prepare`.
        output_dir (`str`, *optional*):
            Folder to write `recipe.yaml`, `versions.json`, `selection.json` and `scores.parquet` to.

    Returns:
        `tuple`: the rows kept, best first, with the columns `selection_row` (row of `dataset`) and `selection_score`;
        and the [`Selection`]: scores, cost, and rows excluded by reason. The same on every rank.

    Raises:
        `TypeError`: the dataset is streamed, without `stream_rows` or `stream_block`.
        `ValueError`: as [`DataSelectingTrainer`] raises it.

    Example:

    ```python
    from datasets import load_dataset
    from hf_dataselect import select_dataset
    from trl import DPOTrainer

    pairs = load_dataset("trl-lib/ultrafeedback_binarized", split="train")
    model = "HuggingFaceTB/SmolLM2-135M-Instruct"
    rows, selection = select_dataset(pairs, "ifd", model, budget=0.1)
    print(selection.summary())
    DPOTrainer(model, train_dataset=rows).train()
    ```
    """
    selector, diversity_step = load_selector(method, method_kwargs), load_diversity(diversity)
    judge_options = typed_options(JudgeOptions, judge_kwargs, "judge_kwargs")
    asked = None
    if stream_block is not None:
        if stream_rows is not None:
            raise ValueError(
                "`stream_block` reads all of a stream, and `stream_rows` its first rows: give one of them."
            )
        if not isinstance(stream_block, int) or stream_block < 1:
            raise ValueError(f"`stream_block={stream_block!r}` must be a number of rows, at least 1.")
        asked = Budget.parse(selector.default_budget if budget is None else budget, budget_by)
        check_by_row(selector, asked, diversity_step)

    def read(rows: Dataset) -> Records:
        columns = rows if formatting_func is not None else scored_columns(rows, text_field)
        return Records(columns, text_field, formatting_func, name="dataset")

    with ExitStack() as stack:
        if accelerator is None:  # the caller may make one later, with other settings
            stack.enter_context(preserved_accelerate_state())
            accelerator = Accelerator()
        blocks: Iterator[Dataset] = iter(())
        if stream_block is not None:
            blocks = blocks_on_disk(dataset, stream_block, "dataset")
        dataset = on_disk(dataset, stream_rows, "dataset") if asked is None else next(blocks)
        records = read(dataset)
        plan = SelectionPlan(
            records,
            selector,
            budget=budget if asked is None else of_block(asked, len(records)),
            budget_by=budget_by,
            target=load_target(target, records),
            diversity=diversity_step,
            judge=judge,
            judge_options=judge_options,
            seed=seed,
            max_length=max_length,
        )
        if "training" in plan.needs:
            raise ValueError(
                f"`{plan.method}` trains on subsets as a run does, and there are no training arguments here: select "
                "by it in `DataSelectingTrainer`, `hf-dataselect train`, `select` or `compare`."
            )
        runtime = Runtime(
            accelerator,
            cache_folder(default_cache_dir() if cache_dir == "default" else cache_dir),
            batch_tokens=batch_tokens,
            dtype=dtype,
            num_proc=num_proc,
            gradient_checkpointing=gradient_checkpointing,
        )
        sharding = sharding_by_accelerator(accelerator)
        plan.check(model, runtime.cache_dir, sharding)
        model_kwargs = model_kwargs or {}
        hub = {key: model_kwargs[key] for key in ("revision", "trust_remote_code") if key in model_kwargs}
        if tokenizer is None and model is not None:
            tokenizer = load_tokenizer_of(model, **hub)
        elif isinstance(tokenizer, str):
            tokenizer = load_processing_class(tokenizer, **hub)
        if tokenizer is not None:
            plan.complete(tokenizer)
        elif plan.budget.unit == "tokens" and records.layout != "tokens":
            raise ValueError(f"`budget={str(plan.budget)!r}` needs `tokenizer`, or `model`, to count tokens by.")
        folder = None if output_dir is None else check_writable(output_dir, "output_dir")
        if folder is not None:
            stack.enter_context(locked(folder))
        model_id, loaded = name_of(model), None
        if plan.uses_model:
            loaded = load_tuned_model(model, **model_kwargs) if isinstance(model, str) else model
            if sharding is not None:
                place(loaded, accelerator, sharding)
            elif isinstance(model, str) and getattr(loaded, "hf_device_map", None) is None:
                loaded.to(accelerator.device)
        ctx = plan.context(tokenizer, loaded, runtime, model_id, plan.load_judge(runtime, loaded, tokenizer))
        if asked is None:
            selection = plan.select(ctx, folder, _recipe(plan, model_id))
            return selected_dataset(dataset, selection), selection
        kept, selection = select_blocks(((part, read(part)) for part in chain([dataset], blocks)), plan, asked, ctx)
        plan.budget = asked
        if folder is not None:
            runtime.on_main(partial(enter_selection, folder, _recipe(plan, model_id), selection, None))
        return kept, selection


def name_of(model: Any) -> str | None:
    """Name or folder of a model, given by it or as an object."""
    return model if model is None or isinstance(model, str) else getattr(model.config, "name_or_path", None) or None


def load_tokenizer_of(model: Any, **hub: Any) -> Any:
    """
    Tokenizer or processor of a model, which may be given by its name.

    Raises:
        `ValueError`: the model has no name to load it by, or its folder or repository has no tokenizer.
    """
    name = name_of(model)
    if name is None:
        raise ValueError("`tokenizer` (`processing_class`) is required: the model has no name to load it by.")
    try:
        return load_processing_class(name, **hub)
    except ValueError as error:
        raise ValueError(f"`model`: {name!r} has no tokenizer of its own: {error}") from error


def _recipe(plan: SelectionPlan, model_id: str | None) -> dict[str, Any]:
    """The options of a plan as a recipe names them; datasets stay with the caller's script."""
    groups = plan.budget.groups
    options = {
        "model_name_or_path": model_id,
        "selection_method": plan.method,
        "selection_kwargs": dataclasses.asdict(plan.selector) if dataclasses.is_dataclass(plan.selector) else {},
        "selection_budget": None
        if plan.selector.fixed_budget
        else dataclasses.replace(plan.budget, groups=None).plain,
        "selection_budget_by": groups and dataclasses.asdict(groups),
        "selection_diversity": plan.diversity and dataclasses.asdict(plan.diversity),
        "judge": plan.judge,
        "judge_kwargs": dataclasses.asdict(plan.judge_options) if plan.judge else None,
        "seed": plan.seed,
        "max_length": plan.max_length,
    }
    return {name: value for name, value in options.items() if value is not None}
