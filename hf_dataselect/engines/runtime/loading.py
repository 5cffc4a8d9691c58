"""Models and tokenizers by name, without what transformers makes up where files or weights are missing."""

from typing import Any

from accelerate import Accelerator
from torch import nn
from transformers import AutoConfig, AutoTokenizer


def check_pretrained(name: str, option: str, group: str = "selection_kwargs") -> Any:
    """
    The configuration of a model by hub name or folder, from the options `group`; its weights do not load.

    Raises:
        `ValueError`: no such model, or a tokenizer that is not the model's.
    """
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"`{group}`: {option}={name!r} can't be found: {error}") from error
    try:
        _tokenizer(name, config)
    except (OSError, ValueError) as error:
        raise ValueError(f"`{group}`: {option}={name!r} has no tokenizer of its own: {error}") from error
    return config


def load_pretrained(kind: type, name: str, accelerator: Accelerator | None = None) -> tuple[nn.Module, Any]:
    """
    A model and its tokenizer by hub name or folder, on the accelerator's device.

    Args:
        kind (`type`):
            The auto class that loads the model.

    Raises:
        `OSError`, `ValueError`: they can't be loaded, the tokenizer is not the model's, or weights are missing, which
            transformers draws at random.
    """
    tokenizer = _tokenizer(name, AutoConfig.from_pretrained(name))
    model, loading = kind.from_pretrained(name, dtype="auto", output_loading_info=True)
    if loading["missing_keys"]:
        raise ValueError(f"it lacks weights: {', '.join(sorted(loading['missing_keys']))}")
    return model.to(accelerator.device) if accelerator else model, tokenizer


def _tokenizer(name: str, config: Any) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(name)
    # Of a folder that holds none, transformers makes one that knows next to nothing. A model may have some tokens
    # more than its tokenizer, to fill a block.
    if 2 * len(tokenizer) < (tokens := getattr(config.get_text_config(), "vocab_size", 0)):
        raise ValueError(f"it has {len(tokenizer)} tokens, and the model {tokens}: save the model's own beside it")
    return tokenizer
