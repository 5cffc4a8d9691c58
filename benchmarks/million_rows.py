"""
Memory of records and scoring at a million short rows, above the model's own.

    python benchmarks/million_rows.py [--rows 1000000]

A tiny random model scores every row (IFD without warm-up: two passes) of a memory-mapped dataset, cache on.
Prints the resident memory after each step and the peak above what it was when the model was loaded.
"""

import argparse
import resource
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, Value

from hf_dataselect.context import Context
from hf_dataselect.data.records import Records
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.pipeline import select
from hf_dataselect.selectors.ifd import IFD
from tests.tiny import SENTENCES, tiny_model, tiny_tokenizer


def resident() -> float:
    """Resident memory of this process, without pages of memory-mapped files, MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields["RssAnon"].split()[0]) / 1024


def rows(n: int):
    draw = np.random.default_rng(0)
    words = " ".join(SENTENCES[:4]).split()
    for _ in range(n):
        prompt, answer = draw.choice(words, 3), draw.choice(words, 4)
        yield {"instruction": " ".join(prompt), "input": "", "output": " ".join(answer)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    features = Features({name: Value("string") for name in ("instruction", "input", "output")})
    with tempfile.TemporaryDirectory() as folder:
        made = Dataset.from_generator(rows, gen_kwargs={"n": options.rows}, features=features, cache_dir=folder)
        tokenizer = tiny_tokenizer()
        model = tiny_model(tokenizer, layers=1, hidden=32)
        before, peak, running = resident(), [0.0], [True]

        def watch() -> None:
            while running[0]:
                peak[0] = max(peak[0], resident())
                time.sleep(0.05)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        print(f"model loaded: {before:,.0f} MB")
        records = Records(made)
        print(f"records: +{resident() - before:,.0f} MB for {len(records):,} rows")
        start = time.perf_counter()
        ctx = Context(
            tokenizer, model, runtime=Runtime(cache_dir=Path(folder) / "cache", batch_tokens=32768, dtype="float32")
        )
        selection = select(records, IFD(warmup="none", drop_above_one=False), 0.05, ctx)
        print(f"scored: +{resident() - before:,.0f} MB after {time.perf_counter() - start:,.0f} s")
        running[0] = False
        watcher.join()
        print(selection.summary())
        print(f"peak: +{peak[0] - before:,.0f} MB above the loaded model")
        print(f"peak resident memory of the process, files included: {_peak_rss():,.0f} MB")


def _peak_rss() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
