"""Judges by their spec: checked before anything loads, and loaded."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from .judge import KINDS, Judge, parse_spec
from .judge_options import JudgeOptions


def check_judge(spec: str | None, needs: Collection[str], method: str) -> None:
    """
    Refuse, before anything loads, a method whose card needs a judge without one, a judge of another kind than it
    needs, and a server that nothing is known of.

    Raises:
        `ValueError`: no judge, though `needs` names one, no such kind, or one that does not give what is needed.
        `ImportError`, [`JudgeError`]: see [`load_judge`].
    """
    if spec is None:
        if "judge" in needs:
            raise ValueError(
                f"`{method}` needs `judge`: 'openai:MODEL' (a server), 'model:NAME' (a model loaded here) or 'self' "
                "(the model at hand)."
            )
        return
    kind, _ = parse_spec(spec)
    if missing := {"judge", "digit logits"} & set(needs) - KINDS[kind]:
        what = "a judge that writes" if "judge" in missing else "the logits of a judge that is loaded here"
        raise ValueError(
            f"`{method}` needs {what}, and `judge={spec!r}` is none: take "
            f"{', '.join(repr(k if k == 'self' else k + ':...') for k in KINDS if KINDS[k] >= missing)}."
        )
    if kind == "openai":
        load_judge(spec)


def load_judge(
    spec: str,
    options: JudgeOptions | None = None,
    *,
    model: Any = None,
    tokenizer: Any = None,
    accelerator: Accelerator | None = None,
    cache_dir: Path | None = None,
    batch_tokens: int | None = None,
    dtype: str = "auto",
    vllm_memory: float | None = None,
) -> Judge:
    """
    A judge by its spec, see the module docstring.

    Args:
        spec (`str`):
            Kind and name.
        options ([`JudgeOptions`], *optional*):
            Limits, patience, prices.
        model, tokenizer (*optional*):
            The model at hand, for `self`.
        accelerator ([`~accelerate.Accelerator`], *optional*):
            Device and ranks.
        cache_dir (`Path`, *optional*):
            Where replies are kept.
        batch_tokens (`int`, *optional*):
            Tokens of a local model's batch; by default 1,536 on a CPU and 16,384 elsewhere.
        dtype (`str`, *optional*, defaults to `"auto"`):
            Dtype of a local model's logits, see [`scoring_dtype`].
        vllm_memory (`float`, *optional*):
            Let vLLM write a local model's words, see [`generate`].

    Returns:
        [`Judge`]: a [`ServerJudge`], [`ModelJudge`] or [`RewardJudge`].

    Raises:
        `ValueError`: no such kind; a model that can't be loaded or has no chat template; `self` without a model.
        `ImportError`: `openai` is missing (extra `judge`).
        [`JudgeError`]: neither `OPENAI_BASE_URL` nor `OPENAI_API_KEY` is set.
    """
    kind, name = parse_spec(spec)
    if kind == "openai":
        from .server import ServerJudge

        return ServerJudge(name, options, cache_dir, accelerator)
    from . import local

    if batch_tokens is None:
        batch_tokens = 1536 if accelerator is None or accelerator.device.type == "cpu" else 16384
    shared = {"options": options, "cache_dir": cache_dir, "accelerator": accelerator}
    shared |= {"batch_tokens": batch_tokens, "dtype": dtype}
    if kind == "reward":
        from .reward_model import RewardJudge

        return RewardJudge(name, *local.load_model(spec, accelerator), **shared)
    shared["vllm_memory"] = vllm_memory
    if kind == "model":
        return local.ModelJudge(name, *local.load_model(spec, accelerator), **shared)
    if model is None or tokenizer is None:
        raise ValueError("`judge='self'` needs the model at hand, and there is none: name one with 'model:NAME'.")
    return local.ModelJudge("", model, tokenizer, **shared)
