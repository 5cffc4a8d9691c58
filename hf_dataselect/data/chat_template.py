"""Tokenizers and processors: the template that one without gets, and the options by which TRL sets it."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..compat.transformers import vocabulary
from ..engines.runtime.loading import tokenizer_of
from ..engines.store.identity import digest


#: For a tokenizer without a chat template. Needs no special token besides the end-of-sequence token.
DEFAULT_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '### Assistant:\\n' }}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ '### ' + message['role'] | capitalize + ':\\n' + message['content'] + '\\n\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Assistant:\\n' }}{% endif %}"
)


def default_chat_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The default chat template; begins with the beginning-of-sequence token where the tokenizer adds one itself."""
    return ("{{ bos_token }}" if adds_bos(tokenizer) else "") + DEFAULT_CHAT_TEMPLATE


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer adds a beginning-of-sequence token to a text by itself."""
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]


def check_tokens(tokenizer: Any, eos_token: str | None, path: str | None, pad_token: str | None) -> None:
    """
    Check what [`set_template`] will set.

    Raises:
        `ValueError`: a missing or unknown end-of-sequence or padding token, or no such file of a template.
    """
    if (eos_token or tokenizer.eos_token) is None:
        raise ValueError("The tokenizer has no end-of-sequence token, so no model can learn to stop: set `eos_token`.")
    # A padding token may come with the tokenizer that the template is taken from.
    for option, token in (("eos_token", eos_token), ("pad_token", None if path else pad_token)):
        if token is not None and token not in tokenizer.get_vocab():
            raise ValueError(f"`{option}={token!r}` is not in the vocabulary of the tokenizer.")
    if path is not None and path.endswith((".jinja", ".j2")) and not Path(path).is_file():
        raise ValueError(f"`chat_template_path={path!r}`: there is no such file.")


def set_template(processing_class: Any, args: Any) -> None:
    """`eos_token`, `chat_template_path` and `pad_token` as TRL's trainer sets them, with the model's part left out."""
    tokenizer, path = tokenizer_of(processing_class), args.chat_template_path
    if args.eos_token is not None:
        tokenizer.eos_token = args.eos_token
    if path is not None and path.endswith((".jinja", ".j2")) and Path(path).is_file():
        processing_class.chat_template = Path(path).read_text(encoding="utf-8")
    elif path is not None:
        source = AutoTokenizer.from_pretrained(path)
        processing_class.chat_template = source.get_chat_template()
        tokenizer.add_tokens(
            [token for token in source.added_tokens_decoder.values() if token.content not in tokenizer.vocab]
        )
        tokenizer.eos_token = source.eos_token
    tokenizer.pad_token = getattr(args, "pad_token", None) or tokenizer.pad_token or tokenizer.eos_token


def tokenizer_key(tokenizer: PreTrainedTokenizerBase, rest: list) -> str:
    """Hash of a tokenizer, without the truncation and the padding of its last call, and of what JSON can hold."""
    return _key(vocabulary(tokenizer), json.dumps(rest))


@lru_cache(maxsize=8)
def _key(tokenizer: str, rest: str) -> str:
    known = json.loads(tokenizer)
    known = known | {"truncation": None, "padding": None} if isinstance(known, dict) else known
    return digest([known, *json.loads(rest)])
