"""
Gradient features of LoRA weights, beside the plain way, in one run.

    python benchmarks/gradients.py MODEL_FOLDER ROWS.jsonl[.gz] [--rows 128] [--rounds 3]

The plain way is that of the first LESS code: one backward pass a row, Adam's update of the whole gradient, a dense
Rademacher projection of 16 rows at a time whose random matrix is made anew for each 16. Of that matrix only
`--plain_columns` columns are made and multiplied; the time of all is in proportion. The engine takes all rows, with
the sketch. Prints seconds a row of both, gradients and projection apart, their ratio, and the peak memory of a LoRA
training step and of the engine on the very same batch, each in a process of its own.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, logging

from hf_dataselect.data.encoding import encode
from hf_dataselect.data.load import load_rows
from hf_dataselect.data.records import Records
from hf_dataselect.data.text import TextFormat
from hf_dataselect.engines.gradients import projection
from hf_dataselect.engines.gradients.adam import AdamFeature, AdamState
from hf_dataselect.engines.gradients.collect import gradients
from hf_dataselect.engines.gradients.layers import lora_layers
from hf_dataselect.engines.gradients.projection import Projection
from hf_dataselect.engines.runtime.batching import batches_by_tokens
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.token_rows import TokenRows


def load(folder: str, rank: int) -> torch.nn.Module:
    """The model with LoRA on all linear layers, B not zero."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM")).eval()
    for layer in lora_layers(model).values():
        torch.nn.init.normal_(layer.weight, std=0.02)
    return model


def some_state(model: torch.nn.Module) -> AdamState:
    """Moments as an optimizer would hold them; their values cost nothing."""
    weights = {f"{name}.weight": layer.weight for name, layer in lora_layers(model).items()}
    first = {name: torch.randn_like(weight) * 1e-3 for name, weight in weights.items()}
    return AdamState(first, {name: torch.rand_like(weight) * 1e-5 for name, weight in weights.items()})


def plain(model: torch.nn.Module, rows: TokenRows, places: list[int], state: AdamState, dim: int, columns: int):
    """Seconds of gradients with Adam's update, of making the random matrix, and of the product, for up to 16 rows."""
    start, features = time.perf_counter(), []
    weights = [layer.weight.requires_grad_(True) for layer in lora_layers(model).values()]
    first, second = (torch.cat([m.flatten() for m in part.values()]) for part in (state.exp_avg, state.exp_avg_sq))
    for ids, spans in rows.take(places):
        ids = torch.from_numpy(ids.astype(np.int64))[None].to(model.device)
        labels = torch.full_like(ids, -100)
        for begin, end in spans:
            labels[0, begin:end] = ids[0, begin:end]
        model(input_ids=ids, labels=labels).loss.backward()
        gradient = torch.cat([weight.grad.flatten() for weight in weights])
        model.zero_grad()
        features.append((0.9 * first + 0.1 * gradient) / torch.sqrt(0.999 * second + 0.001 * gradient**2 + 1e-8))
    backward = time.perf_counter() - start
    features, start = torch.stack(features), time.perf_counter()
    signs = torch.randint(0, 2, (features.shape[1], columns), dtype=torch.int8, device=features.device)
    signs = signs.float().mul_(2).sub_(1)
    made = time.perf_counter()
    features @ signs
    return backward, (made - start) * dim / columns, (time.perf_counter() - made) * dim / columns


class Clock:
    """Seconds spent in the sketch, layer by layer."""

    def __init__(self):
        self.seconds, add = 0.0, projection._Sketch.add

        def timed(*arguments):
            start = time.perf_counter()
            add(*arguments)
            self.seconds += time.perf_counter() - start

        projection._Sketch.add = timed


def peak(what: str, options: argparse.Namespace, rows: TokenRows) -> None:
    """Prints the process's peak memory in MB after a step on the longest batch."""
    model = load(options.model, options.rank)
    batch = batches_by_tokens(rows.lengths, options.batch_tokens)[0]
    if what == "engine":
        project = Projection(dim=options.dim)
        some = rows.take(batch)
        few = TokenRows.from_lists([ids.tolist() for ids, _ in some], [spans.tolist() for _, spans in some])
        feature = AdamFeature(some_state(model))
        runtime = Runtime(dtype="float32", batch_tokens=4 * options.batch_tokens)  # a backward batch is a quarter
        gradients(model, few, runtime, adam=feature, project=project)
    else:
        model.train().requires_grad_(False)
        weights = [layer.weight.requires_grad_(True) for layer in lora_layers(model).values()]
        optimizer = torch.optim.AdamW(weights)
        width = int(rows.lengths[batch].max())
        ids, labels = np.zeros((len(batch), width), np.int64), np.full((len(batch), width), -100)
        for row, (own, spans) in enumerate(rows.take(batch)):
            ids[row, : len(own)] = own
            for begin, end in spans:
                labels[row, begin:end] = own[begin:end]
        for _ in range(2):  # the second step has the optimizer's state beside it
            model(input_ids=torch.from_numpy(ids), labels=torch.from_numpy(labels)).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--dim", type=int, default=8192)
    parser.add_argument("--batch_tokens", type=int, default=1024)
    parser.add_argument("--max_length", type=int, default=512)
    parser.add_argument("--plain_rows", type=int, default=16)
    parser.add_argument("--plain_columns", type=int, default=16)
    parser.add_argument("--peak", choices=["engine", "training"], help="only this figure, in this process")
    options = parser.parse_args()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    records = Records(load_rows(options.data).select(range(options.rows)))
    rows = encode(records, TextFormat(tokenizer, max_length=options.max_length, end_of_turn=True)).tokens
    if options.peak:
        return peak(options.peak, options, rows)
    model, clock = load(options.model, options.rank), Clock()
    state, layers = some_state(model), lora_layers(model)
    size = sum(layer.weight.numel() for layer in layers.values())
    print(
        f"{len(rows)} rows, {rows.lengths.sum()} tokens, D = {size:,}; {torch.get_num_threads()} threads", flush=True
    )
    chosen = list(range(0, len(rows), max(1, len(rows) // options.plain_rows)))[: options.plain_rows]
    tokens = int(rows.lengths[chosen].sum())
    seconds = {}
    for _ in range(options.rounds):
        found = plain(model, rows, chosen, state, options.dim, options.plain_columns)
        # Per token, because the plain way took other rows.
        for part, spent in zip(("gradients", "random matrix", "projection"), found, strict=True):
            seconds.setdefault(f"plain, {part}", []).append(spent / tokens * rows.lengths.sum() / len(rows))
        for dtype in ("float32", "auto"):
            clock.seconds, start = 0.0, time.perf_counter()
            project, feature = Projection(dim=options.dim), AdamFeature(state)
            runtime = Runtime(dtype=dtype, batch_tokens=4 * options.batch_tokens)  # a backward batch is a quarter
            gradients(model, rows, runtime, adam=feature, project=project)
            whole = time.perf_counter() - start
            seconds.setdefault(f"engine, {dtype}, gradients", []).append((whole - clock.seconds) / len(rows))
            seconds.setdefault(f"engine, {dtype}, projection", []).append(clock.seconds / len(rows))
    middle = {part: statistics.median(spent) for part, spent in seconds.items()}
    for part, spent in middle.items():
        print(f"{part}: {spent:.3f} s a row")
    whole = sum(middle[f"plain, {part}"] for part in ("gradients", "random matrix", "projection"))
    for dtype in ("float32", "auto"):
        own, small = middle[f"engine, {dtype}, gradients"], middle[f"engine, {dtype}, projection"]
        print(
            f"engine, {dtype}: {whole / (own + small):.1f} x plain; gradients alone "
            f"{middle['plain, gradients'] / own:.2f} x"
        )
    peaks = {}
    for what in ("training", "engine"):
        command = [sys.executable, *sys.argv, "--peak", what]
        peaks[what] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
    print(f"peak: LoRA training {peaks['training']:,.0f} MB, engine {peaks['engine'] - peaks['training']:+,.0f} MB")


if __name__ == "__main__":
    main()
