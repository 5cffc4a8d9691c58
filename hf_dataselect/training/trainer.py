"""[`DataSelectingTrainer`]: [`~trl.SFTTrainer`] that first chooses the rows worth training on."""

import dataclasses
import functools
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from torch.nn.parallel import DistributedDataParallel
from transformers import ProcessorMixin, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTTrainer

from ..context import Context
from ..data.images import undecodable
from ..data.records import Records
from ..engines.llm.judge import Judge
from ..engines.llm.load import load_judge
from ..engines.runtime.batching import same_on_all_ranks
from ..engines.runtime.model_state import broadcast_weights, unprepare
from ..engines.store.files import check_writable
from ..engines.store.identity import digest, model_identity
from ..errors import SelectionError
from ..evaluation.benchmark import Benchmark
from ..evaluation.benchmarks.held_out import HeldOut
from ..pipeline import select
from ..registry import load_selector
from ..runs.folder import (
    DIVERGED,
    may_have_diverged,
    plain,
    read_selection,
    write_recipe,
    write_selection,
    write_versions,
)
from ..runs.publish import selected_dataset, selection_card
from ..selection import Selection
from ..selector import Selector, method_name
from .callbacks import PIRCallback, SelectionCallback
from .config import DataSelectingConfig
from .inputs import (
    as_config,
    check_rows,
    complete_tokenizer,
    load_processing_class,
    model_id,
    readable_rows,
    target_records,
)


logger = logging.getLogger(__name__)


class DataSelectingTrainer(SFTTrainer):
    """
    Selects, then fine-tunes: `train()` runs the selector of `args.selection_method` with the very model and
    accelerator of the training, prepares only the rows it keeps, and trains on them as [`~trl.SFTTrainer`] would.

    Takes the arguments of [`~trl.SFTTrainer`] (see there), and:

    Args:
        train_dataset ([`~datasets.Dataset`]):
            Candidate dataset: messages, prompt-completion, text, Alpaca or ShareGPT columns.
        selector ([`Selector`], *optional*):
            An instance, instead of `args.selection_method` and `args.selection_kwargs`.

    Attributes:
        selection ([`Selection`]):
            After `select()` or `train()`: rows kept, scores, SDF, cost, and rows left aside by reason.

    Raises, before any weights load:
        `TypeError`: the candidate dataset is streamed.
        `ValueError`: a wrong option, a dataset without rows or of unknown columns, a budget beyond the dataset, a
        folder that can't be written, a baseline that was not evaluated, a model folder that does not exist.
    """

    _tag_names = [*SFTTrainer._tag_names, "hf_dataselect"]

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
        args = as_config(model, args)
        if train_dataset is None:
            raise ValueError("`train_dataset` is required: it holds the rows to select from.")
        self.selection: Selection | None = None
        if selector is not None:
            args.use(load_selector(selector))
        self.selector = args.selector
        self.records = Records(train_dataset, args.dataset_text_field, formatting_func)
        self.evaluation_seconds = 0.0
        #: Entries of `recipe.yaml` besides the arguments; the command line adds its own.
        self.recipe: dict[str, Any] = {"model_name_or_path": model_id(model)}
        self._target = target_records(args, self.records)
        self._refuse_early(args, model)
        processing_class = processing_class or load_processing_class(model, args)
        if self.records.images and not isinstance(processing_class, ProcessorMixin):
            raise ValueError(
                f"`train_dataset` has images (`{self.records.images}`), and `processing_class` is a "
                f"{type(processing_class).__name__}, which takes texts only: give a vision-language model and its "
                "processor, or remove the column."
            )
        self._default_template = complete_tokenizer(processing_class, self.records, args)
        self._sample = self.records.for_training([self._readable_row()])
        self._evaluating = self._prepared = False
        benchmarks = self._benchmarks(eval_dataset, args)
        if self.records.images:  # TRL prepares no rows with images
            if isinstance(eval_dataset, dict):
                eval_dataset = {name: readable_rows(rows, args) for name, rows in eval_dataset.items()}
            else:
                eval_dataset = readable_rows(eval_dataset, args)
        evaluation = PIRCallback(self, benchmarks, args.baseline_dir)
        if formatting_func is not None:
            kwargs["formatting_func"] = formatting_func
        super().__init__(model, args, data_collator, self._sample, eval_dataset, processing_class, *more, **kwargs)
        self.train_dataset = train_dataset
        # Weights that each rank draws by itself (a new adapter, added tokens) would differ until training begins.
        if self.replicated and not same_on_all_ranks(self.accelerator, model_identity(self.model)):
            broadcast_weights(self.model)
        if benchmarks and (self.is_deepspeed_enabled or self.is_fsdp_enabled):
            logger.warning("Benchmarks can't run on a sharded model (DeepSpeed, FSDP): this run will have no PIR.")
            evaluation.benchmarks = []
        # Before the trackers' own callbacks, which close their files when training ends.
        self.callback_handler.callbacks[:0] = [SelectionCallback(self), evaluation]

    def _refuse_early(self, args: DataSelectingConfig, model: Any) -> None:
        sharded = [f"ACCELERATE_USE_{name}" for name in ("DEEPSPEED", "FSDP")]
        borrows = "model" in args.needs or ("judge" in args.needs and args.judge == "self")
        if borrows and (args.deepspeed or args.fsdp or any(os.environ.get(n) == "true" for n in sharded)):
            raise ValueError(
                f"`selection_method={args.selection_method!r}` runs the model before it is sharded, which DeepSpeed "
                "and FSDP do not allow yet: run `hf-dataselect select` first and train on the subset it saves."
            )
        if self.records.formatting_func is not None and args.dataset_text_field != "text":
            raise ValueError(
                f"`dataset_text_field={args.dataset_text_field!r}`: TRL writes what `formatting_func` gives into the "
                "column `text`, and would train on another one. Leave one of the two out."
            )
        check_rows(args, self.records, self._target)
        if args.cache_folder is not None and args.needs & {"model", "judge"}:
            check_writable(args.cache_folder)
        looks_local = isinstance(model, str) and (model.startswith(("/", "./", "../", "~")) or model.count("/") > 1)
        if looks_local and not Path(model).expanduser().is_dir():
            raise ValueError(f"`model`: there is no folder {model!r}.")

    def _readable_row(self) -> int:
        """A row that TRL can look at to tell the layout."""
        if self.records.layout == "tokens":
            return 0
        readable = (record.index for record in self.records if record.problem is None and record.messages)
        row = next((i for i in readable if not len(undecodable(self.records.dataset.select([i])))), None)
        if row is None:
            reasons = {record.problem or "an image can't be decoded" for record in self.records}
            raise ValueError(f"`train_dataset` has no row that can be read: {', '.join(sorted(map(str, reasons)))}.")
        return row

    def _benchmarks(self, eval_dataset: Any, args: DataSelectingConfig) -> list[Benchmark]:
        """One for each set of evaluation rows, and those that `benchmarks` names, with their rows read."""
        sets = eval_dataset if isinstance(eval_dataset, dict) else {"": eval_dataset}
        options = {"metrics": args.benchmark_metrics, "max_new_tokens": args.benchmark_max_new_tokens}
        found: list[Benchmark] = [
            HeldOut.of(records, name=name, **options)
            for name, rows in sets.items()
            if isinstance(rows, Dataset)
            for records in [Records(rows, args.dataset_text_field, self.records.formatting_func, name="eval_dataset")]
            if records.layout != "tokens"
        ]
        for benchmark in args.named_benchmarks:
            if benchmark.name in sets:
                raise ValueError(f"`benchmarks`: a set of `eval_dataset` is called {benchmark.name!r} too.")
        return found + args.prepared_benchmarks()

    def _prepare_dataset(self, dataset, processing_class, args, packing, formatting_func, dataset_name):
        if dataset is self._sample:  # the candidates stay raw until the rows to keep are known
            return dataset
        if formatting_func is None:
            dataset = readable_rows(dataset, args)
        return super()._prepare_dataset(dataset, processing_class, args, packing, formatting_func, dataset_name)

    @property
    def replicated(self) -> bool:
        """Whether there are several ranks, each with the whole model."""
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled or self.accelerator.parallelism_config is not None
        return self.accelerator.num_processes > 1 and not sharded

    @property
    def run_folder(self) -> Path:
        """Where `recipe.yaml`, `selection.json`, `scores.parquet` and `eval.json` are written: `args.output_dir`."""
        return Path(self.args.output_dir)

    @functools.cached_property
    def judge(self) -> Judge | None:
        """The judge of `args.judge`, loaded when first used."""
        if self.args.judge is None:
            return None
        return load_judge(
            self.args.judge,
            self.args.judge_options,
            model=self.model,
            tokenizer=self._tokenizer,
            accelerator=self.accelerator,
            cache_dir=self.args.cache_folder,
            batch_tokens=self.args.selection_batch_tokens,
            dtype=self.args.selection_dtype,
            vllm_memory=self.args.vllm_memory,
        )

    def context(self, **changes: Any) -> Context:
        """What selectors and benchmarks may use of this trainer."""
        return dataclasses.replace(
            Context(
                tokenizer=self._tokenizer,
                model=self.model,
                accelerator=self.accelerator,
                model_id=self.recipe["model_name_or_path"],
                target=self._target,
                diversity=self.args.diversity,
                judge=self.judge,
                seed=self.args.seed,
                cache_dir=self.args.cache_folder,
                max_length=self.args.max_length,
                batch_tokens=self.args.selection_batch_tokens,
                dtype=self.args.selection_dtype,
                num_proc=self.args.dataset_num_proc,
                gradient_checkpointing=self.args.gradient_checkpointing,
                vllm_memory=self.args.vllm_memory,
                processor=self.processing_class if isinstance(self.processing_class, ProcessorMixin) else None,
            ),
            **changes,
        )

    def select(self) -> Selection:
        """
        Choose the rows, without training: sets `self.selection` and writes it into the run folder.

        The model, its flags and the random state are afterwards what they were, bit for bit.
        """
        self.selection = select_into_folder(
            self.records, self.selector, self.args, self.context(), self.recipe, self._default_template
        )
        self._prepared = False
        return self.selection

    def _read_selection_back(self, resume_from_checkpoint: str | bool) -> Selection:
        """The selection that the checkpoint was trained on."""
        checkpoint = resume_from_checkpoint
        if checkpoint is True:
            checkpoint = get_last_checkpoint(self.args.output_dir)
        folders = [*([Path(checkpoint).parent] if checkpoint else []), self.run_folder]
        folder = next((folder for folder in folders if (folder / "selection.json").is_file()), None)
        if folder is None:
            raise SelectionError(
                f"`resume_from_checkpoint`: no selection.json in {' or '.join(map(str, folders))}, so the rows that "
                "the checkpoint was trained on are not known. Resume in the folder of that run."
            )
        selection = read_selection(folder)
        state = Path(checkpoint or "", "trainer_state.json")
        if state.is_file() and may_have_diverged(folder, json.loads(state.read_text())["global_step"]):
            raise SelectionError(f"`resume_from_checkpoint={str(checkpoint)!r}`: {DIVERGED}")
        if selection.facts.get("dataset") != self.records.content_hash():
            raise SelectionError(
                f"`resume_from_checkpoint`: the selection in {folder} was made of another `train_dataset`. Give the "
                "same one, or start anew without resuming."
            )
        mine = {
            "method": method_name(self.selector),
            "options": plain(dataclasses.asdict(self.selector)),
            "budget": self.args.budget_of(self.selector),
            "seed": self.args.seed,
            "diversity": dataclasses.asdict(self.args.diversity) if self.args.diversity else None,
            "target": self._target and self._target.content_hash(),
        }
        then = {"method": selection.method, "options": plain(selection.options), "budget": selection.budget}
        then |= {name: selection.facts.get(name) for name in ("seed", "diversity", "target")}
        changed = [f"{name} (then {then[name]}, now {mine[name]})" for name in mine if mine[name] != then[name]]
        if changed:
            raise SelectionError(
                f"`resume_from_checkpoint`: the selection in {folder} was made with other options: "
                f"{', '.join(changed)}. Restore them, or start anew without resuming."
            )
        if self.is_world_process_zero():
            if folder.resolve() == self.run_folder.resolve():
                write_versions(self.run_folder)
            else:
                write_recipe(self.run_folder, self.recipe | self.args.given)
                write_selection(self.run_folder, selection)
        logger.info("Resuming with the %s rows of %s.", len(selection.indices), folder)
        return selection

    def prepare_subset(self) -> None:
        """Make the rows of `self.selection` (selected now, if need be) the training dataset, tokenized and packed."""
        if self._prepared:
            return
        if self.selection is None:
            self.select()
        kept = np.sort(self.selection.indices)
        everything = len(kept) == len(self.records)
        subset = self.records.for_training(None if everything else kept, num_proc=self.args.dataset_num_proc)
        if not self._skip_prepare_dataset:
            prepared = super()._prepare_dataset(
                subset, self.processing_class, self.args, self.args.packing, self._formatting_func, "train"
            )
            masked = len(subset) - len(prepared)
            if not self.args.packing and masked:
                logger.warning("%s kept rows have no answer token within `max_length` and are not trained on.", masked)
                self.selection.facts["rows_without_answer_in_window"] = masked
                if self.is_world_process_zero():
                    write_selection(self.run_folder, self.selection)
            if len(prepared) == 0:
                raise ValueError(
                    f"None of the {len(subset)} kept rows has an answer within `max_length={self.args.max_length}`."
                )
            subset = prepared
        self.train_dataset, self._prepared = subset, True

    def get_train_dataloader(self):
        """Dataloader over the kept rows; selects first if that has not happened yet."""
        self.prepare_subset()
        return super().get_train_dataloader()

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any):
        """
        Select, prepare the subset, fit.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*):
                As in [`~transformers.Trainer.train`]; the rows of the interrupted run are read back, never chosen
                again.
        """
        if resume_from_checkpoint and self.selection is None:
            self.selection = self._read_selection_back(resume_from_checkpoint)
        self.prepare_subset()
        self._forget_evaluation()
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _forget_evaluation(self) -> None:
        """
        Let a model that was evaluated before it is trained be prepared for training. Evaluating marks it as prepared,
        and [`~transformers.Trainer`] (5.23, with accelerate 1.15) then trains it on each rank by itself.
        """
        parts = list(self.model_wrapped.modules())
        if self.replicated and not any(isinstance(part, DistributedDataParallel) for part in parts):
            for part in parts:
                unprepare(part)
            self.model_wrapped = self.model

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As [`~trl.SFTTrainer.evaluate`]; its time does not count as training time."""
        if self._evaluating:  # one call for each of several datasets, within the outer one
            return super().evaluate(*args, **kwargs)
        self._evaluating, started = True, time.perf_counter()
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            self._evaluating = False
            self.evaluation_seconds += time.perf_counter() - started

    def selected_dataset(self) -> Dataset:
        """The rows kept, best first, in their own columns, with `selection_row` and `selection_score`."""
        return selected_dataset(self.records, self.selection or self.select())

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The card of [`~trl.SFTTrainer`], and what the model was trained on."""
        super().create_model_card(*args, **kwargs)
        if self.selection is not None and self.is_world_process_zero():
            path = os.path.join(self.args.output_dir, "README.md")
            with open(path, "a", encoding="utf-8") as card:
                card.write("\n\n" + selection_card(self.selection, self.recipe | self.args.given))


def select_into_folder(
    records: Records,
    selector: Selector,
    args: DataSelectingConfig,
    ctx: Context,
    recipe: dict[str, Any],
    default_template: bool = False,
) -> Selection:
    """[`select`] with the budget of `args`, written into the run folder `args.output_dir` by the main process."""
    selection = select(records, selector, args.budget_of(selector), ctx)
    template = ctx.tokenizer.chat_template
    selection.facts |= {
        "model": ctx.model_id,
        "model_identity": model_identity(ctx.model) if "model" in args.needs else None,
        "dataset": records.content_hash(),
        "target": ctx.target and ctx.target.content_hash(),
        "layout": records.layout,
        "chat_template": digest(template) if template else None,
        "default_chat_template": default_template,
        "max_length": ctx.max_length,
        "dtype": ctx.dtype,
        "seed": ctx.seed,
        "processes": ctx.accelerator.num_processes if ctx.accelerator else 1,
        "judge": {"name": ctx.judge.name, "cost": dataclasses.asdict(ctx.judge.cost)} if ctx.judge else None,
    }
    if ctx.accelerator is None or ctx.accelerator.is_main_process:
        write_recipe(Path(args.output_dir), recipe | args.given)
        write_selection(Path(args.output_dir), selection)
    if ctx.accelerator is not None:
        ctx.accelerator.wait_for_everyone()
    return selection
