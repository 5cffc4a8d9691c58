"""[`DataSelectingConfig`]: the arguments of [`~trl.SFTConfig`] and the few that selecting adds."""

from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from trl import SFTConfig

from ..budget import parse_budget
from ..diversity import Diversity, load_diversity
from ..engines.forward.vllm import check_vllm
from ..engines.llm.judge import parse_spec
from ..engines.llm.judge_options import JudgeOptions
from ..evaluation.benchmark import Benchmark, load_benchmarks
from ..options import typed_options
from ..registry import load_selector
from ..selector import DEFAULT_BUDGET, Selector, method_name


@dataclass
class DataSelectingConfig(SFTConfig):
    r"""
    Configuration of [`DataSelectingTrainer`]: all of [`~trl.SFTConfig`], and:

    Parameters:
        selection_method (`str`, *optional*, defaults to `"full"`):
            Name of a file in `hf_dataselect/selectors`, or `package.module:Class`.
        selection_kwargs (`dict` or `str`, *optional*):
            Options of the method, as a dict or JSON; checked against its own fields.
        selection_budget (`float` or `str`, *optional*):
            Rows to keep: at most 1 is a fraction, more is a count. A bare `1` is refused: write `1.0`. Defaults to
            0.05, and to all rows for `full`.
        selection_diversity (`str` or `dict`, *optional*):
            What follows the method's ranking: `"filter"`, `"facility_location"`, or options of [`Diversity`].
        selection_target (`str`, *optional*):
            Rows of the task to be good at, for methods that want some: hub name, folder or file.
        selection_cache_dir (`str`, *optional*, defaults to `"~/.cache/hf_dataselect"`):
            Where scores are kept as they come; `"none"` keeps none.
        selection_batch_tokens (`int`, *optional*):
            Tokens of a scoring batch.
        selection_dtype (`str`, *optional*, defaults to `"auto"`):
            Dtype to score in: `"auto"`, `"float32"`, `"bfloat16"` or `"float16"`.
        judge (`str`, *optional*):
            Model that judges answers: `openai:MODEL`, `model:NAME`, `reward:NAME` or `self`.
        judge_kwargs (`dict` or `str`, *optional*):
            Options of the judge ([`JudgeOptions`]), as a dict or JSON.
        baseline_dir (`str`, *optional*):
            Run folder of the baseline (BM); `"none"` compares with none.
        benchmarks (`list[dict]` or `str`, *optional*):
            What the model is measured by besides the evaluation rows, one mapping each: `kind` and its options.
        benchmark_metrics (`list[str]`, *optional*):
            Metrics of answers generated for the evaluation rows.
        benchmark_max_new_tokens (`int`, *optional*, defaults to `256`):
            Length of a generated answer at most.
        use_vllm (`bool`, *optional*, defaults to `False`):
            Let vLLM give the answers of models at hand.
        vllm_gpu_memory_utilization (`float`, *optional*, defaults to `0.3`):
            Part of the GPU's memory that vLLM may take.
    """

    _VALID_DICT_FIELDS = SFTConfig._VALID_DICT_FIELDS + ["selection_kwargs", "selection_diversity", "judge_kwargs"]

    selection_method: str = field(
        default="full",
        metadata={
            "help": "Which rows to train on: the name of a method (`hf-dataselect methods` lists them) or "
            "`package.module:Class`. `full` trains on everything: that run is the baseline."
        },
    )
    selection_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Options of the method, a mapping in YAML or JSON on the command line (which replaces it)."},
    )
    selection_budget: float | str | None = field(
        default=None,
        metadata={
            "help": "Rows to keep: at most 1 is a fraction (1.0 is all), more is a count. More rows cost "
            "proportionally more training. Default: 0.05, or everything for `full`."
        },
    )
    selection_diversity: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Keep rows that differ: 'filter' (best first, cosine to each row kept at most 0.9) or "
            "'facility_location' (rows that represent the best fifth), or a mapping of its options (kind, threshold, "
            "pool, encoder). Embeds the rows it comes to. Default: the method's own choice."
        },
    )
    selection_target: str | None = field(
        default=None,
        metadata={
            "help": "Rows of the task to be good at, for methods that want some: hub name, folder or file. More rows "
            "cost more scoring."
        },
    )
    selection_cache_dir: str | None = field(
        default="~/.cache/hf_dataselect",
        metadata={
            "help": "Folder where scores are kept as they come, by content, so that a killed run resumes and no row "
            "is scored twice (52 bytes a row and pass). 'none' keeps none. Several nodes should share it."
        },
    )
    selection_batch_tokens: int | None = field(
        default=None,
        metadata={
            "help": "Tokens of a scoring batch, padding included. More takes more memory and is faster only until the "
            "device is busy; a batch that does not fit is halved. Default: 1536 on a CPU, 16384 elsewhere."
        },
    )
    selection_dtype: str = field(
        default="auto",
        metadata={
            "help": "Dtype to score in. 'auto' is bfloat16 where the hardware multiplies in it; 'float32' gives the "
            "papers' numbers at several times the cost.",
            "choices": ["auto", "float32", "bfloat16", "float16"],
        },
    )
    use_vllm: bool = field(
        default=False,
        metadata={
            "help": "Let vLLM (`pip install vllm`) give the answers of models at hand: for benchmarks that generate, "
            "`mods`, and the judges 'model:NAME' and 'self'. Pays from some thousand answers on. A judge of its own "
            "is better served by `vllm serve` and 'openai:NAME'."
        },
    )
    vllm_gpu_memory_utilization: float = field(
        default=0.3,
        metadata={"help": "Part of the GPU's memory that vLLM may take; it must hold the model once more."},
    )
    judge: str | None = field(
        default=None,
        metadata={
            "help": "Model that judges answers, for methods and evaluations that want one: 'openai:MODEL' (address, "
            "key from OPENAI_BASE_URL, OPENAI_API_KEY), 'model:NAME', 'reward:NAME', or 'self' for the model at hand. "
            "Calls to a server may cost money: see max_calls in `judge_kwargs`."
        },
    )
    judge_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Options of the judge, a mapping in YAML or JSON on the command line: max_calls, concurrency, "
            "timeout, retries, temperature, token_limit, price_in, price_out."
        },
    )
    baseline_dir: str | None = field(
        default=None,
        metadata={
            "help": "Run folder of the baseline (a finished run with `selection_method: full` and the same "
            "evaluation): PIR and STR are measured against it. 'none' compares with none."
        },
    )
    benchmarks: list[dict[str, Any]] | str | None = field(
        default=None,
        metadata={
            "help": "What the model is measured by besides the evaluation rows: a list of mappings in YAML, JSON on "
            "the command line, such as [{kind: multiple_choice, dataset: mmlu.jsonl, limit: 200}]. Kinds: "
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
    benchmark_max_new_tokens: int = field(
        default=256,
        metadata={"help": "Length of a generated answer at most, in tokens. Time grows with it."},
    )

    def __post_init__(self):
        # Read before anything is derived: what the user gave is what repeats the run.
        self._given = {item.name: getattr(self, item.name) for item in fields(self) if item.init}
        self.selector: Selector = load_selector(self.selection_method, self.selection_kwargs)
        self.named_benchmarks: list[Benchmark] = load_benchmarks(self.benchmarks)
        self.judge_options: JudgeOptions = typed_options(JudgeOptions, self.judge_kwargs, "judge_kwargs")
        if str(self.baseline_dir).lower() == "none":
            self.baseline_dir = None
        if self.judge is not None:
            parse_spec(self.judge)
        super().__post_init__()
        self.diversity: Diversity | None = load_diversity(self.selection_diversity)
        self._refuse_diversity()
        if self.selection_budget is not None:
            self.selection_budget = parse_budget(self.selection_budget)
        if self.selection_batch_tokens is not None and self.selection_batch_tokens < 1:
            raise ValueError(f"`selection_batch_tokens={self.selection_batch_tokens}` must be at least 1.")
        if self.selection_dtype not in ("auto", "float32", "bfloat16", "float16"):
            raise ValueError(
                f"`selection_dtype={self.selection_dtype!r}` must be 'auto', 'float32', 'bfloat16' or 'float16'."
            )
        if self.use_vllm:
            check_vllm(self.vllm_gpu_memory_utilization)
        if self.benchmark_max_new_tokens < 1:
            raise ValueError(f"`benchmark_max_new_tokens={self.benchmark_max_new_tokens}` must be at least 1.")

    def use(self, selector: Selector) -> None:
        """Take a selector instance in place of `selection_method` and `selection_kwargs`, also for the recipe."""
        self.selector = selector
        self.selection_method = method_name(selector)
        self.selection_kwargs = asdict(selector) if is_dataclass(selector) else {}
        self._given |= {"selection_method": self.selection_method, "selection_kwargs": self.selection_kwargs}
        self._refuse_diversity()

    def _refuse_diversity(self) -> None:
        selector = self.selector
        if self.diversity is not None and (selector.spreads_out or selector.fixed_budget is not None):
            why = "keeps every row" if selector.fixed_budget is not None else "already keeps rows apart itself"
            raise ValueError(
                f"`selection_diversity={self.selection_diversity!r}`: `{self.selection_method}` {why}. Remove it."
            )

    @property
    def needs(self) -> frozenset[str]:
        """What the method needs (see [`Card`]), and what the diversity behind it does."""
        own = self.selector.card.needs
        return own | {"text", "model"} if self.diversity is not None and self.diversity.encoder == "model" else own

    def prepared_benchmarks(self) -> list[Benchmark]:
        """
        What `benchmarks` names, with its rows read.

        Raises:
            `ValueError`: rows that can't be had or asked, or no `judge` for a benchmark that needs one.
        """
        for benchmark in self.named_benchmarks:
            if "judge" in benchmark.needs:
                benchmark.judge = self.judge
            benchmark.prepare()
        return self.named_benchmarks

    def budget_of(self, selector: Selector) -> float | int:
        """
        The budget in force.

        Raises:
            `ValueError`: a budget that the method can't keep to (`full` keeps everything).
        """
        fixed = selector.fixed_budget
        if self.selection_budget is None:
            return fixed or DEFAULT_BUDGET
        if fixed is not None and self.selection_budget != fixed:
            raise ValueError(
                f"`selection_budget={self.selection_budget}` has no meaning for a method that keeps every row: remove "
                "it, or choose another `selection_method`."
            )
        return self.selection_budget

    @property
    def given(self) -> dict[str, Any]:
        """Arguments that were given other values than their defaults, without secrets."""
        defaults = {
            item.name: item.default if item.default_factory is MISSING else item.default_factory()
            for item in fields(self)
        }
        secrets = ("hub_token", "push_to_hub_token")
        return {name: value for name, value in self._given.items() if value != defaults[name] and name not in secrets}

    @property
    def vllm_memory(self) -> float | None:
        """Part of the GPU's memory in which vLLM generates; `None` without it."""
        return self.vllm_gpu_memory_utilization if self.use_vllm else None

    @property
    def cache_folder(self) -> Path | None:
        """`selection_cache_dir` as a path; `None` keeps nothing."""
        name = self.selection_cache_dir
        return None if name is None or str(name).lower() == "none" else Path(name).expanduser()
