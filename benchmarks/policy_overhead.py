"""
What a policy costs a training step, against plain `SFTTrainer`, as a ratio.

    python benchmarks/policy_overhead.py                                # a small Llama that is made here
    python benchmarks/policy_overhead.py --model SMOLLM2_FOLDER --steps 6 --policies domains tail_drop

Plain training and that of a policy run in this process, on one thread of torch, and take turns, a step each: each
step of the policy is divided by the mean of the plain ones before and after it. The median and the quartiles of these
ratios are printed, those of a second plain training first, which tell how far chance goes. Both train the same model
(`greats` has its own, which it hooks into), run on one core and allocate alike: another core, or memory that lies
elsewhere, changes a step by several percent. Where there is no GPU, steps are measured in CPU seconds, which waiting
does not change.

Beside other work that is not enough to tell percents. So the part of a step that the policy's own code takes is
printed, too: reading and telling apart its lines (plain training reads them as well), weighing losses, learning of the
step; not the backward pass through weights, nor what `greats` hooks into. And what a policy does before training.

All rows have as many tokens, so that all steps are as large. All train LoRA, as `greats` needs; `--full` trains all
weights, without it.
"""

import argparse
import ctypes
import json
import os
import random
import statistics
import string
import sys
import tempfile
import time
from pathlib import Path
from threading import Semaphore, Thread
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig, PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PrinterCallback,
    TrainerCallback,
)
from trl import SFTConfig, SFTTrainer

from hf_dataselect import DataSelectingConfig, DataSelectingTrainer
from hf_dataselect.declared import policy_names
from hf_dataselect.registry import policy_class
from hf_dataselect.testing.samples import tiny_context


#: Steps that are not counted, and steps of an epoch.
WARM_UP, EPOCH = 2, 16
PLAIN = "plain again"
#: Options of glibc's `mallopt`: one arena, which keeps what is freed (up to 32 MiB a block), so that no training gets
#: fresh pages where the other one gets old ones. M_ARENA_MAX, M_TRIM_THRESHOLD, M_MMAP_THRESHOLD.
MALLOC = {-8: 1, -1: 2**31 - 1, -3: 2**25}


def now() -> float:
    """Seconds of the GPU, or of the CPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


class Turns(TrainerCallback):
    """A training in a thread of its own, which makes a step when it is asked to, and rests in between."""

    def __init__(self, trainer: SFTTrainer):
        self.trainer, self._go, self._done = trainer, Semaphore(0), Semaphore(0)
        self._ended, self._error = False, None
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(self)
        self._thread = Thread(target=self._train, daemon=True)
        self._thread.start()
        self._wait()

    def _train(self) -> None:
        try:
            self.trainer.train()
        except BaseException as error:
            self._error = error
        self._done.release()

    def _wait(self) -> None:
        self._done.acquire()
        if self._error is not None:
            raise self._error

    def step(self) -> float:
        """The seconds of the next step, with what comes between steps."""
        started = now()
        self._go.release()
        self._wait()
        return now() - started

    def end(self) -> None:
        """Make a last step."""
        self._ended = True
        self.step()
        self._thread.join()

    def on_train_begin(self, args, state, control, **kwargs):
        self._done.release()
        self._go.acquire()

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = self._ended
        self._done.release()
        if not self._ended:
            self._go.acquire()


def model_of(given: argparse.Namespace) -> tuple[Any, Any]:
    """Model and tokenizer."""
    if given.model:
        return AutoModelForCausalLM.from_pretrained(given.model), AutoTokenizer.from_pretrained(given.model)
    sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=8192, tie_word_embeddings=True, **sizes))
    return model, tiny_context().tokenizer


def trainer_of(name: str, given: argparse.Namespace, folder: Path, model: Any, tokenizer: Any) -> SFTTrainer:
    """The trainer of a policy, or a plain one."""
    draw, count = random.Random(0), EPOCH * given.batch
    texts = [" ".join(draw.choices(string.ascii_lowercase, k=given.tokens)) for _ in range(count)]  # then cut
    rows = Dataset.from_dict({"text": texts, "source": ["a", "b"] * (count // 2)})
    options: dict[str, Any] = {"max_steps": 10_000, "per_device_train_batch_size": given.batch, "report_to": "none"}
    options |= {"save_strategy": "no", "disable_tqdm": True, "logging_strategy": "no", "max_length": given.tokens}
    options |= {} if torch.cuda.is_available() else {"use_cpu": True, "bf16": False}
    own: dict[str, Any] = {"processing_class": tokenizer, "train_dataset": rows}
    if not given.full and not isinstance(model, PeftModel):
        own["peft_config"] = LoraConfig(r=given.lora, target_modules="all-linear", lora_dropout=0.05)
    if name == PLAIN:
        return SFTTrainer(model, SFTConfig(str(folder), **options), **own)
    if policy_class(name).reads_gradients:
        target = folder.with_suffix(".jsonl")
        target.write_text("\n".join(json.dumps({"text": text}) for text in texts[:16]), encoding="utf-8")
        options["selection_target"] = str(target)
    args = DataSelectingConfig(str(folder), selection_policy=name, selection_cache_dir="none", **options)
    return DataSelectingTrainer(model, args, **own)


def timed(owner: Any, name: str, spent: list[float], sign: int = 1) -> None:
    """Let a method note what each call takes."""
    method = getattr(owner, name)

    def noted(*given: Any, **options: Any) -> Any:
        started = now()
        try:
            return method(*given, **options)
        finally:
            spent.append(sign * (now() - started))

    setattr(owner, name, noted)


def measured(name: str, plain: Turns, given: argparse.Namespace, folder: Path) -> str:
    """The steps of a training against plain ones, in words."""
    model, tokenizer = plain.trainer.model, plain.trainer.processing_class
    if name != PLAIN and policy_class(name).reads_gradients:  # what it hooks in would cost plain steps, too
        model, tokenizer = model_of(given)
    training = Turns(trainer_of(name, given, folder, model, tokenizer))
    for _ in range(WARM_UP):
        training.step(), plain.step()
    online, spent = getattr(training.trainer, "online", None), []
    if online is not None:
        timed(training.trainer, "data_collator", spent, -1)  # which plain training calls, too
        timed(online.tap, "_weigh", spent)
        for method in ("batches", "on_step_end", "passed"):
            timed(online, method, spent)
    before, ratios, seconds, of_policy = plain.step(), [], [], []
    for _ in range(given.steps):
        own, after = training.step(), plain.step()
        ratios.append(2 * own / (before + after))
        seconds.append(after)
        of_policy.append(own)
        before = after
    share = sum(spent) / sum(of_policy)
    training.end()
    low, middle, high = statistics.quantiles(ratios, n=4)
    own_code = "" if online is None else f", own code {share:.1%}, {online.prepared_in:.1f} s before training"
    text = f"{middle:.3f} of a plain step of {statistics.median(seconds):.2f} s"
    return f"{name:12} {text} (quartiles {low:.3f} and {high:.3f}){own_code}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder or name; by default a Llama of 4 layers, 256 wide, with 8,192 tokens")
    parser.add_argument("--policies", nargs="*", default=policy_names(), choices=policy_names())
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8, help="rows of a step")
    parser.add_argument("--tokens", type=int, default=64, help="of a row")
    parser.add_argument("--lora", type=int, default=8, help="rank")
    parser.add_argument("--full", action="store_true", help="train all weights")
    given = parser.parse_args()
    if sys.platform == "linux":
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        for option, value in MALLOC.items():
            ctypes.CDLL(None).mallopt(option, value)
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    disable_progress_bars()
    print(f"{given.batch} rows of {given.tokens} tokens a step:", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        plain = Turns(trainer_of(PLAIN, given, Path(folder, "plain"), *model_of(given)))
        for name in [PLAIN, *given.policies]:
            if name == PLAIN or not (given.full and policy_class(name).reads_gradients):
                print(measured(name, plain, given, Path(folder, name.replace(" ", "-"))), flush=True)
        plain.end()


if __name__ == "__main__":
    main()
