"""
What eight methods that read losses and states cost together, against IFD alone; and IFD and perplexity against the
plain loop that a good engineer would write (`naive`: sorted, padded batches of 8, full logits).

    python benchmarks/one_pass.py MODEL_FOLDER ROWS.jsonl[.gz] [--rows 500] [--repeat 2]

Prints CPU seconds of each, which other work on the machine changes least, the best of `--repeat` in turn, and ratios.
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
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")
        losses[batch] = (loss.sum(1) / (labels[:, 1:] != -100).sum(1)).numpy()
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("rows")
    parser.add_argument("--rows", dest="count", type=int, default=500)
    parser.add_argument("--repeat", type=int, default=2)
    options = parser.parse_args()
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

    def selected(method: Selector) -> None:
        own = Context(tokenizer, model, Runtime(dtype="float32", silent=True), max_length=512)
        select(rows, method, 0.1, own)

    work = {
        "naive perplexity": lambda: naive(model, plain[0]),
        "naive IFD": lambda: [naive(model, side) for side in plain],
        "perplexity": lambda: selected(Perplexity()),
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
    for name, over in (("eight methods", "IFD"), ("naive IFD", "IFD"), ("naive perplexity", "perplexity")):
        print(f"{name} / {over}: {best[name] / best[over]:.2f}")


if __name__ == "__main__":
    main()
