"""What a warm-up on several ranks does in another way than one on a single rank."""

from typing import Any

from torch import nn


def of_ranks(model: nn.Module, rows: int, settings: Any, world: int) -> str:
    """
    How updates are made of rows on several ranks, and why the tuned weights differ from those of one rank by more than
    rounding, if they do.

    Args:
        model ([`~peft.PeftModel`] or [`~transformers.PreTrainedModel`]):
            The model that is tuned.
        rows (`int`):
            Rows to tune on.
        settings ([`WarmupSettings`]):
            How it is tuned.
        world (`int`):
            Number of ranks.
    """
    at_once = settings.batch_size * world
    said = [f"{at_once * settings.gradient_accumulation} rows an update, on {world} ranks"]
    if repeated := -rows % at_once:
        said.append(f"an epoch has {repeated} of the {rows} rows once more, so that all ranks have equally many")
    # That of adapters is replaced, see `dropout_by_row`.
    own = (part for name, part in model.named_modules() if "lora_dropout" not in name)
    if any(type(part) is nn.Dropout and part.p > 0 for part in own):
        said.append("the model's own dropout is drawn anew on each rank")
    return "; ".join(said)
