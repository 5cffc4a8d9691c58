"""
Judges and reward models by their spec: checked before anything loads, and loaded. What local ones are made of is
imported where it is used: a server's judge starts in half the time without it.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from ...errors import SelectionError
from ..runtime.runtime import Runtime
from .judge import Judge
from .judge_options import JudgeOptions
from .server import ServerJudge


if TYPE_CHECKING:
    from .reward_model import RewardModel


#: Kinds of judges, and what of a method's needs each meets; a spec is `KIND:NAME`, or `self`.
KINDS = {
    "openai": {"judge"},
    "model": {"judge", "digit logits"},
    "self": {"judge", "digit logits"},
    "reward": set(),
}


def parse_spec(spec: str) -> tuple[str, str]:
    """
    Kind and name of a judge.

    Raises:
        `ValueError`: no such kind, or no name.
    """
    kind, _, name = str(spec).partition(":")
    if kind not in KINDS or (kind == "self") == bool(name):
        raise ValueError(f"`judge={spec!r}` must be 'openai:MODEL', 'model:NAME', 'reward:NAME' or 'self'.")
    return kind, name


def check_judge(spec: str | None, needs: Collection[str], method: str) -> None:
    """
    Refuse, before anything loads, a method that needs a judge without one, a judge of another kind than it needs, and
    a server without an address or a key.

    Raises:
        `ValueError`: no judge, though `needs` names one, no such kind, or one that does not give what is needed.
        `ImportError`, [`JudgeError`]: see [`load_judge`].
    """
    if spec is None:
        if "judge" in needs:
            raise ValueError(
                f"`{method}` needs `judge`: 'openai:MODEL' (a server), 'model:NAME' (a model loaded here) or 'self' "
                "(the current model)."
            )
        return
    kind, _ = parse_spec(spec)
    if missing := {"judge", "digit logits"} & set(needs) - KINDS[kind]:
        what = "a judge that answers in words" if "judge" in missing else "the logits of a local judge"
        raise ValueError(
            f"`{method}` needs {what}, which `judge={spec!r}` does not give: take "
            f"{', '.join(repr(k if k == 'self' else k + ':...') for k in KINDS if KINDS[k] >= missing)}."
        )
    if kind == "openai":
        load_judge(spec)


def load_judge(
    spec: str,
    options: JudgeOptions | None = None,
    runtime: Runtime | None = None,
    *,
    model: Any = None,
    tokenizer: Any = None,
) -> "Judge | RewardModel":
    """
    A judge by its spec, see `engines/llm/judge.py`.

    Args:
        spec (`str`):
            Kind and name.
        options ([`JudgeOptions`], *optional*):
            Limits, retries, prices.
        runtime ([`Runtime`], *optional*):
            Ranks, device, cache, batches, dtype and account.
        model, tokenizer (*optional*):
            The current model, for `self`.

    Returns:
        [`Judge`] or [`RewardModel`].

    Raises:
        `ValueError`: no such kind; a model that can't be loaded or has no chat template; `self` without a model.
        `ImportError`: `openai` is missing (extra `judge`).
        [`JudgeError`]: neither `OPENAI_BASE_URL` nor `OPENAI_API_KEY` is set.
    """
    kind, name = parse_spec(spec)
    runtime = runtime or Runtime()
    if kind == "openai":
        return ServerJudge(name, runtime, options)
    if kind == "reward":
        return load_reward_model(name, runtime, options, f"`judge={spec!r}`")
    from .local import LocalJudge

    if kind == "model":
        loaded = _load("AutoModelForCausalLM", name, runtime, f"`judge={spec!r}`")
        return LocalJudge(name, *loaded, runtime, options)
    if model is None or tokenizer is None:
        raise ValueError("`judge='self'` needs the current model, and none is given: name one with 'model:NAME'.")
    return LocalJudge("", model, tokenizer, runtime, options)


def load_reward_model(
    name: str, runtime: Runtime, options: JudgeOptions | None = None, option: str | None = None
) -> "RewardModel":
    """
    A reward model by hub name or folder, whether its tokenizer has a chat template or not.

    Args:
        option (`str`, *optional*):
            Where the user named it, for the message; by default `reward_model` of `selection_kwargs`.

    Raises:
        [`SelectionError`]: it can't be loaded, its tokenizer is not the model's, or weights are missing (a language
            model has no reward head).
    """
    from .reward_model import PairRewardModel, RewardModel

    option = option or f"`selection_kwargs`: reward_model={name!r}"
    model, tokenizer = _load("AutoModelForSequenceClassification", name, runtime, option)
    kind = RewardModel if tokenizer.chat_template else PairRewardModel
    return kind(name, model, tokenizer, runtime, options)


def _load(kind: str, name: str, runtime: Runtime, option: str) -> tuple[Any, Any]:
    import transformers

    from ..runtime.loading import load_pretrained

    try:
        return load_pretrained(getattr(transformers, kind), name, runtime)
    except (OSError, ValueError) as error:
        raise SelectionError(f"{option} can't be loaded: {error}") from error
