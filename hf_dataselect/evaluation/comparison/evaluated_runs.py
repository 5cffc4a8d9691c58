"""Reads finished runs from their folders and groups those that differ only in the seed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...engines.store.identity import digest
from ...errors import DamagedFile, printable
from ...runs.files import EVALUATION, GUARD, POLICY, REMEDY, read, read_versions
from ...runs.folder import read_evaluation, read_recipe, read_selection, read_settings
from ...selection import Selection
from ..benchmark import Setting, from_json
from .pir import PIR
from .trained import TRAINED, difference, recorded


#: Prefixes of options that may differ between compared runs: selection, logging, output and how it is computed.
FREE = ("selection_method", "selection_kwargs", "selection_budget", "selection_diversity", "selection_target")
FREE += ("selection_cache_dir", "selection_batch_tokens", "selection_dtype")
FREE += ("seed", "output_dir", "baseline_dir", "run_name", "report_to", "logging_", "save_", "hub_")
FREE += ("eval_on_start", "push_to_hub", "disable_tqdm", "resume_from_checkpoint", "judge", "dataset_num_proc")
FREE += ("dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers", "dataloader_prefetch")
#: Methods that compute no scores.
UNSCORED = ("full", "random")


@dataclass
class Run:
    """
    A finished run.

    Args:
        name (`str`):
            Folder name; the whole path if two folders share a name.
        selection ([`Selection`]):
            Its selection.
        settings (`dict[str, Setting]`):
            Its scores.
        train_seconds (`float`, *optional*):
            Training time without evaluation.
        untrained (`dict[str, float]`, *optional*):
            Scores before training (`eval_on_start`).
        recipe, protocol, versions (`dict`, *optional*):
            Resolved configuration; rows, metrics and answer length of the evaluation; package versions.
        folder (`Path`, *optional*):
            The run folder.
        tokens (`int`, *optional*):
            Tokens of the kept rows, truncated as in training.
        failed, unscorable (`dict`, *optional*):
            Failed benchmarks and their errors; unscorable held-out rows by reason.
        trained (`dict`, *optional*):
            What training did, see [`~trained`]; empty if the run does not record it.
        equal (`str`, *optional*):
            What a comparison gave this run as much of as the baseline, if not epochs.
        date (`str`, *optional*):
            When training ended, in ISO 8601 and UTC.
        policy (`dict`, *optional*):
            What its policy did; empty without one.
        guard (`dict`, *optional*):
            What it did to the domains that were guarded; empty without them.
    """

    name: str
    selection: Selection
    settings: dict[str, Setting]
    train_seconds: float | None
    untrained: dict[str, float] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] | None = None
    versions: dict[str, Any] = field(default_factory=dict)
    folder: Path = Path()
    tokens: int | None = None
    failed: dict[str, str] = field(default_factory=dict)
    unscorable: dict[str, list[int]] = field(default_factory=dict)
    trained: dict[str, Any] = field(default_factory=dict)
    equal: str | None = None
    date: str | None = None
    policy: dict[str, Any] = field(default_factory=dict)
    guard: dict[str, Any] = field(default_factory=dict)

    @property
    def seed(self) -> int | None:
        """Seed of selection and training."""
        return self.selection.facts.get("seed")

    @property
    def choice(self) -> dict[str, Any]:
        """All that decides which rows are kept, except the seed and the candidates."""
        facts, judge = self.selection.facts, self.selection.facts.get("judge")
        choice = {name: facts.get(name) for name in ("diversity", "target", "dtype")}
        choice["judge"] = judge["name"] if judge and any(judge["cost"].values()) else None
        return self.selection.options | {name: value for name, value in choice.items() if value is not None}

    @property
    def training(self) -> dict[str, Any]:
        """The options that must be equal in a fair comparison."""
        options = {name: value for name, value in self.recipe.items() if not name.startswith(FREE)}
        if not self.recipe.get("selection_policy"):  # which alone follows the guard
            options = {name: value for name, value in options.items() if not name.startswith("guard_")}
        if self.equal:  # which decides the number of updates
            options = {name: value for name, value in options.items() if name != "max_steps"} | {"equal": self.equal}
        return options


@dataclass
class Group:
    """
    Runs that differ only in the seed; often a single one.

    Args:
        name (`str`):
            Name of the run, or what the runs have in common.
        runs (`list[Run]`):
            The runs.
        pir ([`PIR`], *optional*):
            Benchmark ratio against the baseline; `None` for the baseline itself and without one.
        wins ([`PIR`], *optional*):
            Wins rate against the baseline, if a judge compared the answers, see [`add_wins`].
        judge (`str`, *optional*):
            That judge; or the reason why the answers were not judged.
        over_control ([`PIR`], *optional*):
            Benchmark ratio against the control: as many random rows.
        str_ratio (`float`, *optional*):
            Selection seconds / training seconds of the baseline, means over runs.
    """

    name: str
    runs: list[Run]
    pir: PIR | None = None
    wins: PIR | None = None
    judge: str | None = None
    over_control: PIR | None = None
    str_ratio: float | None = None

    @property
    def selection(self) -> Selection:
        """Selection of the first run."""
        return self.runs[0].selection

    @property
    def method(self) -> str:
        """Selection method."""
        return self.selection.method

    @property
    def policy(self) -> str | None:
        """What selected while they trained: a policy, or the method again."""
        run = self.runs[0]
        if run.policy.get("policy") != "selection_schedule":
            return run.recipe.get("selection_policy")
        schedule = run.policy["options"]
        rows = " of unseen rows" if schedule["exclude_seen"] else ""
        more = f", {schedule['grow']} rows more" if schedule.get("grow") else ""
        unit = "steps" if schedule["every"] > 1 else "epochs"
        return f"again every {schedule['every']:g} {unit}{rows}{more}"

    @property
    def is_full(self) -> bool:
        """Whether all rows were trained on as they are, as the baseline is."""
        return self.method == "full" and self.policy is None

    @property
    def sdf(self) -> float:
        """Selected dataset fraction, mean over the runs."""
        return float(np.mean([run.selection.sdf for run in self.runs]))

    @property
    def selection_seconds(self) -> float:
        """Mean over the runs."""
        return float(np.mean([run.selection.seconds for run in self.runs]))

    @property
    def train_seconds(self) -> float | None:
        """Mean over the runs; `None` if unknown for one."""
        return _mean([run.train_seconds for run in self.runs])

    @property
    def tokens(self) -> float | None:
        """Mean over the runs; `None` if unknown for one."""
        return _mean([run.tokens for run in self.runs])

    def trained(self, figure: str) -> float | None:
        """A figure of training that is a number, mean over the runs; `None` if unknown for one."""
        return _mean([run.trained.get(figure) for run in self.runs])

    def controls(self, other: "Group") -> bool:
        """Whether this is the control of another group: as many of the same candidates, at random, trained alike."""
        mine, its = self.selection, other.selection
        same_rows = mine.facts.get("dataset") == its.facts.get("dataset") and len(mine.indices) == len(its.indices)
        alike = self.runs[0].training == other.runs[0].training
        return self.method == "random" and other.method not in UNSCORED and same_rows and alike

    def score(self, setting: str) -> float | None:
        """Mean over the runs; `None` if one of them lacks the setting."""
        return _mean([run.settings[setting].score if setting in run.settings else None for run in self.runs])

    def differences(self, other: "Group") -> list[str]:
        """
        Options, candidate rows and packages in which the first runs differ, where both record them, and what their
        options don't say of how the runs were trained: a PIR between the groups measures these too.
        """
        mine, its = self.runs[0], other.runs[0]
        options = {**its.training, **mine.training} if its.recipe and mine.recipe else {}
        names = [f"`{name}`" for name in options if mine.training.get(name) != its.training.get(name)]
        if mine.selection.facts.get("dataset") != its.selection.facts.get("dataset"):
            names.append("the candidate rows")
        said = {name.strip("`") for name in names}
        names += [named for figure in TRAINED if (named := self._trained_otherwise(other, figure, said))]
        packages = {**its.versions, **mine.versions} if its.versions and mine.versions else {}
        return names + [f"{name} (version)" for name in packages if mine.versions.get(name) != its.versions.get(name)]

    def _trained_otherwise(self, other: "Group", figure: str, said: set[str]) -> str | None:
        """What the runs did otherwise than the other's, with both values; not what follows from the number of rows."""
        options = TRAINED[figure].said_by
        by_rows = figure == "updates" and len(self.selection.indices) != len(other.selection.indices)
        by_equal = figure in ("updates", "epochs") and any(run.equal for run in (*self.runs, *other.runs))
        if said & {*options} or by_rows or by_equal:
            return None
        return difference(figure, *(recorded([run.trained for run in group.runs], figure) for group in (self, other)))


def _mean(values: list[float | None]) -> float | None:
    return None if None in values else float(np.mean(values))


def read_run(folder: Path, shared_names: list[str]) -> Run:
    """
    Read a run. Its name is that of the folder, or the whole path if the name is in `shared_names`.

    Raises:
        `ValueError`: The folder is not that of a finished run, or one of its files is damaged or of another run.
    """
    evaluation = read_evaluation(folder, "runs")
    name = printable(folder if folder.resolve().name in shared_names else folder.resolve().name)
    try:
        settings, history = from_json(evaluation["settings"]), evaluation.get("history") or [{}]
        before = history[0] if history[0].get("step") == 0 else {}
        before = {s: before[f"benchmark/{s}"] for s in settings if before.get(f"benchmark/{s}") is not None}
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise DamagedFile(folder / EVALUATION, f"no readable evaluation: {error!r}", REMEDY) from error
    return Run(
        name,
        read_selection(folder),
        settings,
        evaluation.get("train_seconds"),
        before,
        read_recipe(folder),
        evaluation.get("protocol"),
        read_versions(folder),
        folder,
        evaluation.get("train_tokens"),
        evaluation.get("failed") or {},
        evaluation.get("unscorable") or {},
        evaluation.get("trained") or {},
        read_settings(folder)[0].get("equal"),
        evaluation.get("date"),
        *(read(folder, name) if (folder / name).is_file() else {} for name in (POLICY, GUARD)),
    )


def grouped(runs: list[Run]) -> list[Group]:
    """Groups of runs with the same selection, candidates and training, and different seeds."""
    members: dict[str, list[Run]] = {}
    for run in runs:
        key = digest(
            [run.selection.method, run.choice, run.selection.budget, run.training, run.selection.facts.get("dataset")]
        )
        if run.seed is None or any(other.seed == run.seed for other in members.get(key, [])):
            key += run.name  # a repetition, or an unknown seed: a group of its own
        members.setdefault(key, []).append(run)
    groups = [Group(together[0].name, together) for together in members.values()]
    for group in groups:
        if len(group.runs) > 1:
            budget = group.selection.budget
            budget = budget if isinstance(budget, str) else f"{budget:g}"
            name = group.method if group.method == "full" else f"{group.method} {budget}"
            name += f" {group.policy}" if group.policy else ""
            group.name = name if name not in [other.name for other in groups] else f"{name} ({group.name})"
    return groups
