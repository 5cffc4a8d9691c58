"""Models that are no causal language models, given as objects and by name."""

import json

import pytest
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BartForCausalLM,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertLMHeadModel,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlamaModel,
    T5Config,
)
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config

from hf_dataselect import select_dataset
from hf_dataselect.engines.runtime.loading import check_causal_lm, load_pretrained, load_tuned_model
from hf_dataselect.engines.runtime.runtime import Runtime
from tests.rows import alpaca
from tests.tiny import tiny_evaluator, tiny_gpt2, tiny_model, tiny_tokenizer
from tests.tiny_training import tiny_trainer


TOKENIZER = tiny_tokenizer()
SHAPE = {
    "vocab_size": 96,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
BART = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
BART |= {"vocab_size": 96, "encoder_attention_heads": 2, "decoder_attention_heads": 2}

OTHERS = {
    "T5": (lambda: tiny_evaluator(TOKENIZER), "T5ForConditionalGeneration is an encoder-decoder"),
    "BART": (lambda: BartForConditionalGeneration(BartConfig(**BART)), "is an encoder-decoder"),
    "masked": (lambda: BertForMaskedLM(BertConfig(**SHAPE)), "BertForMaskedLM has no head that predicts the next"),
    "encoder": (lambda: BertLMHeadModel(BertConfig(**SHAPE)), "BertLMHeadModel attends to later tokens"),
    "classifier": (lambda: LlamaForSequenceClassification(LlamaConfig(**SHAPE)), "has no head that predicts the next"),
    "headless": (lambda: LlamaModel(LlamaConfig(**SHAPE)), "LlamaModel has no head that predicts the next"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_model_that_is_no_causal_language_model_is_refused(kind):
    build, message = OTHERS[kind]
    with pytest.raises(ValueError, match=f"`model`: .*{message}"):
        check_causal_lm(build())


def test_decoders_pass():
    decoder = BertLMHeadModel(BertConfig(**SHAPE, is_decoder=True))
    adapted = get_peft_model(tiny_model(TOKENIZER, layers=1), LoraConfig(task_type="CAUSAL_LM"))
    for model in (decoder, adapted, tiny_gpt2(), BartForCausalLM(BartConfig(**BART)), None, "gpt2"):
        check_causal_lm(model)


def test_an_adapter_does_not_hide_the_model():
    with pytest.raises(ValueError, match="T5ForConditionalGeneration is an encoder-decoder"):
        check_causal_lm(get_peft_model(tiny_evaluator(TOKENIZER), LoraConfig(target_modules=["q"])))


@pytest.mark.parametrize(
    ("config", "name", "message"),
    [
        (T5Config(vocab_size=96), "T5ForConditionalGeneration", "T5ForConditionalGeneration is an encoder-decoder"),
        (BertConfig(**SHAPE), "BertForMaskedLM", "BertForMaskedLM has no head"),
        (BertConfig(**SHAPE), "BertLMHeadModel", "attends to later tokens"),
        (LlamaConfig(**SHAPE), "LlamaModel", "LlamaModel has no head"),
    ],
)
def test_one_by_name_is_refused_by_its_configuration_before_weights_load(config, name, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict() | {"architectures": [name]}))
    with pytest.raises(ValueError, match=message):
        load_tuned_model(str(tmp_path))  # which has no weights


@pytest.mark.parametrize("method", ["perplexity", "ifd", "full", "random"])
def test_the_trainer_refuses_an_encoder_decoder_whatever_the_method(method, tmp_path):
    with pytest.raises(ValueError, match="T5ForConditionalGeneration is an encoder-decoder"):
        tiny_trainer(tmp_path, method, model=tiny_evaluator(TOKENIZER), processing_class=TOKENIZER)


def test_selecting_for_any_trainer_refuses_it_too():
    with pytest.raises(ValueError, match="T5ForConditionalGeneration is an encoder-decoder"):
        select_dataset(alpaca(4), "perplexity", tiny_evaluator(TOKENIZER), TOKENIZER, budget=2)
    assert len(select_dataset(alpaca(4), "length", None, TOKENIZER, budget=2)[0]) == 2


def test_a_model_of_a_method_s_own_is_whole_where_zero_3_shards_those_that_load(tmp_path):
    model, zero3 = tiny_model(TOKENIZER), HfDeepSpeedConfig({"zero_optimization": {"stage": 3}})
    for part in (model, TOKENIZER):
        part.save_pretrained(tmp_path)
    set_hf_deepspeed_config(zero3)
    try:
        loaded, _ = load_pretrained(AutoModelForCausalLM, str(tmp_path), Runtime())
        with pytest.raises(Exception, match="deepspeed"):  # which is not installed, or makes no ranks here
            load_tuned_model(str(tmp_path))
    finally:
        unset_hf_deepspeed_config()
    assert all(mine.equal(other) for mine, other in zip(loaded.parameters(), model.parameters(), strict=True))
