"""Folders of finished runs, as a report reads them, and what it shows of them."""

import json
from pathlib import Path

import numpy as np
from datasets import Dataset

from hf_dataselect.data.records import Records
from hf_dataselect.evaluation.benchmark import Setting, as_json
from hf_dataselect.evaluation.comparison.comparison import compare_runs
from hf_dataselect.evaluation.report.report import to_markdown
from hf_dataselect.evaluation.report.sections import sections
from hf_dataselect.runs.files import run_id
from hf_dataselect.runs.folder import read_evaluation, write_evaluation, write_recipe, write_selection
from hf_dataselect.selection import Selection


ROWS = 12


def make_run(folder: Path, method: str = "full", loss: float = 2.0, accuracy: float = 0.5, **more) -> Path:
    """A finished run: `rows` it kept, `selection` and `evaluation` entries, `recipe` options."""
    rows = np.array(more.pop("rows", range(ROWS)), np.int64)
    scores = np.array(more.pop("scores", np.linspace(0, 1, ROWS)), np.float32)
    selection = {"seconds": 0.0, "facts": {"dataset": candidates().content_hash()}} | more.pop("selection", {})
    write_selection(folder, Selection(method, {}, rows, scores, budget=len(rows), **selection))
    noise = np.random.default_rng(7).normal(0, more.pop("noise", 0.0), 60)
    noise -= noise.mean()
    settings = {"answer_loss": Setting(loss, False, list(loss + noise)), "token_accuracy": Setting(accuracy, True)}
    evaluation = {"settings": as_json(settings), "train_seconds": 100.0, "protocol": {"": {"rows": "held out"}}}
    write_evaluation(folder, evaluation | more.pop("evaluation", {}))
    write_recipe(folder, {"selection_method": method, "learning_rate": 1e-3, "output_dir": str(folder)} | more)
    return folder


def candidates(column: str = "fault") -> Records:
    faults = [None] * 6 + ["cut"] * 4 + ["false"] * 2
    return Records(
        Dataset.from_list(
            [
                {"instruction": f"Question {i}?", "input": "", "output": f"Answer {i} " * 20, column: fault}
                for i, fault in enumerate(faults)
            ]
        )
    )


def verdict(runs) -> str:
    return to_markdown(sections(compare_runs(runs))).split("## Verdict\n\n")[1].split("\n\n")[0]


def tables(text: str) -> dict[str, list[dict[str, str]]]:
    """The table of each section of a report in Markdown: rows of cells, each under its head."""
    found = {}
    for section in text.split("## ")[1:]:
        lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
        head, _, *rows = [[cell.strip() for cell in line] for line in lines] or ([], [])
        found[section.partition("\n")[0]] = [dict(zip(head, row, strict=True)) for row in rows]
    return found


#: Method, rows kept, selection seconds, training seconds, loss, accuracy, and scores of the judge.
RUNS = {
    "full": ("full", range(ROWS), 0.5, 100.0, 2.0, 0.5, [5] * 30),
    "random": ("random", [0, 5, 7], 1.0, 21.0, 2.2, 0.45, None),
    "best": ("ifd", [11, 10, 9], 30.0, 23.0, 1.6, 0.55, [9] * 20 + [5] * 4 + [1] * 6),
    "random4": ("random", [0, 1, 2, 3], 2.0, 31.0, 2.1, 0.48, None),
    "worst": ("length", [11, 10, 3, 2], 12.0, 34.0, 2.5, 0.4, [9] * 5 + [5] * 4 + [1] * 21),
}


def many_runs(folder: Path) -> list[Path]:
    """26 runs: four methods at two budgets, controls and the baseline, two seeds each, and four single ones."""
    rng, folders = np.random.default_rng(11), []
    hard = rng.beta(3, 1.3, 200) * 0.9

    def add(name: str, method: str, gain: float, rows: list[int], seed: int) -> None:
        accurate = (rng.random(200) < np.clip(hard * gain, 0, 1)).astype(float)
        losses = 2.0 / gain + 0.3 * rng.normal(size=200)
        rare = np.zeros(200) if method == "length" else np.arange(200) < 40
        settings = {
            "answer_loss": Setting.of(losses, False),
            "token_accuracy": Setting.of(accurate, True),
            "rare": Setting.of(rare * 1.0, True),
        }
        facts = {"facts": {"dataset": candidates().content_hash(), "seed": seed}, "seconds": 5.0 * len(rows) + seed}
        evaluation = {"settings": as_json(settings), "train_seconds": 10.0 * len(rows) + seed}
        folders.append(make_run(folder / name, method, rows=rows, selection=facts, evaluation=evaluation, seed=seed))

    methods = {"ifd": 1.3, "length": 0.9, "rds": 1.0, "less": 0.7}
    for seed in (0, 1):
        add(f"full-{seed}", "full", 1.0, list(range(ROWS)), seed)
        for size in (3, 4):
            add(f"random-{size}-{seed}", "random", 0.95, list(range(size)), seed)
            for method, gain in methods.items():
                add(f"{method}-{size}-{seed}", method, gain, list(range(size, 2 * size)), seed)
    for method, gain in methods.items():
        add(f"{method}-5", method, gain, [2, 3, 5, 7, 9], 0)
    return folders


def answered(folder: Path, scores: list[int | str], name: str = "koala") -> None:
    (folder / "answers").mkdir(exist_ok=True)
    answers = [f"{folder.name} {score}" if isinstance(score, int) else score for score in scores]
    lines = [{"run": run_id(folder), "question": f"q{i}", "answer": answer} for i, answer in enumerate(answers)]
    (folder / "answers" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    write_evaluation(folder, read_evaluation(folder))
