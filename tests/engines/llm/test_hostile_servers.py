"""Servers that drip, flood, ask to wait for a day, count wrongly or say the key: each costs little, and is named."""

import time

import pytest

from hf_dataselect.engines.llm import chat_completion
from hf_dataselect.engines.llm import server as judge_server
from hf_dataselect.engines.llm.judge_options import JudgeOptions
from hf_dataselect.engines.llm.keys import redacted
from hf_dataselect.engines.llm.load import load_judge
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.errors import JudgeError
from tests.faulty_server import FaultyServer


pytest.importorskip("openai")

KEY, HUB_TOKEN = "sk-secret-0123456789abcdef", "hf_0123456789abcdef"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", HUB_TOKEN)
    monkeypatch.setattr(judge_server, "FIRST_PAUSE", 0.02)


@pytest.fixture
def ask(monkeypatch, tmp_path):
    """A function that asks a server some questions."""

    def asked(server: FaultyServer, questions: int, **options):
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        judge = load_judge("openai:m", JudgeOptions(**options), Runtime(cache_dir=tmp_path))
        return judge, judge.ask([[{"role": "user", "content": f"rate {i}"}] for i in range(questions)])

    return asked


def test_a_call_has_a_deadline_though_the_server_never_falls_silent(ask):
    with FaultyServer(lambda question, attempt: "drip" if question == "rate 1" else None) as server:
        began = time.monotonic()
        judge, replies = ask(server, 3, timeout=0.5, retries=1)
        assert time.monotonic() - began < 10, "the whole reply takes about 15 s"
        assert [reply.text for reply in replies] == ["0", None, "2"]
        assert replies[1].problem == "no reply within 0.5 s, 2 tries" and judge.cost.retries == 1
        deadline = time.monotonic() + 10
        while server.running and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not server.running, "the connection is closed, and the server sees it"


@pytest.mark.parametrize("fault", ["endless", "endless error", "bomb"])
def test_no_more_is_read_than_a_reply_may_hold(ask, fault):
    with FaultyServer(lambda question, attempt: fault if question == "rate 1" else None) as server:
        judge, replies = ask(server, 3)
        assert [reply.text for reply in replies] == ["0", None, "2"]
        assert replies[1].problem == "the response is longer than 8 MiB"
        assert server.sent < 8 * chat_completion.MOST_BYTES and server.calls["rate 1"] == 1
        _, again = ask(server, 3)
        assert again == replies and server.calls == {"rate 0": 1, "rate 1": 2, "rate 2": 1}, "it may have passed"


def test_a_reply_nested_too_deeply_is_no_reply(ask):
    with FaultyServer(lambda question, attempt: "deep") as server:
        _, (reply,) = ask(server, 1, retries=0)
        assert reply.text is None and "no JSON" in reply.problem


def test_a_pause_is_told_and_bounded(ask, monkeypatch, caplog):
    monkeypatch.setattr(judge_server, "TOLD_PAUSE", 0.1)

    def fault(question, attempt):
        return "429" if attempt == 1 else None

    with FaultyServer(fault) as server:
        assert [reply.text for reply in ask(server, 8)[1]] == [str(i) for i in range(8)]
        told = [message for message in caplog.messages if "because the server asks for it, until" in message]
        assert 1 <= len(told) < 8, "and not once a call"
    with FaultyServer(lambda question, attempt: fault(question, attempt + 1) or "429 for a day") as server:
        with pytest.raises(JudgeError, match=r"asks to wait for 100,000 s, until 2\d+-.*max_wait=600.*are not asked"):
            ask(server, 30, concurrency=4)
        assert sum(server.calls.values()) <= 4
        assert ask(server, 1, retries=0)[1][0].problem.startswith("HTTP 429")


def test_only_a_count_of_tokens_that_can_be_one_is_believed(ask):
    with FaultyServer(
        lambda question, attempt: {"0": "absurd usage", "1": "usage in words"}.get(question[-1])
    ) as server:
        judge, replies = ask(server, 3, price_in=1, price_out=1)
        assert [reply.text for reply in replies] == ["0", "1", "2"]
        assert judge.cost.prompt_tokens == 10 and judge.cost.completion_tokens == 2 and judge.cost.unmetered == 2
        assert judge.cost.money == pytest.approx(12e-6)


def test_keys_of_the_environment_are_in_no_reply(ask, tmp_path, caplog):
    said = f"4\nAuthorization: Bearer {KEY}, {HUB_TOKEN}"
    with FaultyServer(
        lambda question, attempt: "400" if question == "rate 1" else None, lambda question: said
    ) as server:
        _, (reply, refused) = ask(server, 2)
    assert reply.text == "4\nAuthorization: Bearer ***, ***" and "refused for Bearer ***" in refused.problem
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()).decode()
    for text in (kept, caplog.text):
        assert "***" in text and KEY not in text and HUB_TOKEN not in text


def test_placeholders_for_a_key_are_words_like_others(monkeypatch):
    for name, value in {
        "OPENAI_API_KEY": "none",
        "SORT_KEY": "response",
        "DB_PASSWORD": "international-trade",
    }.items():
        monkeypatch.setenv(name, value)
    said = "none of it, a response on international-trade, hf_0123456789abcdef but"
    assert redacted(said) == said.replace("hf_0123456789abcdef", "***")
