"""
The contract: what a selector is, what it gets, and `select()`, the paper (arXiv 2406.14115) on one screen.

A selector is a dataclass in a file of its own in `hf_dataselect/selectors/`; the file's name is the method's name, its
fields are the hyper-parameters. It is written as if there were one process and one device.
"""

import dataclasses
import logging
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset

from .preprocessing.records import Records
from .preprocessing.text import TextFormat
from .selection import Account, Selection, SelectionError, rows_to_keep


logger = logging.getLogger(__name__)

#: Part of the rows kept where no `selection_budget` is given (IFD, Superfiltering and LESS report 5 %).
DEFAULT_BUDGET = 0.05


@dataclass(frozen=True)
class Card:
    """
    Facts about a method, for `hf-dataselect methods`, the README table and the feasibility ranks (paper, Table 3).

    Args:
        title (`str`):
            One line: what is kept.
        paper (`str`, *optional*):
            arXiv id.
        features (`str`):
            Kind of feature (paper, section 3): none, human-designed or model-oriented.
        label_source (`str`):
            Where the quality label comes from.
        trained_llms (`int`):
            Language models trained to build the selector.
        small_llm (`bool`):
            Whether those are small ones, as GPT-2 is beside the pending fine-tune model.
        steps (`tuple[str]`):
            Steps of the selection algorithm.
        llm_uses (`int`):
            Steps that run a language model.
        code (`bool`):
            Whether the authors publish their code.
        model_free, dataset_free, chatgpt_free (`bool`):
            Whether it works on unchanged for another pending fine-tune model, another dataset, without ChatGPT/GPT-4.
        multi_turn (`str`):
            What is done with rows of several turns.
        images (`str`, *optional*):
            What is done with images of rows; nothing if empty, and then a method that reads texts says so.
        needs (`frozenset[str]`):
            What must be given: `"prompt"` (rows with a prompt apart from the answer), `"text"` (rows not tokenized
            yet), `"model"`, `"target"`, `"judge"` (one that writes), `"digit logits"` (of a judge loaded here).
        deviations (`tuple[str]`):
            Where this differs from the authors' code or paper.
    """

    title: str
    paper: str | None = None
    features: str = "none"
    label_source: str = "none"
    trained_llms: int = 0
    small_llm: bool = False
    steps: tuple[str, ...] = ("rank", "keep the top k")
    llm_uses: int = 0
    code: bool = True
    model_free: bool = True
    dataset_free: bool = True
    chatgpt_free: bool = True
    multi_turn: str = "rows are taken whole"
    images: str = ""
    needs: frozenset[str] = frozenset()
    deviations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Context:
    """
    What a selector may use. Frozen: a selector borrows it.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            The model's.
        model ([`~transformers.PreTrainedModel`], *optional*):
            The pending fine-tune model (PFM), as the trainer holds it.
        accelerator ([`~accelerate.Accelerator`], *optional*):
            The trainer's.
        model_id (`str`, *optional*):
            Name or path of the model, for the record.
        target ([`Records`], *optional*):
            Rows of the task to be good at.
        judge (`Any`, *optional*):
            Judge engine.
        diversity ([`Diversity`], *optional*):
            What follows the method's own ranking.
        seed (`int`, *optional*, defaults to `42`):
            Same seed, same subset.
        cache_dir (`Path`, *optional*):
            Where results are kept; `None` keeps none.
        max_length (`int`, *optional*, defaults to `1024`):
            Window in tokens, for scoring as for training.
        batch_tokens (`int`, *optional*):
            Tokens of a scoring batch; by default 1,536 on a CPU and 16,384 elsewhere.
        dtype (`str`, *optional*, defaults to `"auto"`):
            Dtype to score in.
        num_proc (`int`, *optional*):
            Processes that tokenize.
        gradient_checkpointing (`bool`, *optional*, defaults to `False`):
            Whether a warm-up trades compute for memory, as the training does.
        vllm_memory (`float`, *optional*):
            Part of the GPU's memory in which vLLM generates; `None` generates without it.
        account ([`Account`], *optional*):
            Where rows and passes are counted.
        processor ([`~transformers.ProcessorMixin`], *optional*):
            That of a vision-language model: what makes tokens and pixels of its rows.
    """

    tokenizer: Any
    model: Any = None
    accelerator: Any = None
    model_id: str | None = None
    target: Records | None = None
    judge: Any = None
    diversity: Any = None
    seed: int = 42
    cache_dir: Path | None = None
    max_length: int | None = 1024
    batch_tokens: int | None = None
    dtype: str = "auto"
    num_proc: int | None = None
    gradient_checkpointing: bool = False
    vllm_memory: float | None = None
    account: Account = field(default_factory=Account)
    processor: Any = None

    def __post_init__(self):
        if self.batch_tokens is None:
            on_cpu = self.accelerator is None or self.accelerator.device.type == "cpu"
            object.__setattr__(self, "batch_tokens", 1536 if on_cpu else 16384)

    def text_format(self, **options: Any) -> TextFormat:
        """[`TextFormat`] with this context's tokenizer and window."""
        return TextFormat(self.tokenizer, **{"max_length": self.max_length, **options})

    def with_model(self, name: str) -> "Context":
        """
        The same context with another model, loaded by hub name or folder; it is never replaced by a third one. The
        window shrinks to the positions that it has.

        Raises:
            [`SelectionError`]: it can't be loaded.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
            model = AutoModelForCausalLM.from_pretrained(name, dtype="auto")
        except (OSError, ValueError) as error:
            raise SelectionError(f"Can't load the scoring model {name!r}: {error}") from error
        if self.accelerator is not None:
            model.to(self.accelerator.device)
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        window = min(filter(None, (self.max_length, positions)), default=None)
        return dataclasses.replace(self, model=model, tokenizer=tokenizer, model_id=name, max_length=window)

    def using(self, model: Any) -> "Context":
        """The same context with a model at hand (a warmed-up one)."""
        return dataclasses.replace(self, model=model)

    def agreed(self, value: Any) -> Any:
        """The main process's value on every rank."""
        if self.accelerator is None or self.accelerator.num_processes == 1:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]


class Selector(ABC):
    """
    A selection method; see the module docstring. Subclasses are dataclasses.

    | call | gives |
    |---|---|
    | `featurize(records, ctx)` | stage 1: records, an array or memmap `(n, d)`, or a dict of these |
    | `score(features, ctx)` | stage 2a: float32 `(n,)`, higher is better, NaN = unscorable |
    | `select(scores, features, k, ctx)` | stage 2b: unique int64 row numbers, at most `k`, best first |
    """

    card: ClassVar[Card]
    #: A budget that the method insists on; the baseline keeps everything.
    fixed_budget: ClassVar[float | None] = None
    #: Whether `select()` already keeps rows apart; `selection_diversity` is refused then.
    spreads_out: ClassVar[bool] = False

    def refuse_unless_positive(self, *options: str) -> None:
        """Refuse, with a `ValueError`, an option that is not positive and finite; one left at `None` has no number."""
        for name in options:
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"`selection_kwargs`: {name}={value} must be positive and finite.")

    def extras(self) -> dict[str, str]:
        """Packages that these options need, and the extra of this package that brings each."""
        return {}

    def check(self, records: Records) -> None:  # noqa: B027 (optional)
        """Refuse, with a `ValueError`, rows that the options don't fit; called before any model loads."""

    def featurize(self, records: Records, ctx: Context) -> Any:
        """Stage 1; by default the records themselves."""
        return records

    @abstractmethod
    def score(self, features: Any, ctx: Context) -> np.ndarray:
        """Stage 2a: one quality label a row."""

    def select(self, scores: np.ndarray, features: Any, k: int, ctx: Context) -> np.ndarray:
        """Stage 2b; by default the `k` highest finite scores."""
        from .engines.subset import top_k

        return top_k(scores, k)


def select(dataset: Dataset | Records, selector: Selector, budget: float | int, ctx: Context) -> Selection:
    """
    Choose rows: normalise, featurize, score, check, select, check, agree.

    Args:
        dataset ([`~datasets.Dataset`] or [`Records`]):
            Candidate dataset.
        selector ([`Selector`]):
            The method.
        budget (`float` or `int`):
            Fraction or count, see [`rows_to_keep`].
        ctx ([`Context`]):
            Model, tokenizer, ranks. The model is given back as it was: mode, weights, `requires_grad`,
            gradient-checkpointing flags, hooks; so is the random state.

    Returns:
        [`Selection`]: the same on every rank.

    Raises:
        `ValueError`: the selector broke the contract (shape, dtype, order of rows) or changed the model's weights, no
        row could be kept, or the ranks hold different models.
    """
    from .engines.memory import peak_memory
    from .engines.state import preserved, unprepared
    from .registry import method_name

    records = dataset if isinstance(dataset, Records) else Records(dataset)
    n, method = len(records), method_name(selector)
    k = rows_to_keep(selector.fixed_budget or budget, n)
    started = time.perf_counter()
    unreadable = records.unreadable()
    for reason, rows in unreadable.items():
        ctx.account.note("dropped", reason, rows)
    with preserved(ctx.model), unprepared(ctx.model), _unchanged(selector, ctx):
        features = selector.featurize(records, ctx)
        scores = _checked_scores(selector.score(features, ctx), n, method)
        usable = scores.copy()
        for rows in unreadable.values():
            usable[rows] = np.nan
        if ctx.diversity is None:
            chosen = selector.select(usable, features, k, ctx)
        else:
            chosen = ctx.diversity.choose(lambda k: selector.select(usable, features, k, ctx), records, k, ctx)
        chosen = ctx.agreed(chosen)
    chosen = _checked_rows(chosen, n, k, method, set().union(*unreadable.values()))
    if len(chosen) == 0:
        reasons = [*ctx.account.rows("unscorable"), *ctx.account.rows("dropped")] or ["no score is a number"]
        raise SelectionError(f"`selection_method={method!r}` found no row to keep of {n}: {'; '.join(reasons)}.")
    if len(chosen) < k:
        logger.warning("`%s` keeps %s rows, fewer than the %s of the budget.", method, len(chosen), k)
    return Selection(
        method=method,
        options=dataclasses.asdict(selector) if dataclasses.is_dataclass(selector) else {},
        indices=chosen,
        scores=ctx.agreed(scores),
        budget=budget,
        seconds=time.perf_counter() - started + ctx.account.cached_seconds,
        cached_seconds=ctx.account.cached_seconds,
        passes=dict(ctx.account.passes),
        peak_memory=peak_memory(),
        facts={
            "diversity": dataclasses.asdict(ctx.diversity) if ctx.diversity is not None else None,
            "figures": ctx.account.figures,
        },
        **{kind: ctx.account.rows(kind) for kind in ("unscorable", "dropped", "truncated")},
    )


@contextmanager
def _unchanged(selector: Selector, ctx: Context):
    """Prove by checksum that ranks score with one model, and that the selector left every weight of it as it was."""
    if ctx.model is None or "model" not in selector.card.needs:
        yield
        return
    from .engines.batching import same_on_all_ranks
    from .engines.cache import model_identity

    before = model_identity(ctx.model)
    if not same_on_all_ranks(ctx.accelerator, before):
        raise SelectionError("The ranks hold different models. Load the same weights on every rank.")
    yield
    if model_identity(ctx.model) != before:
        raise ValueError(f"The selector {type(selector).__name__} left the model's weights changed.")


def _checked_scores(scores: Any, n: int, method: str) -> np.ndarray:
    scores = np.asarray(scores)
    if scores.shape != (n,) or not np.issubdtype(scores.dtype, np.number):
        raise ValueError(f"`{method}` must give {n} numbers, one a row: got {scores.dtype} of shape {scores.shape}.")
    return scores.astype(np.float32)


def _checked_rows(rows: Any, n: int, k: int, method: str, forbidden: set[int]) -> np.ndarray:
    rows = np.asarray(rows)
    whole = rows.ndim == 1 and (len(rows) == 0 or np.issubdtype(rows.dtype, np.integer))
    if not whole or len(np.unique(rows)) != len(rows) or ((rows < 0) | (rows >= n)).any() or len(rows) > k:
        raise ValueError(f"`{method}` must choose at most {k} different row numbers below {n}.")
    if forbidden:
        rows = rows[~np.isin(rows, list(forbidden))]
    return rows.astype(np.int64)
