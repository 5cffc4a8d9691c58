"""
What a GPU makes of the engines, beside the plain loops, in one run; `benchmarks/gpu.sh` installs, tests and calls it.

    python -m benchmarks.gpu OUT [--seconds 330] [--dry_run]

Models are made in code at random weights, of the shapes of SmolLM2-135M, Llama-3.2-1B and Llama-2-7B, in bfloat16;
rows are random tokens, as long as those of Alpaca. Losses, hidden states, one-shot pairs and gradients are measured
beside the loops of `one_pass.py`, `nuggets.py` and `gradients.py`: tokens a second, their ratio, the share of the rate
at which the card multiplies large matrices, and memory; then 52,000 rows by Superfiltering, from texts to the rows
kept, and their LESS features. Each part has a limit of seconds; what is done is in OUT/gpu.json and OUT/gpu.md at
once, and what the time was too short for is named there. `--dry_run` takes one tiny model, and a CPU where there is no
GPU.
"""

import argparse
import gc
import json
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from transformers import LlamaForCausalLM, logging

from benchmarks import gradients as of_gradients
from benchmarks import nuggets as of_nuggets
from benchmarks.gpu_models import (
    GPT2,
    SHAPES,
    TINY,
    Shape,
    adapted,
    random_model,
    random_rows,
    random_texts,
    some_state,
)
from benchmarks.likelihood import computed_flops
from benchmarks.one_pass import naive, naive_states
from hf_dataselect.context import Context
from hf_dataselect.engines.forward.hidden_states import hidden_state
from hf_dataselect.engines.forward.likelihood import likelihood
from hf_dataselect.engines.gradients.adam import AdamFeature
from hf_dataselect.engines.gradients.collect import gradients
from hf_dataselect.engines.gradients.projection import Projection
from hf_dataselect.engines.runtime.memory import peak_memory
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.pipeline import select
from hf_dataselect.selectors.superfiltering import Superfiltering


ALPACA = 52_000
#: Seconds of a part, at most.
LIMITS = {"losses": 25, "states": 20, "one-shot pairs": 30, "gradients": 30, "Superfiltering": 80, "LESS features": 60}
COLUMNS = ("part", "model", "what", "engine", "plain loop", "ratio", "share of the card", "memory, GB")


@dataclass
class Bench:
    """The device, the model of the moment, and what came of each part."""

    out: Path
    dry: bool
    deadline: float
    device: torch.device
    rate: float = float("nan")
    results: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def seconds(self, function: Callable[[], Any]) -> tuple[float, Any]:
        self.wait()
        began = time.perf_counter()
        value = function()
        self.wait()
        return time.perf_counter() - began, value

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def part(self, name: str, model: str, function: Callable[[], dict[str, Any]]) -> None:
        """Run a part within its limit, and write down what came of it."""
        left = self.deadline - time.perf_counter()
        line: dict[str, Any] = {"part": name, "model": model}
        if left < 5:
            line["left out"] = "the time was up"
        else:
            began = time.perf_counter()
            try:
                with within(min(left, LIMITS.get(name, 30))), peak_memory() as peak:
                    line |= function()
            except Exception as error:  # the other parts tell more than none
                line["failed"] = f"{type(error).__name__}: {error}"[:300]
            line["seconds"] = round(time.perf_counter() - began, 1)
            line["memory GB"] = round(peak.get("gpu", peak["process"]) / 1e9, 2)
        self.results.append(line)
        self.write()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def write(self) -> None:
        text = json.dumps({"facts": self.facts, "results": self.results}, indent=1)
        (self.out / "gpu.json").write_text(text + "\n", encoding="utf-8")
        (self.out / "gpu.md").write_text(table(self.facts, self.results), encoding="utf-8")
        print(row(self.results[-1]), flush=True)

    def compared(self, what: str, engine: float, plain: float, flops: float = float("nan")) -> dict[str, Any]:
        """A line of rates a second, and the FLOP/s of the engine as a share of the card's."""
        share = flops / self.rate
        return {"what": what, "engine": engine, "plain": plain, "ratio": engine / plain, "share": share}


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise `TimeoutError` inside after so many seconds."""

    def stop(*_):
        raise TimeoutError(f"its {seconds:.0f} s were over")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def row(line: dict[str, Any]) -> str:
    """A line of the table."""
    cells = [line["part"], line["model"], line.get("what") or line.get("failed") or f"left out: {line['left out']}"]
    for key, form in FORMS.items():
        cells.append(f"{line[key]:{form}}" if np.isfinite(line.get(key, np.nan)) else "")
    return f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in cells)} |"


FORMS = {"engine": ",.0f", "plain": ",.0f", "ratio": ".2f", "share": ".0%", "memory GB": ".2f"}


def table(facts: dict[str, Any], results: list[dict[str, Any]]) -> str:
    lines = [", ".join(f"{name} {value}" for name, value in facts.items()), "", f"| {' | '.join(COLUMNS)} |"]
    return "\n".join([*lines, "|---" * len(COLUMNS) + "|", *map(row, results)]) + "\n"


def matmul_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """FLOP/s of products of square matrices, the best of some."""
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(10):
        began = time.perf_counter()
        for _ in range(4):
            left @ right
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 8 * size**3 / (time.perf_counter() - began))
    return best


def measure(bench: Bench, name: str, shape: Shape) -> None:
    """All engines with one model."""
    model = cache(lambda: random_model(shape, bench.device))  # within the limit of the part that is the first
    rows, few = random_rows(shape.rows, shape), random_rows(shape.plain_rows, shape)
    runtime = Runtime(batch_tokens=256 if bench.dry else 16384, dtype="bfloat16", silent=True)
    tokens, some = int(rows.lengths.sum()), int(few.lengths.sum())
    examples = few.take(range(len(few)))

    def losses() -> dict[str, Any]:
        likelihood(model(), few, runtime)
        plain, found = bench.seconds(lambda: naive(model(), [(ids, int(spans[0, 0])) for ids, spans in examples]))
        far = np.abs(found - likelihood(model(), few, runtime).mean_loss).max()
        own, _ = bench.seconds(lambda: likelihood(model(), rows, runtime))
        line = bench.compared("tokens/s", tokens / own, some / plain, computed_flops(model(), rows) / own)
        return line | {"largest difference": float(far)}

    def states() -> dict[str, Any]:
        hidden_state(model(), few, runtime, "position")
        plain, _ = bench.seconds(lambda: naive_states(model(), [ids.astype(np.int64) for ids, _ in examples]))
        own, _ = bench.seconds(lambda: hidden_state(model(), rows, runtime, "position"))
        return bench.compared("tokens/s", tokens / own, some / plain)

    def pairs() -> dict[str, Any]:
        n, m = shape.pairs
        exemplars, tasks = random_rows(n, shape), random_rows(m, shape)
        asked = [(pair // m, pair % m) for pair in range(0, n * m, max(1, n * m // 64))]
        own, found = bench.seconds(lambda: of_nuggets.one_shot_loss(model(), exemplars, tasks, runtime))
        plain, other = bench.seconds(lambda: of_nuggets.plain(model(), exemplars, tasks, asked))
        far = np.abs(found[tuple(np.array(asked).T)] / other - 1).max()
        return bench.compared("pairs/s", n * m / own, len(asked) / plain) | {"largest difference": float(far)}

    def row_gradients() -> dict[str, Any]:
        with adapted(model()) as tuned:
            own, eight = random_rows(shape.gradients, shape), random_rows(min(8, shape.gradients), shape)
            feature, project = AdamFeature(some_state(tuned)), Projection(dim=64 if bench.dry else 8192)
            options = {"adam": feature, "project": project}
            gradients(tuned, random_rows(2, shape), runtime, **options)
            spent, _ = bench.seconds(lambda: gradients(tuned, own, runtime, **options))
            plain, _ = bench.seconds(lambda: of_gradients.plain(tuned, eight))
            flops = 3 * computed_flops(model(), own) / spent  # backward costs about twice as much
            return bench.compared("rows/s", len(own) / spent, len(eight) / plain, flops)

    for part, function in (
        ("losses", losses),
        ("states", states),
        ("one-shot pairs", pairs),
        ("gradients", row_gradients),
    ):
        bench.part(part, name, function)
    if name == "135M":
        bench.part("LESS features", name, lambda: many_gradients(bench, model(), shape, runtime))


def many_gradients(bench: Bench, model: LlamaForCausalLM, shape: Shape, runtime: Runtime) -> dict[str, Any]:
    """Rows a second of LESS features, in blocks for as long as the part may take."""
    whole = 12 if bench.dry else ALPACA
    block, done, began = max(8, whole // 100), 0, time.perf_counter()
    stop = min(began + LIMITS["LESS features"] - 10, bench.deadline - 5)
    with adapted(model) as tuned:
        feature = AdamFeature(some_state(tuned))
        project = Projection(dim=64 if bench.dry else 8192)
        while done < whole and time.perf_counter() < stop:
            rows = random_rows(min(block, whole - done), shape)
            gradients(tuned, rows, runtime, adam=feature, project=project)
            done += len(rows)
    rate = done / (time.perf_counter() - began)
    return {"what": f"rows/s: {done:,} of {whole:,}, all of them in {whole / rate:,.0f} s", "engine": rate}


def superfiltering(bench: Bench) -> dict[str, Any]:
    """From texts to the rows kept, with a model of the size of GPT-2."""
    whole, number = (16, 400) if bench.dry else (ALPACA, 8000)
    rows, tokenizer = random_texts(whole, number)
    shape = replace(TINY if bench.dry else GPT2, vocabulary=len(tokenizer))
    with tempfile.TemporaryDirectory() as folder:
        for part in (random_model(shape, torch.device("cpu")).float(), tokenizer):
            part.save_pretrained(folder)
        accelerator = Accelerator(cpu=bench.device.type == "cpu")
        ctx = Context(tokenizer, None, Runtime(accelerator, num_proc=None if bench.dry else 8), max_length=512)
        spent, found = bench.seconds(lambda: select(rows, Superfiltering(folder), 0.1, ctx))
    return {"what": f"rows/s: {len(found.indices):,} of {whole:,} kept in {spent:,.0f} s", "engine": whole / spent}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=330)
    parser.add_argument("--dry_run", action="store_true", help="tiny sizes, to try the script itself")
    given = parser.parse_args(argv)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    if not torch.cuda.is_available() and not given.dry_run:
        raise SystemExit("torch sees no GPU here (CUDA); `--dry_run` tries the script on a CPU.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    given.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(given.out, given.dry_run, time.perf_counter() + given.seconds, device)
    dtypes = [torch.bfloat16, torch.float16, torch.float32]
    rates = {str(kind).removeprefix("torch."): matmul_rate(device, kind, 64 if bench.dry else 8192) for kind in dtypes}
    bench.rate = rates["bfloat16"]
    bench.facts = {name: f"{rate / 1e12:.3g} TFLOP/s" for name, rate in rates.items()}
    bench.facts |= {name: version(name) for name in ("torch", "transformers", "peft", "bitsandbytes")}
    bench.facts["card"] = torch.cuda.get_device_name() if device.type == "cuda" else "none: a dry run on a CPU"
    for name, shape in {"135M": TINY}.items() if bench.dry else SHAPES.items():
        measure(bench, name, shape)
        if name == "135M":
            bench.part("Superfiltering", "GPT-2's size", lambda: superfiltering(bench))
    failed = [line for line in bench.results if "failed" in line]
    if failed:
        raise SystemExit(f"{len(failed)} of {len(bench.results)} parts failed, see {given.out / 'gpu.json'}.")


if __name__ == "__main__":
    main()
