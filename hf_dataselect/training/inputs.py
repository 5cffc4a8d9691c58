"""What a trainer is given, made ready and checked before any weights load: options, tokenizer, rows."""

import dataclasses
import logging
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import AutoProcessor, ProcessorMixin

from ..budget import rows_to_keep
from ..data.images import other_images
from ..data.layouts import LAYOUTS
from ..data.records import Records, load_rows
from ..data.text import default_chat_template
from ..engines.llm.load import check_judge
from .config import DataSelectingConfig


logger = logging.getLogger(__name__)


def as_config(model: Any, args: Any) -> DataSelectingConfig:
    """What the user gave as a [`DataSelectingConfig`], as [`~trl.SFTTrainer`] does with its own."""
    if isinstance(args, DataSelectingConfig):
        return args
    if args is None:
        return DataSelectingConfig(f"{(model_id(model) or 'model').split('/')[-1]}-SFT")
    given = {item.name: getattr(args, item.name) for item in dataclasses.fields(args) if item.init}
    known = {item.name for item in dataclasses.fields(DataSelectingConfig)}
    if foreign := sorted(given.keys() - known):
        logger.warning("Arguments that `DataSelectingConfig` does not have are ignored: %s.", ", ".join(foreign))
    return DataSelectingConfig(**{name: value for name, value in given.items() if name in known})


def model_id(model: Any) -> str | None:
    """Name or folder of a model, which may be given by it."""
    if isinstance(model, str):
        return model
    return getattr(model.config, "_name_or_path", None) or None


def load_processing_class(model: Any, args: DataSelectingConfig) -> Any:
    """
    Tokenizer or processor of a model.

    Raises:
        `ValueError`: the model has no name to load it by.
    """
    options = dict(args.model_init_kwargs or {}) if isinstance(model, str) else {}
    name = model_id(model)
    if name is None:
        raise ValueError("`processing_class` is required: the model has no name to load its tokenizer by.")
    return AutoProcessor.from_pretrained(
        name, revision=options.get("revision"), trust_remote_code=args.trust_remote_code
    )


def check_rows(args: DataSelectingConfig, records: Records, target: Records | None) -> None:
    """
    Refuse what the selection of `args` can't be made of.

    Raises:
        `ValueError`: rows of another layout than the method reads, a budget beyond them, no target rows or no judge
        for a method that needs them, or what the method itself refuses.
    """
    rows_to_keep(args.budget_of(args.selector), len(records))
    if "text" in args.needs and records.layout == "tokens":
        raise ValueError(f"`{args.selection_method}` reads texts: give the rows untokenized.")
    if "prompt" in args.needs and records.layout == "text":
        known = "\n  ".join(LAYOUTS[name] for name in ("prompt-completion", "messages", "sharegpt", "alpaca"))
        raise ValueError(
            f"`{args.selection_method}` needs prompts apart from the answers, and `{records.text_field}` "
            f"holds both in one text. Remove it, or give one of these layouts:\n  {known}"
        )
    if "target" in args.needs and target is None:
        raise ValueError(f"`{args.selection_method}` needs `selection_target`: rows of the task to be good at.")
    if records.images and "text" in args.needs and not args.selector.card.images:
        logger.warning("`%s` reads the texts of rows only: their images do not count.", args.selection_method)
    if others := other_images(records.dataset):
        logger.warning(
            "`%s` has images in %s, which nothing looks at: TRL knows one column `image` or `images`. Rename it.",
            records.name,
            ", ".join(map(repr, others)),
        )
    check_judge(args.judge, args.selector.card.needs, args.selection_method)
    args.selector.check(records)
    if args.diversity is not None:
        args.diversity.check()


def target_records(args: DataSelectingConfig, records: Records) -> Records | None:
    """
    The rows of `selection_target`, read as the candidates are: by their formatting function, too, where the target has
    the columns of the candidates.
    """
    if not args.selection_target:
        return None
    rows, formatting_func = load_rows(args.selection_target), records.formatting_func
    if formatting_func is not None and not set(records.dataset.column_names) <= set(rows.column_names):
        logger.warning(
            "`selection_target` has other columns than `train_dataset`: it is read without `formatting_func`, so that "
            "its texts may be written otherwise than those they are compared with."
        )
        formatting_func = None
    return Records(rows, args.dataset_text_field, formatting_func, name="selection_target")


def readable_rows(dataset: Any, args: DataSelectingConfig) -> Any:
    """Evaluation rows as TRL takes them; those that can't be read are left out, and counted in the log."""
    if not isinstance(dataset, Dataset):
        return dataset
    records = Records(dataset, args.dataset_text_field, name="eval_dataset")
    unreadable = records.unreadable()
    kept = np.setdiff1d(np.arange(len(records)), np.concatenate([[], *unreadable.values()]))
    for reason, rows in unreadable.items():
        logger.warning("`eval_dataset`: %s rows are left out: %s.", len(rows), reason)
    return records.for_training(kept if unreadable else None)


def complete_tokenizer(processing_class: Any, records: Records, args: DataSelectingConfig) -> bool:
    """
    Give a tokenizer without chat template the one explicit default, if the rows are chats.

    Returns:
        `bool`: whether that was needed.

    Raises:
        `ValueError`: the tokenizer has no end-of-sequence token, or rows with images no template.
    """
    tokenizer = processing_class.tokenizer if isinstance(processing_class, ProcessorMixin) else processing_class
    if tokenizer.eos_token is None and args.eos_token is None:
        raise ValueError("The tokenizer has no end-of-sequence token, so no model can learn to stop: set `eos_token`.")
    if processing_class is not tokenizer and tokenizer.chat_template is None:  # methods read texts by the tokenizer
        tokenizer.chat_template = processing_class.chat_template
    chats = records.layout not in ("tokens", "text")
    if not chats or processing_class.chat_template is not None or args.chat_template_path is not None:
        return False
    if records.images:
        raise ValueError("The processor has no chat template, which says where images go: set `chat_template_path`.")
    processing_class.chat_template = default_chat_template(tokenizer)
    logger.warning("The tokenizer has no chat template: the default of hf_dataselect is set and saved with it.")
    return True
