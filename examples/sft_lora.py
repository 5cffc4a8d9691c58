"""
Supervised fine-tuning with LoRA on the rows that a method keeps: TRL's script, with another trainer.

    python examples/sft_lora.py --model_name_or_path HuggingFaceTB/SmolLM2-135M-Instruct \
        --dataset_name yahma/alpaca-cleaned --output_dir runs/lora \
        --selection_method perplexity --selection_budget 0.1 --use_peft --lora_r 16
"""

from datasets import load_dataset
from trl import ModelConfig, ScriptArguments, TrlParser, get_peft_config

from hf_dataselect import DataSelectingConfig, DataSelectingTrainer


def main(script: ScriptArguments, args: DataSelectingConfig, model: ModelConfig) -> None:
    rows = load_dataset(script.dataset_name, name=script.dataset_config, split=script.dataset_train_split)
    split = rows.train_test_split(test_size=0.05, seed=args.seed)
    trainer = DataSelectingTrainer(
        model.model_name_or_path,
        args,
        train_dataset=split["train"],
        eval_dataset=split["test"],
        peft_config=get_peft_config(model),
    )
    print(trainer.select().summary())
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main(*TrlParser((ScriptArguments, DataSelectingConfig, ModelConfig)).parse_args_and_config())
