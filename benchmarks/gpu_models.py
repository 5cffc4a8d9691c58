"""Models at random weights and rows of random tokens or words, in the sizes of real ones, for `gpu.py`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hf_dataselect.data.chat_template import default_chat_template
from hf_dataselect.engines.gradients.adam import AdamState
from hf_dataselect.engines.gradients.layers import lora_layers
from hf_dataselect.engines.runtime.token_rows import TokenRows


@dataclass(frozen=True)
class Shape:
    """A model of random weights, and how much of each part is measured with it."""

    hidden: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int
    rows: int = 12
    plain_rows: int = 6
    gradients: int = 4
    pairs: tuple[int, int] = (2, 4)
    #: Tokens of a row, at most.
    longest: int = 64


TINY = Shape(32, 64, 2, 4, 2, 512)
SHAPES = {
    "135M": Shape(576, 1536, 30, 9, 3, 49152, 8000, 800, 512, (32, 64), 512),
    "1B": Shape(2048, 8192, 16, 32, 8, 128256, 4000, 400, 256, (16, 32), 512),
    "7B": Shape(4096, 11008, 32, 32, 32, 32000, 1000, 160, 64, (8, 16), 512),
}
#: A Llama of the size of GPT-2.
GPT2 = Shape(768, 3072, 12, 12, 12, 50257)


def random_model(shape: Shape, device: torch.device) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        tie_word_embeddings=shape.vocabulary > 32000,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    with device:
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


def random_rows(n: int, shape: Shape) -> TokenRows:
    """Tokens of prompts and answers, as many as rows of Alpaca have."""
    longest, vocabulary = shape.longest, shape.vocabulary
    draw = np.random.default_rng(0)
    prompts = np.clip(draw.lognormal(3.3, 0.5, n), 8, longest // 2).astype(int)
    answers = np.clip(draw.lognormal(3.8, 0.9, n), 2, longest // 2).astype(int)
    ids = [draw.integers(3, vocabulary, p + a).tolist() for p, a in zip(prompts, answers, strict=True)]
    return TokenRows.from_lists(ids, [[(int(p), int(p + a))] for p, a in zip(prompts, answers, strict=True)])


def random_texts(n: int, words: int) -> tuple[Dataset, PreTrainedTokenizerFast]:
    """Instructions and answers, as long as those of Alpaca, and a tokenizer that makes a token of each word."""
    draw, known = np.random.default_rng(0), [f"w{number}" for number in range(words)]

    def texts(mean: float, sigma: float) -> list[str]:
        sizes = np.clip(draw.lognormal(mean, sigma, n), 2, 250).astype(int)
        return [" ".join(known[number] for number in draw.integers(0, words, size)) for size in sizes]

    rows = Dataset.from_dict({"instruction": texts(2.7, 0.5), "input": [""] * n, "output": texts(3.8, 0.9)})
    vocabulary = {word: number for number, word in enumerate(["<pad>", "</s>", "<unk>", *known])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    tokenizer.chat_template = default_chat_template(tokenizer)
    return rows, tokenizer


@contextmanager
def adapted(model: LlamaForCausalLM) -> Iterator[Any]:
    """The model with LoRA on all linear layers, B not zero; afterwards without."""
    tuned = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")).eval()
    for layer in lora_layers(tuned).values():
        torch.nn.init.normal_(layer.weight, std=0.02)
    try:
        yield tuned
    finally:
        tuned.unload()


def some_state(model: Any) -> AdamState:
    """Moments as an optimizer would hold them; their values cost nothing."""
    weights = {f"{name}.weight": layer.weight for name, layer in lora_layers(model).items()}
    first = {name: torch.randn_like(weight) * 1e-3 for name, weight in weights.items()}
    return AdamState(first, {name: torch.rand_like(weight) * 1e-5 for name, weight in weights.items()})
