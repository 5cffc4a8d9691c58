"""
What is handed to vLLM, and what is made of its answers.

vLLM needs a GPU and is not run here: a stand-in takes its place behind TRL's class. It takes only calls that TRL's
signatures take, and decodes greedily with the very model that it is given.
"""

import copy
import inspect

import pytest
import torch
from peft import LoraConfig, get_peft_model
from trl.generation import vllm_generation

from hf_dataselect.engines.forward import vllm
from hf_dataselect.engines.forward.generation import generate, generate_ids
from hf_dataselect.engines.llm.local import LocalJudge
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.store.identity import model_identity
from hf_dataselect.training.config import DataSelectingConfig
from tests.tiny import SENTENCES, tiny_model, tiny_tokenizer


REAL = vllm_generation.VLLMGeneration
PLAIN, SERVED = Runtime(batch_tokens=200), Runtime(batch_tokens=200, vllm_memory=0.5)


class StandIn:
    made: list = []

    def __init__(self, *given, **options):
        bound = inspect.signature(REAL.__init__).bind(self, *given, **options)
        bound.apply_defaults()
        vars(self).update(bound.arguments)
        self.prompts = []
        assert self.mode == "colocate" and self.enable_sleep_mode and self.temperature == 0.0
        StandIn.made.append(self)

    @torch.no_grad()
    def generate(self, *given):
        prompts, images, number = inspect.signature(REAL.generate).bind(self, *given).args[1:]
        assert images is None and number == 1 and self.generation_kwargs["ignore_eos"]
        assert max(map(len, prompts)) + self.max_completion_length <= self.max_model_length
        self.prompts += prompts
        answers = []
        for prompt in prompts:
            ids = list(prompt)
            while len(ids) < len(prompt) + self.max_completion_length:
                ids.append(int(self.model(torch.tensor([ids])).logits[0, -1].argmax()))
                if ids[-1] in self.generation_kwargs["stop_token_ids"]:
                    break
            answers.append(ids[len(prompt) :])
        return prompts, answers, None, None


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    monkeypatch.setattr(vllm_generation, "VLLMGeneration", StandIn)
    monkeypatch.setattr(vllm, "is_vllm_available", lambda: True)
    monkeypatch.setattr(StandIn, "made", [])
    monkeypatch.setattr(vllm, "_kept", {})


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def model(tokenizer):
    model = tiny_model(tokenizer)
    model.name_or_path = "here/or/there"
    # Of what the model says by itself, some tokens end answers early.
    ids = torch.tensor([tokenizer(SENTENCES[0]).input_ids])
    model.generation_config.eos_token_id = [2, int(model(ids).logits[0, -1].argmax())]
    return model


@pytest.fixture(scope="module")
def prompts(tokenizer):
    return [tokenizer(sentence[:size]).input_ids for sentence in SENTENCES for size in (7, 20, 300)]


def test_answers_are_those_of_our_own_greedy_decoding(model, tokenizer, prompts):
    found = generate_ids(model, tokenizer, prompts * 2, SERVED, max_new_tokens=9)
    assert found == generate_ids(model, tokenizer, prompts * 2, PLAIN, max_new_tokens=9)
    assert {len(ids) for ids in found} > {9} and min(map(len, found)) < 9, "some end early, some are cut"
    (engine,) = StandIn.made
    assert engine.gpu_memory_utilization == 0.5 and len(engine.prompts) == len(set(map(tuple, prompts))), (
        "each prompt once"
    )
    texts = [generate(model, tokenizer, prompts, runtime, max_new_tokens=9) for runtime in (SERVED, PLAIN)]
    assert texts[0] == texts[1] and len(StandIn.made) == 1, "one engine serves all calls"
    assert engine.model is None, "and holds no model between them"


def test_an_engine_serves_new_weights_and_a_longer_prompt_gets_a_wider_one(model, tokenizer, prompts):
    generate_ids(model, tokenizer, prompts[:2], SERVED, max_new_tokens=9)
    other = tiny_model(tokenizer, seed=1)
    other.name_or_path = model.name_or_path
    found = generate_ids(other, tokenizer, prompts[:2], SERVED, max_new_tokens=9)
    assert found == generate_ids(other, tokenizer, prompts[:2], PLAIN, max_new_tokens=9) and len(StandIn.made) == 1
    generate_ids(model, tokenizer, prompts, SERVED, max_new_tokens=9)
    assert len(StandIn.made) == 2 and len(vllm._kept) == 1


def test_an_adapter_is_merged_into_a_copy(model, tokenizer, prompts):
    tuned = get_peft_model(model, LoraConfig(target_modules="all-linear", r=2, init_lora_weights=False)).eval()
    before = model_identity(tuned)
    found = generate_ids(tuned, tokenizer, prompts, SERVED, max_new_tokens=9)
    assert found == generate_ids(tuned, tokenizer, prompts, PLAIN, max_new_tokens=9)
    assert model_identity(tuned) == before, "not a bit of the weights has changed"


def test_a_judge_asks_through_it_and_keeps_replies_apart(model, tokenizer, tmp_path):
    asked = [[{"role": "user", "content": sentence}] for sentence in SENTENCES]
    own = LocalJudge("", model, tokenizer, Runtime(cache_dir=tmp_path, dtype="float32")).ask(asked, max_new_tokens=5)
    judge = LocalJudge("", model, tokenizer, Runtime(cache_dir=tmp_path, dtype="float32", vllm_memory=0.5))
    assert judge.ask(asked, max_new_tokens=5) == own and judge.cost.calls == len(asked)


def test_what_vllm_can_not_build_is_refused(model, tokenizer, prompts):
    nameless = copy.copy(model)
    nameless.name_or_path = ""
    with pytest.raises(ValueError, match="`use_vllm`.*no name or folder"):
        generate_ids(nameless, tokenizer, prompts, SERVED, max_new_tokens=9)


def test_a_run_is_refused_before_anything_loads(tmp_path, monkeypatch):
    options = {"output_dir": str(tmp_path), "use_vllm": True, "report_to": "none", "bf16": False, "use_cpu": True}
    assert DataSelectingConfig(**options).runtime(None).vllm_memory == 0.3
    assert DataSelectingConfig(**{**options, "use_vllm": False}).runtime(None).vllm_memory is None
    with pytest.raises(ValueError, match=r"`vllm_gpu_memory_utilization=1.5`"):
        DataSelectingConfig(**options, vllm_gpu_memory_utilization=1.5)
    monkeypatch.setattr(vllm, "is_vllm_available", lambda: False)
    with pytest.raises(ImportError, match="`use_vllm` needs vLLM: `pip install vllm`"):
        DataSelectingConfig(**options)
