"""
A benchmark of one's own beside the held-out rows: does the model stop by itself, or write on and on?

    python examples/own_benchmark.py --model_name_or_path HuggingFaceTB/SmolLM2-135M \
        --dataset_name yahma/alpaca-cleaned --output_dir runs/stops --selection_method length --selection_budget 0.1

Its settings are logged, kept in `eval.json`, and part of PIR, as those of every benchmark. From a recipe, with this
file in the working folder: `benchmarks: [{kind: own_benchmark:Stops, prompts: [...]}]`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import load_dataset
from trl import ModelConfig, ScriptArguments, TrlParser

from hf_dataselect import Context, DataSelectingConfig, DataSelectingTrainer
from hf_dataselect.evaluation.benchmark import Benchmark, Setting


PROMPTS = [
    "Name three primary colours.",
    "What is the capital of France?",
    "Add 17 and 25.",
    "Write one sentence about rain.",
]


@dataclass(kw_only=True)
class Stops(Benchmark):
    """Whether an answer ends within `max_new_tokens`. Setting: `share`, higher is better."""

    name: str = "stops"
    at_end: bool = True
    prompts: list[str] = field(default_factory=list)
    max_new_tokens: int = 32

    def protocol(self) -> dict[str, Any]:
        return {"prompts": self.prompts, "max_new_tokens": self.max_new_tokens}

    def score(self, ctx: Context, folder: Path | None = None) -> dict[str, Setting]:
        tokenizer, stopped = ctx.tokenizer, []
        for prompt in self.prompts:
            turns = [{"role": "user", "content": prompt}]
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            asked = tokenizer(text, return_tensors="pt", add_special_tokens=False).to(ctx.model.device)
            written = ctx.model.generate(
                **asked,
                max_new_tokens=self.max_new_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
            stopped.append(float(tokenizer.eos_token_id in written[0, asked["input_ids"].shape[1] :].tolist()))
        return {"share": Setting.of(np.array(stopped), higher_is_better=True)}


def main(script: ScriptArguments, args: DataSelectingConfig, model: ModelConfig) -> None:
    rows = load_dataset(script.dataset_name, name=script.dataset_config, split=script.dataset_train_split)
    split = rows.train_test_split(test_size=12, seed=args.seed)
    trainer = DataSelectingTrainer(
        model.model_name_or_path,
        args,
        train_dataset=split["train"],
        eval_dataset=split["test"],
    )
    print(trainer.select().summary())
    trainer.train()


if __name__ == "__main__":
    parser = TrlParser((ScriptArguments, DataSelectingConfig, ModelConfig))
    parser.set_defaults_with_config(benchmarks=[{"kind": "own_benchmark:Stops", "prompts": PROMPTS}])
    main(*parser.parse_args_and_config())
