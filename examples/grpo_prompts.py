"""
GRPO on prompts of the right difficulty, for a model of your own:

    python examples/grpo_prompts.py MODEL ROWS OUTPUT_DIR

The dataset has `prompt` and `answer`. The model answers each prompt some times; prompts that it always or never solves
are left out, and while training, `PromptSampler` draws those that it solves about half of the time.
"""

import sys
from collections.abc import Callable

import torch
from datasets import Dataset, load_dataset
from torch.utils.data import Sampler
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from hf_dataselect import select_dataset
from hf_dataselect.training.prompt_sampler import PromptSampler


def contains(completions: list[str], answer: list[str], **_) -> list[float]:
    """1 where the answer is in the completion."""
    return [float(right in given) for given, right in zip(completions, answer, strict=True)]


def with_rollouts(rows: Dataset, model: str, reward: Callable, n: int = 8, max_new_tokens: int = 64) -> Dataset:
    """The rows, with the rewards of `n` sampled answers of the model in the column `pass_rate`."""
    tokenizer, policy = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model).eval()

    @torch.no_grad()
    def rewards(row: dict) -> dict:
        ids = tokenizer(row["prompt"], return_tensors="pt").to(policy.device)
        options = {"do_sample": True, "num_return_sequences": n, "max_new_tokens": max_new_tokens}
        answers = policy.generate(**ids, **options)[:, ids["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
        return {
            "pass_rate": reward(completions=texts, **{name: [row[name]] * n for name in row if name != "pass_rate"})
        }

    return rows.map(rewards)


class PromptSamplingTrainer(GRPOTrainer):
    prompts: PromptSampler

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Sampler:
        return self.prompts


def main(model: str, rows: str, output_dir: str, reward: Callable = contains, **options) -> PromptSamplingTrainer:
    prompts = load_dataset("json", data_files=rows, split="train")
    if "pass_rate" not in prompts.column_names:  # stored rates or rewards need no rollouts
        prompts = with_rollouts(prompts, model, reward)
    kept, selection = select_dataset(prompts, "pass_rate", budget=0.5)
    print(selection.summary())
    kept = kept.add_column("prompt_row", range(len(kept)))
    args = GRPOConfig(output_dir, **options)
    sampler = PromptSampler(
        len(kept),
        args.generation_batch_size // args.num_generations,
        args.num_generations,
        repeats=args.num_iterations * args.steps_per_generation,
        decay=0.5,
    )
    trainer = PromptSamplingTrainer(model, sampler.observing(reward), args, train_dataset=kept)
    trainer.prompts = sampler
    trainer.train()
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:])
