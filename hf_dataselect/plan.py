"""[`SelectionPlan`]: what is selected from what and how, checked before anything loads."""

import dataclasses
import logging
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import ProcessorMixin

from .budget import Budget
from .context import Context
from .data.chat_template import check_tokens, default_chat_template
from .data.images import other_images
from .data.layouts import LAYOUTS
from .data.leakage import described, reported_overlap
from .data.preparation import Preparation, try_preparation
from .data.records import Records
from .data.text import TextFormat
from .diversity import Diversity
from .engines.forward.wants import Want
from .engines.llm.judge_options import JudgeOptions
from .engines.llm.load import check_judge, load_judge
from .engines.runtime.loading import check_causal_lm, check_configuration, check_model_folder, tokenizer_of
from .engines.runtime.runtime import Runtime
from .engines.runtime.sharding import sharding_of_model
from .engines.store.files import check_cache
from .engines.store.identity import digest
from .pipeline import check_budget, check_diversity, needs_of, rows_asked, select
from .runs.begin import enter_selection
from .selection import Selection
from .selector import Selector, method_name
from .sharding_refusals import check_sharded


if TYPE_CHECKING:
    from .engines.llm.judge import Judge
    from .engines.llm.reward_model import RewardModel

logger = logging.getLogger(__name__)


@dataclass
class SelectionPlan:
    """
    What is selected from what, and how. Making it and [`check`]ing it loads no weights.

    Args:
        records ([`Records`]):
            Candidate dataset.
        selector ([`Selector`]):
            The method.
        budget ([`Budget`], `float`, `int` or `str`, *optional*):
            How much to keep, see [`~hf_dataselect.budget`]; by default the method's own.
        budget_by (`str` or `dict`, *optional*):
            Groups among which the budget is shared out, see [`~hf_dataselect.budget.Groups`].
        target ([`Records`], *optional*):
            Target-task examples.
        diversity ([`Diversity`], *optional*):
            What follows the method's ranking.
        judge (`str`, *optional*):
            Spec of the judge.
        judge_options ([`JudgeOptions`], *optional*):
            Options of the judge.
        seed (`int`, *optional*, defaults to `42`):
            Same seed, same rows.
        max_length (`int`, *optional*, defaults to `1024`):
            Window in tokens, for scoring as for training.
        preparation ([`Preparation`], *optional*):
            How TRL makes tokens and labels of rows.

    Raises:
        `ValueError`: a budget or a diversity that the method can't keep to.
    """

    records: Records
    selector: Selector
    budget: Any = None
    budget_by: Any = None
    target: Records | None = None
    diversity: Diversity | None = None
    judge: str | None = None
    judge_options: JudgeOptions = field(default_factory=JudgeOptions)
    seed: int = 42
    max_length: int | None = 1024
    preparation: Preparation = field(default_factory=Preparation)
    #: Rows or questions that the trained model is evaluated on, by name; candidates among them are reported.
    held_out: dict[str, Any] = field(default_factory=dict, init=False)
    compared: dict[str, Any] | None = field(default=None, init=False)  # settings of a run of a comparison
    trials: Any = field(default=None, init=False)  # what a method that needs a trainer tries
    wants: frozenset[Want] = field(default=frozenset(), init=False)  # of the other methods of a comparison
    may_keep_none: bool = field(default=False, init=False)  # of a block, where others may
    default_template: bool = field(default=False, init=False)  # whether the tokenizer got the package's

    def __post_init__(self):
        check_diversity(self.diversity, self.selector)
        given = {"selection_budget": self.budget, "selection_budget_by": self.budget_by}
        for name, value in given.items() if self.selector.fixed_budget else ():
            if value not in (None, self.selector.default_budget):
                raise ValueError(
                    f"`{name}={value}` has no effect on `{self.method}`, which keeps every row: remove it, or choose "
                    "another `selection_method`."
                )
        own = self.selector.default_budget
        self.budget = Budget.parse(own if self.budget is None else self.budget, self.budget_by)
        check_budget(self.budget, self.selector, self.diversity)

    @property
    def method(self) -> str:
        """Name of the method."""
        return method_name(self.selector)

    @property
    def needs(self) -> frozenset[str]:
        """What the method needs, and its diversity step."""
        return needs_of(self.selector, self.diversity)

    @property
    def uses_model(self) -> bool:
        """Whether selecting runs the model to be fine-tuned."""
        return "model" in self.needs or ("judge" in self.needs and self.judge == "self")

    def check(self, model: Any, cache_dir: Path | None = None, sharding: str | None = None) -> None:
        """
        Refuse what can't be selected, before any weights load.

        Args:
            model (`Any`):
                The model to be fine-tuned, or its name; `None` if none was given.
            cache_dir (`Path`, *optional*):
                Where results are kept.
            sharding (`str`, *optional*):
                How the model is sharded across ranks, see [`check_sharded`].

        Raises:
            `ValueError`: a model that is no causal language model, rows of another layout than the method reads, no
                model, target or judge for a method that needs it, a wrong budget or folder, what the method refuses.
        """
        records, needs = self.records, self.needs
        check_causal_lm(model)
        if self.uses_model:
            check_sharded(sharding or sharding_of_model(model), self.method, needs)
        rows_asked(self.budget, self.selector, len(records))
        if self.budget.groups is not None:
            self.budget.groups.of(records.dataset)
        if "text" in needs and records.layout == "tokens":
            raise ValueError(f"`{self.method}` reads texts: give the rows untokenized.")
        if "prompt" in needs and records.layout == "text":
            known = "\n  ".join(LAYOUTS[name] for name in ("prompt-completion", "messages", "sharegpt", "alpaca"))
            said = f"`{self.method}` needs prompts apart from the answers, and `{records.text_field}` holds both"
            raise ValueError(f"{said} in one text. Remove it, or give one of these layouts:\n  {known}")
        if "target" in needs and self.target is None:
            raise ValueError(f"`{self.method}` needs `selection_target`: target-task examples.")
        if self.target is not None and self.selector.reads_target:
            self.selector.check_target(self.target)
        if records.images and "text" in needs and not self.selector.card.images:
            logger.warning("`%s` reads the texts of rows only: their images are ignored.", self.method)
        if others := other_images(records.dataset):
            logger.warning(
                "`%s` has images in %s, which are ignored: TRL reads one column `image` or `images`. Rename it.",
                records.name,
                ", ".join(map(repr, others)),
            )
        check_judge(self.judge, self.selector.needs(), self.method)
        self.selector.check(records)
        if self.diversity is not None:
            self.diversity.check()
        models = needs & {"model", "judge"} or self.diversity is not None or "model" in self.selector.card.features
        if cache_dir is not None and models:
            check_cache(cache_dir, begun=False)
        if self.uses_model and model is None:
            raise ValueError(f"`{self.method}` needs `model`: the model to be fine-tuned, or its name.")
        check_model_folder(model)
        if self.uses_model and type(self.selector).check_model is not Selector.check_model:
            check_configuration(model, self.selector.check_model)

    def complete(
        self,
        processing_class: Any,
        eos_token: str | None = None,
        chat_template_path: str | None = None,
        pad_token: str | None = None,
    ) -> None:
        """
        Give a tokenizer or processor without a chat template the package's default, if the rows are chats.

        Args:
            processing_class ([`~transformers.PreTrainedTokenizerBase`] or [`~transformers.ProcessorMixin`]):
                The model's.
            eos_token, chat_template_path, pad_token (`str`, *optional*):
                What the trainer sets, see [`~trl.SFTConfig`].

        Raises:
            `ValueError`: a missing or unknown end-of-sequence or padding token, no such template, or rows with images
                and no processor or no chat template.
        """
        images, is_processor = self.records.images, isinstance(processing_class, ProcessorMixin)
        if images and not is_processor:
            raise ValueError(
                f"`{self.records.name}` has images (`{images}`), and `processing_class` is a "
                f"{type(processing_class).__name__}, which takes texts only: give a vision-language model and its "
                "processor, or remove the column."
            )
        tokenizer = tokenizer_of(processing_class)
        check_tokens(tokenizer, eos_token, chat_template_path, pad_token)
        if is_processor and tokenizer.chat_template is None:  # methods read texts with the tokenizer
            tokenizer.chat_template = processing_class.chat_template
        given = processing_class.chat_template, chat_template_path
        if self.records.layout in ("tokens", "text") or given != (None, None):
            return
        if images:
            raise ValueError("The processor has no chat template, which places images: set `chat_template_path`.")
        processing_class.chat_template = default_chat_template(tokenizer)
        self.default_template = True
        logger.warning("The tokenizer has no chat template: the default of hf_dataselect is set and saved with it.")

    def try_preparation(self, processing_class: Any) -> None:
        """
        Try TRL's own preparation on some rows, and find the chat template that it trains with.

        Raises:
            `ValueError`: TRL refuses the options or the rows.
        """
        if self.records.layout not in ("tokens", "text"):
            self.preparation = self.preparation.for_tokenizer(processing_class)
        if self.records.images is None:  # TRL prepares no rows with images
            try_preparation(self.records, self.text_format(processing_class), self.preparation, processing_class)

    def text_format(self, processing_class: Any) -> TextFormat:
        """How rows are rendered and tokenized for training."""
        return self.context(processing_class, None, Runtime(), None).text_format()

    def load_judge(
        self, runtime: Runtime, model: Any = None, processing_class: Any = None
    ) -> "Judge | RewardModel | None":
        """The judge, if the method needs one; `model` and `processing_class` are those of the judge `self`."""
        if self.judge is None or "judge" not in self.needs:
            return None
        tokenizer = tokenizer_of(processing_class)
        return load_judge(self.judge, self.judge_options, runtime, model=model, tokenizer=tokenizer)

    def context(
        self,
        processing_class: Any,
        model: Any,
        runtime: Runtime,
        model_id: str | None,
        judge: "Judge | RewardModel | None" = None,
    ) -> Context:
        """What the selector may use."""
        return Context(
            tokenizer_of(processing_class),
            model,
            runtime,
            model_id,
            target=self.target,
            judge=judge,
            diversity=self.diversity,
            seed=self.seed,
            max_length=self.max_length,
            processor=processing_class if isinstance(processing_class, ProcessorMixin) else None,
            preparation=self.preparation,
            wants=self.wants,
        )

    def select(self, ctx: Context, folder: Path | None, recipe: dict[str, Any]) -> Selection:
        """
        [`select`], with the facts that tell one selection from another.

        Args:
            ctx ([`Context`]):
                From [`context`].
            folder (`Path`, *optional*):
                Run folder, written by the main process.
            recipe (`dict`):
                What its `recipe.yaml` holds.
        """
        sets = self.held_out | ({} if self.target is None else {"selection_target": self.target})
        found = ctx.runtime.on_main(partial(reported_overlap, self.records, sets))
        selection = select(self.records, self.selector, self.budget, ctx, self.may_keep_none)
        template = ctx.preparation.chat_template or getattr(ctx.tokenizer, "chat_template", None)
        selection.facts |= {
            "model": ctx.model_id,
            "dataset": self.records.content_hash(),
            "target": ctx.target and ctx.target.content_hash(),
            "layout": self.records.layout,
            "chat_template": digest(template) if template else None,
            "default_chat_template": self.default_template,
            "max_length": ctx.max_length,
            "truncation": ctx.preparation.truncation,
            "dtype": ctx.runtime.dtype,
            "seed": ctx.seed,
            "processes": ctx.runtime.world,
            "also_in": described(found, selection.indices) or None,
            "judge": {"name": ctx.judge.name, "cost": dataclasses.asdict(ctx.judge.cost)} if ctx.judge else None,
        }
        if folder is not None:
            ctx.runtime.on_main(partial(enter_selection, folder, recipe, selection, self.compared))
        return selection
