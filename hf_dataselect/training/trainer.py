"""[`DataSelectingTrainer`]: [`~trl.SFTTrainer`] that first selects the rows worth training on."""

import copy
import logging
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import TrainingArguments
from trl import SFTTrainer

from ..compat.sharding import sharding_by_accelerator, sharding_by_args, trained_as_sharded
from ..compat.transformers import put_first
from ..compat.trl import check_sft_trainer, models_loaded_by, skips_preparation, tag_names
from ..context import Context
from ..data.chat_template import set_template
from ..data.records import Records
from ..data.streams import on_disk
from ..data.targets import load_target
from ..engines.llm.judge import Judge
from ..engines.llm.load import load_judge
from ..engines.llm.reward_model import RewardModel
from ..engines.runtime.loading import load_tuned_model, tokenizer_of
from ..engines.runtime.model_state import broadcast_weights
from ..engines.runtime.phase import doing
from ..engines.runtime.ranks import meeting, training_phase
from ..engines.runtime.sharding import place
from ..engines.store.files import check_writable
from ..engines.store.identity import model_identity
from ..evaluation.report.model_card import extend_card
from ..registry import load_selector
from ..runs.folder import write_selection
from ..runs.lock import locked
from ..runs.publish import push_selected, selected_dataset, selection_card
from ..selection import Selection
from ..selector import Selector
from ..service import name_of
from ..sharding_refusals import WHOLE
from .callbacks import PIRCallback, SelectionCallback
from .config import DataSelectingConfig
from .guard import GuardCallback
from .inputs import as_config, load_processing_class_of, prepare_benchmarks, readable_rows, sample_row, selection_plan
from .online.trainer import OnlineTrainer
from .resume import begin, checkpoint_to_resume, forget_evaluation, resume_run
from .trained import TrainedCallback
from .trial_plan import plan_trials
from .trials import with_trials


logger = logging.getLogger(__name__)
check_sft_trainer(SFTTrainer)


class DataSelectingTrainer(OnlineTrainer):
    """
    Selects, then fine-tunes: `train()` runs the method of `args.selection_method` with the model and the accelerator
    of the training, tokenizes only the rows it keeps, and trains on them as [`~trl.SFTTrainer`] does.

    Takes the arguments of [`~trl.SFTTrainer`] (see there), and:

    Args:
        train_dataset ([`~datasets.Dataset`]):
            Candidate dataset: messages, prompt-completion, text, Alpaca or ShareGPT columns.
        selector ([`Selector`], *optional*):
            An instance, instead of `args.selection_method` and `args.selection_kwargs`.

    Raises, before any weights load:
        `TypeError`: the candidate dataset is streamed, without `selection_stream_rows`.
        `ValueError`: a wrong option, a dataset without rows or of unknown columns, a budget beyond the dataset, a
        folder that can't be written, a baseline that was not evaluated, a model folder that does not exist.

    Example:

    ```python
    from datasets import load_dataset
    from hf_dataselect import DataSelectingConfig, DataSelectingTrainer

    args = DataSelectingConfig("runs/ifd", selection_method="ifd", selection_budget=0.05)
    rows = load_dataset("yahma/alpaca-cleaned", split="train")
    trainer = DataSelectingTrainer("HuggingFaceTB/SmolLM2-135M", args, train_dataset=rows)
    trainer.train()
    print(trainer.selection.summary())
    ```
    """

    _tag_names = tag_names(SFTTrainer, ["hf_dataselect"])

    def __init__(
        self,
        model: Any,
        args: DataSelectingConfig | TrainingArguments | None = None,
        data_collator: Any = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        processing_class: Any = None,
        *more: Any,
        formatting_func: Callable[[dict], str] | None = None,
        selector: Selector | None = None,
        **kwargs: Any,
    ):
        args = as_config(model, args, selector)
        if train_dataset is None:
            raise ValueError("`train_dataset` is required: it holds the rows to select from.")
        train_dataset = on_disk(train_dataset, args.selection_stream_rows)
        if formatting_func is not None:
            if args.dataset_text_field != "text":
                raise ValueError(
                    f"`dataset_text_field={args.dataset_text_field!r}`: TRL writes the output of `formatting_func` to "
                    "the column `text`, and would train on another one. Remove one of the two."
                )
            kwargs["formatting_func"] = formatting_func
        self._selection: Selection | None = None
        self.evaluation_seconds, self.trained = 0.0, TrainedCallback(self)
        #: Entries of `recipe.yaml` besides the arguments; the command line adds its own.
        self.recipe: dict[str, Any] = {"model_name_or_path": name_of(model)}
        self.records = Records(train_dataset, args.dataset_text_field, formatting_func)
        target, selector = load_target(args.selection_target, self.records), selector and load_selector(selector)
        self.plan = selection_plan(args, self.records, target, selector)
        self.plan.check(model, args.runtime(None).cache_dir, sharding_by_args(args))
        check_writable(args.output_dir, "output_dir", make=False)
        if processing_class is None:
            processing_class = load_processing_class_of(model, args)
        self.plan.complete(processing_class, args.eos_token, args.chat_template_path, getattr(args, "pad_token", None))
        if not (args.dataset_kwargs or {}).get("skip_prepare_dataset"):
            completed = copy.deepcopy(processing_class)  # the trainer sets what is left of the options itself
            set_template(completed, args)
            self.plan.try_preparation(completed)
        self._sample = self.records.for_training([sample_row(self.records)])
        self._evaluating = self._prepared = False
        benchmarks = prepare_benchmarks(args, eval_dataset, formatting_func)
        self.guard = GuardCallback(self, args)
        self.plan.held_out = {benchmark.name or "eval_dataset": benchmark.asked() for benchmark in benchmarks}
        self.plan.held_out |= {records.name: records for records in self.guard.sets.values()}
        self.plan.trials = plan_trials(self.plan, eval_dataset, model)
        self._text_format = self.plan.text_format(processing_class)
        if self.records.images:  # TRL prepares no rows with images
            eval_dataset = readable_rows(eval_dataset, args, self._text_format)
        evaluation = PIRCallback(self, benchmarks, args.baseline_dir)
        with models_loaded_by(load_tuned_model):  # which refuses one that lacks weights
            super().__init__(model, args, data_collator, self._sample, eval_dataset, processing_class, *more, **kwargs)
        self.train_dataset = self._candidates = train_dataset
        # Weights that each rank draws by itself (a new adapter, added tokens) would differ until training begins.
        if self.replicated and not self.args.runtime(self.accelerator).agree(model_identity(self.model)):
            broadcast_weights(self.model)
        # Before the trackers' own callbacks, which close their files when training ends.
        put_first(self, [SelectionCallback(self), self.trained, self.guard, evaluation])

    def _prepare_dataset(self, dataset, processing_class, args, packing, formatting_func, dataset_name):
        if dataset is self._sample:  # the candidates are tokenized once the rows to keep are known
            return dataset
        name = "eval_dataset" if dataset_name == "eval" else f"eval_dataset[{dataset_name!r}]"
        dataset = readable_rows(dataset, args, self._text_format, formatting_func, name)
        return super()._prepare_dataset(dataset, processing_class, args, packing, None, dataset_name)

    @property
    def selection(self) -> Selection:
        """Rows kept, scores, cost, rows excluded by reason; raises `AttributeError` before `select()` or `train()`."""
        if self._selection is None:
            raise AttributeError("`selection`: nothing is selected yet. Call `select()` or `train()` first.")
        return self._selection

    @property
    def replicated(self) -> bool:
        """Whether there are several ranks, each with all weights, or with those that were not sharded as it loaded."""
        several = self.accelerator.num_processes > 1 and self.accelerator.parallelism_config is None
        return several and sharding_by_accelerator(self.accelerator) in WHOLE

    @property
    def run_folder(self) -> Path:
        """Where `recipe.yaml`, `selection.json`, `scores.parquet` and `eval.json` are written: `args.output_dir`."""
        return Path(self.args.output_dir)

    @cached_property
    def judge(self) -> Judge | RewardModel | None:
        """The judge of `args.judge`, loaded when first used."""
        if self.args.judge is None:
            return None
        runtime, tokenizer = self.args.runtime(self.accelerator), tokenizer_of(self.processing_class)
        return load_judge(self.args.judge, self.args.judge_options, runtime, model=self.model, tokenizer=tokenizer)

    def context(self, cached: bool = True) -> Context:
        """What selectors and benchmarks may use of this trainer; `cached` says whether results are kept."""
        runtime = self.args.runtime(self.accelerator)
        runtime = runtime if cached else runtime.uncached()
        return self.plan.context(
            self.processing_class, self.model, runtime, self.recipe["model_name_or_path"], self.judge
        )

    def select(self) -> Selection:
        """
        Select the rows, without training: sets `self.selection` and writes it to the run folder.

        The model, its flags and the random state are restored afterwards, bit for bit.
        """
        self._refuse_edited()
        if self.plan.uses_model:
            place(self.model, self.accelerator, sharding_by_accelerator(self.accelerator))
        with locked(self.run_folder):
            self._selection = self.plan.select(with_trials(self), self.run_folder, self.recipe | self.args.given)
        self.train_dataset, self._prepared = self._candidates, False
        return self.selection

    def prepare_subset(self, resume_from_checkpoint: str | bool | None = None) -> None:
        """
        Make the rows of `self.selection` the training dataset, tokenized. If there is none yet, it is that of the
        interrupted run where a checkpoint is given, and else selected now.
        """
        if resume_from_checkpoint and not self._prepared:
            runtime = self.args.runtime(self.accelerator)
            self._selection = runtime.on_main(lambda: resume_run(self, resume_from_checkpoint))
        if self._prepared:
            return
        self._refuse_edited()
        if self._selection is None:
            self.select()
        chosen = np.sort(self.selection.indices)
        rows = self.rows_to_prepare(chosen)
        kept = np.intersect1d(chosen, rows)
        everything = len(rows) == len(self.records)
        subset = self.records.for_training(None if everything else rows, num_proc=self.args.dataset_num_proc)
        if not skips_preparation(self):
            prepared = self.prepare_lines(subset, rows, kept)
            masked = len(chosen) - len(kept if self.args.packing else prepared)
            if masked:
                logger.warning("%s kept rows have no answer token within `max_length` and are not trained on.", masked)
                self.selection.facts["rows_without_answer_in_window"] = masked
                if self.is_world_process_zero():
                    write_selection(self.run_folder, self.selection)
            if len(prepared) == 0:
                raise ValueError(
                    f"None of the {len(chosen)} kept rows has an answer within `max_length={self.args.max_length}`."
                )
            subset = prepared
        self.train_dataset, self._prepared = subset, True

    def _refuse_edited(self) -> None:
        if not self._prepared and self.train_dataset is not self._candidates:
            raise ValueError(
                "`train_dataset` was replaced after the trainer was made, which has chosen from the one it was given: "
                "make the trainer with the new rows. (Once trained, it holds the rows kept, and may be replaced.)"
            )

    def get_train_dataloader(self):
        """Dataloader over the rows kept, selected now if they are not yet."""
        self.prepare_subset()
        return super().get_train_dataloader()

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any):
        """
        Select, prepare the subset, fit.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*):
                As in [`~transformers.Trainer.train`], `True` for the last checkpoint that is whole; the rows of the
                interrupted run are read back, not selected again.
        """
        with locked(self.run_folder):
            on_main = self.args.runtime(self.accelerator).on_main
            checkpoint = on_main(lambda: checkpoint_to_resume(self.run_folder, resume_from_checkpoint))
            self.prepare_subset(checkpoint)
            if checkpoint is None:
                on_main(lambda: begin(self))
            forget_evaluation(self)
            with training_phase(self, "Training"), trained_as_sharded(self.accelerator, self.model):
                return super().train(resume_from_checkpoint=checkpoint, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As [`~trl.SFTTrainer.evaluate`]; its time does not count as training time."""
        if self._evaluating:  # one call for each of several datasets, within the outer one
            return super().evaluate(*args, **kwargs)
        self._evaluating, started = True, time.perf_counter()
        try:
            with meeting(), doing("Evaluating"):
                return super().evaluate(*args, **kwargs)
        finally:
            self._evaluating = False
            self.evaluation_seconds += time.perf_counter() - started

    def selected_dataset(self) -> Dataset:
        """The rows kept, best first, with their own columns, `selection_row` and `selection_score`."""
        return selected_dataset(self.records.dataset, self._selection or self.select())

    def push_selected_dataset(self, repo_id: str, private: bool = True) -> None:
        """Push [`selected_dataset`] to the Hub as `user/name`, with a card that says how to repeat the selection."""
        rows, selection, recipe = self.records.dataset, self._selection or self.select(), self.recipe | self.args.given
        if self.is_world_process_zero():
            push_selected(rows, selection, recipe, repo_id, private, self.args.hub_token, "repo_id")

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The card of [`~trl.SFTTrainer`], with the selection, and PIR as metadata where it was measured."""
        super().create_model_card(*args, **kwargs)
        if self._selection is not None and self.is_world_process_zero():
            extend_card(self.run_folder, selection_card(self.selection, self.recipe | self.args.given))
