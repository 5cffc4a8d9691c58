"""
Memory and seconds at a million short rows, above those of model and rows.

    python benchmarks/million_rows.py [--rows 1000000] [--case ifd|nuggets|mods] [--tasks 100] [--width 384]

- `ifd`: a tiny random model scores every row of a memory-mapped dataset (two passes, no warm-up), cache on.
- `nuggets`: one-shot losses of every row and task, as they lie in the cache after all parts are computed, are counted.
- `mods`: k-center picks 100 rows by vectors that lie in the cache.

Prints the peak of the resident memory, without pages of files, above what it was when model and rows were there.
"""

import argparse
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, Value

from hf_dataselect.context import Context
from hf_dataselect.data.records import Records
from hf_dataselect.engines.forward.one_shot import one_shot_losses
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.stored_vectors import stored_vectors
from hf_dataselect.engines.runtime.token_rows import TOKEN_FEATURES, TokenRows
from hf_dataselect.engines.store.checked import read_json
from hf_dataselect.engines.subset.choose import k_center
from hf_dataselect.pipeline import select
from hf_dataselect.selectors.ifd import IFD
from hf_dataselect.selectors.nuggets import Plan
from tests.tiny import SENTENCES, tiny_model, tiny_tokenizer


#: Rows that are written to the cache at a time.
BLOCK = 10_000


def resident() -> float:
    """Resident memory of this process, without pages of memory-mapped files, MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields["RssAnon"].split()[0]) / 1024


@contextmanager
def measured(what: str) -> Iterator[None]:
    """Print the peak above what is resident now, and the seconds."""
    before, peak, running, start = resident(), [0.0], [True], time.perf_counter()

    def watch() -> None:
        while running[0]:
            peak[0] = max(peak[0], resident())
            time.sleep(0.05)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    cpu = time.process_time()
    yield
    running[0] = False
    watcher.join()
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - start
    print(f"{what}: peak +{peak[0] - before:,.0f} MB, {seconds:,.0f} s, {cpu:,.0f} CPU s")
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak resident memory of the process, files included: {whole:,.0f} MB")


def rows(n: int):
    draw = np.random.default_rng(0)
    words = " ".join(SENTENCES[:4]).split()
    for _ in range(n):
        prompt, answer = draw.choice(words, 3), draw.choice(words, 4)
        yield {"instruction": " ".join(prompt), "input": "", "output": " ".join(answer)}


def ifd(folder: Path, n: int, options: argparse.Namespace) -> None:
    features = Features({name: Value("string") for name in ("instruction", "input", "output")})
    made = Dataset.from_generator(rows, gen_kwargs={"n": n}, features=features, cache_dir=str(folder))
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer, layers=1, hidden=32)
    with measured(f"ifd, {n:,} rows"):
        runtime = Runtime(cache_dir=folder / "cache", batch_tokens=32768, dtype="float32")
        select(Records(made), IFD(warmup="none", drop_above_one=False), 0.05, Context(tokenizer, model, runtime))


def token_rows(folder: Path, n: int) -> TokenRows:
    """Rows of eight tokens, all different, on disk."""
    ids = np.tile(np.arange(6, 14, dtype=np.int32), (n, 1))
    for place in range(4):
        ids[:, place] += (np.arange(n) // 100**place % 100).astype(np.int32)
    columns = [pa.FixedSizeListArray.from_arrays(pa.array(ids.ravel()), 8).cast(pa.list_(pa.int32()))]
    spans = np.tile(np.array([4, 8], np.int32), n)
    columns.append(pa.FixedSizeListArray.from_arrays(pa.array(spans), 2).cast(pa.list_(pa.int32())))
    made = Dataset(pa.table(columns, names=["input_ids", "spans"])).cast(TOKEN_FEATURES)
    made.save_to_disk(str(folder / "tokens"))
    del made, columns, ids, spans
    return TokenRows(Dataset.load_from_disk(str(folder / "tokens")))


def nuggets(folder: Path, n: int, options: argparse.Namespace) -> None:
    exemplars, tasks = token_rows(folder, n), TokenRows.from_lists([[6, 7, 8, 9 + i] for i in range(options.tasks)],
                                                                  [[(2, 4)]] * options.tasks)  # fmt: skip
    model, runtime = tiny_model(tiny_tokenizer(), layers=1, hidden=32), Runtime(cache_dir=folder / "cache")
    one_shot_losses(model, exemplars, tasks, runtime, lambda *_: None, rows=np.zeros(0, np.int64))  # makes the folder
    (namespace,) = (folder / "cache").glob("*/namespace.json")
    store = runtime.store(read_json(namespace, ""), options.tasks)
    draw = np.random.default_rng(0)
    keys = exemplars.keys()
    for part in np.split(np.arange(n), range(BLOCK, n, BLOCK)):
        store.append(keys[part], draw.random((len(part), options.tasks)) * 20, 0.1)
    store.close()
    del keys
    zero_shot, (wins, run) = np.full(options.tasks, 10.0), np.zeros((2, n), np.int64)

    def count(rows: np.ndarray, losses: np.ndarray) -> None:
        wins[rows], run[rows] = (losses < zero_shot).sum(1), np.isfinite(losses).sum(1)

    with measured(f"nuggets, {n:,} rows x {options.tasks:,} tasks"):
        one_shot_losses(model, exemplars, tasks, runtime, count, wanted=Plan(zero_shot, 0.8, "dropped"))
    assert (run == options.tasks).all() and 0.4 < wins.mean() / options.tasks < 0.6
    assert "forward_rows" not in {name for name, number in runtime.account.passes.items() if number}


def mods(folder: Path, n: int, options: argparse.Namespace) -> None:
    runtime, draw = Runtime(cache_dir=folder / "cache"), np.random.default_rng(0)
    store = runtime.vector_store({"engine": "benchmark"}, options.width)
    keys = np.arange(2 * n, dtype=np.uint64).view("V16")
    for part in np.split(np.arange(n), range(BLOCK, n, BLOCK)):
        store.append(keys[part], draw.normal(size=(len(part), options.width)).astype(np.float32), 0.1)
    store.close()
    with measured(f"mods, {n:,} rows x {options.width:,}"):
        embedded = stored_vectors(store, keys, lambda rows: 1 / 0, runtime)
        usable = np.flatnonzero(embedded.usable)
        picked, _ = k_center(embedded.take(usable), 100)
    assert len(usable) == n and len(np.unique(picked)) == 100


CASES = {"ifd": ifd, "nuggets": nuggets, "mods": mods}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--case", choices=CASES, default="ifd")
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--width", type=int, default=384)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        CASES[options.case](Path(folder), options.rows, options)


if __name__ == "__main__":
    main()
