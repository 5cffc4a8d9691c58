"""
Memory and seconds of methods at a million short rows, above those of model and rows.

    python benchmarks/million_rows.py [--rows 1000000] [--cases k_center car ...] [--width 384] [--folder FOLDER]

Each case is a selection in a process of its own: rows of a memory-mapped dataset are tokenized, and what a model would
compute of them is drawn when the cache is asked for it, so that all is read from the disk as after a run with a real
model. Of `mods`, responses lie in the cache. `nuggets` and `forward` differ:

- `nuggets`: one-shot losses of every row and `--tasks` tasks lie in the cache, and are counted;
- `forward`: a tiny random model scores every row (`ifd`, two passes, no warm-up), cache on.

Prints the peak of the resident memory, without pages of files, above what it was when model and rows were there.
`--folder` keeps rows and tokens for other cases.
"""

import argparse
import multiprocessing
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from transformers import BertConfig, BertModel

from hf_dataselect.context import Context
from hf_dataselect.data.records import Records
from hf_dataselect.diversity import load_diversity
from hf_dataselect.engines.forward.one_shot import one_shot_losses
from hf_dataselect.engines.llm.generator import Generator
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.token_rows import TOKEN_FEATURES, TokenRows
from hf_dataselect.engines.store.checked import read_json
from hf_dataselect.engines.store.ragged_store import RaggedStore
from hf_dataselect.engines.store.replies import Reply
from hf_dataselect.engines.store.vector_store import VectorStore
from hf_dataselect.pipeline import select
from hf_dataselect.registry import load_selector
from hf_dataselect.selectors.nuggets import Plan
from tests.engines.llm.test_local import reward_model
from tests.tiny import SENTENCES, tiny_model, tiny_tokenizer


#: Rows that are written to the cache at a time.
BLOCK = 10_000
#: Words of a prompt and of an answer, and noisy copies of a row.
WORDS, COPIES = 12, 30
#: A quality in a column, and what compares rows by an encoder.
RATED = {"quality": "column", "quality_kwargs": {"name": "rating"}}
#: Method and options of each case; `ENCODER` and `REWARD` are folders.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "perplexity": ("perplexity", {}),
    "ifd": ("ifd", {"warmup": "none", "drop_above_one": False}),
    "superfiltering": ("superfiltering", {"model": "MODEL"}),
    "grape": ("grape", {}),
    "rsr": ("rsr", {}),
    "conversation_ifd": ("conversation_ifd", {}),
    "t_shirt": ("t_shirt", {"model": "MODEL", "copies": COPIES}),
    "selectit": ("selectit", {}),
    "deita": ("deita", {"complexity_scorer": "MODEL", "quality_scorer": "MODEL"}),
    "reward": ("reward", {"model": "REWARD"}),
    "rds": ("rds", {}),
    "crds": ("crds", {"components": 128}),
    "token_drop": ("token_drop", {"warmup_epochs": 1}),
    "tsds": ("tsds", {}),
    "tsds, encoder": ("tsds", {"encoder": "ENCODER"}),
    "k_center": ("k_center", {}),
    "car": ("car", {**RATED, "encoder": "ENCODER", "clusters": 50}),
    "qdit": ("qdit", {**RATED, "encoder": "ENCODER"}),
    "qdit, neighbours": ("qdit", {**RATED, "encoder": "ENCODER", "neighbours": 64}),
    "mig": ("mig", {**RATED, "tags": {"tags_column": "tags", "normalize": False}, "encoder": "ENCODER"}),
    "mods": ("mods", {"reward_model": "REWARD", "quality_threshold": -100, "encoder": "ENCODER", "warmup": "none"}),
    "bm25": ("bm25", {}),
    "dsir": ("dsir", {}),
    "filter": ("perplexity", {}),
    "facility location": ("perplexity", {}),
}
DIVERSITY = {"filter": "filter", "facility location": "facility_location"}
#: What a case keeps: greedy choices among all rows take long for more.
FEW = {"k_center": 1000, "car": 1000, "qdit": 100, "qdit, neighbours": 1000, "mig": 1000, "mods": 200}
FEW |= {"facility location": 20}
#: Cases that compare all pairs of rows, which takes days for a million.
SMALL = ("qdit", "facility location")


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
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    said = f"peak +{peak[0] - before:,.0f} MB, {seconds:,.0f} s, {cpu:,.0f} CPU s; {whole:,.0f} MB with files and all"
    print(f"{what}: {said}", flush=True)


@dataclass(frozen=True)
class Drawn(Runtime):
    """A runtime whose cache draws the results that it lacks, in place of a model."""

    #: Label tokens of a row.
    tokens: int = 0

    def store(self, namespace: dict[str, Any], width: int) -> Any:
        return drawing(super().store(namespace, width), lambda draw, n: draw.uniform(1, 20, (n, width)))

    def vector_store(self, namespace: dict[str, Any], width: int, **options: Any) -> VectorStore:
        store = super().vector_store(namespace, width, **options)
        return drawing(store, lambda draw, n: draw.standard_normal((n, width), np.float32))

    def token_store(self, namespace: dict[str, Any]) -> RaggedStore:
        noisy = namespace["engine"] == "noisy losses"  # where the prompt helps
        size, sign = ((1 + self.tokens) * COPIES, -1) if noisy else (self.tokens, 1)
        store = super().token_store(namespace)
        return drawing(store, lambda draw, n: sign * draw.standard_exponential((n, size), np.float32))


def drawing(store: Any, values: Callable[[np.random.Generator, int], np.ndarray]) -> Any:
    """The store, which draws what it is asked for and does not know."""
    find, draw = store.find, np.random.default_rng(0)

    def found(keys: np.ndarray) -> Any:
        missing = np.flatnonzero(~find(keys).known)
        for part in np.split(missing, range(BLOCK, len(missing), BLOCK)):
            store.append(keys[part], values(draw, len(part)), 1e-3)
        return find(keys)

    store.find = found
    return store


def rows(n: int, chats: bool) -> Iterator[dict[str, Any]]:
    """Rows of as many tokens; the prompt of every second row is that of the row before."""
    draw, tokenizer = np.random.default_rng(0), tiny_tokenizer()
    words = sorted({word for word in " ".join(SENTENCES[:4]).split() if len(tokenizer(f" {word}")["input_ids"]) == 1})
    for first in range(0, n, BLOCK):
        drawn = draw.choice(words, (min(BLOCK, n - first), 3, WORDS))
        tags = draw.zipf(1.3, (len(drawn), 3)) % max(20, n // 15)
        ratings = draw.uniform(1, 36, len(drawn))
        for place, (prompt, answer, more) in enumerate(drawn):
            prompt = prompt if place % 2 == 0 else drawn[place - 1][0]
            texts = [" ".join(part) for part in (prompt, answer, more)]
            roles = ("user", "assistant") * 2
            turns = [*texts, " ".join(answer[::-1])] if chats else texts[:2]
            messages = [{"role": role, "content": f" {text}"} for role, text in zip(roles, turns, strict=False)]
            yield {"messages": messages, "rating": ratings[place], "tags": [f"tag {tag}" for tag in tags[place]]}


def folders(folder: Path, width: int) -> dict[str, str]:
    """A causal model, a reward model and an encoder, saved."""
    tokenizer, plain, named = tiny_tokenizer(), tiny_tokenizer(chat_template=False), {}
    sizes = {"hidden_size": width, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(plain), pad_token_id=plain.pad_token_id, **sizes)
    models = {"MODEL": tiny_model(tokenizer, layers=1, hidden=width), "REWARD": reward_model(tokenizer)}
    for name, model in (models | {"ENCODER": BertModel(config)}).items():
        named[name] = str(folder / name)
        for part in (model, plain if name == "ENCODER" else tokenizer):
            part.save_pretrained(named[name])
    return named


def named(options: Any, models: dict[str, str]) -> Any:
    if isinstance(options, dict):
        return {key: named(value, models) for key, value in options.items()}
    return models.get(options, options) if isinstance(options, str) else options


def selection(folder: Path, case: str, options: argparse.Namespace) -> None:
    method, given = CASES[case]
    kept, chats = str(options.folder or folder), method == "conversation_ifd"
    made = Dataset.from_generator(rows, gen_kwargs={"n": options.rows, "chats": chats}, cache_dir=kept)
    target = Dataset.from_generator(rows, gen_kwargs={"n": 20, "chats": False}, cache_dir=kept)
    models, tokenizer = folders(folder, options.width), tiny_tokenizer()
    model = tiny_model(tokenizer, layers=1, hidden=options.width)
    runtime = Drawn(cache_dir=folder / "cache", dtype="float32", silent=True)
    diversity = load_diversity({"kind": DIVERSITY[case], "encoder": models["ENCODER"]} if case in DIVERSITY else None)
    ctx = Context(tokenizer, model, runtime, target=Records(target, name="selection_target"), diversity=diversity)
    selector, records = load_selector(method, named(given, models)), Records(made)
    (tokens,) = np.unique(ctx.encode(records).label_tokens())
    ctx = replace(ctx, runtime=replace(runtime, tokens=int(tokens)))
    if method == "mods":
        answer(records, ctx, selector.max_new_tokens)
    with measured(f"{case}, {options.rows:,} rows, width {options.width}"):
        budget = FEW.get(case, selector.default_budget)
        found = select(records, selector, budget, ctx)
    print(f"  {len(found.indices):,} rows kept; { ({**found.passes}) }", flush=True)


def answer(records: Records, ctx: Context, max_new_tokens: int) -> None:
    """Put a response to each prompt into the cache."""
    text_format, replied = ctx.text_format(), Reply("word " * 100, None, 10, 100, False, 0.1)
    generator = Generator(ctx.model, ctx.tokenizer, replace(ctx.runtime), text_format.key)
    prompts = (np.asarray(text_format.prompt_ids(record), np.int32) for record in records)
    for key in generator._by_key(prompts, max_new_tokens)[0]:
        generator._store.append(key, generator.name, replied)


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


def nuggets(folder: Path, options: argparse.Namespace) -> None:
    n, spans = options.rows, [[(2, 4)]] * options.tasks
    exemplars, tasks = (
        token_rows(folder, n),
        TokenRows.from_lists([[6, 7, 8, 9 + i] for i in range(len(spans))], spans),
    )
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


def forward(folder: Path, options: argparse.Namespace) -> None:
    kept = str(options.folder or folder)
    made = Dataset.from_generator(rows, gen_kwargs={"n": options.rows, "chats": False}, cache_dir=kept)
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer, layers=1, hidden=32)
    with measured(f"forward, {options.rows:,} rows"):
        runtime = Runtime(cache_dir=folder / "cache", batch_tokens=32768, dtype="float32")
        method = load_selector("ifd", CASES["ifd"][1])
        select(Records(made), method, 0.05, Context(tokenizer, model, runtime))


def once(case: str, options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        own = {"nuggets": nuggets, "forward": forward}.get(case)
        selection(Path(folder), case, options) if own is None else own(Path(folder), options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    cases = [*CASES, "nuggets", "forward"]
    parser.add_argument("--cases", nargs="+", choices=cases, default=[case for case in cases if case not in SMALL])
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    for case in options.cases:
        started = multiprocessing.get_context("fork").Process(target=once, args=(case, options))
        started.start()
        started.join()
        if started.exitcode:
            print(f"{case} ended with {started.exitcode}", flush=True)


if __name__ == "__main__":
    main()
