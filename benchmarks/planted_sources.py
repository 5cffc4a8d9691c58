"""
Whether methods with a target find the rows of its kind: candidates of four sources in equal parts, a target of
held-out rows of one, as many rows kept as that source has.

    python benchmarks/planted_sources.py MODEL_FOLDER POOL_FOLDER [--candidates 100] [--target 16] [--seeds 3]

POOL_FOLDER holds `code_alpaca_2k`, `gsm8k_train`, `dolly_3k` (its creative writing) and `alpaca_en_labelled`, each as
`.jsonl.gz`. Prints, for each target and method, the part of the rows kept that come from the target's source, the mean
of the draws with the lowest and the highest: 0.25 is chance. The controls are random rows, the longest answers, and
the rows whose answer is nearest in length to the target's mean, which says what following length alone would give.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from datasets import Dataset, disable_progress_bars
from transformers import AutoModelForCausalLM, AutoTokenizer, logging

from hf_dataselect.context import Context
from hf_dataselect.data.load import load_rows
from hf_dataselect.data.records import Records
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.pipeline import select
from hf_dataselect.registry import load_selector


SOURCES = ("code", "math", "stories", "general")

#: Methods by their names in the table. `--methods` takes any other by its own name, too.
METHODS = {
    "random": ("random", {}),
    "length": ("length", {}),
    "bm25": ("bm25", {}),
    "dsir": ("dsir", {}),
    "rds": ("rds", {}),
    "rds, max": ("rds", {"rule": "max"}),
    "crds": ("crds", {}),
    "crds, 512": ("crds", {"components": 512}),
    "crds, centred": ("crds", {"representation": "centred"}),
    "crds, layers": ("crds", {"representation": "concatenated"}),
    "tsds": ("tsds", {}),
    "token_drop": ("token_drop", {}),
    "less": ("less", {}),
    "less, without momentum": ("less", {"momentum": False}),
}
#: Of those that warm the model up.
WARMUP = {"warmup_learning_rate": 2e-4, "warmup_batch_size": 4, "warmup_gradient_accumulation": 1}


def sources(folder: Path) -> dict[str, list[dict]]:
    """Rows of each source as instruction, input and output, of 1,000 characters at most: windows are short."""
    files = {"code": "code_alpaca_2k", "math": "gsm8k_train", "stories": "dolly_3k", "general": "alpaca_en_labelled"}
    found = {}
    for source, file in files.items():
        rows = load_rows(str(folder / f"{file}.jsonl.gz"))
        if source == "math":
            rows = rows.rename_columns({"question": "instruction", "answer": "output"})
        if source == "stories":
            rows = rows.filter(lambda row: row["category"] == "creative_writing")
        columns = [name for name in ("instruction", "input", "output") if name in rows.column_names]
        rows = rows.select_columns(columns).to_list()
        rows = [{"input": "", **row} for row in rows]
        found[source] = [row for row in rows if row["output"] and sum(map(len, row.values())) <= 1000]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--candidates", type=int, default=100, help="of each source; of the stories there are fewer")
    parser.add_argument("--target", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--targets", nargs="*", default=SOURCES, choices=SOURCES)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), help="of the table, or any method")
    parser.add_argument("--max_length", type=int, default=256)
    parser.add_argument("--warmup_epochs", type=int, default=4)
    parser.add_argument("--warmup_fraction", type=float, default=0.1)
    options = parser.parse_args()
    disable_progress_bars()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model)
    warmup = {**WARMUP, "warmup_epochs": options.warmup_epochs}
    tuned = {
        "less": {**warmup, "warmup_fraction": options.warmup_fraction, "lora_r": 8, "lora_alpha": 32},
        "token_drop": warmup,
    }
    pool, found, seconds = sources(options.data), {}, {}
    with tempfile.TemporaryDirectory() as cache:
        for seed in range(options.seeds):
            draw = np.random.default_rng(seed)
            shuffled = {source: [rows[i] for i in draw.permutation(len(rows))] for source, rows in pool.items()}
            size = min(options.candidates, *(len(rows) - options.target for rows in shuffled.values()))
            rows = [
                {**row, "source": name} for name, some in shuffled.items() for row in some[options.target :][:size]
            ]
            kept = draw.permutation(len(rows))
            candidates = Dataset.from_list([rows[i] for i in kept])
            origin = np.array(candidates["source"])
            length = np.array([len(row["output"]) for row in candidates])
            for target in options.targets:
                wanted = shuffled[target][: options.target]
                near = np.argsort(np.abs(length - np.mean([len(row["output"]) for row in wanted])))[:size]
                found.setdefault(("nearest length", target), []).append(float((origin[near] == target).mean()))
                for name in options.methods:
                    method, kwargs = METHODS.get(name, (name, {}))
                    ctx = Context(
                        tokenizer,
                        model,
                        runtime=Runtime(
                            accelerator=Accelerator(cpu=model.device.type == "cpu"), cache_dir=Path(cache)
                        ),
                        target=Records(Dataset.from_list(wanted), name="selection_target"),
                        max_length=options.max_length,
                        seed=seed,
                    )
                    start = time.perf_counter()
                    selector = load_selector(method, tuned.get(method, {}) | kwargs)
                    chosen = select(Records(candidates), selector, size, ctx).indices
                    seconds[name] = seconds.get(name, 0) + time.perf_counter() - start
                    found.setdefault((name, target), []).append(float((origin[chosen] == target).mean()))
                    print(f"draw {seed}, {target}, {name}: {found[name, target][-1]:.2f}", flush=True)
    print(f"{size} candidates of each source, {options.target} target rows, {options.seeds} draws; chance is 0.25")
    print("| method | " + " | ".join(options.targets) + " | mean |")
    print("|---|" + "---|" * (len(options.targets) + 1))
    for name in [*options.methods, "nearest length"]:
        cells = [found[name, target] for target in options.targets]
        told = [f"{np.mean(cell):.2f} ({min(cell):.2f} to {max(cell):.2f})" for cell in cells]
        print(f"| {name} | " + " | ".join([*told, f"{np.mean(cells):.2f}"]) + " |")
    print("seconds: " + ", ".join(f"{name} {spent:.0f}" for name, spent in seconds.items()))


if __name__ == "__main__":
    main()
