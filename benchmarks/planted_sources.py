"""
Whether methods with a target find the rows of its kind: candidates of four sources in equal parts, a target of
held-out rows of one, as many rows kept as that source has.

    python benchmarks/planted_sources.py MODEL_FOLDER POOL_FOLDER [--candidates 100] [--target 16] [--seeds 3]
        [--results FOLDER]

What a method keeps in a draw is written to FOLDER as JSON; a run that is started again takes it up. `--only_table`
prints the table of what is there.

POOL_FOLDER holds `code_alpaca_2k`, `gsm8k_train`, `dolly_3k` (its creative writing) and `alpaca_en_labelled`, each as
`.jsonl.gz`. Prints, for each target and method, the part of the rows kept that come from the target's source, the mean
of the draws with the lowest and the highest: 0.25 is chance. The controls are random rows, the longest answers, and
the rows whose answer is nearest in length to the target's mean, which says what following length alone would give.
"""

import argparse
import json
import re
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
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
    "rds, free": ("rds", {"rule": "round_robin_free"}),
    "rds, optimal transport": ("rds", {"rule": "optimal_transport"}),
    "crds": ("crds", {}),
    "crds, 512": ("crds", {"components": 512}),
    "crds, centred": ("crds", {"representation": "centred"}),
    "crds, layers": ("crds", {"representation": "concatenated"}),
    "tsds": ("tsds", {}),
    "token_drop": ("token_drop", {}),
    "less": ("less", {}),
    "less, without momentum": ("less", {"momentum": False}),
    "less, round robin": ("less", {"rule": "round_robin_free"}),
    "bids": ("bids", {}),
    "gist": ("gist", {}),
    "gist, round robin": ("gist", {"rule": "round_robin_free"}),
}
#: The control that is no method: rows whose answer is nearest in length to the target's mean.
NEAREST = "nearest length"
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


def drawn(
    pool: dict[str, list[dict]], seed: int, options: argparse.Namespace
) -> tuple[Dataset, dict[str, list[dict]]]:
    """The candidates of a draw, with their `source`, and each source's target rows."""
    draw = np.random.default_rng(seed)
    shuffled = {source: [rows[i] for i in draw.permutation(len(rows))] for source, rows in pool.items()}
    size = min(options.candidates, *(len(rows) - options.target for rows in shuffled.values()))
    rows = [{**row, "source": name} for name, some in shuffled.items() for row in some[options.target :][:size]]
    candidates = Dataset.from_list([rows[i] for i in draw.permutation(len(rows))])
    return candidates, {source: rows[: options.target] for source, rows in shuffled.items()}


def part_kept(
    name: str, candidates: Dataset, wanted: list[dict], target: str, seed: int, context: dict, warm: dict
) -> float:
    """Part of the rows kept, as many as a source has, that come from the target's."""
    origin = np.array(candidates["source"])
    size = int((origin == target).sum())
    if name == NEAREST:
        length = np.array([len(answer) for answer in candidates["output"]])
        chosen = np.argsort(np.abs(length - np.mean([len(row["output"]) for row in wanted])))[:size]
    else:
        method, kwargs = METHODS.get(name, (name, {}))
        records = Records(Dataset.from_list(wanted), name="selection_target")
        selector = load_selector(method, warm.get(method, {}) | kwargs)
        chosen = select(Records(candidates), selector, size, Context(target=records, seed=seed, **context)).indices
    return float((origin[chosen] == target).mean())


def print_table(results: list[dict], options: argparse.Namespace) -> None:
    draws = sorted({result["draw"] for result in results})
    print(f"{len(draws)} draws, settings {results[0]['settings']}; chance is 0.25")
    print("| method | draws | " + " | ".join(options.targets) + " | mean | seconds |")
    print("|---|---|" + "---|" * (len(options.targets) + 2))
    for name in [*options.methods, NEAREST]:
        mine = [result for result in results if result["method"] == name]
        if mine:
            cells = [[result["parts"][target] for result in mine] for target in options.targets]
            told = [f"{np.mean(cell):.2f} ({min(cell):.2f} to {max(cell):.2f})" for cell in cells]
            seconds = np.mean([result["seconds"] for result in mine])
            print(f"| {name} | {len(mine)} | " + " | ".join(told) + f" | {np.mean(cells):.2f} | {seconds:.0f} |")


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
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--warmup_epochs", type=int, default=4)
    parser.add_argument("--warmup_fraction", type=float, default=0.1)
    parser.add_argument("--results", type=Path, help="folder of what is finished; a new one by default")
    parser.add_argument("--only_table", action="store_true")
    options = parser.parse_args()
    disable_progress_bars()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    folder = options.results or Path(tempfile.mkdtemp(prefix="planted_sources_"))
    folder.mkdir(parents=True, exist_ok=True)
    names = ("candidates", "target", "max_length", "dtype", "warmup_epochs", "warmup_fraction")
    settings = {"model": Path(options.model).name} | {name: getattr(options, name) for name in names}
    warmup = {**WARMUP, "warmup_epochs": options.warmup_epochs}
    adapter = {"warmup_fraction": options.warmup_fraction, "lora_r": 8, "lora_alpha": 32}
    warm = {name: {**warmup, **adapter} for name in ("less", "bids", "gist")} | {"token_drop": warmup}
    pool, results, context = sources(options.data), [], {}
    if not options.only_table:
        context = {
            "tokenizer": AutoTokenizer.from_pretrained(options.model),
            "model": AutoModelForCausalLM.from_pretrained(options.model, dtype=getattr(torch, options.dtype)),
            "max_length": options.max_length,
        }
    for seed in range(options.seeds):
        candidates, wanted = drawn(pool, seed, options)
        with tempfile.TemporaryDirectory() as cache:
            for name in [NEAREST, *options.methods]:
                path = folder / f"{seed}-{re.sub(r'[^a-z0-9]+', '-', name)}.json"
                if path.exists():
                    results.append(json.loads(path.read_text(encoding="utf-8")))
                    if results[-1]["settings"] != settings:
                        raise SystemExit(f"`--results`: {path} is of {results[-1]['settings']}, not of {settings}")
                    continue
                if options.only_table:
                    continue
                cpu, start, parts = Accelerator(cpu=context["model"].device.type == "cpu"), time.perf_counter(), {}
                for target in options.targets:
                    given = context | {"runtime": Runtime(accelerator=cpu, cache_dir=Path(cache))}
                    parts[target] = part_kept(name, candidates, wanted[target], target, seed, given, warm)
                seconds = round(time.perf_counter() - start, 1)
                one = {"method": name, "draw": seed, "parts": parts, "seconds": seconds, "settings": settings}
                results.append(one)
                path.write_text(json.dumps(one), encoding="utf-8")
                print(f"draw {seed}, {name}, {seconds} s: {parts}", flush=True)
    print_table(results, options)


if __name__ == "__main__":
    main()
