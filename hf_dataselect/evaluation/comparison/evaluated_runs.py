"""Finished runs, read from their folders alone, and those together that differ in the seed alone."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ...engines.store.identity import digest
from ...runs.folder import read_evaluation, read_selection
from ...selection import Selection
from ..benchmark import Setting, from_json
from .pir import PIR


#: Options that may differ between runs that are compared: what is chosen, and how it is shown, written and computed.
FREE = ("selection_", "seed", "output_dir", "baseline_dir", "run_name", "report_to", "logging_", "save_", "hub_")
FREE += ("eval_on_start", "push_to_hub", "disable_tqdm", "resume_from_checkpoint", "judge", "dataset_num_proc")
FREE += ("dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers", "dataloader_prefetch")
#: Methods without a score of their own.
UNSCORED = ("full", "random")


@dataclass
class Run:
    """
    A finished run.

    Args:
        name (`str`):
            Folder name; the path where two folders have the same.
        selection ([`Selection`]):
            What it kept.
        settings (`dict[str, Setting]`):
            Its scores.
        train_seconds (`float`, *optional*):
            Training time without evaluations.
        untrained (`dict[str, float]`, *optional*):
            Scores before training, where the run was evaluated then (`eval_on_start`).
        recipe, protocol, versions (`dict`, *optional*):
            Its resolved configuration; rows, metrics and answer length of its evaluation; packages.
        folder (`Path`, *optional*):
            Where it lies.
        tokens (`int`, *optional*):
            Tokens of the rows kept, truncated as in training.
        failed, unscorable (`dict`, *optional*):
            Benchmarks that failed, and why; held-out rows without a score, by reason.
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

    @property
    def seed(self) -> int | None:
        """Of selection and training."""
        return self.selection.facts.get("seed")

    @property
    def choice(self) -> dict[str, Any]:
        """All that decided which rows it keeps, but the seed and the candidates."""
        facts, judge = self.selection.facts, self.selection.facts.get("judge")
        given = {name: facts.get(name) for name in ("diversity", "target", "dtype")}
        given["judge"] = judge["name"] if judge and any(judge["cost"].values()) else None
        return self.selection.options | {name: value for name, value in given.items() if value is not None}

    @property
    def training(self) -> dict[str, Any]:
        """The part of the recipe that must not differ in a fair comparison."""
        return {name: value for name, value in self.recipe.items() if not name.startswith(FREE)}


@dataclass
class Group:
    """
    Runs that differ in nothing but the seed; often just one.

    Args:
        name (`str`):
            The run's, or what the runs share.
        runs (`list[Run]`):
            In the order given.
        pir ([`PIR`], *optional*):
            Benchmark ratio against the baseline; `None` for the baseline itself and where there is none.
        wins ([`PIR`], *optional*):
            Wins rate against the baseline, where a judge compared their answers, see [`add_wins`].
        judge (`str`, *optional*):
            That judge; or why nothing was judged.
        over_control ([`PIR`], *optional*):
            Benchmark ratio against the control: as many random rows.
        str_ratio (`float`, *optional*):
            Selection seconds / training seconds of the baseline, means over the runs.
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
        """Of the first run."""
        return self.runs[0].selection

    @property
    def method(self) -> str:
        """The method of all runs."""
        return self.selection.method

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
        """Mean over the runs; `None` if one does not know."""
        known = [run.train_seconds for run in self.runs]
        return None if None in known else float(np.mean(known))

    @property
    def tokens(self) -> float | None:
        """Mean over the runs; `None` if one does not know."""
        known = [run.tokens for run in self.runs]
        return None if None in known else float(np.mean(known))

    @property
    def judged(self) -> bool:
        """Whether there is a wins rate."""
        return self.wins is not None and bool(np.isfinite(self.wins.value))

    def score(self, setting: str) -> float | None:
        """Mean over the runs; `None` if one does not have it."""
        found = [run.settings[setting].score for run in self.runs if setting in run.settings]
        return float(np.mean(found)) if len(found) == len(self.runs) else None


def read_run(folder: Path, shared_names: list[str]) -> Run:
    """
    The run in `folder`, named as it, or by its whole path if another of `shared_names` is named alike.

    Raises:
        `ValueError`: no finished run lies there.
    """
    evaluation = read_evaluation(folder, "runs")
    name = str(folder) if folder.resolve().name in shared_names else folder.resolve().name
    settings, history = from_json(evaluation["settings"]), evaluation.get("history") or [{}]
    before = history[0] if history[0].get("step") == 0 else {}
    before = {s: before[f"benchmark/{s}"] for s in settings if before.get(f"benchmark/{s}") is not None}
    recipe, versions = folder / "recipe.yaml", folder / "versions.json"
    return Run(
        name,
        read_selection(folder),
        settings,
        evaluation.get("train_seconds"),
        before,
        (yaml.safe_load(recipe.read_text(encoding="utf-8")) or {}) if recipe.is_file() else {},
        evaluation.get("protocol"),
        json.loads(versions.read_text(encoding="utf-8")) if versions.is_file() else {},
        folder,
        evaluation.get("train_tokens"),
        evaluation.get("failed") or {},
        evaluation.get("unscorable") or {},
    )


def grouped(runs: list[Run]) -> list[Group]:
    """Runs that chose by the same, of the same rows, and trained alike, of different seeds, together."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        key = digest(
            [run.selection.method, run.choice, run.selection.budget, run.training, run.selection.facts.get("dataset")]
        )
        if run.seed is None or any(other.seed == run.seed for other in found.get(key, [])):
            key += run.name  # a repetition, or of unknown seed: for itself
        found.setdefault(key, []).append(run)
    groups = [Group(members[0].name, members) for members in found.values()]
    for group in groups:
        if len(group.runs) > 1:
            budget = f" {group.selection.budget:g}" if group.method != "full" else ""
            name = f"{group.method}{budget}"
            group.name = name if name not in [other.name for other in groups] else f"{name} ({group.name})"
    return groups
