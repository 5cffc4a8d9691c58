"""
What eight methods that read losses and states cost together, against IFD alone; IFD and perplexity against the plain
loop that a good engineer would write (`naive`: sorted, padded batches of 8, full logits), and RDS against such a loop
without logits (`naive_states`); and another budget, weighting or condition over stored numbers of `--stored` rows.

    python benchmarks/one_pass.py MODEL_FOLDER ROWS.jsonl[.gz] [--rows 500] [--repeat 2]

Prints CPU seconds of each, which other work on the machine changes least, the best of `--repeat` in turn, and ratios.
With `--stored_only`, the last part alone.
"""

import argparse
import time

import numpy as np
import torch
from datasets import Dataset, load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_dataselect.context import Context
from hf_dataselect.data.chat_template import default_chat_template
from hf_dataselect.data.records import Records
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.pipeline import select
from hf_dataselect.selector import Selector
from hf_dataselect.selectors.blend import Blend
from hf_dataselect.selectors.ifd import IFD
from hf_dataselect.selectors.perplexity import Perplexity
from hf_dataselect.selectors.rds import RDS


EIGHT = {
    "ifd": {"kwargs": {"warmup": "none"}},
    "ifd by perplexity": {"method": "ifd", "kwargs": {"warmup": "none", "ratio": "perplexity"}},
    **{f"perplexity {end}": {"method": "perplexity", "kwargs": {"keep": end}} for end in ("top", "middle", "bottom")},
    "rsr": 1,
    "rsr 20": {"method": "rsr", "kwargs": {"rank_clip": 20}},
    "grape": 1,
}


@torch.no_grad()
def naive(model, rows, size: int = 8) -> np.ndarray:
    """Mean loss of the label tokens of `(ids, first label token)`."""
    losses = np.zeros(len(rows))
    order = np.argsort([-len(ids) for ids, _ in rows], kind="stable")
    for begin in range(0, len(rows), size):
        batch = order[begin : begin + size]
        width = max(len(rows[row][0]) for row in batch)
        ids, labels = torch.zeros((len(batch), width), dtype=torch.int64), torch.full((len(batch), width), -100)
        for place, row in enumerate(batch):
            tokens, first = rows[row]
            ids[place, : len(tokens)] = torch.from_numpy(tokens.astype(np.int64))
            labels[place, first : len(tokens)] = ids[place, first : len(tokens)]
        mask = (torch.arange(width) < torch.tensor([len(rows[row][0]) for row in batch])[:, None]).long()
        ids, labels, mask = (tensor.to(model.device) for tensor in (ids, labels, mask))
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")
        losses[batch] = (loss.sum(1) / (labels[:, 1:] != -100).sum(1)).cpu().numpy()
    return losses


@torch.no_grad()
def naive_states(model, rows: list[np.ndarray], size: int = 8) -> np.ndarray:
    """Mean of the last hidden states weighted by position, at length 1, of token ids."""
    vectors = np.zeros((len(rows), model.config.hidden_size), np.float32)
    order = np.argsort([-len(ids) for ids in rows], kind="stable")
    for begin in range(0, len(rows), size):
        batch = order[begin : begin + size]
        ids = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(rows[row]) for row in batch], batch_first=True)
        mask = torch.arange(ids.shape[1]) < torch.tensor([len(rows[row]) for row in batch])[:, None]
        weights = mask * torch.arange(1, ids.shape[1] + 1)
        ids, mask, weights = (tensor.to(model.device) for tensor in (ids, mask.long(), weights))
        states = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        total = (states.float() * weights[..., None]).sum(1)
        vectors[batch] = (total / total.norm(dim=1, keepdim=True)).cpu().numpy()
    return vectors


def stored(rows: Dataset, n: int) -> None:
    """Seconds of a selection over three columns of scores of `n` rows: the first, and others after it."""
    draw = np.random.default_rng(0)
    rows = Dataset.from_list([rows[int(row)] for row in draw.integers(0, len(rows), n)])
    for name in ("a", "b", "c"):
        rows = rows.add_column(name, draw.random(n))
    records = Records(rows)
    members = {name: {"method": "column", "kwargs": {"name": name}} for name in ("a", "b", "c")}
    other = {name: members[name] | {"weight": weight} for name, weight in (("a", 2), ("b", 1), ("c", -1))}
    ways = {
        "the first": (members, None, 0.1),
        "another budget": (members, None, 0.05),
        "other weights": (other, None, 0.1),
        "a condition": (members, "a > 0.3 and b < 0.8", 0.1),
    }
    for name, (given, where, budget) in ways.items():
        began = time.process_time()
        select(records, Blend(given, where=where), budget, Context(None, None, Runtime(silent=True)))
        print(f"blend of stored columns, {n:,} rows, {name}: {time.process_time() - began:.2f} CPU s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("rows")
    parser.add_argument("--rows", dest="count", type=int, default=500)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--stored", type=int, default=50_000, help="rows of the last part")
    parser.add_argument("--stored_only", action="store_true")
    options = parser.parse_args()
    if options.stored_only:
        stored(load_dataset("json", data_files=options.rows, split="train"), options.stored)
        return
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    tokenizer.chat_template = tokenizer.chat_template or default_chat_template(tokenizer)
    rows = load_dataset("json", data_files=options.rows, split="train")
    rows = Dataset.from_list(rows.shuffle(seed=0).select(range(options.count)).to_list())
    ctx = Context(tokenizer, model, Runtime(dtype="float32", silent=True), max_length=512)
    sides = [ctx.encode(Records(rows)), ctx.encode(Records(rows), unconditional=True)]
    plain = [
        [(ids, int(spans[0, 0])) for ids, spans in side.tokens.take(range(len(side.tokens))) if len(spans)]
        for side in sides
    ]

    target = rows.select(range(8))
    embedded = ctx.encode(Records(target)).tokens, sides[0].tokens
    texts = [ids.astype(np.int64) for tokens in embedded for ids, _ in tokens.take(range(len(tokens)))]

    def selected(method: Selector) -> None:
        own = Context(tokenizer, model, Runtime(dtype="float32", silent=True), max_length=512, target=Records(target))
        select(rows, method, 0.1, own)

    work = {
        "naive perplexity": lambda: naive(model, plain[0]),
        "naive IFD": lambda: [naive(model, side) for side in plain],
        "naive RDS": lambda: naive_states(model, texts),
        "perplexity": lambda: selected(Perplexity()),
        "RDS": lambda: selected(RDS()),
        "IFD": lambda: selected(IFD(warmup="none")),
        "eight methods": lambda: selected(Blend(EIGHT)),
    }
    best = dict.fromkeys(work, np.inf)
    for _ in range(options.repeat):
        for name, function in work.items():
            began = time.process_time()
            function()
            best[name] = min(best[name], time.process_time() - began)
    for name, seconds in best.items():
        print(f"{name}: {seconds:.1f} CPU s")
    print(f"{len(rows)} rows, {sum(len(ids) for ids, _ in plain[0]):,} tokens; {torch.get_num_threads()} threads")
    for name, over in (
        ("eight methods", "IFD"),
        ("naive IFD", "IFD"),
        ("naive perplexity", "perplexity"),
        ("naive RDS", "RDS"),
    ):
        print(f"{name} / {over}: {best[name] / best[over]:.2f}")
    stored(rows, options.stored)


if __name__ == "__main__":
    main()
