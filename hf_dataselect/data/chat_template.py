"""Tokenizers and processors: the template that one without gets, and the options by which TRL sets it."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase, ProcessorMixin


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


def set_template(processing_class: Any, eos_token: str | None, path: str | None) -> None:
    """`eos_token` and `chat_template_path` as TRL's trainer sets them, with the model's part left out."""
    tokenizer = tokenizer_of(processing_class)
    if eos_token is not None:
        tokenizer.eos_token = eos_token
    if path is None:
        return
    if path.endswith((".jinja", ".j2")) and Path(path).is_file():
        processing_class.chat_template = Path(path).read_text(encoding="utf-8")
        return
    source = AutoTokenizer.from_pretrained(path)
    processing_class.chat_template = source.get_chat_template()
    tokenizer.add_tokens(
        [token for token in source.added_tokens_decoder.values() if token.content not in tokenizer.vocab]
    )
    tokenizer.eos_token = source.eos_token


def tokenizer_of(processing_class: Any) -> Any:
    """The tokenizer of a processor; a tokenizer itself."""
    return processing_class.tokenizer if isinstance(processing_class, ProcessorMixin) else processing_class
