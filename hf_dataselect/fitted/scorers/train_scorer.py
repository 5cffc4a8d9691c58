"""
`hf-dataselect train-scorer`: train your own scorer for `selection_method: deita` (arXiv 2312.15685, section 2).

1. Evolve: a judge rewrites a row's query (complexity) or answer (quality) `rounds` times, each time making it a little
   harder or better.
2. Score together: the judge sees all versions at once, in random order, and gives each a number from 1 to 6: it
   compares them instead of rating each separately.
3. Fine-tune: a causal model learns to generate that number after the text. `selection_method: deita` reads
   the prompt from its model card.

Replies are cached in `selection_cache_dir`: a killed run asks nothing twice.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from accelerate import Accelerator
from datasets import Dataset
from scipy.stats import spearmanr
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from trl import ModelConfig, ScriptArguments, SFTConfig, SFTTrainer, get_peft_config

from ...compat.transformers import is_causal_lm
from ...data.chat_template import default_chat_template
from ...data.load import load_rows
from ...data.records import Records
from ...engines.llm.judge_options import JudgeOptions
from ...engines.llm.load import check_judge, load_judge
from ...engines.llm.local_model import LocalModel, digit_ids
from ...engines.runtime.loading import load_processing_class, load_weights
from ...engines.runtime.runtime import Runtime
from ...engines.store.files import cache_folder, check_writable, default_cache_dir, write_atomic, written_atomic
from ...errors import Checks
from ...features.ratings import DIGITS, expected_ratings
from ...options import typed_options
from ...parsing import parse_options
from ...runs.lock import locked
from ...runs.secrets import WithoutSecrets
from .evolution import TEMPLATES, evolved_rows, seed_pairs
from .scorer_prompts import SCORER_MARK


logger = logging.getLogger(__name__)


@dataclass
class ScorerArguments(ScriptArguments):
    """What the scorer learns from; the options of [`~trl.SFTConfig`] and [`~trl.ModelConfig`] train it."""

    kind: Literal["complexity", "quality"] = field(
        default="complexity", metadata={"help": "What it rates: the complexity of queries or the quality of answers."}
    )
    judge: str | None = field(
        default=None,
        metadata={
            "help": "Model that rewrites and scores: 'openai:MODEL', 'model:NAME'. A row costs `rounds` + 1 calls."
        },
    )
    judge_kwargs: dict[str, Any] | str | None = field(default=None, metadata={"help": "Options of the judge."})
    seed_rows: int = field(
        default=2000,
        metadata={"help": "Rows to evolve, drawn at random (arXiv 2312.15685: 2,000). More cost more calls."},
    )
    rounds: int = field(
        default=5, metadata={"help": "Rewritings of a row, 1 to 5 (arXiv 2312.15685: 5). More cost more calls."}
    )
    held_out: float = field(
        default=0.1,
        metadata={"help": "Fraction of the rows held out to evaluate the scorer. 0 skips the evaluation."},
    )
    max_characters: int = field(default=8000, metadata={"help": "Rows with longer texts are not evolved."})
    selection_cache_dir: str | None = field(
        default_factory=default_cache_dir,
        metadata={
            "help": "Folder of the judge's cached replies; 'none' disables it. Default: the environment variable "
            "HF_DATASELECT_CACHE, or ~/.cache/hf_dataselect."
        },
    )

    _VALID_DICT_FIELDS = ["judge_kwargs"]

    def __post_init__(self):
        for name, low, high in (("seed_rows", 2, None), ("rounds", 1, 5), ("held_out", 0, 0.9)):
            value = getattr(self, name)
            if value < low or (high is not None and value > high):
                raise ValueError(
                    f"`{name}={value}` must be at least {low}" + (f" and at most {high}." if high else ".")
                )
        if self.kind not in TEMPLATES:
            raise ValueError(f"`kind={self.kind!r}` must be 'complexity' or 'quality'.")
        check_judge(self.judge, {"judge"}, "train-scorer")
        if self.judge == "self":
            raise ValueError(f"`judge={self.judge!r}` can't rewrite texts here: take 'openai:MODEL' or 'model:NAME'.")


@dataclass
class _TrainingArguments(WithoutSecrets, SFTConfig):
    pass


def train_scorer(argv: Sequence[str]) -> None:
    """Evolve rows, score them together, fine-tune a scorer on them, measure and save it."""
    checks = Checks()
    kinds = (ScorerArguments, _TrainingArguments, ModelConfig)
    options, args, model_options = parse_options(kinds, argv, "hf-dataselect train-scorer", checks)
    for part, name in ((options, "dataset_name"), (model_options, "model_name_or_path"), (options, "judge")):
        if part is not None and not getattr(part, name):
            checks.errors.append(ValueError(f"`{name}` is required."))
    judge_options = options and checks(typed_options, JudgeOptions, options.judge_kwargs, "judge_kwargs")
    checks.finish()
    with locked(args.output_dir):
        _train(options, args, model_options, judge_options)


def _train(options: ScorerArguments, args: SFTConfig, model_options: ModelConfig, judge_options: JudgeOptions) -> None:
    checks = Checks()
    checks(check_writable, args.output_dir, "output_dir", make=False)
    hub = {"revision": model_options.model_revision, "trust_remote_code": args.trust_remote_code}
    tokenizer = checks(checked_tokenizer, model_options.model_name_or_path, **hub)
    rows = checks(load_rows, options.dataset_name, options.dataset_config, options.dataset_train_split)
    checks.finish()
    records = Records(rows)
    pairs = seed_pairs(records, options.seed_rows, options.max_characters, args.seed)
    runtime = Runtime(Accelerator(cpu=args.use_cpu), cache_folder(options.selection_cache_dir))
    judge = load_judge(options.judge, judge_options, runtime)
    rows, lost = evolved_rows(pairs, judge, options.kind, options.rounds, args.seed)
    del judge  # a local judge would take memory during training
    if not rows:
        raise ValueError(f"`judge={options.judge!r}` gave nothing to learn from: {dict(lost)}.")
    sources = {row["row"] for row in rows}
    held = set(sorted(sources)[len(sources) - round(options.held_out * len(sources)) :]) if len(sources) > 1 else set()
    training_rows = [row for row in rows if row["row"] not in held]
    model = load_weights(
        AutoModelForCausalLM.from_pretrained, model_options.model_name_or_path, "the model", dtype="auto", **hub
    )
    trainer = SFTTrainer(
        model,
        args,
        train_dataset=Dataset.from_list(training_rows).remove_columns("row"),
        processing_class=tokenizer,
        peft_config=get_peft_config(model_options),
    )
    trainer.train()
    trained = trainer.model.merge_and_unload() if hasattr(trainer.model, "merge_and_unload") else trainer.model
    facts = {"kind": options.kind, "judge": options.judge, "rows": len(rows), "lost": dict(lost)}
    facts["held out"] = measure(trained, tokenizer, [row for row in rows if row["row"] in held])
    if trainer.is_world_process_zero():
        trained.save_pretrained(args.output_dir)
        tokenizer.save_pretrained(args.output_dir)
        with written_atomic(Path(args.output_dir) / "scored_versions.parquet") as temporary:
            Dataset.from_list(rows).to_parquet(temporary)
        write_atomic(Path(args.output_dir) / "README.md", _card(options.kind, facts))
        print(json.dumps(facts, indent=1))
        print(f'Use it: selection_kwargs: {{{options.kind}_scorer: "{args.output_dir}"}}')


def checked_tokenizer(name: str, **hub: Any) -> Any:
    """
    The tokenizer of the model to train; raises, before the judge is called, for models that can't become a scorer.

    Raises:
        `ValueError`: an unknown model, one that is not causal, or a tokenizer without a token for each digit.
    """
    try:
        tokenizer = load_processing_class(name, AutoTokenizer, **hub)
        config = AutoConfig.from_pretrained(name, **hub)
    except (OSError, ValueError) as error:
        raise ValueError(f"`model_name_or_path={name!r}` can't be loaded: {error}") from error
    if not is_causal_lm(config):
        raise ValueError(f"`model_name_or_path={name!r}` is a {config.model_type!r}, and a causal model is needed.")
    if None in digit_ids(tokenizer, DIGITS):
        raise ValueError(f"`model_name_or_path={name!r}` can't rate: its tokenizer has no token for each digit.")
    return tokenizer


def measure(model: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rank correlation of a scorer's expected ratings with the judge's scores."""
    if not rows:
        return {"rows": 0}
    if tokenizer.chat_template is None:
        tokenizer.chat_template = default_chat_template(tokenizer)
    ratings = expected_ratings([row["prompt"] for row in rows], LocalModel(model, tokenizer), Runtime())
    scores = np.array([float(row["completion"]) for row in rows])
    usable = np.isfinite(ratings)
    correlation = spearmanr(ratings[usable], scores[usable]).statistic if len(set(scores[usable])) > 1 else np.nan
    return {"rows": len(rows), "rank correlation": None if np.isnan(correlation) else round(float(correlation), 3)}


def _card(kind: str, facts: dict[str, Any]) -> str:
    return (
        f"# Scorer of {kind}\n\nRates from 1 to 6 by expectation over the six digits after its prompt, for "
        f"{SCORER_MARK}, which reads the prompt from here.\n\n"
        f"```python\ntemplate = {TEMPLATES[kind]!r}\n```\n\n```json\n{json.dumps(facts, indent=1)}\n```\n"
    )
