"""
Tasks of the lm-evaluation-harness (package `lm_eval`, extra `lm-eval`), run in the trainer's process on its model.

A task is a name known to the harness, which loads its rows from the Hub, or the path of a task's YAML file, which may
read local files. Each metric of a task is a setting with the direction that the harness declares. A metric that is a
mean over rows has per-example scores, a corpus metric (perplexity) has none. Groups are expanded into their tasks. The
harness shards rows across ranks.
"""

import copy
import inspect
import logging
import numbers
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...compat.lm_eval import share_ranks
from ...compat.transformers import without_router_logits
from ...context import Context
from ...engines.store.identity import digest
from ..benchmark import Benchmark, Setting


logger = logging.getLogger(__name__)

#: Seed of the few-shot examples: the default of the harness.
SHOTS_SEED = 1234


@dataclass(kw_only=True)
class Harness(Benchmark):
    """
    Tasks of the lm-evaluation-harness; see the module docstring.

    Args:
        tasks (`list[str]`):
            Names of tasks or groups, or paths of YAML files.
        shots (`int`, *optional*):
            Number of few-shot examples; by default that of the task. Test questions are left out, with a
            warning.
        limit (`int`, *optional*):
            Number of rows of each task, the first ones.
        batch_size (`int`, *optional*, defaults to `8`):
            Batch size. More needs more memory and is faster only until the device is fully used.
        chat_template (`bool`, *optional*):
            Whether to apply the chat template; by default if the tokenizer has one.
        at_end (`bool`, *optional*, defaults to `True`):
            Run only when training ends.
    """

    tasks: list[str]
    shots: int | None = None
    limit: int | None = None
    batch_size: int = 8
    chat_template: bool | None = None
    at_end: bool = True
    loaded: dict[str, Any] = field(init=False, repr=False, default_factory=dict)
    runs_elsewhere: ClassVar[bool] = True

    def __post_init__(self):
        for option, least in (("shots", 0), ("limit", 1), ("batch_size", 1)):
            value = getattr(self, option)
            if value is not None and value < least:
                raise ValueError(f"`{option}={value}` must be at least {least}.")
        if not self.tasks:
            raise ValueError("`tasks` is empty: name a task.")

    def extras(self) -> dict[str, str]:
        return {"lm_eval": "lm-eval"}

    def default_name(self) -> str:
        return "lm_eval"

    def prepare(self) -> None:
        from lm_eval.tasks import TaskManager

        try:
            # Indexing the tasks of the harness reads thousands of files.
            named = not all(Path(task).is_file() for task in self.tasks)
            self.loaded = TaskManager(include_defaults=named).load(self.tasks)["tasks"]
        except Exception as error:  # a missing task, file, Hub or column raises a dozen types of error
            raise ValueError(
                f"`benchmarks` ({self.name}): `tasks={self.tasks}` can't be loaded: {type(error).__name__}: {error}"
            ) from error
        for name, task in self.loaded.items():
            own = task.get_config("num_fewshot")
            if own == 0 and self.shots:
                raise ValueError(f"`benchmarks` ({self.name}): the task {name!r} does not support `shots`.")
            task.set_config(key="num_fewshot", value=(own or 0) if self.shots is None else self.shots)
            task.set_fewshot_seed(seed=SHOTS_SEED)
            self._keep_tests_out_of_shots(name, task)

    def _keep_tests_out_of_shots(self, name: str, task: Any) -> None:
        # The harness takes the test rows where a task has no others, and then shows a question its own answer.
        shots, pool = task.get_config("num_fewshot"), task.sampler.fewshot_docs() if hasattr(task, "sampler") else []
        if not shots or not pool:
            return
        tested = {" ".join(str(task.doc_to_text(row)).split()) for row in task.eval_docs}
        kept = [row for row in pool if " ".join(str(task.doc_to_text(row)).split()) not in tested]
        if len(kept) < len(pool):
            left_out = f"{len(pool) - len(kept):,} of the {len(pool):,} rows for few-shot examples are test questions"
            if len(kept) <= shots:  # the harness may draw one more, to replace the question itself
                raise ValueError(
                    f"`benchmarks` ({self.name}): {left_out} in the task {name!r}, which needs {shots} examples: give "
                    "it a `fewshot_split` of its own, or set `shots: 0`."
                )
            logger.warning("`benchmarks` (%s): %s in the task %r, and left out.", self.name, left_out, name)
            task.sampler.replace_df(kept)

    def protocol(self) -> dict[str, Any]:
        tasks = {
            name: {
                "version": str(task.VERSION),
                "rows": digest(list(task.eval_docs)[: self.limit]),
                "config": digest(_written(task.dump_config())),
            }
            for name, task in self.loaded.items()
        }
        return {"kind": "lm_eval", "tasks": tasks, "chat_template": self.chat_template}

    def score(self, ctx: Context, folder: Path | None = None) -> dict[str, Setting]:
        from lm_eval.evaluator import evaluate
        from lm_eval.models.huggingface import HFLM

        # A copy of the tokenizer, since HFLM sets its pad token.
        lm = HFLM(pretrained=ctx.model, tokenizer=copy.deepcopy(ctx.tokenizer), batch_size=self.batch_size)
        runtime = ctx.runtime
        if runtime.world > 1:
            share_ranks(lm, runtime.accelerator)
        chat = bool(ctx.tokenizer.chat_template) if self.chat_template is None else self.chat_template
        with without_router_logits(ctx.model):
            output = evaluate(
                lm=lm,
                task_dict={"tasks": self.loaded, "groups": {}, "group_map": {}},
                limit=self.limit,
                bootstrap_iters=0,
                apply_chat_template=chat,
                fewshot_as_multiturn=chat,
            )
        return runtime.on_main(lambda: _settings(output))


def _written(config: Any) -> Any:
    """Configuration of a task with the source of its functions, without the location of its rows."""
    if isinstance(config, dict):
        places = ("dataset_path", "dataset_name", "dataset_kwargs", "metadata")
        return {name: _written(value) for name, value in config.items() if name not in places}
    if isinstance(config, (list, tuple)):
        return [_written(value) for value in config]
    return inspect.getsource(config) if inspect.isroutine(config) and not inspect.isbuiltin(config) else config


def _settings(output: dict[str, Any]) -> dict[str, Setting]:
    """Settings from the output of the harness on its main process."""
    settings = {}
    for task, samples in output["samples"].items():
        for key, score in output["results"][task].items():
            metric, _, filtered = key.partition(",")
            if not filtered or metric.endswith("_stderr") or not isinstance(score, numbers.Real):
                continue
            higher = output["higher_is_better"][task].get(metric)
            if higher is None:
                logger.warning(
                    "The task %r does not declare a direction for `%s`; higher is assumed to be better.", task, metric
                )
            rows = sorted((sample["doc_id"], sample[metric]) for sample in samples if sample["filter"] == filtered)
            examples = [value for _, value in rows]
            if not all(isinstance(value, numbers.Real) for value in examples) or not np.isclose(
                np.mean(examples), score
            ):
                examples = None
            name = f"{task}/{metric}" if filtered == "none" else f"{task}/{metric},{filtered}"
            settings[name] = Setting(float(score), higher is not False, examples and list(map(float, examples)))
    return settings
