"""Rows and a context small enough for a test."""

import dataclasses
import random
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ..context import Context
from ..data.chat_template import default_chat_template
from ..data.records import Records
from ..engines.runtime.runtime import Runtime


WORDS = ("red", "green", "blue", "fox", "river", "stone", "cloud", "letter", "seven", "quick", "slow", "bright")


def sample_rows(n: int = 24, seed: int = 0) -> Dataset:
    """Rows with `instruction`, `input`, `output` of different lengths, and a `score` with ties."""
    rng = random.Random(seed)

    def words(low: int, high: int) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(low, high)))

    def row() -> dict[str, Any]:
        texts = {"instruction": f"Write about {words(2, 6)}.", "input": rng.choice(["", "", words(1, 4)])}
        return texts | {"output": words(1, 12).capitalize() + ".", "score": float(rng.randint(0, 9))}

    return Dataset.from_list([row() for _ in range(n)])


def tiny_context(**options: Any) -> Context:
    """
    A context with a random Llama of two layers, a tokenizer of bytes and three target-task examples.

    Args:
        **options:
            Of [`Context`] and [`Runtime`], in place of the defaults.
    """
    tokens = ["<pad>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bpe = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, []))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", pad_token="<pad>")
    tokenizer.chat_template = default_chat_template(tokenizer)
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.2,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
    target = Records(sample_rows(3, seed=9), name="selection_target")
    given = {"tokenizer": tokenizer, "model": model, "target": target, "max_length": 256, "dtype": "float32"} | options
    own = {field.name for field in dataclasses.fields(Runtime)} & given.keys()
    return Context(runtime=Runtime(**{name: given.pop(name) for name in own}), **given)
