"""Load models, tokenizers and processors by name; missing weights or tokenizer files are errors, not made up."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import DistributedType, is_peft_model
from torch import nn
from transformers import AutoConfig, AutoProcessor, AutoTokenizer, ProcessorMixin

from ...compat.sharding import not_launched_sharded
from ...compat.transformers import attends_to_later_tokens, model_class
from ...compat.trl import create_model
from .runtime import Runtime


def check_model_folder(model: Any) -> None:
    """
    Refuse a name that can only be that of a local folder, where there is none.

    Raises:
        `ValueError`: there is none.
    """
    if isinstance(model, str) and _lacks_folder(model):
        raise ValueError(f"`model`: the folder {model!r} does not exist.")


def _lacks_folder(name: str) -> bool:
    """Whether a name can only be that of a local folder, and there is none."""
    local = name.startswith(("/", "./", "../", "~")) or name.count("/") > 1
    return local and not Path(name).expanduser().is_dir()


def check_configuration(model: Any, check: Callable[[Any], None]) -> None:
    """
    Call a function with the configuration of a model that is given by name or as an object. One that needs options of
    the Hub, or can't be read, is left to [`load_tuned_model`].
    """
    if isinstance(model, str):
        try:
            config = AutoConfig.from_pretrained(model, trust_remote_code=False)
        except (OSError, ValueError):
            return
    else:
        config = model.config
    check(config)


def check_pretrained(name: str, option: str, group: str = "selection_kwargs") -> Any:
    """
    The configuration of a model by hub name or folder, named in the options `group`; its weights are not loaded.

    Raises:
        `ValueError`: the model can't be found, or has no tokenizer of its own.
    """
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        why = "there is no such folder." if _lacks_folder(name) else error
        raise ValueError(f"`{group}`: {option}={name!r} can't be found: {why}") from error
    try:
        load_processing_class(name, AutoTokenizer)
    except (OSError, ValueError) as error:
        raise ValueError(f"`{group}`: {option}={name!r} has no tokenizer of its own: {error}") from error
    return config


def check_causal_lm(model: Any) -> None:
    """
    Refuse a model that [`~trl.SFTTrainer`] can't train, and whose losses of rows would mean nothing; one given by name
    is checked as [`load_tuned_model`] loads it.

    Raises:
        `ValueError`: an encoder-decoder, a masked language model, a classifier, a model without a head.
    """
    if isinstance(model, nn.Module) and hasattr(model, "config"):
        inner = model.get_base_model() if is_peft_model(model) else model
        _refuse_unless_causal(type(inner), inner.config)


def _refuse_unless_causal(kind: type | None, config: Any) -> None:
    if getattr(config, "is_encoder_decoder", False):
        reason = "is an encoder-decoder"
    elif kind is not None and hasattr(kind, "can_generate") and not kind.can_generate():
        reason = "has no head that predicts the next token"
    elif attends_to_later_tokens(config):
        reason = "attends to later tokens (an encoder: its configuration says neither `is_decoder` nor `causal`)"
    else:
        return
    raise ValueError(
        f"`model`: {kind.__name__ if kind else config.model_type} {reason}, and rows are selected for causal language "
        "models, which `SFTTrainer` trains. Give a decoder-only model, or none to a method that needs none."
    )


def load_processing_class(name: str, kind: type = AutoProcessor, **hub: Any) -> Any:
    """
    The tokenizer of a model, or its processor, by hub name or folder.

    Args:
        kind (`type`, *optional*, defaults to [`~transformers.AutoProcessor`]):
            Auto class; the default falls back to a tokenizer where the model has no processor.
        hub:
            `revision` and `trust_remote_code`.

    Raises:
        `OSError`, `ValueError`: it can't be loaded, or is not the model's: for a folder without tokenizer files,
            transformers builds a tokenizer of a handful of tokens.
    """
    config = AutoConfig.from_pretrained(name, **hub)
    processing_class = kind.from_pretrained(name, **hub)
    tokenizer = tokenizer_of(processing_class)
    # A model may have more tokens than its tokenizer, since embeddings are padded.
    if 2 * len(tokenizer) < (tokens := getattr(config.get_text_config(), "vocab_size", 0)):
        raise ValueError(f"it has {len(tokenizer)} tokens, and the model {tokens}: save the model's tokenizer with it")
    return processing_class


def load_weights(
    load: Callable[..., tuple[nn.Module, dict[str, Any]]], name: str, called: str = "it", **options: Any
) -> nn.Module:
    """
    Load a model by hub name or folder, and check that no weights are missing.

    Args:
        load (`Callable`):
            `from_pretrained` of an auto class, or a function that passes its options to it.
        called (`str`, *optional*, defaults to `"it"`):
            Name of the model in the error.

    Raises:
        `OSError`, `ValueError`: it can't be loaded, or weights are missing, which transformers initializes randomly.
    """
    model, loading = load(name, output_loading_info=True, **options)
    if missing := sorted(loading["missing_keys"]):
        more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
        raise ValueError(f"{called} lacks weights: {', '.join(missing[:8])}{more}")
    return model


@not_launched_sharded()
def load_pretrained(kind: type, name: str, runtime: Runtime) -> tuple[nn.Module, Any]:
    """
    A model and its tokenizer by hub name or folder, on the runtime's device; each rank holds all weights.

    Args:
        kind (`type`):
            The auto class that loads the model.

    Raises:
        `OSError`, `ValueError`: they can't be loaded, the tokenizer is not the model's, or weights are missing.
    """
    tokenizer = load_processing_class(name, AutoTokenizer)
    return load_weights(kind.from_pretrained, name, dtype="auto").to(runtime.device), tokenizer


def load_tuned_model(name: str, create: Callable[..., Any] | None = None, **options: Any) -> nn.Module:
    """
    The pending fine-tune model (PFM) by hub name or folder, as TRL's trainers load it: of the class that its
    configuration names, in float32 unless `dtype` says otherwise.

    Args:
        create (`Callable`, *optional*):
            Function that loads it, by default [`create_model`].
        options:
            Options of `from_pretrained`: `revision`, `trust_remote_code`, `dtype`, `attn_implementation`,
            `quantization_config` ...

    Raises:
        `OSError`, `ValueError`: it is not a causal language model, can't be loaded, or weights are missing.
    """
    hub = {key: options[key] for key in ("revision", "trust_remote_code", "token", "cache_dir") if key in options}
    config = AutoConfig.from_pretrained(name, **hub)
    _refuse_unless_causal(model_class(config), config)
    if create is None:
        create = create_model
        if PartialState().distributed_type != DistributedType.NO:  # each rank holds the whole model
            options["device_map"] = None
    return load_weights(create, name, f"`model`: {name!r}", **options)


def tokenizer_of(processing_class: Any) -> Any:
    """The tokenizer of a processor; a tokenizer itself."""
    return processing_class.tokenizer if isinstance(processing_class, ProcessorMixin) else processing_class
