"""[`with_rollouts`]: rewards of a model's own answers to the prompts of a dataset, for `pass_rate`."""

import copy
from typing import Any

from datasets import Dataset, Features, List, Value
from transformers import pipeline, set_seed

from ..engines.runtime.model_state import preserved
from .prompt_sampler import Reward


def with_rollouts(
    dataset: Dataset,
    model: Any,
    reward: Reward,
    rollouts: int = 8,
    *,
    tokenizer: Any = None,
    max_new_tokens: int = 256,
    batch_size: int = 8,
    column: str = "pass_rate",
    seed: int = 42,
    **options: Any,
) -> Dataset:
    """
    The dataset with the rewards of sampled answers to each prompt in a new column, on one device.

    Experimental: it may change in any release. Answers are sampled as [`~trl.GRPOTrainer`] does by default, at
    temperature 1 from the whole vocabulary. This is most of the cost of `pass_rate`: save the dataset, and the rewards
    serve every budget and target.

    Args:
        dataset ([`~datasets.Dataset`]):
            `prompt`, a text or a list of messages, and the columns that `reward` reads.
        model (`str` or [`~transformers.PreTrainedModel`]):
            The model that GRPO is to train.
        reward (`Callable`):
            A reward function as TRL takes it: `prompts`, `completions` and each further column, a list each.
        rollouts (`int`, *optional*, defaults to `8`):
            Answers to each prompt, at least 2.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`], *optional*):
            By default the model's, by its name.
        max_new_tokens (`int`, *optional*, defaults to `256`):
            Tokens of an answer at most.
        batch_size (`int`, *optional*, defaults to `8`):
            Prompts of a batch; `rollouts` answers each are generated at once.
        column (`str`, *optional*, defaults to `"pass_rate"`):
            Name of the new column.
        seed (`int`, *optional*, defaults to `42`):
            Same seed, machine and batches, same answers.
        options:
            Further options of [`~transformers.pipeline`]: `device`, `dtype`, `model_kwargs` ...

    Raises:
        `ValueError`: fewer than two rollouts, no column `prompt`, or a column that exists already.
    """
    if rollouts < 2:
        raise ValueError(f"`rollouts={rollouts}` must be at least 2: one tells no rate.")
    if "prompt" not in dataset.column_names or column in dataset.column_names:
        raise ValueError(f"`dataset` has {dataset.column_names}: it needs `prompt`, and no {column!r} (`column`).")
    generate = pipeline("text-generation", model, tokenizer=copy.deepcopy(tokenizer), **options)
    if generate.tokenizer.pad_token_id is None:
        generate.tokenizer.pad_token = generate.tokenizer.eos_token
    generate.tokenizer.padding_side = "left"
    sampling = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "num_return_sequences": rollouts}

    def rewards(batch: dict[str, list], rows: list[int]) -> dict[str, list]:
        set_seed(seed + rows[0])
        replies = generate(
            batch["prompt"],
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            return_full_text=False,
            **sampling,
        )
        texts = [reply["generated_text"] for of_prompt in replies for reply in of_prompt]
        chats = [isinstance(prompt, list) for prompt in batch["prompt"] for _ in range(rollouts)]
        completions = [
            [{"role": "assistant", "content": text}] if chat else text for text, chat in zip(texts, chats, strict=True)
        ]
        given = {name: [value for value in values for _ in range(rollouts)] for name, values in batch.items()}
        rated = reward(prompts=given.pop("prompt"), completions=completions, **given)
        return {column: [rated[i : i + rollouts] for i in range(0, len(rated), rollouts)]}

    with preserved(generate.model):
        return dataset.map(
            rewards,
            batched=True,
            batch_size=batch_size,
            with_indices=True,
            features=Features({**dataset.features, column: List(Value("float64"))}),  # rewards may be `None`
            load_from_cache_file=False,
        )
