"""
DPO on selected preference pairs:

    python examples/dpo_pairs.py --model_name_or_path HuggingFaceTB/SmolLM2-135M-Instruct \
        --dataset_name trl-lib/ultrafeedback_binarized --output_dir runs/dpo \
        --method reward_gap --policy runs/dpo-all --budget 0.1

`reward_gap` needs a policy, the model trained with DPO on these pairs or others. Any other method scores the chosen
answers: `--method ifd`.
"""

from dataclasses import dataclass, field
from typing import Literal

from datasets import load_dataset
from trl import DPOConfig, DPOTrainer, ModelConfig, ScriptArguments, TrlParser

from hf_dataselect import select_dataset


@dataclass
class SelectionArguments:
    method: str = field(default="reward_gap", metadata={"help": "A method of `hf-dataselect methods`."})
    budget: float = field(default=0.1, metadata={"help": "The part of the pairs to keep."})
    policy: str | None = field(default=None, metadata={"help": "Of `reward_gap`: the model trained with DPO."})
    keep: Literal["smallest", "lowest", "highest"] = field(
        default="smallest", metadata={"help": "Of `reward_gap`: which gaps; `highest` are the easy pairs."}
    )


def main(script: ScriptArguments, selecting: SelectionArguments, args: DPOConfig, model: ModelConfig) -> None:
    pairs = load_dataset(script.dataset_name, name=script.dataset_config, split=script.dataset_train_split)
    options = {"policy": selecting.policy or "", "keep": selecting.keep} if selecting.method == "reward_gap" else None
    kept, selection = select_dataset(
        pairs,
        selecting.method,
        model.model_name_or_path,
        budget=selecting.budget,
        method_kwargs=options,
        seed=args.seed,
        max_length=args.max_length,
        output_dir=args.output_dir,
    )
    print(selection.summary())
    trainer = DPOTrainer(model.model_name_or_path, args=args, train_dataset=kept)
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main(*TrlParser((ScriptArguments, SelectionArguments, DPOConfig, ModelConfig)).parse_args_and_config())
