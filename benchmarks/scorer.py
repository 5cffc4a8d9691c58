"""
DEITA's scorers: speed beside the authors' way, and whether the scores agree with ratings, in one run.

    python benchmarks/scorer.py MODEL_FOLDER ROWS.jsonl[.gz] [--rows 200] [--plain_rows 40] [--rated chatgpt_score]

The authors' way generates two tokens for one row at a time and takes the expectation over six logits of the first; the
fast way is `DEITA.featurize` with the same model and prompts, in the same dtype. With `--rated`, only rows that have a
number in that column are taken, and the rank correlation of complexity, quality and their product with it is printed.
"""

import argparse
import time

import numpy as np
import torch
from scipy.stats import spearmanr
from transformers import AutoModelForCausalLM, AutoTokenizer, logging

from hf_dataselect.context import Context
from hf_dataselect.data.load import load_rows
from hf_dataselect.data.records import Records
from hf_dataselect.engines.llm.local_model import LocalModel
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.features.judgements import turns_of
from hf_dataselect.fitted.scorers.scorer_prompts import own_question
from hf_dataselect.selectors.deita import DEITA


def authors_way(model, tokenizer, records: Records) -> np.ndarray:
    """Complexity and quality, `(n, 2)`: two tokens generated for one prompt at a time."""
    scorer = LocalModel(model, tokenizer)  # for the prompts only
    digits = [tokenizer.convert_tokens_to_ids(digit) for digit in "123456"]
    found = []
    for record in records:
        ratings = []
        for kind in ("complexity", "quality"):
            ids = torch.tensor([scorer.prompt_ids(own_question(kind, *turns_of(record)[0]))])
            out = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=2,
                do_sample=False,
                return_dict_in_generate=True,
                output_scores=True,
                pad_token_id=tokenizer.eos_token_id,
            )
            weights = out.scores[0][0, digits].float().softmax(0)
            ratings.append(float(weights @ torch.arange(1.0, 7.0)))
        found.append(ratings)
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--plain_rows", type=int, default=40)
    parser.add_argument("--rated", help="column of ratings")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    rows = load_rows(options.data)
    if options.rated:
        rows = rows.select([i for i, value in enumerate(rows[options.rated]) if value is not None])
    rows = rows.shuffle(seed=0).select(range(min(options.rows, len(rows))))
    records, sample = Records(rows), Records(rows.select(range(min(options.plain_rows, len(rows)))))
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    for dtype in options.dtypes:
        model = AutoModelForCausalLM.from_pretrained(options.model, dtype=getattr(torch, dtype)).eval()
        ctx = Context(tokenizer, model, runtime=Runtime(dtype=dtype), max_length=1024)
        started = time.perf_counter()
        features = DEITA("model", "model").featurize(records, ctx)
        fast = (time.perf_counter() - started) / len(records)
        with torch.no_grad():
            started = time.perf_counter()
            plain = authors_way(model, tokenizer, sample)
            slow = (time.perf_counter() - started) / len(sample)
        mine = np.column_stack([features["complexity"], features["quality"]])[: len(sample)]
        print(
            f"{dtype}: authors' way {1 / slow:.2f} rows/s, here {1 / fast:.2f} rows/s, {slow / fast:.2f} x; "
            f"largest difference of a rating {np.nanmax(np.abs(mine - plain)):.1e}"
        )
        if options.rated:
            ratings = np.array(rows[options.rated], np.float64)
            scores = {**{kind: features[kind] for kind in ("complexity", "quality")}}
            scores["complexity x quality"] = features["complexity"] * features["quality"]
            for name, values in scores.items():
                known = np.isfinite(values)
                found = spearmanr(values[known], ratings[known])
                print(f"  rank correlation of {name} with {options.rated}, {known.sum()} rows: {found.statistic:.3f}")


if __name__ == "__main__":
    main()
