"""
GRPO on prompts of the right difficulty:

    python examples/grpo_prompts.py --model_name_or_path HuggingFaceTB/SmolLM2-135M-Instruct \
        --dataset_name trl-lib/DeepMath-103K --output_dir runs/grpo --budget 0.5

The dataset has `prompt` and `solution`. Without stored pass rates, the model answers each prompt some times. Prompts
that it always or never solves are left out, and while training, `PromptSampler` draws those that it solves about half
of the time.
"""

from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset, load_dataset
from torch.utils.data import Sampler
from trl import GRPOConfig, GRPOTrainer, ModelConfig, ScriptArguments, TrlParser

from hf_dataselect import select_dataset
from hf_dataselect.training.prompt_sampler import PromptSampler
from hf_dataselect.training.rollouts import with_rollouts


@dataclass
class SelectionArguments:
    budget: float = field(default=0.5, metadata={"help": "The part of the prompts to keep."})
    rollouts: int = field(default=8, metadata={"help": "Answers to each prompt, where no pass rates are stored."})


def contains(completions: list[Any], solution: list[str], **_) -> list[float | None]:
    """1 where the solution is in the completion, else 0."""
    texts = [given if isinstance(given, str) else given[-1]["content"] for given in completions]
    return [float(right.strip("$") in text) for text, right in zip(texts, solution, strict=True)]


class PromptSamplingTrainer(GRPOTrainer):
    prompts: PromptSampler

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Sampler:
        return self.prompts


def main(script: ScriptArguments, selecting: SelectionArguments, args: GRPOConfig, model: ModelConfig) -> None:
    rows = load_dataset(script.dataset_name, name=script.dataset_config, split=script.dataset_train_split)
    if "pass_rate" not in rows.column_names:
        rows = with_rollouts(
            rows,
            model.model_name_or_path,
            contains,
            selecting.rollouts,
            max_new_tokens=args.max_completion_length,
            seed=args.seed,
        )
    kept, selection = select_dataset(
        rows, "pass_rate", budget=selecting.budget, seed=args.seed, output_dir=args.output_dir
    )
    print(selection.summary())
    kept = kept.add_column("prompt_row", range(len(kept)))
    sampler = PromptSampler(
        len(kept),
        args.generation_batch_size // args.num_generations,
        args.num_generations,
        repeats=args.num_iterations * args.steps_per_generation,
        decay=0.5,
        seed=args.seed,
    )
    trainer = PromptSamplingTrainer(
        model.model_name_or_path, sampler.observing(contains), args, train_dataset=kept, callbacks=[sampler]
    )
    trainer.prompts = sampler
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model()


if __name__ == "__main__":
    main(*TrlParser((ScriptArguments, SelectionArguments, GRPOConfig, ModelConfig)).parse_args_and_config())
