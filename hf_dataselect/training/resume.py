"""Resume a run: the rows of the checkpoint are read back, never selected again, and trained on as they were."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

from torch.nn.parallel import DistributedDataParallel

from ..engines.runtime.model_state import unprepare
from ..errors import SelectionError
from ..evaluation.comparison.evaluated_runs import FREE
from ..plan import SelectionPlan
from ..runs.begin import begin_run, begin_training, go_on
from ..runs.files import plain, run_id
from ..runs.folder import DIVERGED, may_have_diverged, read_recipe, read_selection, write_selection
from ..runs.secrets import without_secrets
from ..selection import Selection
from .checkpoints import adopt, last_whole_checkpoint, step_and_run, why_torn


logger = logging.getLogger(__name__)

#: Options that decide what a step computes: going on with others would mix two trainings. So is the seed, which the
#: selection holds. Options in neither list are free: how long, where and how fast it trains, and how it is watched.
_REFUSED = {"learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio"}
_REFUSED |= {"weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "optim_args", "optim_target_modules"}
_REFUSED |= {"max_grad_norm", "label_smoothing_factor", "loss_type", "completion_only_loss", "assistant_only_loss"}
_REFUSED |= {"router_aux_loss_coef", "neftune_noise_alpha", "packing", "packing_strategy", "chat_template_path"}
_REFUSED |= {"dataset_text_field", "dataset_kwargs", "shuffle_dataset", "train_sampling_strategy", "use_peft"}
_REFUSED |= {"lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_parameters"}
_REFUSED |= {"lora_modules_to_save", "use_rslora", "use_dora", "selection_policy", "selection_policy_kwargs"}
_REFUSED |= {"selection_schedule", "guard_harm"}
#: Options that the machine may decide, that `eval.json` records under `trained` as all values that a run had, or that
#: may say the same in other words.
_WARNED = {"per_device_train_batch_size", "gradient_accumulation_steps", "auto_find_batch_size"}
_WARNED |= {"average_tokens_across_devices", "max_length", "truncation_mode", "padding_free", "bf16", "fp16"}
_WARNED |= {"tf32", "dtype", "load_in_8bit", "load_in_4bit", "bnb_4bit_quant_type", "use_bnb_nested_quant"}
_WARNED |= {"model_init_kwargs", "attn_implementation", "use_liger_kernel", "use_cpu", "deepspeed", "fsdp"}
_WARNED |= {"fsdp_config", "optim", "full_determinism", "model_name_or_path", "model_revision", "data_seed"}
_WARNED |= {"accelerator_config", "parallelism_config", "eos_token", "pad_token", "guard_dataset"}
_WARNED |= {"dataloader_drop_last"}
#: What is compared of an adapter given as an object, which no recipe names.
_ADAPTER = ("peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "modules_to_save", "bias", "use_rslora")
_ADAPTER += ("use_dora", "rank_pattern", "alpha_pattern", "layers_to_transform")


#: Prefixes of the options that a training begun anew may have others of, and still be the same run.
_HOW_LONG = (*FREE, "max_steps", "num_train_epochs")


def begin(trainer: Any) -> None:
    """Write that a trainer begins from its first step, see [`begin_training`]. For the main process."""
    recipe = trainer.recipe | trainer.args.given
    begin_training(trainer.run_folder, recipe, trainer.selection, trainer.plan.compared, _HOW_LONG)


def forget_evaluation(trainer: Any) -> None:
    """
    Let a model that was evaluated before it is trained be prepared for training. Evaluating marks it as prepared, and
    [`~transformers.Trainer`] (5.23, with accelerate 1.15) then trains it on each rank by itself.
    """
    parts = list(trainer.model_wrapped.modules())
    if trainer.replicated and not any(isinstance(part, DistributedDataParallel) for part in parts):
        for part in parts:
            unprepare(part)
        trainer.model_wrapped = trainer.model


def checkpoint_to_resume(run_folder: Path, given: str | bool | None) -> str | None:
    """
    Folder of the checkpoint to resume from.

    Args:
        run_folder (`Path`):
            That of the run that resumes.
        given (`str` or `bool`, *optional*):
            Folder of the checkpoint; `True` for the last whole one of the run folder.

    Raises:
        [`SelectionError`]: it is not whole, or none is.
    """
    if not given:
        return None
    if given is True:
        last = last_whole_checkpoint(run_folder, run_id(run_folder))
        if last is None:
            raise SelectionError(f"`resume_from_checkpoint`: {run_folder} has no checkpoint. Train anew, without it.")
        return str(last)
    if Path(given).is_dir() and (reason := why_torn(Path(given))):
        raise SelectionError(f"`resume_from_checkpoint={str(given)!r}`: {reason}.")
    return str(given)


def resume_run(trainer: Any, checkpoint: str | bool) -> Selection:
    """
    The selection that a checkpoint was trained on, for a trainer that goes on; its run folder then says what it is
    trained with from here. For the main process.

    Raises:
        [`SelectionError`]: see [`read_selection_back`], and options that decide what a step computes (learning rate
            and schedule, optimizer, loss, packing, template, adapter) and are others than those of the checkpoint.
    """
    if checkpoint is True:
        checkpoint = checkpoint_to_resume(trainer.run_folder, True)
    selection, folder = read_selection_back(trainer.plan, trainer.run_folder, str(checkpoint))
    recipe = trainer.recipe | trainer.args.given
    _check_training(read_recipe(folder), without_secrets(plain(recipe)), folder)
    _check_adapter(trainer.model, Path(checkpoint))
    if folder.resolve() != trainer.run_folder.resolve():
        begin_run(trainer.run_folder, recipe, trainer.plan.compared)
        write_selection(trainer.run_folder, selection)
        return selection
    go_on(folder, recipe, selection)
    if Path(checkpoint).parent.resolve() == folder.resolve():
        adopt(Path(checkpoint), run_id(folder))
    return selection


def read_selection_back(plan: SelectionPlan, run_folder: Path, checkpoint: str) -> tuple[Selection, Path]:
    """
    The selection that a checkpoint was trained on.

    Args:
        plan ([`SelectionPlan`]):
            What would be selected now.
        run_folder (`Path`):
            That of the run that resumes.
        checkpoint (`str`):
            Folder of the checkpoint.

    Returns:
        `tuple`: the selection, and the run folder that it was read from.

    Raises:
        [`SelectionError`]: there is none, it was made from another dataset or with other options, the ranks of its
            run may have trained different models, or the checkpoint is of another run.
    """
    folders = [Path(checkpoint).parent, run_folder]
    folder = next((folder for folder in folders if (folder / "selection.json").is_file()), None)
    if folder is None:
        raise SelectionError(
            f"`resume_from_checkpoint`: no selection.json in {' or '.join(map(str, folders))}, so the rows that the "
            "checkpoint was trained on are unknown. Resume in the folder of that run."
        )
    selection, run = read_selection(folder), run_id(folder)
    step, of = step_and_run(Path(checkpoint))
    if run is not None and step is not None and of != run:
        raise SelectionError(
            f"`resume_from_checkpoint={checkpoint!r}`: the checkpoint is of another run than the one in {folder}, "
            "which was trained on other rows or in another way. Train anew, without it."
        )
    if step is not None and may_have_diverged(folder, step):
        raise SelectionError(f"`resume_from_checkpoint={checkpoint!r}`: {DIVERGED}")
    if selection.facts.get("dataset") != plan.records.content_hash():
        raise SelectionError(
            f"`resume_from_checkpoint`: the selection in {folder} was made from another `train_dataset`. Give the "
            "same one, or start anew without resuming."
        )
    now = {
        "method": plan.method,
        "options": without_secrets(plain(dataclasses.asdict(plan.selector))),
        "budget": plan.budget.plain,
        "seed": plan.seed,
        "diversity": dataclasses.asdict(plan.diversity) if plan.diversity else None,
        "target": plan.target and plan.target.content_hash(),
    }
    then = {
        "method": selection.method,
        "options": without_secrets(plain(selection.options)),
        "budget": selection.budget,
    }
    then |= {name: selection.facts.get(name) for name in ("seed", "diversity", "target")}
    changed = [f"{name} (then {then[name]}, now {now[name]})" for name in now if now[name] != then[name]]
    if changed:
        raise SelectionError(
            f"`resume_from_checkpoint`: the selection in {folder} was made with other options: {', '.join(changed)}. "
            "Restore them, or start anew without resuming."
        )
    logger.info("Resuming with the %s rows of %s.", len(selection.indices), folder)
    return selection, folder


def _check_training(then: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Refuse, or warn of, options that are others than those of the run so far."""
    if not then:
        logger.warning("%s has no recipe.yaml: it is unknown whether it was trained with the same options.", folder)
        return
    then, now = ({name: value for name, value in run.items() if value not in ({}, [], "")} for run in (then, now))
    changed = {
        name: f"`{name}` (then {then.get(name, 'the default')!r}, now {now.get(name, 'the default')!r})"
        for name in dict.fromkeys([*then, *now])
        if name in _REFUSED | _WARNED and then.get(name, "the default") != now.get(name, "the default")
    }
    if refused := [said for name, said in changed.items() if name in _REFUSED]:
        raise SelectionError(
            f"`resume_from_checkpoint`: the run in {folder} was trained with other options: {', '.join(refused)}. "
            "Restore them, or start anew without resuming."
        )
    if changed:
        logger.warning("Resumed with other options than before: %s.", ", ".join(changed.values()))


def _check_adapter(model: Any, checkpoint: Path) -> None:
    """Refuse an adapter that is another one than that of the checkpoint."""
    now, path = getattr(model, "peft_config", {}).get("default"), checkpoint / "adapter_config.json"
    if now is None or not path.is_file():
        return
    now, then = _described(now.to_dict()), _described(type(now).from_json_file(str(path)))
    changed = [f"`{name}` (then {then[name]!r}, now {now[name]!r})" for name in then if then[name] != now.get(name)]
    if changed:
        raise SelectionError(
            f"`resume_from_checkpoint={str(checkpoint)!r}`: `peft_config` is another one: {', '.join(changed)}. "
            "Restore it, or start anew without resuming."
        )


def _described(adapter: dict[str, Any]) -> dict[str, Any]:
    options = {name: plain(adapter[name]) for name in _ADAPTER if name in adapter}
    return {name: sorted(value, key=str) if isinstance(value, list) else value for name, value in options.items()}
