"""A trainer small enough for every test."""

from pathlib import Path

from hf_dataselect import DataSelectingConfig, DataSelectingTrainer
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
