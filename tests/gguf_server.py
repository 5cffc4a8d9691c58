"""A real OpenAI-compatible server (llama.cpp), also of the tiny model; skips where its packages are not there."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest


_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_PARTS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@contextmanager
def llama_server(gguf: Path) -> Iterator[str]:
    """
    Base URL of a server of this GGUF file. Caches are float32 and no prompt is begun where the last one ended, so that
    a reply depends on neither the cache's rounding nor the order of the questions.
    """
    xllamacpp = pytest.importorskip("xllamacpp", reason="the server needs xllamacpp: pip install xllamacpp")
    options = xllamacpp.CommonParams()
    options.model.path, options.n_ctx, options.port, options.verbosity = str(gguf), 2048, 0, 0
    options.n_parallel, options.cache_prompt = 1, False
    options.cache_type_k = options.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(options)
    yield f"{server.listening_address}/v1"
    del server


def write_gguf(model, tokenizer, path: Path) -> Path:
    """A tiny Llama of [`tests.tiny`] as a GGUF file in float32."""
    gguf = pytest.importorskip("gguf", reason="the file of the server's model needs gguf: pip install gguf")
    config, writer = model.config, gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(len(tokenizer))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if i in tokenizer.added_tokens_decoder else normal for i in range(len(tokenizer))])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)
    template = tokenizer.chat_template
    for tag in ("{% generation %}", "{% endgeneration %}", "{{ bos_token }}"):  # unknown there, or set by a default
        template = template.replace(tag, "")
    writer.add_chat_template(template)
    for name, tensor in model.state_dict().items():
        name, values = name.removesuffix(".weight"), tensor.float().numpy()
        layer, _, part = name.removeprefix("model.layers.").partition(".")
        if part in ("self_attn.q_proj", "self_attn.k_proj"):  # rotary pairs side by side there, halves apart here
            heads = config.num_attention_heads if part[10] == "q" else config.num_key_value_heads
            halves = values.reshape(heads, 2, len(values) // heads // 2, -1)
            values = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))
        writer.add_tensor(f"{_NAMES.get(name) or f'blk.{layer}.{_PARTS[part]}'}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
