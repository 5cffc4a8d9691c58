"""
Tasks of the lm-evaluation-harness (package `lm_eval`, extra `lm-eval`), run inside the trainer's process on the very
model that it holds.

A task is named as the harness names it, and then reads its rows from a hub, or is the path of a task's YAML file,
which may read them from local files. Each task and metric is a setting with the direction that the harness declares; a
metric that is the mean over the rows has their values as examples, a corpus metric (perplexity) has none. Groups are
taken apart into their tasks. On several ranks, the rows are dealt over them as the harness does it.
"""

import copy
import inspect
import logging
import numbers
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...context import Context
from ...engines.store.identity import digest
from ..benchmark import Benchmark, Setting


logger = logging.getLogger(__name__)

#: Seed of the examples before a question: the harness's own.
SHOTS_SEED = 1234


@dataclass(kw_only=True)
class Harness(Benchmark):
    """
    Tasks of the lm-evaluation-harness; see the module docstring.

    Args:
        tasks (`list[str]`):
            Names of tasks or groups, or paths of YAML files.
        shots (`int`, *optional*):
            Examples before each question; the task's own number by default.
        limit (`int`, *optional*):
            The first so many rows of each task.
        batch_size (`int`, *optional*, defaults to `8`):
            Rows of a batch. More takes more memory and is faster only until the device is busy.
        chat_template (`bool`, *optional*):
            Whether tasks are put as chats; by default if the tokenizer has a chat template.
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

    def __post_init__(self):
        for option, least in (("shots", 0), ("limit", 1), ("batch_size", 1)):
            value = getattr(self, option)
            if value is not None and value < least:
                raise ValueError(f"`{option}={value}` must be at least {least}.")
        if not self.tasks:
            raise ValueError("`tasks` names none.")

    def extras(self) -> dict[str, str]:
        return {"lm_eval": "lm-eval"}

    def default_name(self) -> str:
        return "lm_eval"

    def prepare(self) -> None:
        from lm_eval.tasks import TaskManager

        try:
            # The harness's own tasks are thousands of files to look through.
            named = not all(Path(task).is_file() for task in self.tasks)
            self.loaded = TaskManager(include_defaults=named).load(self.tasks)["tasks"]
        except Exception as error:  # a missing task, file, hub or column shows as a dozen types of error
            raise ValueError(
                f"`benchmarks` ({self.name}): `tasks={self.tasks}` can't be loaded: {type(error).__name__}: {error}"
            ) from error
        for name, task in self.loaded.items():
            own = task.get_config("num_fewshot")
            if own == 0 and self.shots:
                raise ValueError(f"`benchmarks` ({self.name}): the task {name!r} allows no `shots`.")
            task.set_config(key="num_fewshot", value=(own or 0) if self.shots is None else self.shots)
            task.set_fewshot_seed(seed=SHOTS_SEED)

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

        # Of the tokenizer a copy, since it is given a pad token.
        lm = HFLM(pretrained=ctx.model, tokenizer=copy.deepcopy(ctx.tokenizer), batch_size=self.batch_size)
        if ctx.accelerator is not None and ctx.accelerator.num_processes > 1:
            lm.accelerator = ctx.accelerator
            lm._rank, lm._world_size = ctx.accelerator.process_index, ctx.accelerator.num_processes
        chat = bool(ctx.tokenizer.chat_template) if self.chat_template is None else self.chat_template
        found = evaluate(
            lm=lm,
            task_dict={"tasks": self.loaded, "groups": {}, "group_map": {}},
            limit=self.limit,
            bootstrap_iters=0,
            apply_chat_template=chat,
            fewshot_as_multiturn=chat,
        )
        return ctx.agreed(_settings(found) if found else None)


def _written(config: Any) -> Any:
    """A task's configuration with the source of its functions, and without where its rows lie."""
    if isinstance(config, dict):
        places = ("dataset_path", "dataset_name", "dataset_kwargs", "metadata")
        return {name: _written(value) for name, value in config.items() if name not in places}
    if isinstance(config, (list, tuple)):
        return [_written(value) for value in config]
    return inspect.getsource(config) if inspect.isroutine(config) and not inspect.isbuiltin(config) else config


def _settings(found: dict[str, Any]) -> dict[str, Setting]:
    """Settings from what the harness gives on its main process."""
    settings = {}
    for task, samples in found["samples"].items():
        for key, score in found["results"][task].items():
            metric, _, filtered = key.partition(",")
            if not filtered or metric.endswith("_stderr") or not isinstance(score, numbers.Real):
                continue
            higher = found["higher_is_better"][task].get(metric)
            if higher is None:
                logger.warning(
                    "The task %r does not say whether a higher `%s` is better: it is taken to be.", task, metric
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
