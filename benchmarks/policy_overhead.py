"""
What a policy costs a training step, against plain `SFTTrainer`, as a ratio.

    python benchmarks/policy_overhead.py                                # a small Llama that is made here
    python benchmarks/policy_overhead.py --model SMOLLM2_FOLDER --steps 20

All trainings run in one process, plain ones first and last, whose difference tells what ratios are worth. Medians of
the steps after the first three are compared; where there is no GPU, of CPU seconds, which other work on the machine
hardly changes. What a policy does before training (`loss_weight`, `tail_drop` score the rows once) is printed, too.
"""

import argparse
import statistics
import tempfile
import time

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, TrainerCallback
from trl import SFTConfig, SFTTrainer

from hf_dataselect import DataSelectingConfig, DataSelectingTrainer
from hf_dataselect.declared import policy_names


#: Steps that are not counted.
WARM_UP = 3


class Timed(TrainerCallback):
    """Seconds of each step, with what comes between steps."""

    def __init__(self):
        self.seconds: list[float] = []

    def on_train_begin(self, args, state, control, **kwargs):
        self._before = now()

    def on_step_end(self, args, state, control, **kwargs):
        time_now = now()
        self.seconds.append(time_now - self._before)
        self._before = time_now


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder or name; by default a Llama of 4 layers, 256 wide")
    parser.add_argument("--tokenizer", required=True, help="folder or name of a tokenizer")
    parser.add_argument("--policies", nargs="+", default=policy_names(), choices=policy_names())
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=8, help="an even number")
    parser.add_argument("--tokens", type=int, default=256, help="of a row")
    given = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(given.tokenizer)
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(100, len(tokenizer) - 1, (given.steps * given.batch, given.tokens), generator=draw).tolist()
    rows = Dataset.from_dict({"text": tokenizer.batch_decode(ids), "source": ["a", "b"] * (len(ids) // 2)})
    common = {"max_steps": given.steps, "per_device_train_batch_size": given.batch, "report_to": "none"}
    common |= {"save_strategy": "no", "disable_tqdm": True, "logging_strategy": "no", "max_length": given.tokens}
    common |= {} if torch.cuda.is_available() else {"use_cpu": True, "bf16": False}

    def model() -> torch.nn.Module:
        if given.model:
            return AutoModelForCausalLM.from_pretrained(given.model)
        torch.manual_seed(0)
        sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4}
        return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=True, **sizes))

    def medians(names: list[str]) -> dict[str, tuple[float, float]]:
        """Median seconds of a step, and seconds before training."""
        found = {}
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                own = {"processing_class": tokenizer, "train_dataset": rows}
                if name in given.policies:
                    args = DataSelectingConfig(folder, selection_policy=name, selection_cache_dir="none", **common)
                    trainer = DataSelectingTrainer(model(), args, **own)
                else:
                    trainer = SFTTrainer(model(), SFTConfig(folder, **common), **own)
                timed = Timed()
                trainer.add_callback(timed)
                trainer.train()
                before = trainer.online.prepared_in if name in given.policies else 0.0
                found[name] = statistics.median(timed.seconds[WARM_UP:]), before
        return found

    found = medians(["plain", *given.policies, "plain again"])
    plain = (found["plain"][0] + found["plain again"][0]) / 2
    print(f"A step of plain SFTTrainer: {plain:.3f} s, {given.batch} rows of {given.tokens} tokens.")
    for name, (seconds, before) in found.items():
        print(f"{name:12} {seconds / plain:.3f} of a plain step, {before:.1f} s before training")


if __name__ == "__main__":
    main()
