"""What selections and trainings would cost: counted, and timed by the rates of this machine."""

import copy
import logging
import math
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from datasets import disable_progress_bars

from ..context import Context
from ..data.chat_template import set_template
from ..data.encoding import encode
from ..engines.runtime.memory import free_memory
from ..engines.runtime.progress import in_words
from ..engines.runtime.runtime import Runtime
from ..engines.store.files import in_bytes
from ..evaluation.benchmark import Benchmark
from ..evaluation.benchmarks.held_out import HeldOut
from ..evaluation.questions import QuestionsBenchmark
from ..plan import SelectionPlan
from ..selector import Selector
from .inputs import load_processing_class_of
from .judge_calls import judge_total
from .online.schedule import Schedule
from .rates import Rates, measured_rates
from .recipe import Recipe


logger = logging.getLogger(__name__)

#: Rows that tokens of a row are counted on.
SAMPLE = 256
#: Kinds of passes that a method books, in words.
PASSES = {
    "forward_rows": "forward passes over a row",
    "backward_rows": "gradients of a row",
    "warmup_rows": "rows of warm-ups (trainings of the method's own)",
    "embedded_rows": "rows embedded",
    "answered_rows": "rows answered by the model",
    "judge_calls": "calls of the judge",
}


@dataclass
class Forecast:
    """
    What is to be done, at most.

    Args:
        recipe ([`Recipe`]):
            Parsed options.
        plan ([`SelectionPlan`]):
            Of one selection, for tokens and template.
        candidates (`int`):
            Rows to select from.
        trained_rows (`list[int]`):
            Rows of each training, one for each that is left to do.
        passes (`Counter`):
            Of selections by this model, by name.
        others (`Counter`):
            Those by models of the methods' own.
        benchmarks (`list[Benchmark]`):
            What each training ends with.
        notes (`list[str]`):
            More lines.
        models_kept, compared (`int`):
            Models that are saved, and runs whose answers a judge compares with a baseline's.
    """

    recipe: Recipe
    plan: SelectionPlan
    candidates: int
    trained_rows: list[int] = field(default_factory=list)
    passes: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    benchmarks: list[Benchmark] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    models_kept: int = 0
    compared: int = 0

    def select(self, selector: Selector, kept: int, times: int = 1) -> None:
        """Add a selection."""
        targets = 0 if self.plan.target is None else len(self.plan.target)
        forecast = selector.forecast(self.candidates, targets, kept)
        if "training" in selector.needs():  # it trains as the run does
            forecast["warmup_rows"] = math.ceil(forecast["warmup_rows"] * self._gone_through(kept) / kept)
        for name, number in forecast.items():
            own = "model" in selector.needs() or name == "judge_calls"
            (self.passes if own else self.others)[name] += number * times

    def train(self, selector: Selector, kept: int) -> None:
        """Add a training, and what selects in it."""
        args = self.recipe.args
        self.trained_rows.append(kept)
        if args.policy is not None:
            self.passes["forward_rows"] += kept * args.policy.reads_texts
            self.passes["backward_rows"] += self._updates(kept) * args.policy.examples
        if schedule := Schedule.parse(args.selection_schedule):
            self.select(selector, kept, schedule.times(self._updates(kept), math.ceil(kept / self._batch())))

    def lines(self) -> list[str]:
        """The forecast, a fact a line."""
        disable_progress_bars()
        encoded, args = self._sample(), self.recipe.args
        lengths = encoded.tokens.lengths
        mean, scored = float(lengths.mean()), self.passes["forward_rows"]
        said = [f"rows: {self.candidates:,} candidates, {mean:,.0f} tokens each (counted on {len(lengths):,} of them)"]
        for name, number in sorted((+self.passes).items()):
            said.append(f"{PASSES[name]}: {number:,}")
        for name, number in sorted((+self.others).items()):
            said.append(f"{PASSES[name]}: {number:,}, by a model of the method's own, in no time below")
        if self.trained_rows:
            tokens, updates = self._trained(mean)
            said.append(f"trainings: {len(self.trained_rows):,}, of {_range(self.trained_rows)} rows, {updates:,} "
                        f"optimizer updates and {tokens:,.0f} tokens in all")  # fmt: skip
        answers, new_tokens = self._answers()
        said.append(f"answers to generate: {answers:,}, at most {new_tokens:,} tokens")
        said += self.notes + self._judge()
        if not (self.trained_rows or self.passes or answers):
            return [*said, "time: below a minute, no model runs"]
        logger.info("Dry run: measuring what this model takes here, a minute or two on a CPU ...")
        rates = measured_rates(args, self.recipe.model, encoded)
        evaluated = sum(len(benchmark.records) for benchmark in self.benchmarks if isinstance(benchmark, HeldOut))
        evaluated *= len(self.trained_rows) * (1 + bool(args.eval_on_start))
        seconds = {
            "selecting": rates.score * mean * scored
            + rates.train * mean * (self.passes["warmup_rows"] + self.passes["backward_rows"]),
            "training": rates.train * (self._trained(mean)[0] if self.trained_rows else 0),
            "evaluating": rates.score * mean * evaluated,
            "generating": rates.generate * new_tokens,
        }
        ranks = PartialState().num_processes
        parts = ", ".join(f"{name} {in_words(part / ranks)}" for name, part in seconds.items() if part)
        said.append(f"time: about {in_words(sum(seconds.values()) / ranks)} ({parts}), by the rates here now: "
                    f"{1 / rates.score:,.0f} tokens a second scored, {1 / rates.train:,.0f} trained on, "
                    f"{1 / rates.generate:,.0f} generated; loading, start-up and evaluations amid a training come "
                    "on top")  # fmt: skip
        return [*said, *self._disk(rates, scored), self._memory(rates)]

    def _sample(self) -> Any:
        records = self.plan.records
        rows = np.random.default_rng(0).permutation(len(records))[:SAMPLE]
        args = copy.copy(self.recipe.args)
        tokenizer = load_processing_class_of(self.recipe.model.model_name_or_path, args)
        self.plan.complete(tokenizer, args.eos_token, args.chat_template_path, getattr(args, "pad_token", None))
        set_template(tokenizer, args)
        self.plan.try_preparation(tokenizer)
        context: Context = self.plan.context(tokenizer, None, Runtime(), None)
        return encode(records.subset(np.sort(rows)), context.text_format())

    def _trained(self, mean: float) -> tuple[float, int]:
        """Tokens and updates of all trainings."""
        return sum(map(self._gone_through, self.trained_rows)) * mean, sum(map(self._updates, self.trained_rows))

    def _updates(self, rows: int) -> int:
        args, of_epoch = self.recipe.args, math.ceil(rows / self._batch())
        return args.max_steps if args.max_steps > 0 else math.ceil(of_epoch * args.num_train_epochs)

    def _gone_through(self, rows: int) -> float:
        """Rows that one training on as many goes through, epoch by epoch."""
        args = self.recipe.args
        return args.max_steps * self._batch() if args.max_steps > 0 else rows * args.num_train_epochs

    def _batch(self) -> int:
        args = self.recipe.args
        return args.per_device_train_batch_size * args.gradient_accumulation_steps * PartialState().num_processes

    def _answers(self) -> tuple[int, int]:
        """Answers that benchmarks generate for all trainings, and the tokens of these at most."""
        answers = tokens = 0
        for benchmark in self.benchmarks:
            if isinstance(benchmark, QuestionsBenchmark):
                number = sum(len(question.turns) for question in benchmark.questions)
            else:
                number = len(benchmark.records) if isinstance(benchmark, HeldOut) and benchmark.metrics else 0
            answers += number * len(self.trained_rows)
            tokens += number * len(self.trained_rows) * getattr(benchmark, "max_new_tokens", 0)
        return answers, tokens

    def _judge(self) -> list[str]:
        args, said = self.recipe.args, []
        if calls := self.passes["judge_calls"]:
            mean = sum(len(str(row)) for row in self.plan.records.dataset.select(range(min(SAMPLE, self.candidates))))
            prompt = calls * (mean // min(SAMPLE, self.candidates) // 4 + 200)
            money = args.judge_options.money(prompt, calls * 256)
            price = "" if money is None else f", about {money:,.2f} at most"
            said.append(f"judge, to select: at most {calls:,} calls, about {prompt:,} prompt tokens{price}")
        total = judge_total(self.benchmarks, args.judge_options, len(self.trained_rows), self.compared)
        return said + ([] if total is None else [f"judge, to evaluate: {total}"])

    def _disk(self, rates: Rates, scored: int) -> list[str]:
        args = self.recipe.args
        # A checkpoint has the two moments of AdamW beside the weights.
        largest = 3 * rates.saved_bytes * max(map(self._checkpoints, self.trained_rows), default=0)
        needed = rates.saved_bytes * self.models_kept + largest * max(1, self.models_kept) + 52 * scored
        folder = next(path for path in Path(args.output_dir).absolute().parents if path.is_dir())
        free = in_bytes(shutil.disk_usage(folder).free)
        return [f"disk: about {in_bytes(needed)} for models, checkpoints and scores; {free} "
                "are free"]  # fmt: skip

    def _checkpoints(self, rows: int) -> int:
        """Checkpoints of one training that stay, at most."""
        args, updates = self.recipe.args, self._updates(rows)
        if args.save_strategy == "no":
            return 0
        by_steps = args.save_steps if args.save_steps >= 1 else math.ceil(args.save_steps * updates)
        every = by_steps if args.save_strategy == "steps" else rows / self._batch()
        return min(math.ceil(updates / every), args.save_total_limit or updates)  # the last step has one in any case

    def _memory(self, rates: Rates) -> str:
        training = f"{in_bytes(rates.training_bytes)} to train" if self.trained_rows else ""
        size = f"{rates.parameters / 1e6:,.0f} million parameters, {rates.trainable / 1e6:,.1f} trained"
        needed = " and ".join(filter(None, [f"{in_bytes(rates.weight_bytes)} to score", training]))
        return f"memory: at least {needed}, activations besides; {in_bytes(free_memory())} are free ({size})"


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
