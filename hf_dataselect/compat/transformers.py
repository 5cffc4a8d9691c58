"""What transformers does not document."""

import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .installed import attribute, imported


#: Attributes that transformers keeps on modules for gradient checkpointing, and for the hooks by which adapters on
#: embeddings get gradients. Seen on transformers 5.23.0; one that is missing is no attribute of any module.
CHECKPOINTING_FLAGS = ("gradient_checkpointing", "_gradient_checkpointing_func")
INPUT_GRADIENT_HOOKS = ("_require_grads_hook", "_require_grads_hooks")
#: Set on a model whose hooks record hidden states; without the hooks, and with this flag, it returns none.
CAPTURING_FLAG = "_output_capturing_hooks_installed"


def attention_implementation(model: Any) -> str | None:
    """
    The attention that the model runs with, the private `_attn_implementation` of its config. Seen on transformers
    5.23.0; `None` where it is missing: then it does not tell cached numbers apart.
    """
    return getattr(model.config, "_attn_implementation", None)


@contextmanager
def without_router_logits(model: Any) -> Iterator[None]:
    """
    Inside, a mixture of experts can generate, whatever its `output_router_logits`, which TRL sets: with them, it
    computes how its experts are balanced of the new tokens by the mask of all tokens, which fails. Seen on
    transformers 5.23.0.
    """
    configs = [model.config, model.config.get_text_config()]
    asked = [config for config in configs if getattr(config, "output_router_logits", False)]
    for config in asked:
        config.output_router_logits = False
    try:
        yield
    finally:
        for config in asked:
            config.output_router_logits = True


def is_causal_lm(config: Any) -> bool:
    """
    Whether [`~transformers.AutoModelForCausalLM`] loads models of this config, by its private `_model_mapping` or, for
    custom code, by what the config maps. Seen on transformers 5.23.0; raises `ImportError` where it is missing.
    """
    from transformers import AutoModelForCausalLM

    known = attribute("transformers", AutoModelForCausalLM, "_model_mapping")
    return type(config) in known or "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})


def base_class(config: Any) -> type | None:
    """
    The class that [`~transformers.AutoModel`] loads for this config, by `MODEL_MAPPING`; `None` for custom code. Seen
    on transformers 5.23.0; raises `ImportError` where it is missing.
    """
    return imported("transformers", "transformers", "MODEL_MAPPING").get(type(config), None)


def model_class(config: Any) -> type | None:
    """
    The class that a checkpoint of this config was saved as, by the name in `architectures`, by which TRL loads it too;
    `None` for custom code.
    """
    import transformers

    return getattr(transformers, (config.architectures or [""])[0], None)


def attends_to_later_tokens(config: Any) -> bool:
    """
    Whether a model of this config is no decoder although its class has a head that generates: encoders (BERT, XLM) by
    `MODEL_FOR_MASKED_LM_MAPPING`, `is_decoder` and `causal`; others by `is_causal` and `use_bidirectional_attention`.
    Seen on transformers 5.23.0; raises `ImportError` where the mapping is missing.
    """
    if type(config) in imported("transformers", "transformers", "MODEL_FOR_MASKED_LM_MAPPING"):
        return not (getattr(config, "is_decoder", False) or getattr(config, "causal", False))
    everywhere = getattr(config, "use_bidirectional_attention", None) in (True, "all")
    return everywhere or getattr(config, "is_causal", None) is False


def vocabulary(tokenizer: Any) -> str:
    """
    All that decides the tokens of a tokenizer, in JSON: that of its `backend_tokenizer`, with the truncation and the
    padding of its last call. Seen on transformers 5.23.0; the sorted vocabulary where there is no backend (a tokenizer
    in Python).
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return json.dumps(sorted(tokenizer.get_vocab().items())) if backend is None else backend.to_str()


def put_first(trainer: Any, callbacks: Sequence[Any]) -> None:
    """
    Let these callbacks run before all others, by the list `callback_handler.callbacks` of a
    [`~transformers.Trainer`]; `add_callback` only appends. Seen on transformers 5.23.0; raises `ImportError` where it
    is missing.
    """
    attribute("transformers", attribute("transformers", trainer, "callback_handler"), "callbacks")[:0] = callbacks


def keep_to(trainer: Any, callbacks: Sequence[Any]) -> None:
    """
    Let only these callbacks run, after [`~transformers.DefaultFlowCallback`], which says when a step ends: no bar,
    table or tracker, whichever transformers chose for a console, a notebook or the environment. By the list
    `callback_handler.callbacks` of a [`~transformers.Trainer`]. Seen on transformers 5.23.0; raises `ImportError`
    where it is missing.
    """
    from transformers import DefaultFlowCallback

    given = attribute("transformers", attribute("transformers", trainer, "callback_handler"), "callbacks")
    given[:] = [callback for callback in given if isinstance(callback, DefaultFlowCallback)] + list(callbacks)


def growing_cache(past: Any) -> Any:
    """
    `past` if its layers only grow by joining new keys and values behind the old ones, `DynamicLayer` and
    `DynamicSlidingWindowLayer` of `transformers.cache_utils` (of a [`~transformers.Cache`] with `layers`); `None` for
    every other cache. Seen on transformers 5.23.0; raises `ImportError` where they are missing.
    """
    module = "transformers.cache_utils"
    growing = {imported("transformers", module, name) for name in ("DynamicLayer", "DynamicSlidingWindowLayer")}
    cache = imported("transformers", module, "Cache")
    return past if isinstance(past, cache) and {type(layer) for layer in past.layers} <= growing else None


def cache_for_rows(past: Any, rows: int) -> Any:
    """
    A [`growing_cache`] of one row for several, by `keys` and `values` of its `layers`. Nothing is copied: the layers
    grow by joining tensors, never in place. Seen on transformers 5.23.0.
    """
    shared = copy.copy(past)
    shared.layers = [copy.copy(layer) for layer in past.layers]
    for layer in shared.layers:
        if layer.get_seq_length():  # layers that use another one's keep nothing
            layer.keys, layer.values = (part.expand(rows, *part.shape[1:]) for part in (layer.keys, layer.values))
    return shared


def image_of_text(text: str) -> Any:
    """
    The picture that an image processor makes of a path, an URL, a `data:` URL or base64 text:
    `transformers.image_utils.load_image`. Seen on transformers 5.23.0; raises `ImportError` where it is missing.
    """
    return imported("transformers", "transformers.image_utils", "load_image")(text)
