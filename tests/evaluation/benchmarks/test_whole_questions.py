"""Chats and several turns in every kind of benchmark: what the model reads, what is kept, and what the judge sees."""

import copy
import json
import re

import numpy as np
import pytest

from hf_dataselect.context import Context
from hf_dataselect.engines.forward.generation import generate
from hf_dataselect.engines.forward.likelihood import likelihood
from hf_dataselect.engines.llm.reward_model import RewardModel
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.evaluation.benchmark import load_benchmarks
from hf_dataselect.evaluation.judging.judge_check import load_pairs
from hf_dataselect.evaluation.judging.win_rate import read_answers, win_rate
from hf_dataselect.training.config import DataSelectingConfig
from tests.engines.llm.test_local import reward_model
from tests.evaluation.benchmarks.test_mt_bench import Scripted as Grader
from tests.evaluation.benchmarks.test_multiple_choice import context, plain_loss, write
from tests.evaluation.judging.test_win_rate import Scripted
from tests.evaluation.test_metrics import local_metric
from tests.rows import alpaca_rows
from tests.tiny import tiny_tokenizer


SYSTEM = {"role": "system", "content": "Be brief."}
CHAT = [
    SYSTEM,
    {"role": "user", "content": "One and two?"},
    {"role": "assistant", "content": "3"},
    {"role": "user", "content": "And four?"},
]
READ = "<|system|>\nBe brief.</s>\n<|user|>\nOne and two?</s>\n<|assistant|>\n3</s>\n<|user|>\nAnd four?</s>\n"


def loaded(kind: str, dataset: str, **options):
    (benchmark,) = load_benchmarks([{"kind": kind, "dataset": dataset, "max_new_tokens": 6, **options}])
    benchmark.judge = "model:judge"
    benchmark.prepare()
    return benchmark


def answered(ctx: Context, text: str) -> str:
    ids = ctx.tokenizer(text + "<|assistant|>\n", add_special_tokens=False)["input_ids"]
    return generate(ctx.model, ctx.tokenizer, [ids], Runtime(batch_tokens=1536), max_new_tokens=6)[0]


def kept(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("kind", ["generation", "gsm8k", "instructions"])
@pytest.mark.parametrize("form", ["chat", "column"])
def test_the_model_reads_the_whole_chat(tmp_path, kind, form):
    row = {"prompt": CHAT} if form == "chat" else {"prompt": CHAT[1:], "system": "Be brief."}
    path = write(tmp_path, [{**row, "answer": "7"}], "chat.jsonl")
    ctx = context()
    loaded(kind, path, **({"template": "{question}"} if kind == "gsm8k" else {})).run(ctx, tmp_path)
    (line,) = kept(tmp_path / ("answers" if kind == "instructions" else "generated") / "chat.jsonl")
    assert line["answer"] == answered(ctx, READ) != answered(ctx, "<|user|>\nAnd four?</s>\n")
    assert line["messages"] == CHAT
    assert line["question"] == "[system]\nBe brief.\n\n[user]\nOne and two?\n\n[assistant]\n3\n\n[user]\nAnd four?"
    assert ctx.account.rows("unscorable") == {}


def test_several_turns_are_asked_one_after_the_other_and_the_last_answer_is_scored(tmp_path):
    rows = [{"turns": ["One and two?", "And four?"], "answer": "x"}, {"turns": ["Only once?"], "answer": "x"}]
    ctx, path = context(), write(tmp_path, rows, "turns.jsonl")
    first = answered(ctx, "<|user|>\nOne and two?</s>\n")
    second = answered(ctx, f"<|user|>\nOne and two?</s>\n<|assistant|>\n{first}</s>\n<|user|>\nAnd four?</s>\n")
    only = answered(ctx, "<|user|>\nOnly once?</s>\n")
    assert first != second
    for right, score in ((second, 1.0), (first, 0.0), ([["none"], [first, second]], 1.0)):
        rows[0]["answer"], rows[1]["answer"] = (right, [only]) if isinstance(right, list) else (right, only)
        rows[1]["answer"] = [[only]] if isinstance(right, list) else only
        found = loaded("generation", write(tmp_path, rows, "turns.jsonl")).run(ctx, tmp_path)
        assert found["turns/exact_match"].examples == [score, 1.0]
    assert [line["answer"] for line in kept(tmp_path / "generated" / "turns.jsonl")] == [[first, second], only]
    loaded("instructions", path).run(ctx, tmp_path)
    questions, answers = read_answers(tmp_path / "answers" / "turns.jsonl")
    assert answers["turns"] == [[first, second], only]
    assert questions["turns"] == [[{"role": "user", "content": turn} for turn in rows[0]["turns"]], "Only once?"]


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("form", ["list", "struct"])
def test_an_answer_that_is_any_of_the_right_ones_is_right(tmp_path, place, form):
    ctx, questions = context(), ["Say red.", "Say blue.", "Say it."]
    answers = [answered(ctx, f"<|user|>\n{text}</s>\n") for text in questions]
    right = [["none", "nothing"], ["none", "nothing"], []]
    for said, texts in zip(answers[:2], right[:2], strict=True):
        texts.insert(place, said)
    if form == "struct":
        right = [{"text": texts, "answer_start": [0] * len(texts)} for texts in right]
    rows = [{"question": text, "answers": texts} for text, texts in zip(questions, right, strict=True)]
    metrics = ["exact_match", "rouge", "chrf"]
    found = loaded("generation", write(tmp_path, rows, "qa.jsonl"), metrics=metrics).run(ctx)
    for name, best in (("exact_match", 1), ("rouge1", 1), ("chrf", 100)):
        examples = found[f"qa/{name}"].examples
        assert examples[:2] == pytest.approx([best, best]) and np.isnan(examples[2]), name
    assert ctx.account.rows("unscorable") == {"no reference answer": [2]}


def test_a_metric_of_one_reference_is_refused_before_any_answer(tmp_path):
    metric = local_metric(tmp_path, "of_texts_rate", "{'f1': 1.0}")
    path = write(tmp_path, [{"question": "A?", "answer": ["a", "b"]}], "qa.jsonl")
    with pytest.raises(ValueError, match="of_texts_rate' takes one reference for each example, and 1 examples"):
        loaded("generation", path, metrics=[metric])


def test_questions_that_can_not_be_asked_are_counted_by_reason(tmp_path):
    ctx = context()
    ctx.tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + ctx.tokenizer.chat_template
    )
    rows = [{"prompt": CHAT}, {"prompt": CHAT[1:]}, {"prompt": []}, {"prompt": [CHAT[2]]}]
    loaded("instructions", write(tmp_path, rows, "chat.jsonl")).run(ctx, tmp_path)
    assert ctx.account.rows("unscorable") == {
        "the chat template refuses the turns": [0],
        "no question": [2],
        "no turn of the user": [3],
    }
    assert [line["answer"] is None for line in kept(tmp_path / "answers" / "chat.jsonl")] == [True, False, True, True]


def test_the_grader_sees_the_whole_chat_and_all_references(tmp_path):
    judge = Grader(["Grade: 8", "Grade: 4", "Grade: 6"])
    rows = [
        {"question_id": 1, "turns": CHAT, "reference": [["7", "seven"]]},
        {"question_id": 2, "turns": [SYSTEM, *CHAT[1::2]], "reference": None},
    ]
    path = write(tmp_path, rows, "mt.jsonl")
    ctx = context(judge=judge)
    setting = loaded("mt_bench", path, judge_tokens=8).run(ctx, tmp_path)["mt/grade"]
    assert setting.examples == [8.0, 5.0]
    said = [line["answer"] for line in kept(tmp_path / "grades" / "mt.jsonl")]
    assert said[0] == answered(ctx, READ)

    def marks(text: str) -> dict[str, str]:
        return dict(re.findall(r"<(\w+) \w+>\n(.*?)\n</\1 ", text, re.DOTALL))

    assert marks(judge.asked[0]) == {
        "system_1": "Be brief.",
        "question_1": "One and two?",
        "answer_1": "3",
        "question_2": "And four?",
        "answer_2": said[0],
        "reference_1": "7",
        "reference_2": "seven",
    }
    assert marks(judge.asked[2]) == {
        "system_1": "Be brief.",
        "question_1": "One and two?",
        "answer_1": said[1],
        "question_2": "And four?",
        "answer_2": said[2],
    }


def test_the_judge_of_win_rates_sees_the_whole_question(tmp_path):
    for folder, said in (("one", "good 9"), ("two", "poor 3")):
        (tmp_path / folder / "answers").mkdir(parents=True)
        lines = [
            {"id": "0", "question": "x", "messages": CHAT, "answer": said},
            {"id": "1", "question": "x", "messages": [SYSTEM, *CHAT[1::2]], "answer": [said, f"then {said}"]},
            {"id": "2", "question": "Why?", "answer": said},
        ]
        write(tmp_path / folder / "answers", lines, "chat.jsonl")
    judge = Scripted()
    found = win_rate(tmp_path / "one", tmp_path / "two", judge)["chat"]
    assert found.outcomes.tolist() == [1, 1, 1]
    for text, parts in zip(judge.shown, [("Be brief.", "One and two?", "3", "And four?")] * 2, strict=False):
        assert all(part in text for part in parts) or "then good 9" in text
    assert "[assistant]\ngood 9\n\n[assistant]\nthen good 9" in judge.shown[1]
    write(tmp_path / "two" / "answers", [{**lines[0], "messages": CHAT[1:]}, *lines[1:]], "chat.jsonl")
    with pytest.raises(ValueError, match="answer different questions"):
        win_rate(tmp_path / "one", tmp_path / "two", judge)


def test_a_reward_model_reads_the_chat_as_a_chat():
    tokenizer = tiny_tokenizer()
    judge = RewardModel("tiny", reward_model(tokenizer), tokenizer, Runtime())
    several = [SYSTEM, *CHAT[1::2]]
    (seven, eight), answered_chat = ("seven", "eight"), [*CHAT, {"role": "assistant", "content": "seven"}]
    other = [*CHAT, {"role": "assistant", "content": "eight"}]
    expected = np.sign(np.subtract(*judge.score([answered_chat, other])))
    found = win_rate([seven, ["3", seven]], [eight, ["3", eight]], judge, [CHAT, several])[""]
    assert found.outcomes.tolist() == [expected] * 2 and abs(expected) == 1


def test_pairs_of_answers_have_their_whole_question(tmp_path):
    rows = [
        {"prompt": CHAT, "output_1": 0, "output_2": None, "label": 1},
        {"prompt": CHAT[:2], "output_1": 1, "output_2": "2", "label": 2},
    ]
    pairs = load_pairs(write(tmp_path, rows, "pairs.jsonl"))
    assert pairs.questions == [CHAT, CHAT[:2]] and pairs.first == ["0", "1"] and pairs.second == ["", "2"]


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("shots", [0, 1])
def test_choices_are_asked_after_the_whole_chat(tmp_path, chat, shots):
    ctx, options = context(chat), {"choices": ["red", "a blue fox"], "answer": 1}
    rows = [{"split": "test", "question": CHAT, **options}]
    rows += [{"split": "dev", "question": [SYSTEM, {"role": "user", "content": "Other?"}], **options}]
    (benchmark,) = load_benchmarks(
        [{"kind": "multiple_choice", "dataset": write(tmp_path, rows), "answer_with": "text", "shots": shots}]
    )
    benchmark.prepare()
    if chat:
        before = "<|system|>\nBe brief.</s>\n"
        before += "<|user|>\nOther?\nAnswer:</s>\n<|assistant|>\na blue fox</s>\n" * shots
        before += READ.partition("brief.</s>\n")[2].replace("four?", "four?\nAnswer:") + "<|assistant|>\n"
    else:
        before = "Be brief.\nOther?\nAnswer: a blue fox\n\n" * shots
        before += "Be brief.\nOne and two?\n3\nAnd four?\nAnswer:"
    losses = [plain_loss(ctx, before, text if chat else f" {text}")[0] for text in options["choices"]]
    rows_of, _, problems = benchmark._encode(ctx)
    assert likelihood(ctx.model, rows_of, ctx.runtime, "x").loss == pytest.approx(losses, rel=1e-4) and not problems
    assert benchmark.run(ctx)["mmlu/accuracy"].examples == [float(losses[1] < losses[0])]


def test_an_example_with_another_system_turn_is_named(tmp_path):
    options = {"choices": ["a", "b"], "answer": 1}
    rows = [{"split": "test", "system": text, "question": f"{text}?", **options} for text in ("One", "Two", None)]
    path = write(tmp_path, [*rows, {"split": "dev", "system": "One", "question": "Which?", **options}])
    (benchmark,) = load_benchmarks([{"kind": "multiple_choice", "dataset": path, "shots": 1}])
    benchmark.prepare()
    other = "its few-shot examples have another system turn"
    assert [item.problem for item in benchmark.items] == [None, other, other]


def test_choices_after_turns_without_answers_are_named(tmp_path):
    rows = [{"question": text, "choices": ["a", "b"], "answer": 0} for text in (["One?", "Two?"], ["Three?"])]
    (benchmark,) = load_benchmarks([{"kind": "multiple_choice", "dataset": write(tmp_path, rows)}])
    benchmark.prepare()
    assert [item.problem for item in benchmark.items] == [
        "several turns without the answers to all but the last",
        None,
    ]


def test_a_config_is_not_changed_by_its_benchmarks(tmp_path):
    path = write(tmp_path, alpaca_rows(4), "rows.jsonl")
    described = [
        {"kind": "held_out", "dataset": path, "metrics": ["exact_match"], "where": {"split": "test"}},
        {"kind": "generation", "dataset": path, "name": "b", "metrics": ["rouge"], "columns": {"answer": "output"}},
        {"kind": "multiple_choice", "dataset": path, "name": "c", "limit": "2", "where": {}},
    ]
    before = copy.deepcopy(described)
    config = DataSelectingConfig(str(tmp_path), use_cpu=True, bf16=False, benchmarks=described)
    for _ in range(2):
        benchmarks = load_benchmarks(config.benchmarks)
        benchmarks[1].prepare()
        benchmarks[1].metrics.append("chrf")
        benchmarks[1].columns["id"] = benchmarks[0].where["x"] = "y"
    assert config.benchmarks == before and described == before
