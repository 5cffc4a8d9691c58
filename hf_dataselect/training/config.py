"""[`DataSelectingConfig`]: the arguments of [`~trl.SFTConfig`] and the few that selecting adds."""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal

from trl import SFTConfig

from ..budget import Budget
from ..compat.trl import dict_fields
from ..data.guard_sets import guard_sets
from ..data.targets import tasks_of
from ..diversity import Diversity, load_diversity
from ..engines.forward.vllm import check_vllm
from ..engines.llm.judge_options import JudgeOptions
from ..engines.llm.load import parse_spec
from ..engines.runtime.ranks import ranks
from ..engines.runtime.runtime import Runtime
from ..engines.store.files import cache_folder, default_cache_dir
from ..errors import Checks
from ..evaluation.benchmark import load_benchmarks
from ..options import Fraction, NonNegativeFloat, PositiveInt, check_declared, documented, typed_options
from ..pipeline import check_diversity
from ..policy import Policy
from ..registry import load_policy, load_selector
from ..runs.secrets import WithoutSecrets, without_secrets
from ..selector import Selector
from .online.refusals import check_policy_options


@documented
@dataclass
class DataSelectingConfig(WithoutSecrets, SFTConfig):
    """
    Configuration of [`DataSelectingTrainer`]: all of [`~trl.SFTConfig`], and the fields below. It holds plain data;
    what they describe (`selector`, `diversity`, `judge_options`) is made from them when asked for.
    """

    _VALID_DICT_FIELDS = dict_fields(
        SFTConfig,
        [
            "selection_kwargs",
            "selection_budget_by",
            "selection_diversity",
            "selection_policy_kwargs",
            "selection_schedule",
            "selection_target",
            "guard_dataset",
            "judge_kwargs",
        ],
    )

    selection_method: str = field(
        default="full",
        metadata={
            "help": "Which rows to train on: the name of a method (`hf-dataselect methods` lists them) or "
            "`package.module:Class`. `full` trains on all rows: that run is the baseline (BM)."
        },
    )
    selection_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Hyper-parameters of the method, a mapping (`hf-dataselect methods NAME` lists them). On the "
            "command line, `--selection_kwargs.warmup none` changes one, `--selection_kwargs '{warmup: none}'` all."
        },
    )
    selection_budget: float | str | None = field(
        default=None,
        metadata={
            "help": "How much to keep: at most 1 is a fraction (1.0 is all), more is a count; '2M tokens' or "
            "'score >= 4.5'. More rows cost proportionally more training. Default: the method's own, 0.05 for most."
        },
    )
    selection_budget_by: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Share the budget out among groups of rows: a column, in proportion to the sizes of its groups, "
            "or a mapping {column: source, how: equal}; how may also be weights by group, {a: 2, b: 1}."
        },
    )
    selection_diversity: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Keep rows that differ: 'filter' (best first, cosine to each row kept at most 0.9) or "
            "'facility_location' (rows that represent the best fifth), or a mapping of options (kind, threshold, "
            "pool, encoder). Embeds the rows that it looks at. Default: the method's own choice."
        },
    )
    selection_target: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Target-task examples, for methods that need them: hub name, folder or file; or those of several "
            "tasks, a mapping {math: FILE, code: {dataset: FILE, weight: 2}}. More rows cost more scoring."
        },
    )
    selection_stream_rows: PositiveInt | None = field(
        default=None,
        metadata={
            "help": "Stream `dataset_name` (or `train_dataset`, an `IterableDataset`), write its first rows, so many, "
            "to disk, and choose from them. They take their size below HF_DATASETS_CACHE until the process ends."
        },
    )
    selection_schedule: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "When rows are selected: 'once' (the default), before training, or a mapping like {every: 0.25}: "
            "the current model chooses again, at a cost each time. At most 1 is a part of an epoch, more are steps; "
            "exclude_seen leaves out rows that were trained on; grow adds so many rows to those kept."
        },
    )
    selection_policy: str | None = field(
        default=None,
        metadata={
            "help": "What selects among the rows kept while the model trains, by the losses of its steps: "
            "the name of a policy (`hf-dataselect methods` lists them) or `package.module:Class`. Default: none."
        },
    )
    selection_policy_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Hyper-parameters of the policy, a mapping (`hf-dataselect methods NAME` lists them)."},
    )
    guard_dataset: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Held-out rows by domain, {math: FILE, code: {dataset: NAME, split: test}}: what training does to "
            "each is measured at every evaluation and at the end. More rows cost more time."
        },
    )
    guard_harm: NonNegativeFloat = field(
        default=0.01,
        metadata={"help": "Largest harm that `guard_dataset` allows: how much the loss of a domain's rows may rise."},
    )
    selection_cache_dir: str | None = field(
        default_factory=default_cache_dir,
        metadata={
            "help": "Folder where scores are kept as they come, by content, so that a killed run resumes and no row "
            "is scored twice (52 bytes a row and pass). 'none' keeps none. Several nodes should share it. Default: "
            "the environment variable HF_DATASELECT_CACHE, or ~/.cache/hf_dataselect."
        },
    )
    selection_batch_tokens: PositiveInt | None = field(
        default=None,
        metadata={
            "help": "Tokens of a scoring batch, padding included. More needs more memory and is faster only until the "
            "device is busy; a batch that does not fit is halved. Default: 1536 on a CPU, 16384 elsewhere."
        },
    )
    selection_dtype: Literal["auto", "float32", "bfloat16", "float16"] = field(
        default="auto",
        metadata={
            "help": "Dtype to score in. 'auto' is bfloat16 where the hardware multiplies in it; 'float32' gives the "
            "papers' numbers at several times the cost."
        },
    )
    use_vllm: bool = field(
        default=False,
        metadata={
            "help": "Generate with vLLM (`pip install vllm`): for benchmarks that generate, `mods`, and the judges "
            "'model:NAME' and 'self'. Pays from some thousand answers on. A judge other than the model itself is "
            "better served by `vllm serve` and 'openai:NAME'."
        },
    )
    vllm_gpu_memory_utilization: Fraction = field(
        default=0.3,
        metadata={"help": "Fraction of the GPU's memory for vLLM; it must hold a second copy of the model."},
    )
    judge: str | None = field(
        default=None,
        metadata={
            "help": "Model that judges answers, for methods and evaluations that need one: 'openai:MODEL' (address, "
            "key from OPENAI_BASE_URL, OPENAI_API_KEY), 'model:NAME', 'reward:NAME', or 'self' for the model being "
            "fine-tuned. Calls to a server may cost money: see max_calls in `judge_kwargs`."
        },
    )
    judge_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Options of the judge, a mapping in YAML, or JSON on the command line: max_calls, concurrency, "
            "timeout, retries, temperature, token_limit, price_in, price_out."
        },
    )
    baseline_dir: str | None = field(
        default=None,
        metadata={
            "help": "Run folder of the baseline (a finished run of `full` with the same evaluation), for PIR and STR; "
            "`metric_for_best_model: pir` keeps the checkpoint with the highest PIR. 'none' compares with none."
        },
    )
    benchmarks: list[dict[str, Any]] | str | None = field(
        default=None,
        metadata={
            "help": "Benchmarks besides the evaluation rows: a list of mappings in YAML, or JSON on the command "
            "line, such as [{kind: multiple_choice, dataset: mmlu.jsonl, limit: 200}]. Kinds: "
            "multiple_choice, generation, gsm8k, instructions, mt_bench, lm_eval, held_out. More rows cost more time."
        },
    )
    benchmark_metrics: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Metrics of answers generated for the evaluation rows: exact_match, rouge, chrf, bleu, or "
            "whatever `evaluate.load` takes. Generating costs far more time than the likelihood settings do."
        },
    )
    benchmark_max_new_tokens: PositiveInt | None = field(
        default=None,
        metadata={
            "help": "Maximum length of a generated answer in tokens, of every benchmark that has no `max_new_tokens` "
            "of its own. Time grows with it. Default: by kind, 256 to 1024."
        },
    )
    hub_subset_id: str | None = field(
        default=None,
        metadata={
            "help": "Dataset repository on the Hub (`user/name`) to push the rows kept to, with a card that says how "
            "to repeat the selection. Private, unless `hub_private_repo` is false."
        },
    )

    def __post_init__(self):
        # Read before anything is derived: what the user gave is what repeats the run.
        self._given = {item.name: getattr(self, item.name) for item in fields(self) if item.init}
        checks = Checks()
        selector, diversity = checks(lambda: self.selector), checks(lambda: self.diversity)
        checks(lambda: self.judge_options)
        checks(load_benchmarks, self.benchmarks, self.benchmark_max_new_tokens)
        if str(self.baseline_dir).lower() == "none":
            self.baseline_dir = None
        if self.judge is not None:
            checks(parse_spec, self.judge)
        for option, names_of in (("selection_target", tasks_of), ("guard_dataset", guard_sets)):
            checks(self._check_names, option, names_of)
        checks(super().__post_init__)
        if selector is not None:
            checks(check_diversity, diversity, selector)
        if self.selection_budget is not None:
            budget = checks(Budget.parse, self.selection_budget)
            self.selection_budget = budget and budget.plain
        checks(check_declared, self)
        checks(check_policy_options, self)
        if self.use_vllm:
            checks(check_vllm, self.vllm_gpu_memory_utilization)
        checks.finish()

    def _check_names(self, option: str, names_of: Callable[[Any], dict[str, Any]]) -> None:
        names = names_of(getattr(self, option))
        if hidden := names.keys() - without_secrets(dict(names)).keys():
            raise ValueError(
                f"`{option}`: {', '.join(map(repr, sorted(hidden)))} is what options with secrets are called, which "
                "no recipe holds: give another name."
            )

    @property
    def selector(self) -> Selector:
        """The method, with its options."""
        return load_selector(self.selection_method, self.selection_kwargs)

    @property
    def diversity(self) -> Diversity | None:
        """What follows the method's ranking."""
        return load_diversity(self.selection_diversity)

    @property
    def policy(self) -> Policy | None:
        """What selects while the model trains, with its options."""
        name = self.selection_policy
        return None if name is None else load_policy(name, self.selection_policy_kwargs)

    @property
    def judge_options(self) -> JudgeOptions:
        """Options of the judge, typed and checked."""
        return typed_options(JudgeOptions, self.judge_kwargs, "judge_kwargs")

    @property
    def changed(self) -> dict[str, Any]:
        """Arguments that were given other values than their defaults."""
        defaults = {
            item.name: item.default if item.default_factory is MISSING else item.default_factory()
            for item in fields(self)
        }
        return {name: value for name, value in self._given.items() if value != defaults[name]}

    @property
    def given(self) -> dict[str, Any]:
        """[`changed`] as a recipe repeats the run: without secrets, and without where it was resumed from."""
        return without_secrets({name: v for name, v in self.changed.items() if name != "resume_from_checkpoint"})

    def runtime(self, accelerator: Any) -> Runtime:
        """Where engines compute under these arguments, with an account of its own."""
        if accelerator is not None and accelerator.device.type == "cpu":
            ranks(self.ddp_timeout)  # transformers sets the time-out on other devices only
        return Runtime(
            accelerator,
            cache_dir=cache_folder(self.selection_cache_dir),
            batch_tokens=self.selection_batch_tokens,
            dtype=self.selection_dtype,
            num_proc=self.dataset_num_proc,
            gradient_checkpointing=self.gradient_checkpointing,
            vllm_memory=self.vllm_gpu_memory_utilization if self.use_vllm else None,
            silent=self.disable_tqdm,
        )
