"""Callbacks that log the selection, benchmarks, PIR and STR to every tracker in `report_to`."""

import logging
import math
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..context import Context
from ..engines.runtime.model_state import preserved
from ..engines.runtime.token_rows import token_counts
from ..engines.store.identity import weights_identity
from ..errors import DamagedFile, JudgeError, explained
from ..evaluation.benchmark import Benchmark, Setting, as_json, from_json
from ..evaluation.comparison.pir import PIR, benchmark_pir, cost_warning, selection_to_tuning_ratio
from ..evaluation.comparison.trained import TRAINED, difference, recorded
from ..runs.files import EVALUATION, REMEDY, plain
from ..runs.folder import read_evaluation, write_evaluation
from ..selection import Selection
from .checkpoints import record, seconds_at
from .trained import TrainedCallback, entered, step_of_model


logger = logging.getLogger(__name__)


class SelectingTrainer(Protocol):
    """What the callbacks use of a trainer."""

    model: Any
    train_dataset: Any
    selection: Selection  # raises `AttributeError` before there is one
    evaluation_seconds: float
    run_folder: Path
    trained: TrainedCallback
    replicated: bool

    def context(self, cached: bool = True) -> Context: ...

    def is_world_process_zero(self) -> bool: ...

    def log(self, logs: dict[str, float]) -> None: ...

    def save_model(self, output_dir: str) -> None: ...


class SelectionCallback(TrainerCallback):
    """
    Logs `sdf`, `selection_seconds`, and the rows unscorable, dropped and truncated, once training has begun for every
    callback: a tracker that is given numbers before would set itself up elsewhere than in the run folder.
    Experimental.
    """

    def __init__(self, trainer: SelectingTrainer):
        self.trainer, self._logged = trainer, True

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self._logged = False

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        if self._logged:
            return
        self._logged, selection = True, self.trainer.selection
        logs = {"sdf": selection.sdf, "selection_seconds": selection.seconds}
        for kind in ("unscorable", "dropped", "truncated"):
            logs[f"selection_{kind}"] = sum(len(rows) for rows in getattr(selection, kind).values())
        self.trainer.log(logs)

    on_train_end = on_epoch_begin  # of a resumed run that has no step left


def comparable_baseline(folder: str, benchmarks: list[Benchmark]) -> dict:
    """
    The evaluation of the baseline in a run folder.

    Raises:
        `ValueError`: there is none, or one of other rows or settings than those of the benchmarks.
    """
    baseline, protocol = read_evaluation(folder), _protocol(benchmarks)
    if not benchmarks:
        raise ValueError(f"`baseline_dir={folder!r}` needs an `eval_dataset` or `benchmarks` to compare on.")
    if baseline.get("protocol") != protocol:
        raise ValueError(
            f"`baseline_dir={folder!r}` was not evaluated on the same rows, metrics and answer length: then "
            f"{baseline.get('protocol')}, now {protocol}. Run the baseline again with this evaluation."
        )
    if baseline.get("method") != "full":
        logger.warning("`baseline_dir` was trained by %r, not on all rows.", baseline.get("method"))
    try:
        from_json(baseline["settings"])
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedFile(Path(folder) / EVALUATION, f"no readable evaluation: {error!r}", REMEDY) from error
    return baseline


def _protocol(benchmarks: list[Benchmark]) -> dict:
    return plain({benchmark.name: benchmark.protocol() for benchmark in benchmarks})


class PIRCallback(TrainerCallback):
    """
    Runs the benchmarks at every evaluation (unless `at_end`) and when training ends (all), compares the model with the
    run in `baseline_dir`, and logs `benchmark/<setting>`, `pir/<setting>`, `pir` (kind: benchmark ratio) with the
    bounds of its 95 % interval `pir_low` and `pir_high`, `sdf` and `str`; `metric_for_best_model="pir"` keeps the
    checkpoint with the highest `pir`. `eval.json` in the run folder holds the last evaluation in full, and the scores
    of the earlier ones. Experimental.

    Args:
        trainer ([`DataSelectingTrainer`]):
            The trainer, or another one with the attributes of [`SelectingTrainer`].
        benchmarks (`list[Benchmark]`):
            One for each set of evaluation rows, and those that the recipe names.
        baseline_dir (`str`, *optional*):
            Run folder of the baseline (BM).

    Raises:
        `ValueError`: `baseline_dir` has no `eval.json`, or one with other evaluation rows or settings.
    """

    def __init__(self, trainer: SelectingTrainer, benchmarks: list[Benchmark], baseline_dir: str | None = None):
        self.trainer = trainer
        self.benchmarks = benchmarks
        self.protocol = _protocol(benchmarks)
        self.baseline = comparable_baseline(baseline_dir, benchmarks) if baseline_dir else None
        self.history: list[dict] = []
        self._evaluation: dict = {}
        self._settings: dict[str, Setting] = {}
        self._unscorable: dict[str, list[int]] = {}
        self._failed: dict[str, str] = {}
        self._ranks_agree = True
        self._evaluated_at: int | None = None
        self._ended_with: int | None = None
        self._started = self._evaluated_before = 0.0
        self._seconds_before: float | None = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self._evaluated_at = self._ended_with = None
        self._started, self._evaluated_before = time.perf_counter(), self.trainer.evaluation_seconds
        if warning := cost_warning(self._str()):
            logger.warning(warning)
        self._seconds_before = seconds_at(_checkpoint(args, state)) if state.global_step else 0.0
        if state.global_step and not self.history and (self.trainer.run_folder / "eval.json").exists():
            try:
                self.history = read_evaluation(self.trainer.run_folder, "output_dir").get("history", [])
            except DamagedFile as error:
                logger.warning("The scores of earlier evaluations are lost: %s", error)
        self.history = [entry for entry in self.history if entry["step"] <= state.global_step]

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        if state.is_world_process_zero:
            started = time.perf_counter()
            record(_checkpoint(args, state), self._train_seconds())
            self._started += time.perf_counter() - started  # not training

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs,
    ):
        # With several sets of rows, `evaluate` is called for each; the benchmarks score them all at once.
        at_once = [benchmark for benchmark in self.benchmarks if not benchmark.at_end]
        step = state.global_step if self._ended_with is None else self._ended_with
        if at_once and self._evaluated_at != step:
            self._evaluate(state, at_once, step=step)
            self._write()
        if metrics is not None and "pir" in self._evaluation:
            metrics["eval_pir"] = self._evaluation["pir"]["value"]
            if by_pir(args) and not math.isfinite(metrics["eval_pir"]):
                logger.warning("Step %s has no PIR: its checkpoint can't be the best one.", state.global_step)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        seconds = self._train_seconds()
        try:
            self._ended_with = step_of_model(args, state)
            if self._evaluated_at != self._ended_with:
                self._evaluate(state, self.benchmarks, step=self._ended_with)
            elif remaining := [benchmark for benchmark in self.benchmarks if benchmark.at_end]:
                self._evaluate(state, remaining, anew=False, step=self._ended_with)
        except Exception:
            logger.error("The evaluation failed; the trained model is saved in %s.", self.trainer.run_folder)
            self.trainer.save_model(str(self.trainer.run_folder))
            raise
        self._evaluation |= {"train_seconds": seconds, "train_tokens": _tokens(self.trainer.train_dataset)}
        self._evaluation["trained"] = self.trainer.trained.figures(args, state)
        self._evaluation["date"] = datetime.now(UTC).isoformat(timespec="seconds")
        self._write()
        both = [self._evaluation["trained"]], [(self.baseline or {}).get("trained") or {}]
        names = [name for name in TRAINED if name != "updates" and not (name == "epochs" and args.max_steps > 0)]
        named = [difference(name, *(recorded(run, name) for run in both)) for name in names]
        if differing := ", ".join(filter(None, named)):
            logger.warning("Trained otherwise than `baseline_dir`, not only on other rows: %s.", differing)

    def _train_seconds(self) -> float | None:
        """Training seconds so far, without evaluations; `None` if a resumed checkpoint does not hold its own."""
        evaluating = self.trainer.evaluation_seconds - self._evaluated_before
        now = time.perf_counter() - self._started - evaluating
        return None if self._seconds_before is None else self._seconds_before + now

    def _evaluate(
        self, state: TrainerState, benchmarks: list[Benchmark], anew: bool = True, step: int | None = None
    ) -> None:
        """
        Run these benchmarks on the model of a step, by default the present one; with `anew=False`, in addition to
        those already run at it.
        """
        trainer = self.trainer
        if anew:
            self._settings, self._unscorable, self._failed = {}, {}, {}
        self._evaluated_at = step = state.global_step if step is None else step
        new: dict[str, Setting] = {}
        if benchmarks and self._ranks_agree and not _hold_same_weights(trainer):
            self._ranks_agree = False
            if trainer.is_world_process_zero():
                logger.error(
                    "Step %s: the ranks hold different weights, so gradients were not averaged across them. The model "
                    "that is evaluated and saved is not the one you asked for.",
                    step,
                )
        with preserved(trainer.model):
            for benchmark in benchmarks:
                ctx = trainer.context(cached=False)
                try:
                    new |= benchmark.run(ctx, trainer.run_folder)
                except JudgeError as error:  # the trained model is worth more; the replies so far are kept
                    logger.error("The benchmark %r failed: %s", benchmark.name, error)
                    self._failed[benchmark.name] = explained(error)
                before = f"{benchmark.name}: " if benchmark.name else ""
                self._unscorable |= {before + why: rows for why, rows in ctx.account.rows("unscorable").items()}
        settings = self._settings = self._settings | new
        scores = {f"benchmark/{name}": setting.score for name, setting in settings.items()}
        self.history = entered(self.history, {"step": step, "epoch": state.epoch} | scores)
        logs = {f"benchmark/{name}": setting.score for name, setting in new.items()}
        if getattr(trainer, "selection", None) is None:  # evaluated before selecting: the run has not begun
            trainer.log(logs)
            return
        self._evaluation = {
            "method": trainer.selection.method,
            "train_seconds": None,
            "steps": state.global_step,
            "ranks_agree": self._ranks_agree,
            "protocol": self.protocol,
            "settings": as_json(settings),
            "unscorable": self._unscorable,
            "failed": self._failed,
            "history": self.history,
        }
        if self.baseline is not None:
            pir = benchmark_pir(settings, from_json(self.baseline["settings"]))
            self._evaluation |= {"pir": vars(pir), "str": self._str(), "sdf": trainer.selection.sdf}
            logs |= self._comparison(pir)
        if logs:
            trainer.log(logs)

    def _write(self) -> None:
        if self._evaluation and self.trainer.is_world_process_zero():
            write_evaluation(self.trainer.run_folder, self._evaluation)

    def _str(self) -> float | None:
        seconds = None if self.baseline is None else self.baseline.get("train_seconds")
        return selection_to_tuning_ratio(self.trainer.selection.seconds, seconds)

    def _comparison(self, pir: PIR) -> dict[str, float]:
        logs: dict[str, float | None] = {f"pir/{name}": ratio for name, ratio in pir.settings.items()}
        logs |= {"pir": pir.value, "pir_low": pir.low, "pir_high": pir.high, "sdf": self.trainer.selection.sdf}
        logs["str"] = self._str()
        return {name: value for name, value in logs.items() if value is not None and math.isfinite(value)}


def by_pir(args: TrainingArguments) -> bool:
    """Whether the best checkpoint is the one with the highest PIR."""
    return args.metric_for_best_model in ("pir", "eval_pir")


def _hold_same_weights(trainer: SelectingTrainer) -> bool:
    """Whether all ranks hold the same trained weights; not checked where the model is sharded."""
    if not trainer.replicated:
        return True
    trained = {name: tensor for name, tensor in trainer.model.named_parameters() if tensor.requires_grad}
    return trainer.context(cached=False).runtime.agree(weights_identity(trained))


def _tokens(dataset: Any) -> int | None:
    """Tokens of the rows trained on in one epoch, after truncation."""
    if not isinstance(dataset, Dataset) or "input_ids" not in dataset.column_names:
        return None
    return int(token_counts(dataset).sum())


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
