"""The example of the README: the baseline, the control and a selection, compared."""

from datasets import load_dataset

from hf_dataselect import DataSelectingConfig, DataSelectingTrainer


rows = load_dataset("yahma/alpaca-cleaned", split="train[:5000]").train_test_split(test_size=0.1, seed=0)
model = "HuggingFaceTB/SmolLM2-135M"


def run(name: str, **options) -> DataSelectingTrainer:
    # Without a GPU: use_cpu=True, bf16=False
    args = DataSelectingConfig(f"runs/{name}", num_train_epochs=3, learning_rate=2e-5, **options)
    trainer = DataSelectingTrainer(model, args, train_dataset=rows["train"], eval_dataset=rows["test"])
    print(trainer.select().summary())  # rows kept, seconds, rows excluded and why
    trainer.train()
    trainer.save_model()
    return trainer


run("full", selection_method="full")  # the baseline, BM
run("random", selection_method="random", selection_budget=0.05, baseline_dir="runs/full")  # the control
chosen = run("ifd", selection_method="ifd", selection_budget=0.05, baseline_dir="runs/full")
chosen.selected_dataset().to_parquet("best_rows.parquet")  # best first
