"""Replies that earlier versions have kept are found again: their keys, hard-coded, are those of commit 477128e."""

import pytest

from hf_dataselect.engines.llm import local_model
from hf_dataselect.engines.llm.generator import Generator
from hf_dataselect.engines.llm.judge_options import JudgeOptions
from hf_dataselect.engines.llm.local import LocalJudge
from hf_dataselect.engines.llm.reward_model import RewardModel
from hf_dataselect.engines.llm.server import ServerJudge
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.store.replies import Reply, ReplyStore
from tests.engines.llm.test_local import reward_model
from tests.tiny import tiny_model, tiny_tokenizer


ASKED = [[{"role": "system", "content": "Judge."}, {"role": "user", "content": "rate half \ud800 a pair"}]]
KEYS = {
    "server": "bdb0ff815c4d1ed83494dff6a27d1cbf",
    "server without temperature": "090a49e88479182a834c63600524d06d",
    "self": "cd941cee84007a4ba4de25e9e145efcd",
    "self by vLLM": "c18a722a82fb73f79f069ab94526f53c",
    "model": "08ce23b049acece1500a4c1863f94301",
    "generator": "429334f490868975b403da5ca190a957",
    "generator, no prompt": "f9442d0e0328cf7682f5c0fbbce814eb",
    "generator by vLLM": "24e7ff62163a0bd31452dc4da467a72d",
}


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A function from the name of a key to what asks with it, and what it asks; all weights are the same."""
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setattr(local_model, "identity_of", lambda model: "weights")
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)

    def make(name: str):
        runtime = Runtime(cache_dir=tmp_path, vllm_memory=0.5 if "vLLM" in name else None)
        if name.startswith("server"):
            options = JudgeOptions(temperature=None) if "without" in name else None
            return ServerJudge("judge-1", runtime, options)
        if name.startswith("generator"):
            return Generator(model, tokenizer, runtime, "rendering")
        return LocalJudge("org/m" if name == "model" else "", model, tokenizer, runtime)

    return make


@pytest.mark.parametrize("name", KEYS)
def test_replies_of_earlier_versions_are_found(models, name, tmp_path):
    ReplyStore(tmp_path / "judge").append(KEYS[name], "j", Reply("kept"))
    model = models(name)
    if name.startswith("generator"):
        (reply,) = model.generate([[] if "no prompt" in name else [5, 6, 7]], max_new_tokens=7)
    else:
        (reply,) = model.ask(ASKED, max_new_tokens=7)
    assert reply == Reply("kept") and model.cost.calls == 0


def test_identities_that_rules_were_fitted_with_are_the_same(models, monkeypatch):
    reward = RewardModel("r", reward_model(tiny_tokenizer()), tiny_tokenizer(), Runtime())
    assert models("model").identity == reward.identity == "26e2b3c9c98ffa695498abf8"
    assert models("self").identity == "ae18bc79af269bd322b8fdb1"
    assert models("server").identity == "ce05f78298409ee2c3cce6ad"
