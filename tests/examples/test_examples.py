"""The examples of other trainers, each with a real trainer on a tiny model."""

import importlib.util
import json
from pathlib import Path

import numpy as np

from tests.rows import alpaca
from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_training import PLAIN


OPTIONS = {name: value for name, value in PLAIN.items() if name != "max_length"} | {"max_steps": 2}


def example(name: str):
    path = Path(__file__).parents[2] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def saved(folder: Path, seed: int = 0) -> str:
    tokenizer = tiny_tokenizer()
    for part in (tiny_model(tokenizer, seed=seed), tokenizer):
        part.save_pretrained(folder)
    return str(folder)


def written(path: Path, rows: list[dict]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


def test_dpo_on_selected_pairs(tmp_path):
    rows = [{"prompt": r["instruction"], "chosen": r["output"], "rejected": f"No {r['input']}"} for r in alpaca(12)]
    models = saved(tmp_path / "model"), saved(tmp_path / "policy", seed=1)
    path = written(tmp_path / "rows.jsonl", rows)
    trainer = example("dpo_pairs").main(*models, path, str(tmp_path / "run"), **OPTIONS)
    assert len(trainer.train_dataset) == 6 and np.isfinite(trainer.state.log_history[0]["loss"])


def test_grpo_on_prompts_of_middling_difficulty(tmp_path, monkeypatch):
    grpo, model = example("grpo_prompts"), saved(tmp_path / "model")
    rows = [{"prompt": r["instruction"], "answer": "e"} for r in alpaca(8)]
    rolled = grpo.with_rollouts(__import__("datasets").Dataset.from_list(rows), model, grpo.contains, 4, 8)
    assert all(len(rewards) == 4 and {*rewards} <= {0.0, 1.0} for rewards in rolled["pass_rate"])
    for i, row in enumerate(rows):
        row["pass_rate"] = i / 7
    path = written(tmp_path / "rows.jsonl", rows)
    options = OPTIONS | {"num_generations": 2, "max_completion_length": 8, "per_device_train_batch_size": 4}
    # About half of a random model's short answers have an odd number of characters.
    odd = lambda completions, **_: [float(len(text) % 2) for text in completions]  # noqa: E731
    odd.__name__ = "odd"
    trainer = grpo.main(model, path, str(tmp_path / "run"), odd, **options)
    assert len(trainer.train_dataset) == 4 and trainer.state.global_step == 2
    seen = trainer.prompts.alpha + trainer.prompts.beta - 2
    assert seen.sum() > 0, "rollouts of the training have updated the posterior"
