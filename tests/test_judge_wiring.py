"""`judge` and `judge_kwargs` from the recipe to the selector, and wrong ones refused before anything loads."""

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import yaml

from hf_dataselect.cli.main import main
from hf_dataselect.engines.llm.prompts import first_number
from hf_dataselect.errors import JudgeError
from hf_dataselect.selector import Card, Selector
from hf_dataselect.training.config import DataSelectingConfig
from tests.faulty_server import FaultyServer
from tests.tiny_training import tiny_trainer, write_recipe


KEY = "sk-secret-0123456789abcdef"


@dataclass
class Asking(Selector):
    """Asks the judge about each answer, and knows no model."""

    card: ClassVar[Card] = Card(title="answers that the judge likes")

    def needs(self):
        return frozenset({"text", "judge"})

    def score(self, features, ctx):
        asked = [[{"role": "user", "content": record.answer}] for record in features]
        replies = ctx.judge.ask(asked, max_new_tokens=4, label="Judging")
        return np.array([first_number(reply.text, 0, 100) for reply in replies], np.float32)


METHOD = f"{__name__}:Asking"


def test_options_are_typed_and_checked(tmp_path):
    args = DataSelectingConfig(
        str(tmp_path),
        judge="openai:m",
        judge_kwargs='{"max_calls": "50", "price_in": "1e-1", "price_out": 2}',
        use_cpu=True,
        bf16=False,
    )
    assert args.judge_options.max_calls == 50 and args.judge_options.price_in == 0.1
    assert args.given["judge"] == "openai:m"
    for options, says in (
        ({"judge": "gpt-4"}, "`judge='gpt-4'` must be"),
        ({"judge_kwargs": {"max_call": 5}}, "`judge_kwargs`: there is no option 'max_call'; did you mean 'max_calls'"),
        ({"judge_kwargs": {"retries": "many"}}, "`judge_kwargs`: retries='many' must be int"),
        ({"judge_kwargs": {"timeout": -1}}, "timeout=-1.0 must be positive"),
        ({"judge_kwargs": "max_calls=5"}, "is not JSON"),
        ({"judge_kwargs": [5]}, "must be a mapping"),
    ):
        with pytest.raises(ValueError) as refused:
            DataSelectingConfig(str(tmp_path), use_cpu=True, bf16=False, **options)
        assert says in str(refused.value)


def test_a_method_that_needs_a_judge_is_refused_without_one(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"needs `judge`: 'openai:MODEL'"):
        tiny_trainer(tmp_path, METHOD)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    pytest.importorskip("openai")
    with pytest.raises(JudgeError, match="set `OPENAI_API_KEY`"):
        tiny_trainer(tmp_path, METHOD, judge="openai:m")


@pytest.mark.parametrize(
    "method, options, judge",
    [("alpagasus", {"estimator": "digits"}, "openai:m"), ("alpagasus", {}, "reward:r"), ("instag", {}, "reward:r")],
)
def test_a_judge_that_can_not_give_what_a_method_asks_is_refused_before_anything_loads(
    method, options, judge, tmp_path, monkeypatch
):
    monkeypatch.setattr("hf_dataselect.engines.runtime.loading.load_pretrained", None)
    with pytest.raises(ValueError, match=f"`{method}` needs .*, which `judge='{judge}'` does not give"):
        tiny_trainer(tmp_path, method, options, judge=judge)


def test_the_current_model_judges(tmp_path):
    trainer = tiny_trainer(tmp_path, METHOD, judge="self", selection_budget=0.5)
    ctx = trainer.context()
    assert ctx.judge.local.model is trainer.model and ctx.judge.cost is trainer.judge.cost
    assert ctx.judge.runtime.account is ctx.account is not trainer.judge.runtime.account
    selection = trainer.select()
    asked = [[{"role": "user", "content": record.answer}] for record in trainer.records]
    expected = [first_number(reply.text, 0, 100) for reply in trainer.judge.ask(asked, max_new_tokens=4)]
    np.testing.assert_array_equal(selection.scores, np.float32(expected))
    record = json.loads((tmp_path / "run" / "selection.json").read_text())["facts"]["judge"]
    assert record["name"] == "self" and record["cost"]["calls"] > 0 and record["cost"]["prompt_tokens"] > 100
    assert selection.passes["judge_calls"] == record["cost"]["calls"]
    assert tiny_trainer(tmp_path).context().judge is None


def test_a_server_judges_in_the_command_line(tmp_path, monkeypatch, capsys):
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    recipe = write_recipe(tmp_path, selection_method=METHOD, selection_kwargs=None, judge="openai:judge-1")
    with FaultyServer(reply=lambda text: str(len(text))) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        main(["select", "--config", str(recipe), "--judge_kwargs", '{"max_calls": 24}'])
        assert set(server.calls.values()) == {1}
        asked = sum(server.calls.values())
        monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)  # no model is loaded for it
        main(
            [
                "select",
                "--config",
                str(recipe),
                "--judge_kwargs",
                '{"max_calls": 0}',
                "--output_dir",
                str(tmp_path / "b"),
            ]
        )
        assert sum(server.calls.values()) == asked, "replies are kept"
        with pytest.raises(SystemExit) as refused:
            main(
                [
                    "select",
                    "--config",
                    str(recipe),
                    "--selection_cache_dir",
                    "none",
                    "--judge_kwargs",
                    '{"max_calls": 3}',
                ]
            )
        assert refused.value.code == 2 and "max_calls=3 leaves 3 calls" in capsys.readouterr().err
    selection = json.loads((tmp_path / "run" / "selection.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    lengths = [len(rows[row]["output"]) for row in selection["indices"]]
    assert lengths == sorted((len(row["output"]) for row in rows), reverse=True)[:6]
    assert selection["facts"]["judge"]["cost"]["calls"] == asked
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["judge"] == "openai:judge-1"
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
