"""
DPO on selected pairs, for a model of your own:

    python examples/dpo_pairs.py MODEL POLICY ROWS OUTPUT_DIR [reward_gap|ifd|perplexity]

POLICY is a model trained with DPO from MODEL, on these pairs or others; only `reward_gap` needs it.
"""

import sys

from datasets import load_dataset
from trl import DPOConfig, DPOTrainer

from hf_dataselect import select_dataset


def main(model: str, policy: str, rows: str, output_dir: str, method: str = "reward_gap", **options) -> DPOTrainer:
    pairs = load_dataset("json", data_files=rows, split="train")  # prompt, chosen, rejected
    # The pairs of the smallest gap; {"keep": "largest"} keeps the easy ones.
    kwargs = {"policy": policy, "keep": "smallest"} if method == "reward_gap" else None
    kept, selection = select_dataset(pairs, method, model, budget=0.5, method_kwargs=kwargs)
    print(selection.summary())
    trainer = DPOTrainer(model, args=DPOConfig(output_dir, **options), train_dataset=kept)
    trainer.train()
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:])
