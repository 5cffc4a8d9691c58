"""Models and rows for the cases, and the commands that use them."""

import json
from pathlib import Path
from typing import Any

from tests.engines.llm.test_local import reward_model
from tests.faults.case import Run
from tests.rows import alpaca_rows
from tests.selectors.small import OPTIONS
from tests.tiny import tiny_evaluator, tiny_model, tiny_tokenizer
from tests.tiny_vision import save_clip


#: Options of a method besides those of `tests.selectors.small`: a warm-up of several steps.
_STEPS = {"warmup_batch_size": 2, "warmup_gradient_accumulation": 1}
_MORE = {
    "alpagasus": {"threshold": None},
    "ifd": {"warmup_clusters": 4, "warmup_rows_per_cluster": 4, **_STEPS},
    "less": {"warmup_fraction": 0.2, **_STEPS},
    "mods": {"necessity_threshold": -1e9, **_STEPS},
}
_JUDGED, _TARGETED, _UNBOUNDED = ("alpagasus", "instag"), ("less", "rds"), ("full",)


def write_materials(root: Path) -> None:
    """Write models and rows to a folder."""
    tokenizer = tiny_tokenizer()
    models = {"LLAMA": tiny_model(tokenizer), "REWARD": reward_model(tokenizer)}
    for name, model in (models | {"EVALUATOR": tiny_evaluator(tokenizer)}).items():
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    save_clip(root / "CLIP")
    rows = {"rows": alpaca_rows(60), "few": alpaca_rows(12), "held_out": alpaca_rows(8, 5)}
    rows |= {"target": alpaca_rows(3, 9), "nan": alpaca_rows(12), "escapes": alpaca_rows(24)}
    rows["nan"][4]["output"] = "red ~ fox stone."
    for row in rows["escapes"][:12]:  # a title, a colour, and letters that read backwards
        hurt = "\x1b]0;TITLE\x07\x1b[31mred\x1b[2J \u202eevil\u202c <script>alert(1)</script> "
        row |= {"instruction": hurt + row["instruction"], "output": hurt + "long " * 30}
    for name, listed in rows.items():
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))


def arguments_of(run: Run, root: Path, folder: Path) -> list[str]:
    """Of `hf-dataselect`, for a run in the folder of its case."""
    if run.command == "report":
        runs = [str(folder / name) for name in run.options["runs"]]
        more = {name: value for name, value in run.options.items() if name != "runs"}
        return ["report", *runs, *_flags(more, root, folder)]
    options = {
        "model_name_or_path": "ROOT/LLAMA",
        "dataset_name": "ROOT/rows.jsonl",
        "eval_dataset_name": "ROOT/held_out.jsonl",
        "output_dir": f"FOLDER/{run.folder}",
        "selection_cache_dir": "FOLDER/cache",
        "selection_method": run.method,
        "selection_dtype": "float32",
        "selection_batch_tokens": 256,
        "max_length": 128,
        "max_steps": 3,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
    }
    if run.method not in _UNBOUNDED:
        options["selection_budget"] = 0.2
    if run.method in _TARGETED:
        options["selection_target"] = "ROOT/target.jsonl"
    if run.method in _JUDGED:
        options["judge"] = "openai:judge"
    given = dict(run.options)
    kwargs = OPTIONS.get(run.method, {}) | _MORE.get(run.method, {}) | given.pop("selection_kwargs", {})
    kwargs = {name: f"ROOT/{value}" if str(value).isupper() else value for name, value in kwargs.items()}
    if kwargs and run.command in ("select", "train"):
        options["selection_kwargs"] = kwargs
    return [run.command, *_flags(options | given, root, folder)]


def _flags(options: dict[str, Any], root: Path, folder: Path) -> list[str]:
    flags = []
    for name, value in options.items():
        if value is None:
            continue
        values = value if isinstance(value, list) else [value]
        texts = [json.dumps(one) if isinstance(one, dict) else str(one) for one in values]
        texts = [text.replace("ROOT", str(root)).replace("FOLDER", str(folder)) for text in texts]
        flags += [f"--{name}", *texts]
    return flags
