"""
What a policy costs a training step, against plain `SFTTrainer`, as a ratio.

    python benchmarks/policy_overhead.py                                # a small Llama that is made here
    python benchmarks/policy_overhead.py --model SMOLLM2_FOLDER --steps 12

Plain training and the policy's run in two processes and take turns, a step each, so that what else the machine does
hits both alike. Each step of the policy is divided by the mean of the plain ones before and after it; the median and
the quartiles of these ratios are printed. Where there is no GPU, steps are measured in CPU seconds of one thread,
which waiting does not change. What a policy does before training (some score the rows once) is printed, too.

All train LoRA, as `greats` needs; `--full` trains all weights, without it.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, TrainerCallback
from trl import SFTConfig, SFTTrainer

from hf_dataselect import DataSelectingConfig, DataSelectingTrainer
from hf_dataselect.declared import policy_names
from hf_dataselect.registry import policy_class


#: Steps that are not counted.
WARM_UP = 3


class Turns(TrainerCallback):
    """Takes a step when told to, and tells what it cost, with what comes between steps."""

    def __init__(self, pipe: Any, trainer: SFTTrainer):
        self._pipe, self._trainer = pipe, trainer

    def _wait(self, control: Any) -> None:
        if not self._pipe.recv():
            control.should_training_stop = True
        self._before = now()

    def on_train_begin(self, args, state, control, **kwargs):
        self._pipe.send(getattr(getattr(self._trainer, "online", None), "prepared_in", 0.0))
        self._wait(control)

    def on_step_end(self, args, state, control, **kwargs):
        self._pipe.send(now() - self._before)
        self._wait(control)


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def train(name: str, given: argparse.Namespace, pipe: Any) -> None:
    """Train under a policy, or plainly, by turns."""
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(given.tokenizer or given.model)
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(100, len(tokenizer) - 1, (16 * given.batch, given.tokens), generator=draw).tolist()
    rows = Dataset.from_dict({"text": tokenizer.batch_decode(ids), "source": ["a", "b"] * (8 * given.batch)})
    torch.manual_seed(0)
    if given.model:
        model = AutoModelForCausalLM.from_pretrained(given.model)
    else:
        sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=True, **sizes))
    options: dict[str, Any] = {"max_steps": 10_000, "per_device_train_batch_size": given.batch, "report_to": "none"}
    options |= {"save_strategy": "no", "disable_tqdm": True, "logging_strategy": "no", "max_length": given.tokens}
    options |= {} if torch.cuda.is_available() else {"use_cpu": True, "bf16": False}
    own: dict[str, Any] = {"processing_class": tokenizer, "train_dataset": rows}
    if not given.full:
        own["peft_config"] = LoraConfig(r=given.lora, target_modules="all-linear", lora_dropout=0.05)
    with tempfile.TemporaryDirectory() as folder:
        if name == "plain":
            trainer = SFTTrainer(model, SFTConfig(folder, **options), **own)
        else:
            if policy_class(name).reads_gradients:
                options["selection_target"] = str(Path(folder) / "target.jsonl")
                lines = "\n".join(json.dumps({"text": text}) for text in rows[:16]["text"])
                Path(options["selection_target"]).write_text(lines, encoding="utf-8")
            args = DataSelectingConfig(folder, selection_policy=name, selection_cache_dir="none", **options)
            trainer = DataSelectingTrainer(model, args, **own)
        trainer.add_callback(Turns(pipe, trainer))
        trainer.train()


def started(name: str, given: argparse.Namespace) -> tuple[Any, Any, float]:
    """The process of a training, its pipe, and the seconds that its policy took before the first step."""
    pipe, other = multiprocessing.Pipe()
    process = multiprocessing.Process(target=train, args=(name, given, other), daemon=True)
    process.start()
    other.close()
    return process, pipe, pipe.recv()


def step(pipe: Any) -> float:
    """The seconds of the next step of a training."""
    pipe.send(True)
    return pipe.recv()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder or name; by default a Llama of 4 layers, 256 wide")
    parser.add_argument("--tokenizer", help="folder or name; by default the model's")
    parser.add_argument("--policies", nargs="+", default=policy_names(), choices=policy_names())
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=256, help="of a row")
    parser.add_argument("--lora", type=int, default=8, help="rank")
    parser.add_argument("--full", action="store_true", help="train all weights")
    given = parser.parse_args()
    multiprocessing.set_start_method("spawn")
    plain, plain_pipe, _ = started("plain", given)
    for _ in range(WARM_UP):
        step(plain_pipe)
    said = []
    for name in given.policies:
        if given.full and policy_class(name).reads_gradients:
            continue
        process, pipe, prepared = started(name, given)
        for _ in range(WARM_UP):
            step(pipe)
        before, ratios, seconds = step(plain_pipe), [], []
        for _ in range(given.steps):
            own, after = step(pipe), step(plain_pipe)
            ratios.append(2 * own / (before + after))
            seconds.append(after)
            before = after
        pipe.send(False)
        process.join()
        low, middle, high = statistics.quantiles(ratios, n=4)
        text = f"{name:12} {middle:.3f} of a plain step ({low:.3f} to {high:.3f}), {prepared:.1f} s before training"
        said.append(f"{text}; a plain step {statistics.median(seconds):.2f} s")
    plain_pipe.send(False)
    plain.join()
    print(f"{given.batch} rows of {given.tokens} tokens a step:", *said, sep="\n")


if __name__ == "__main__":
    main()
