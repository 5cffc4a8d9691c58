"""A model and a tokenizer small enough for every test: built in code, seeded, nothing read or downloaded."""

import dataclasses

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from hf_dataselect.context import Context
from hf_dataselect.engines.runtime.runtime import Runtime


SENTENCES = [
    "Name three primary colours. The primary colours are red, blue and yellow.",
    "Write a short story about a fox who learns to read, and explain why the story matters.",
    "What is the capital of France? The capital of France is Paris.",
    "def add(a, b):\n    return a + b\n",
    "写一首关于春天的诗。春天来了,花儿开了。",
]
SPECIAL = ["<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '</s>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ message['content'] + '</s>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def tiny_tokenizer(
    chat_template: bool = True, bos: bool = False, pad: bool = True, eos: bool = True
) -> PreTrainedTokenizerFast:
    """
    Byte-level BPE with 512 ids or fewer: any text comes back unchanged. The ids are the same for all arguments, which
    only say what the tokenizer declares: a chat template (ChatML-like, ends each turn with `</s>`), a BOS token, which
    it then also puts in front, a pad token, an EOS token.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(
            vocab_size=512,
            special_tokens=[AddedToken(token, special=True) for token in SPECIAL],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    if bos:
        bpe.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", SPECIAL.index("<s>"))]
        )
    declared = {"bos_token": bos and "<s>", "eos_token": eos and "</s>", "pad_token": pad and "<pad>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        clean_up_tokenization_spaces=False,
        **{name: token for name, token in declared.items() if token},
    )
    if chat_template:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tiny_model(
    tokenizer: PreTrainedTokenizerFast, seed: int = 0, layers: int = 2, hidden: int = 64
) -> LlamaForCausalLM:
    """
    Random Llama in float32 and eval mode; the caller's random state is left alone. The weights are ten times the usual
    size, so that losses differ from token to token and greedy answers from prompt to prompt (with the usual size every
    token costs about log(vocabulary)).
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.2,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def tiny_mixtral(tokenizer: PreTrainedTokenizerFast) -> MixtralForCausalLM:
    """Random mixture of four experts, seeded as [`tiny_model`]."""
    config = MixtralConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        initializer_range=0.2,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MixtralForCausalLM(config).eval()


def tiny_gpt2() -> GPT2LMHeadModel:
    """Random GPT-2, seeded: learned positions, and convolutions in place of linear layers."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(GPT2Config(vocab_size=96, n_positions=64, n_embd=32, n_layer=2, n_head=4))


def with_lora(model: torch.nn.Module, std: float, seed: int = 0, **options) -> PeftModel:
    """The model with a LoRA adapter whose B is not zero."""
    torch.manual_seed(seed)
    options = {"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **options}
    model = get_peft_model(model, LoraConfig(**options))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=std)
    return model


def tiny_evaluator(tokenizer: PreTrainedTokenizerFast) -> T5ForConditionalGeneration:
    """Random encoder-decoder, seeded as [`tiny_model`]."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return T5ForConditionalGeneration(config).eval()


def context_of(tokenizer, model=None, **given) -> Context:
    """A [`Context`] whose [`Runtime`] takes the arguments that are its own."""
    names = {field.name for field in dataclasses.fields(Runtime)} & given.keys()
    runtime = Runtime(**{name: given.pop(name) for name in names})
    return Context(tokenizer, model, runtime=runtime, **given)
