"""
Speed of Nuggets' one-shot scoring, beside the plain way, in one run.

    python benchmarks/nuggets.py MODEL_FOLDER ROWS.jsonl[.gz] [--candidates 16] [--tasks 32] [--threshold 0.8]

Prints, for each dtype: seconds of joining exemplar and task and scoring the pairs one by one in the same dtype (the
plain way, full logits), seconds of the engine, their ratio, the tokens that the engine is spared, and how far the two
are apart. Then: what stopping early spares, and whether it changes the selection. Rounds are interleaved and medians
are taken, because other work on the machine slows everything.
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
from hf_dataselect.engines.forward.likelihood import likelihood
from hf_dataselect.engines.forward.one_shot import one_shot_losses
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.token_rows import TokenRows
from hf_dataselect.features.one_shot_tasks import task_tokens
from hf_dataselect.selectors.nuggets import Plan


def plain(model, exemplars: TokenRows, tasks: TokenRows, pairs: list[tuple[int, int]]) -> np.ndarray:
    """Summed loss of each pair: exemplar and task encoded together, logits at every position."""
    losses, examples = [], tasks.take(range(len(tasks)))
    with torch.no_grad():
        for row, place in pairs:
            (exemplar, _), (task, spans) = exemplars.take([row])[0], examples[place]
            ids = torch.from_numpy(np.concatenate([exemplar, task]).astype(np.int64))[None].to(model.device)
            logits = model(ids).logits[0, :-1].float()
            loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none").double()
            losses.append(sum(float(loss[len(exemplar) + a - 1 : len(exemplar) + b - 1].sum()) for a, b in spans))
    return np.array(losses)


def one_shot_loss(model, exemplars: TokenRows, tasks: TokenRows, runtime: Runtime, **options) -> np.ndarray:
    """Those of all exemplars in memory, float64 `(exemplars, tasks)`; NaN for exemplars not among `rows`."""
    loss = np.full((len(exemplars), len(tasks)), np.nan)
    one_shot_losses(model, exemplars, tasks, runtime, loss.__setitem__, **options)
    return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--tasks", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--plain_pairs", type=int, default=64, help="pairs of one plain round (an even sample)")
    parser.add_argument("--threshold", type=float, default=0.8)
    parser.add_argument("--batch_tokens", type=int, default=1536)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    options = parser.parse_args()
    logging.disable_progress_bar()
    n, m = options.candidates, options.tasks
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    text_format, rows = TextFormat(tokenizer, max_length=512), load_rows(options.data)
    exemplars = encode(Records(rows.select(range(n))), text_format).tokens
    tasks = task_tokens(Records(rows.select(range(n, n + m))), text_format)
    pairs = [(pair // m, pair % m) for pair in range(0, n * m, max(1, n * m // options.plain_pairs))]
    joined = m * int(exemplars.lengths.sum()) + n * int(tasks.one_shot.lengths.sum())
    print(f"{n} candidates x {m} tasks, {joined} tokens joined; {torch.get_num_threads()} threads", flush=True)

    models = {name: AutoModelForCausalLM.from_pretrained(options.model, dtype=name) for name in options.dtypes}
    runtimes = {}
    seconds, found = {(name, way): [] for name in models for way in ("plain", "engine")}, {}
    for _ in range(options.repeat):
        for name, model in models.items():
            start = time.perf_counter()
            found[name, "plain"] = plain(model, exemplars, tasks.one_shot, pairs)
            seconds[name, "plain"].append((time.perf_counter() - start) * n * m / len(pairs))
            start = time.perf_counter()
            runtimes[name] = Runtime(batch_tokens=options.batch_tokens, dtype=name)
            found[name] = one_shot_loss(model, exemplars, tasks.one_shot, runtimes[name])
            seconds[name, "engine"].append(time.perf_counter() - start)
            ratio = seconds[name, "plain"][-1] / seconds[name, "engine"][-1]
            print(f"{name}: {ratio:.2f} x plain", flush=True)
    for name, model in models.items():
        own, other = (statistics.median(seconds[name, way]) for way in ("engine", "plain"))
        far = np.abs(found[name][tuple(np.array(pairs).T)] - found[name, "plain"]).max()
        saved = 1 - runtimes[name].account.passes["forward_tokens"] / joined
        print(
            f"{name}: engine {own:.1f} s, plain {other:.1f} s (from {len(pairs)} pairs), {other / own:.2f} x; "
            f"{saved:.0%} of the tokens saved; largest difference of a summed loss {far:.1e} nats"
        )
        zero_shot = likelihood(model, tasks.zero_shot, Runtime(batch_tokens=options.batch_tokens, dtype=name)).loss
        golden = (found[name] < zero_shot).mean(1)
        for stop in ("dropped", "sealed"):
            plan = Plan(zero_shot, options.threshold, stop)
            start = time.perf_counter()
            early = one_shot_loss(
                model, exemplars, tasks.one_shot, Runtime(batch_tokens=options.batch_tokens, dtype=name), wanted=plan
            )
            took = time.perf_counter() - start
            wins, left = (early < zero_shot).sum(1), np.isnan(early).sum(1)
            above = [
                plan.decided(*pair) == 1 if pair[1] else pair[0] / m > options.threshold
                for pair in zip(wins, left, strict=True)
            ]
            same = np.array_equal(above, golden > options.threshold)
            print(
                f"{name}, stop={stop!r} at {options.threshold}: {n * m - left.sum()} of {n * m} pairs run, "
                f"{took:.1f} s; {sum(above)} rows above, {'the same' if same else 'NOT THE SAME'} as with all pairs"
            )


if __name__ == "__main__":
    main()
