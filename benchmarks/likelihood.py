"""
Speed of likelihood scoring, beside the plain way, in one run.

    python benchmarks/likelihood.py MODEL_FOLDER ROWS.jsonl[.gz] [--rows 500] [--repeat 3]

Prints, for each dtype: tokens/s of one row at a time with full logits (the plain way), tokens/s of the engine, their
ratio, and the engine's matrix-product rate as a share of what the machine does when it does nothing but these
products, measured between the passes. Rounds are interleaved and medians are taken, because other work on the machine
slows everything.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, logging

from hf_dataselect.data.encoding import encode
from hf_dataselect.data.load import load_rows
from hf_dataselect.data.records import Records
from hf_dataselect.data.text import TextFormat
from hf_dataselect.engines.forward.likelihood import common_prefix, likelihood
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.token_rows import TokenRows


def plain(model, rows: TokenRows, places: range) -> list[float]:
    """Mean answer loss of each row: one row at a time, logits at every position."""
    losses = []
    with torch.no_grad():
        for ids, spans in rows.take(places):
            ids = torch.tensor(ids).long()[None]
            logits = model(ids).logits[0, :-1].float()
            counted = torch.zeros(ids.shape[1], dtype=torch.bool)
            for start, end in spans:
                counted[max(start, 1) : end] = True
            loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
            losses.append(float(loss[counted[1:]].mean()))
    return losses


def product_rate(model, dtype: torch.dtype, tokens: int, counted: int, seconds: float = 2.0) -> float:
    """
    FLOP/s of the matrix products alone, as the machine does them: the model's linear layers one after another on
    `tokens` rows, then the head on the `counted` of them; median.
    """
    layers = [p.detach() for n, p in model.named_parameters() if "layers" in n and p.ndim == 2]
    weights = [(weight, tokens) for weight in layers] + [(model.get_output_embeddings().weight.detach(), counted)]
    shapes = {(rows, weight.shape[1]) for weight, rows in weights}
    inputs = {shape: torch.randn(shape, dtype=dtype) for shape in shapes}
    flops, rates, end = sum(2 * rows * weight.numel() for weight, rows in weights), [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        for weight, rows in weights:
            torch.nn.functional.linear(inputs[rows, weight.shape[1]], weight)
        rates.append(flops / (time.perf_counter() - start))
    return statistics.median(rates)


def computed_flops(model, rows: TokenRows) -> int:
    """Matrix products of the engine: layers, causal attention, and the head where a token is counted; no padding."""
    weights = sum(p.numel() for n, p in model.named_parameters() if "layers" in n and p.ndim == 2)
    head, start = model.get_output_embeddings().weight, common_prefix(rows, np.arange(len(rows)))
    total = 0
    for ids, spans in rows.take(range(len(rows))):
        skipped = len(start) if np.array_equal(ids[: len(start)], start) else 0
        seen = (len(ids) * (len(ids) + 1) - skipped * (skipped + 1)) // 2  # pairs of a token and one it attends to
        total += 2 * weights * (len(ids) - skipped) + 2 * head.numel() * int((spans[:, 1] - spans[:, 0]).sum())
        total += 4 * model.config.num_hidden_layers * head.shape[1] * seen
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--plain_rows", type=int, default=100, help="rows of one plain round (an even sample)")
    parser.add_argument("--batch_tokens", type=int, default=1536)
    options = parser.parse_args()
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    records = Records(load_rows(options.data).select(range(options.rows)))
    rows = encode(records, TextFormat(tokenizer, max_length=1024)).tokens
    sample = range(0, len(rows), max(1, len(rows) // options.plain_rows))
    sampled = int(rows.lengths[list(sample)].sum())
    answers = sum(int((spans[:, 1] - spans[:, 0]).sum()) for _, spans in rows.take(range(len(rows))))
    print(f"{len(rows)} rows, {rows.lengths.sum()} tokens, {answers} answer tokens; {torch.get_num_threads()} threads")

    models = {d: AutoModelForCausalLM.from_pretrained(options.model, dtype=d) for d in (torch.float32, torch.bfloat16)}
    flops = computed_flops(models[torch.float32], rows)
    shape = options.batch_tokens, options.batch_tokens * answers // int(rows.lengths.sum())
    rates = {"plain": []} | {d: [] for d in models} | {(d, "share"): [] for d in models}
    losses = {}
    for _ in range(options.repeat):
        start = time.perf_counter()
        losses["plain"] = plain(models[torch.float32], rows, sample)
        rates["plain"].append(sampled / (time.perf_counter() - start))
        for dtype, model in models.items():
            name = str(dtype).removeprefix("torch.")
            before = product_rate(model, dtype, *shape)
            start = time.perf_counter()
            losses[dtype] = likelihood(model, rows, Runtime(batch_tokens=options.batch_tokens, dtype=name)).mean_loss
            seconds = time.perf_counter() - start
            rates[dtype].append(int(rows.lengths.sum()) / seconds)
            rates[dtype, "share"].append(
                flops / seconds / statistics.mean([before, product_rate(model, dtype, *shape)])
            )
            print(
                f"{name}: {rates[dtype][-1] / rates['plain'][-1]:.2f} x plain, {rates[dtype, 'share'][-1]:.0%}",
                flush=True,
            )
    one = statistics.median(rates["plain"])
    print(f"plain, one row at a time, full logits, float32: {one:,.0f} tokens/s")
    for dtype in models:
        rate, share = statistics.median(rates[dtype]), statistics.median(rates[dtype, "share"])
        far = max(abs(a - b) for a, b in zip(losses["plain"], losses[dtype][list(sample)], strict=True))
        print(
            f"engine, {dtype}: {rate:,.0f} tokens/s, {rate / one:.2f} x plain, {share:.0%} of the machine's matrix "
            f"products; largest difference of a mean loss {far:.1e}"
        )


if __name__ == "__main__":
    main()
