"""What TRL does not document. Imports TRL's trainers only when asked."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from .installed import attribute, check_hook, imported


#: The first parameters of `SFTTrainer.__init__`, which [`DataSelectingTrainer`] repeats.
TRAINER_PARAMETERS = ("model", "args", "data_collator", "train_dataset", "eval_dataset", "processing_class")
#: The parameters of `SFTTrainer._prepare_dataset`, which [`DataSelectingTrainer`] overrides.
PREPARE_PARAMETERS = ("dataset", "processing_class", "args", "packing", "formatting_func", "dataset_name")


def check_sft_trainer(kind: type) -> None:
    """
    Check the methods of [`~trl.SFTTrainer`] that [`DataSelectingTrainer`] overrides: `__init__`, and the private
    `_prepare_dataset`, by which the candidates stay raw until the rows to keep are known. Seen on TRL 1.16.0; raises
    `ImportError` where they are gone or take other parameters.
    """
    check_hook("trl", kind, "__init__", TRAINER_PARAMETERS)
    check_hook("trl", kind, "_prepare_dataset", PREPARE_PARAMETERS)
    tag_names(kind, [])


def check_parser(kind: type) -> None:
    """
    Check the methods of [`~trl.TrlParser`] that refuse unknown options by overriding them: `set_defaults_with_config`
    (gives the options of a YAML file that no dataclass has) and `parse_known_args`. Seen on TRL 1.16.0; raises
    `ImportError` where they are gone.
    """
    check_hook("trl", kind, "set_defaults_with_config", ("kwargs",))
    check_hook("trl", kind, "parse_known_args", ("args", "namespace"))


def tag_names(kind: type, more: Sequence[str]) -> list[str]:
    """
    Tags of the model card, `_tag_names` of [`~trl.SFTTrainer`], and more. Seen on TRL 1.16.0; raises `ImportError`
    where there are none.
    """
    return [*attribute("trl", kind, "_tag_names"), *more]


def dict_fields(kind: type, more: Sequence[str]) -> list[str]:
    """
    Fields of a config that also take JSON, `_VALID_DICT_FIELDS` of [`~transformers.TrainingArguments`] and of
    [`~trl.SFTConfig`], and more. Seen on TRL 1.16.0, transformers 5.23.0; raises `ImportError` where there are none.
    """
    return [*attribute("trl", kind, "_VALID_DICT_FIELDS"), *more]


def prepare_dataset(
    dataset: Any,
    processing_class: Any,
    *,
    chat_template: str | None,
    completion_only_loss: bool,
    packing: bool,
    text_field: str = "text",
    num_proc: int | None = None,
    **options: Any,
) -> Any:
    """
    Tokens and labels of rows as [`~trl.SFTTrainer`] makes them, by its private `_prepare_dataset` without a trainer;
    `options` are those of [`~trl.SFTConfig`] that it reads. Seen on TRL 1.16.0; raises `ImportError` where it is
    missing.
    """
    prepare = attribute("trl", imported("trl", "trl", "SFTTrainer"), "_prepare_dataset")
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    trainer = SimpleNamespace(
        _tokenizer=tokenizer, chat_template=chat_template, completion_only_loss=completion_only_loss
    )
    args = SimpleNamespace(
        dataset_text_field=text_field,
        dataset_num_proc=num_proc,
        shuffle_dataset=False,
        seed=0,
        use_liger_kernel=False,  # up to TRL 1.14, which then drops the masks
        **options,
    )
    return prepare(trainer, dataset, processing_class, args, packing, None, "train")


def training_template(processing_class: Any) -> str | None:
    """
    The chat template that [`~trl.SFTTrainer`] trains with under `assistant_only_loss`, `None` for the tokenizer's own:
    `trl.chat_template_utils.get_training_chat_template`. Seen on TRL 1.16.0; raises `ImportError` where it is missing,
    and what TRL raises where it has no such template.
    """
    name = "trl.chat_template_utils"
    if imported("trl", name, "has_generation_markers")(processing_class.chat_template):
        return None
    return imported("trl", name, "get_training_chat_template")(processing_class)


def skips_preparation(trainer: Any) -> bool:
    """
    Whether the dataset is trained on as it is (`dataset_kwargs`, or images that the collator reads), the private
    `_skip_prepare_dataset` of [`~trl.SFTTrainer`]. Seen on TRL 1.16.0; raises `ImportError` where it is missing.
    """
    return attribute("trl", trainer, "_skip_prepare_dataset")


def trained_tokens(trainer: Any) -> int:
    """
    Tokens without padding that a trainer has trained on since it was made, over all ranks: `_total_train_tokens` of
    [`~trl.SFTTrainer`], which it logs as `num_tokens`. Seen on TRL 1.16.0; raises `ImportError` where it is missing.
    """
    return int(attribute("trl", trainer, "_total_train_tokens"))


def create_model(name: str, **options: Any) -> Any:
    """
    A model by name, of the class that its configuration names, as TRL's trainers load it:
    `trl.trainer.utils.create_model_from_path`, which passes its options to `from_pretrained` and returns what that
    returns. Seen on TRL 1.16.0; raises `ImportError` where it is missing.
    """
    return imported("trl", "trl.trainer.utils", "create_model_from_path")(name, **options)


@contextmanager
def models_loaded_by(load: Callable[..., Any]) -> Iterator[None]:
    """
    Let [`~trl.SFTTrainer`] load a model by name with `load(name, create, **options)`, where `create` is its own
    `trl.trainer.sft_trainer.create_model_from_path`. Seen on TRL 1.16.0; raises `ImportError` where it is missing.
    """
    create = imported("trl", "trl.trainer.sft_trainer", "create_model_from_path")
    module: Any = sys.modules["trl.trainer.sft_trainer"]
    module.create_model_from_path = lambda name, **options: load(name, create, **options)
    try:
        yield
    finally:
        module.create_model_from_path = create


def vision_collator(processor: Any, max_length: int | None) -> Any:
    """
    The collator by which [`~trl.SFTTrainer`] makes tokens, pixels and labels of prompts and completions with images:
    `trl.trainer.sft_trainer.DataCollatorForVisionLanguageModeling`. Seen on TRL 1.16.0; raises `ImportError` where it
    is missing.
    """
    kind = imported("trl", "trl.trainer.sft_trainer", "DataCollatorForVisionLanguageModeling")
    return kind(processor, max_length, completion_only_loss=True)


def is_vllm_available() -> bool:
    """
    Whether vLLM is installed in a version that TRL supports: `trl.import_utils.is_vllm_available`. Seen on TRL 1.16.0;
    raises `ImportError` where it is missing.
    """
    return imported("trl", "trl.import_utils", "is_vllm_available")()


def vllm_engine(model: Any, accelerator: Any, tokenizer: Any, memory: float, max_length: int) -> Any:
    """
    TRL's own vLLM integration, colocated and greedy, asleep between calls:
    `trl.generation.vllm_generation.VLLMGeneration`; its window is `max_model_length`. Seen on TRL 1.16.0; raises
    `ImportError` where it is missing.
    """
    kind = imported("trl", "trl.generation.vllm_generation", "VLLMGeneration")
    return kind(
        model,
        accelerator,
        tokenizer,
        gpu_memory_utilization=memory,
        max_model_length=max_length,
        enable_sleep_mode=True,
        temperature=0.0,
        logprobs=None,
    )


def vllm_answers(
    engine: Any, model: Any, prompts: list[list[int]], max_new_tokens: int, stops: Sequence[int]
) -> list[list[int]]:
    """
    New token ids of each prompt by a [`vllm_engine`], with this model's weights. Sets `max_completion_length`,
    `generation_kwargs` and `model` of the engine, and reads the second value of its `generate`. Seen on TRL 1.16.0.
    """
    engine.max_completion_length = max_new_tokens
    # Only these ids end an answer, whatever the model's own settings say.
    engine.generation_kwargs = {"stop_token_ids": list(stops), "ignore_eos": True, "detokenize": False}
    engine.model = model
    try:
        return [list(ids) for ids in engine.generate(prompts, None, 1)[1]] if prompts else []
    finally:
        engine.model = None


def check_token_losses() -> None:
    """
    Refuse a TRL whose `SFTTrainer.compute_loss` does not get the log-probability of each token from the model, as
    `trl.trainer.utils.FusedCausalLMOutput`. Seen on TRL 1.16.0; raises `ImportError` where it is missing (up to 1.14).
    """
    imported("trl", "trl.trainer.utils", "FusedCausalLMOutput")


def weighing(model: Any, weigh: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """
    A model for `SFTTrainer.compute_loss`, which sums `log_probs` of what it returns: each is multiplied by what
    `weigh(losses, counted)` gives for the losses of the tokens and `label_mask`, all `(lines, tokens - 1)`. Seen on
    TRL 1.16.0; raises `ImportError` where they are missing.
    """

    def forward(*given: Any, **options: Any) -> Any:
        outputs = model(*given, **options)
        log_probs, counted = (attribute("trl", outputs, name) for name in ("log_probs", "label_mask"))
        outputs.log_probs = log_probs * weigh(-log_probs.detach(), counted)
        return outputs

    return forward


def token_losses(model: Any, input_ids: Any, attention_mask: Any, labels: Any) -> tuple[Any, Any]:
    """
    Losses of tokens, and which of them are labels, `(lines, tokens - 1)`, by the head that `SFTTrainer` gives its
    model: `fused_lm_head` of its forward. Seen on TRL 1.16.0; raises `ImportError` where they are missing.
    """
    outputs = model(
        input_ids=input_ids, attention_mask=attention_mask, labels=labels, use_cache=False, fused_lm_head=True
    )
    log_probs, counted = (attribute("trl", outputs, name) for name in ("log_probs", "label_mask"))
    return -log_probs, counted


def is_default_collator(collator: Any) -> bool:
    """
    Whether a collator is the one of [`~trl.SFTTrainer`] for tokens, `DataCollatorForLanguageModeling` of
    `trl.trainer.sft_trainer`. Seen on TRL 1.16.0; raises `ImportError` where it is missing.
    """
    return type(collator) is imported("trl", "trl.trainer.sft_trainer", "DataCollatorForLanguageModeling")
