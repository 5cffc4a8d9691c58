"""
What `selection_method: full` costs over plain `SFTTrainer`: the same training, alternating, in one run.

    python benchmarks/full_overhead.py MODEL_FOLDER ROWS.jsonl[.gz] [--rows 64] [--repeat 5]

Each round constructs the trainer and trains on all rows; prints the median of the rounds' ratios.
"""

import argparse
import statistics
import tempfile
import time

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, logging
from trl import SFTConfig, SFTTrainer

from hf_dataselect.data.load import load_rows
from hf_dataselect.data.records import Records
from hf_dataselect.training.config import DataSelectingConfig
from hf_dataselect.training.trainer import DataSelectingTrainer


def seconds_of(trainer_class, config_class, model: str, rows: Dataset) -> tuple[float, list[float]]:
    """Wall-clock seconds from construction to the end of training, and the losses."""
    loaded, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    with tempfile.TemporaryDirectory() as folder:
        args = config_class(
            folder, use_cpu=True, report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True
        )
        start = time.perf_counter()
        trainer = trainer_class(loaded, args, train_dataset=rows, processing_class=tokenizer)
        trainer.train()
        taken = time.perf_counter() - start
    return taken, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    logging.disable_progress_bar()
    rows = Records(load_rows(options.data).select(range(options.rows))).for_training()
    rows = Dataset.from_list(rows.to_list())  # in memory, so that no round finds another's tokenization in the cache
    ratios = []
    for round_ in range(options.repeat + 1):
        pairs = [(SFTTrainer, SFTConfig), (DataSelectingTrainer, DataSelectingConfig)]
        timed = {
            kind: seconds_of(kind, config, options.model, rows) for kind, config in pairs[:: 1 - 2 * (round_ % 2)]
        }
        plain, mine = timed[SFTTrainer], timed[DataSelectingTrainer]
        assert plain[1] == mine[1], "the losses differ"
        if round_:  # the first one warms up
            ratios.append(mine[0] / plain[0])
            print(f"plain {plain[0]:.2f} s, full {mine[0]:.2f} s, ratio {ratios[-1]:.4f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.4f}; losses equal in every round")


if __name__ == "__main__":
    main()
