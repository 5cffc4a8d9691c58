"""
Gradients of LoRA weights a row, beside one backward pass a row, in one run.

    python benchmarks/gradients.py MODEL_FOLDER ROWS.jsonl[.gz] [--rows 16 64 128] [--adapters 8 16] [--rounds 3]

Both take the same rows in the same dtype, in turns. The adapters have rank 8 on q, k, v and o, and 16 on all linear
layers. The engine also projects each gradient to 8,192 numbers; the plain way only gathers it. Prints the median CPU
seconds of both and their ratio, and the peak memory of both above that of the loaded model, each in a process of its
own. `--bits` prints instead what quantized vectors cost and keep: bytes a row, and the rank correlation of the mean
cosine of each row's gradient to those of the first eight.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, logging

from hf_dataselect.data.encoding import encode
from hf_dataselect.data.load import load_rows
from hf_dataselect.data.records import Records
from hf_dataselect.data.text import TextFormat
from hf_dataselect.engines.gradients.collect import gradients
from hf_dataselect.engines.gradients.layers import lora_layers
from hf_dataselect.engines.gradients.projection import Projection
from hf_dataselect.engines.gradients.quantized import Codes, rank_correlation
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.token_rows import TokenRows


ADAPTERS = {8: ["q_proj", "k_proj", "v_proj", "o_proj"], 16: "all-linear"}
TARGET = 8


def load(folder: str, rank: int, dtype: str) -> torch.nn.Module:
    """The model with LoRA, B not zero."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=rank, target_modules=ADAPTERS[rank], task_type="CAUSAL_LM")).eval()
    for layer in lora_layers(model).values():
        torch.nn.init.normal_(layer.weight, std=0.02)
    return model.to(getattr(torch, dtype))


def plain(model: torch.nn.Module, rows: TokenRows) -> None:
    """One backward pass a row."""
    model.requires_grad_(False)
    weights = [layer.weight.requires_grad_(True) for layer in lora_layers(model).values()]
    for ids, spans in rows.take(range(len(rows))):
        ids = torch.from_numpy(ids.astype(np.int64))[None].to(model.device)
        labels = torch.full_like(ids, -100)
        for begin, end in spans:
            labels[0, begin:end] = ids[0, begin:end]
        model(input_ids=ids, labels=labels).loss.backward()
        torch.cat([weight.grad.flatten() for weight in weights])
        model.zero_grad()


def engine(model: torch.nn.Module, rows: TokenRows, dtype: str) -> np.ndarray:
    """Projected unit gradients."""
    return gradients(model, rows, Runtime(dtype=dtype, silent=True), project=Projection(dtype="float32")).vectors


def megabytes(name: str) -> float:
    """A line of the process's status: `VmRSS`, or its peak `VmHWM`."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def peak(way: str, model: torch.nn.Module, rows: TokenRows, dtype: str) -> float:
    """Megabytes above the loaded model."""
    before = megabytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    if way == "plain":
        plain(model, rows.select(np.argsort(-rows.lengths)[:1]))
    else:
        engine(model, rows, dtype)
    return megabytes("VmHWM") - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 64, 128])
    parser.add_argument("--adapters", type=int, nargs="+", default=[8, 16], choices=ADAPTERS)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max_length", type=int, default=512)
    parser.add_argument("--bits", action="store_true", help="quantized vectors, of the first of rows and adapters")
    parser.add_argument("--peak", choices=["plain", "engine"], help="only this figure, in this process")
    options = parser.parse_args()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    form = TextFormat(AutoTokenizer.from_pretrained(options.model), max_length=options.max_length, end_of_turn=True)
    records = Records(load_rows(options.data).select(range(max(options.rows))))
    every = encode(records, form).tokens
    if options.bits:
        model = load(options.model, options.adapters[0], options.dtypes[0])
        vectors = engine(model, every.select(np.arange(options.rows[0])), options.dtypes[0])
        exact = (vectors[TARGET:] @ vectors[:TARGET].T).mean(1)
        for bits in (8, 4, 1):
            codes = Codes(vectors.shape[1], bits)
            scores = (codes.decode(codes.encode(vectors[TARGET:])) @ vectors[:TARGET].T).mean(1)
            said = f"{codes.size:,} bytes a row (16 bits: {2 * codes.width:,})"
            print(f"{bits} bits: {said}, rank correlation {rank_correlation(scores, exact):.3f}", flush=True)
        return
    for dtype in options.dtypes:
        for rank in options.adapters:
            model = load(options.model, rank, dtype)
            for count in options.rows:
                rows = every.select(np.arange(count))
                if options.peak:
                    print(peak(options.peak, model, rows, dtype))
                    return
                seconds = {"plain": [], "engine": []}
                for _ in range(options.rounds):
                    for way in seconds:
                        start = time.process_time()
                        plain(model, rows) if way == "plain" else engine(model, rows, dtype)
                        seconds[way].append(time.process_time() - start)
                one, other = (statistics.median(spent) for spent in seconds.values())
                fixed = ["--rows", str(count), "--adapters", str(rank), "--dtypes", dtype]
                fixed += ["--max_length", str(options.max_length)]
                peaks = []
                for way in seconds:
                    command = [sys.executable, sys.argv[0], options.model, options.data, *fixed, "--peak", way]
                    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                    peaks.append(float(said.split()[-1]))
                print(
                    f"{dtype}, r {rank}, {count} rows, {rows.lengths.sum():,} tokens: plain {one:.1f} CPU s, engine "
                    f"{other:.1f}, {one / other:.2f} x; memory {peaks[0]:,.0f} and {peaks[1]:,.0f} MB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
