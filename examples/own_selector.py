"""
A selector of one's own, run in a trainer: rows whose prompt asks a question.

    python examples/own_selector.py --model_name_or_path HuggingFaceTB/SmolLM2-135M \
        --dataset_name yahma/alpaca-cleaned --output_dir runs/questions --selection_budget 0.1

From a recipe, with this file in the working folder: `selection_method: own_selector:Questions`.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from datasets import load_dataset
from trl import ModelConfig, ScriptArguments, TrlParser

from hf_dataselect import Card, Context, DataSelectingConfig, DataSelectingTrainer, Records, Selector
from hf_dataselect.options import PositiveInt


@dataclass
class Questions(Selector):
    """
    Prefer rows whose prompt asks a question: users of a chat model mostly ask. Score: the number of question marks.

    Args:
        most (`int`, *optional*, defaults to `3`):
            Question marks that count.
    """

    most: PositiveInt = 3

    card: ClassVar[Card] = Card(title="rows that ask", features="human-designed", label_source="question marks")

    def needs(self) -> frozenset:
        return frozenset({"text", "prompt"})

    def score(self, features: Records, ctx: Context) -> np.ndarray:
        return np.array([min(record.prompt.count("?"), self.most) for record in features], np.float32)


def main(script: ScriptArguments, args: DataSelectingConfig, model: ModelConfig) -> None:
    rows = load_dataset(script.dataset_name, name=script.dataset_config, split=script.dataset_train_split)
    trainer = DataSelectingTrainer(
        model.model_name_or_path,
        args,
        train_dataset=rows,
        selector=Questions(most=2),
    )
    print(trainer.select().summary())
    trainer.train()


if __name__ == "__main__":
    main(*TrlParser((ScriptArguments, DataSelectingConfig, ModelConfig)).parse_args_and_config())
