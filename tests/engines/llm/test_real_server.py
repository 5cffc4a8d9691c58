"""A real server, llama.cpp behind its OpenAI-compatible address, answers the judge over HTTP."""

import numpy as np
import pytest

from hf_dataselect.engines.llm.judge_options import JudgeOptions
from hf_dataselect.engines.llm.load import load_judge
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.evaluation.judging.win_rate import win_rate
from tests.engines.llm.test_local import conversations
from tests.gguf_server import llama_server, write_gguf
from tests.shared_data import gguf_path
from tests.tiny import tiny_model, tiny_tokenizer


pytest.importorskip("openai")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_a_server_says_word_for_word_what_the_model_says_here(tmp_path, monkeypatch):
    tokenizer = tiny_tokenizer()
    model, asked = tiny_model(tokenizer), conversations(12)
    local = load_judge("self", runtime=Runtime(dtype="float32"), model=model, tokenizer=tokenizer).ask(
        asked, max_new_tokens=8
    )
    with llama_server(write_gguf(model, tokenizer, tmp_path / "tiny.gguf")) as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        judge = load_judge("openai:tiny", JudgeOptions(concurrency=4), runtime=Runtime(cache_dir=tmp_path))
        replies = judge.ask(asked, max_new_tokens=8)
    # The server leaves out a character whose bytes did not all come. And where an untrained model finds two tokens
    # equally likely, two ways to sum may choose differently: one reply may be another.
    same = [mine.text.rstrip("\ufffd") == its.text.rstrip("\ufffd") for mine, its in zip(replies, local, strict=True)]
    assert sum(same) >= len(asked) - 1
    assert [r.prompt_tokens for r in replies] == [r.prompt_tokens for r in local]
    assert all(
        (mine.completion_tokens, mine.cut) == (its.completion_tokens, its.cut)
        for mine, its, equal in zip(replies, local, same, strict=True)
        if equal
    )
    again = load_judge("openai:tiny", runtime=Runtime(cache_dir=tmp_path))  # the server is gone by now
    assert again.ask(asked, max_new_tokens=8) == replies and again.cost.calls == 0


def test_smollm2_compares_answers(tmp_path, monkeypatch):
    questions = ["What is the capital of France?", "Count to three."]
    mine, other = ["The capital of France is Paris.", "1, 2, 3"], ["I do not know.", "1, 2, 3"]
    with llama_server(gguf_path()) as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        judge = load_judge("openai:smollm2", runtime=Runtime(cache_dir=tmp_path))
        found = win_rate(mine, other, judge, questions, max_new_tokens=6)[""]
        assert judge.cost.calls == 2 and judge.cost.failed == 0 and judge.cost.prompt_tokens > 300
        assert sum(found.counts.values()) == 2 and found.outcomes[1] == 0
        asked = [{"role": "user", "content": "Write only the number five as a digit."}]
        (reply,) = judge.ask([asked], max_new_tokens=8)
        assert reply.text.strip() and 0 < reply.completion_tokens <= 8
    again = load_judge("openai:smollm2", runtime=Runtime(cache_dir=tmp_path))
    np.testing.assert_array_equal(win_rate(mine, other, again, questions, max_new_tokens=6)[""].orders, found.orders)
    assert again.cost.calls == 0
