"""[`Context`]: what a selector may use of the run it is part of."""

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from .data.encoded import Encoded
from .data.encoding import encode, encode_answers
from .data.preparation import Preparation, trained_rows
from .data.records import Records
from .data.text import TRAINED, TextFormat
from .engines.forward.wants import Want
from .engines.runtime.account import Account
from .engines.runtime.loading import load_pretrained
from .engines.runtime.model_state import positions
from .engines.runtime.part import Part
from .engines.runtime.runtime import Runtime
from .engines.subset.choose import drawn_places, top_k
from .errors import NoUsableRow, SelectionError


T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """
    What a selector may use. Frozen: a selector borrows it.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            The model's.
        model ([`~transformers.PreTrainedModel`], *optional*):
            The pending fine-tune model (PFM), as the trainer holds it.
        runtime ([`Runtime`], *optional*):
            Ranks, batches, dtype, cache and account; handed on to engines as it is.
        model_id (`str`, *optional*):
            Name or path of the model, for the record.
        target ([`Records`], *optional*):
            Target-task examples.
        kept ([`Records`], *optional*):
            Rows that are kept already, where the choice adds to them.
        judge ([`Judge`] or [`RewardModel`], *optional*):
            The judge; books in the account of `runtime`.
        diversity ([`Diversity`], *optional*):
            What follows the method's own ranking.
        seed (`int`, *optional*, defaults to `42`):
            Same seed, same subset.
        max_length (`int`, *optional*, defaults to `1024`):
            Window in tokens, for scoring as for training.
        processor ([`~transformers.ProcessorMixin`], *optional*):
            That of a vision-language model: what makes tokens and pixels of its rows.
        preparation ([`Preparation`], *optional*):
            How TRL makes tokens and labels of rows.
        trials ([`Trials`], *optional*):
            Trainings on subsets, where a trainer selects by a method that needs them.
        wants (`frozenset`, *optional*):
            What all methods want of passes of `model` over the candidates, so that one pass serves them all.
    """

    tokenizer: Any
    model: Any = None
    runtime: Runtime = field(default_factory=Runtime)
    model_id: str | None = None
    target: Records | None = None
    kept: Records | None = None
    judge: Any = None
    diversity: Any = None
    seed: int = 42
    max_length: int | None = 1024
    processor: Any = None
    preparation: Preparation = field(default_factory=Preparation)
    trials: Any = None
    wants: frozenset[Want] = frozenset()

    def __post_init__(self):
        if self.judge is not None:
            booked, own = self.judge.runtime, self.runtime
            if booked.account is not own.account or booked.part != own.part:
                object.__setattr__(self, "judge", self.judge.booking_in(own.account, own.part))

    @property
    def account(self) -> Account:
        """Where a method notes rows that it excludes or can't score, and figures of its own."""
        account = self.runtime.account  # a part has no results of other rows, which would look unscorable
        return account if self.runtime.part is None else account.without_rows()

    def best(self, scores: np.ndarray, k: int | None = None) -> np.ndarray:
        """Rows of the `k` highest finite scores (all by default), best first; the seed orders equal ones."""
        return top_k(scores, len(scores) if k is None else k, self.ties(len(scores)))

    def ties(self, n: int) -> np.ndarray:
        """Places of `n` rows `(n,)` in the order, drawn by the seed, that settles ties."""
        return drawn_places(n, self.seed)

    def agreed(self, value: Any) -> Any:
        """The value on all ranks alike, where a library may compute it differently in the last digit (clusters)."""
        return self.runtime.broadcast(value)

    @property
    def whole(self) -> "Context":
        """The same context for what every part needs whole, where the rows are computed in parts."""
        return self if self.runtime.part is None else self._of(None)

    def of_all_parts(self, compute: Callable[["Context"], T]) -> T:
        """
        What is computed of all rows before each part can go on: where rows are computed in parts, one part after the
        other, this one first. What other runs have kept or are computing is theirs.

        Args:
            compute (`Callable`):
                From a context to the result, by cached computations.
        """
        for part in () if self.runtime.part is None else self.runtime.part.turns():
            with suppress(NoUsableRow):  # other parts may have usable rows; if none has, it is raised below
                compute(self._of(part))
        return compute(self.whole)

    def _of(self, part: Part | None) -> "Context":
        return dataclasses.replace(self, runtime=dataclasses.replace(self.runtime, part=part))

    def text_format(self, **options: Any) -> TextFormat:
        """[`TextFormat`] with this context's tokenizer and window, and the chat template that is trained with."""
        if self.tokenizer is None:
            raise ValueError("`tokenizer` is required: tokens are counted or scored.")
        trained = {name: getattr(self.preparation, name) for name in TRAINED}
        return TextFormat(self.tokenizer, **{"max_length": self.max_length, **trained, **options})

    def encode(
        self,
        records: Records,
        text_format: TextFormat | None = None,
        unconditional: bool = False,
        parts: bool = False,
    ) -> Encoded:
        """
        Token rows of records, or of their answers without prompts, see [`~data.encoding.encode`]. Rows that packing
        splits have one token row, of [`~Encoded.leading`], unless all `parts` are asked for.
        """
        text_format = text_format or self.text_format()
        if unconditional:
            return encode_answers(records, text_format, num_proc=self.runtime.num_proc)
        encoded = encode(records, text_format, num_proc=self.runtime.num_proc)
        return encoded if parts else encoded.leading

    def trained(self, records: Records, parts: bool = False) -> Encoded:
        """Token rows with the labels that TRL trains on, see [`~data.preparation.trained_rows`]; one a record."""
        options = self.preparation, self.processor or self.tokenizer, self.runtime.num_proc
        encoded = trained_rows(records, self.text_format(), *options)
        return encoded if parts else encoded.leading

    def with_model(self, name: str) -> "Context":
        """
        The same context with another model, loaded by hub name or folder; it is never replaced by a third one. The
        window shrinks to the positions that it has.

        Raises:
            [`SelectionError`]: it can't be loaded, or weights are missing.
        """
        from transformers import AutoModelForCausalLM

        try:
            model, tokenizer = load_pretrained(AutoModelForCausalLM, name, self.runtime)
        except (OSError, ValueError) as error:
            raise SelectionError(f"Can't load the scoring model {name!r}: {error}") from error
        window = min(filter(None, (self.max_length, positions(model))), default=None)
        preparation = dataclasses.replace(self.preparation, chat_template=None)
        changed = {"tokenizer": tokenizer, "model_id": name, "max_length": window, "preparation": preparation}
        return dataclasses.replace(self, model=model, wants=frozenset(), **changed)

    def of_rows(self, rows: np.ndarray) -> "Context":
        """The same context for `records.subset(rows)`: what is noted of row `i` there is noted of `rows[i]`."""
        account = self.account.of_rows(rows)
        return dataclasses.replace(self, runtime=dataclasses.replace(self.runtime, account=account))

    def using(self, model: Any) -> "Context":
        """The same context with another loaded model (a fine-tuned one)."""
        return dataclasses.replace(self, model=model, wants=frozenset())
