"""A trainer small enough for every test."""

from pathlib import Path

import numpy as np
import pytest
import torch
import trl
import yaml

from hf_dataselect.context import Context
from hf_dataselect.data.encoding import encode
from hf_dataselect.data.records import Records
from hf_dataselect.training.config import DataSelectingConfig
from hf_dataselect.training.trainer import DataSelectingTrainer
from tests.rows import alpaca
from tests.tiny import tiny_model, tiny_tokenizer


#: Arguments that plain `SFTConfig` takes too.
PLAIN = {
    "use_cpu": True,
    "bf16": False,
    "report_to": "none",
    "save_strategy": "no",
    "logging_steps": 1,
    "max_steps": 3,
    "per_device_train_batch_size": 2,
    "learning_rate": 1e-2,
    "max_length": 128,
    "disable_tqdm": True,
    "gradient_checkpointing": False,
}


def tiny_trainer(folder: Path, method: str = "full", kwargs: dict | None = None, **options) -> DataSelectingTrainer:
    """`DataSelectingTrainer` on a tiny model; `options` are the trainer's or the configuration's."""
    tokenizer = options.pop("processing_class", None) or tiny_tokenizer()
    given = {
        name: options.pop(name)
        for name in ("train_dataset", "eval_dataset", "peft_config", "selector", "callbacks", "formatting_func")
        if name in options
    }
    given.setdefault("train_dataset", alpaca())
    model = options.pop("model", None)
    options = {**PLAIN, "selection_cache_dir": str(folder / "cache"), "selection_dtype": "float32", **options}
    args = DataSelectingConfig(str(folder / "run"), selection_method=method, selection_kwargs=kwargs, **options)
    return DataSelectingTrainer(
        tiny_model(tokenizer) if model is None else model, args, processing_class=tokenizer, **given
    )


def answer_ends(ctx: Context, records: Records) -> np.ndarray:
    """Last hidden states at the end of each row's last answer, one row at a time."""
    found = []
    for ids, spans in encode(records, ctx.text_format()).tokens.take(range(len(records))):
        with torch.no_grad():
            ids = torch.from_numpy(ids[: spans[-1, 1]].astype(np.int64))[None]
            found.append(ctx.model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0, -1].numpy())
    return np.stack(found)


def watch_training(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """A list that fills with the rows that are trained on: ids without padding, and the places of those that count."""
    seen, compute = [], trl.SFTTrainer.compute_loss

    def watch(trainer, model, inputs, *given, **options):
        columns = (inputs[name].tolist() for name in ("input_ids", "attention_mask", "labels"))
        for ids, mask, labels in zip(*columns, strict=True):
            assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))
            counted = [place for place, label in enumerate(labels) if label != -100 and place > 0]
            seen.append((tuple(ids[: sum(mask)]), tuple(counted)))
        return compute(trainer, model, inputs, *given, **options)

    monkeypatch.setattr(trl.SFTTrainer, "compute_loss", watch)
    return seen


def trained_rows(records: Records, ctx: Context) -> list[tuple]:
    """The same of rows as TRL prepares them for training."""
    tokens = ctx.trained(records, parts=True).tokens
    rows = tokens.take(range(len(tokens)))
    counted = [[place for start, end in spans for place in range(max(1, start), end)] for _, spans in rows]
    return [(tuple(ids.tolist()), tuple(places)) for (ids, _), places in zip(rows, counted, strict=True) if places]


def write_recipe(folder: Path, n: int = 24, **options) -> Path:
    """A recipe that selects 6 of `n` rows by IFD, with its model and rows beside it."""
    tokenizer = tiny_tokenizer()
    tiny_model(tokenizer).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    alpaca(n).to_json(folder / "rows.jsonl")
    alpaca(6, seed=5).to_json(folder / "heldout.jsonl")
    recipe = {
        "model_name_or_path": str(folder / "model"),
        "dataset_name": str(folder / "rows.jsonl"),
        "eval_dataset_name": str(folder / "heldout.jsonl"),
        "output_dir": str(folder / "run"),
        "selection_cache_dir": str(folder / "cache"),
        "selection_method": "ifd",
        "selection_kwargs": {"warmup": "none"},
        "selection_budget": 6,
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        **options,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"
