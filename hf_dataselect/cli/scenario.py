"""`hf-dataselect scenario`: a question that users have, answered by a comparison on rows drawn for it."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ..budget import Budget
from ..engines.store.files import check_writable, write_atomic
from ..options import nearest
from ..parsing import read_yaml
from ..runs.folder import read_evaluation
from ..training.compare_arguments import CompareArguments
from ..training.comparison import PlannedRun, plan
from ..training.recipe import parse_recipe
from ..training.scenario import Scenario, comparison_of, counted, describe, load_scenario, make_rows, names
from . import compare
from .console import alone_in, checked, log_to_console, refuse
from .parsers import scenario_parser


def run(argv: Sequence[str]) -> None:
    """Run the command; rows that are drawn stay, finished runs are not repeated."""
    options, rest = scenario_parser().parse_known_args(argv)
    if options.list:
        for name in names():
            print(f"{name:20} {load_scenario(name).question}")
        return
    if "--config" in rest:
        refuse("`--config`: a scenario is its own recipe; a .yaml file in place of `NAME` changes one by `base`")
    if options.name is None:
        refuse(f"`NAME` is required: {', '.join(names())}, or a .yaml file")
    log_to_console()
    scenario, folder = checked(_found, options)
    with alone_in(folder):
        _carry_out(checked(_prepare, options, scenario, folder), options, rest)


def _carry_out(recipes: dict[str, Path], options: argparse.Namespace, rest: Sequence[str]) -> None:
    """Run the comparisons, or say what they would do."""
    for equal, path in recipes.items():
        command = ["--config", str(path), *rest]
        if options.dry_run:
            records, runs = checked(lambda command=command: plan(parse_recipe(command, "compare", CompareArguments)))
            print(f"{equal}: {_forecast(runs, len(records), equal)}\n  hf-dataselect compare --config {path}")
        else:
            compare.run(command)


def _found(options: argparse.Namespace) -> tuple[Scenario, Path]:
    """The scenario, and its folder, which can be written to."""
    scenario = load_scenario(options.name, _places(options.sources))
    if options.pool_seed is not None:
        scenario = dataclasses.replace(scenario, pool_seed=options.pool_seed)
    known = ("epochs", "updates", "tokens")
    for what in options.equal or scenario.equal:
        if what not in known:
            raise ValueError(f"`equal={what!r}` does not exist{nearest(what, known)}")
    called = Path(options.name).stem + (f"-pool{scenario.pool_seed}" if scenario.pool_seed else "")
    folder = options.output_dir or Path("runs", "scenarios", called)
    check_writable(folder, "output_dir", make=False)
    return scenario, folder


def _prepare(options: argparse.Namespace, scenario: Scenario, folder: Path) -> dict[str, Path]:
    """Draw the rows, and write the recipe of each comparison; gives their files."""
    files = make_rows(scenario, folder / "rows")
    write_atomic(folder / "scenario.yaml", yaml.safe_dump(describe(options.name), allow_unicode=True, sort_keys=False))
    print(scenario.question)
    for name, path in files.items():
        print(f"  {name}: {counted(path)}")
    recipes = {}
    for what in dict.fromkeys(options.equal or scenario.equal):
        recipes[what] = folder / f"{what}.yaml"
        given = comparison_of(scenario, what, folder, files)
        write_atomic(recipes[what], yaml.safe_dump(given, allow_unicode=True, sort_keys=False))
    return recipes


def _places(path: Path | None) -> dict[str, Any]:
    """The mapping of `--sources`; relative places are beside its file."""
    if path is None:
        return {}
    places = read_yaml(path, f"`--sources {path}`")
    if not isinstance(places, dict):
        raise ValueError(f"`--sources {path}` must map datasets to files or folders.")

    def beside(place: Any) -> Any:
        return (
            {key: beside(item) for key, item in place.items()} if isinstance(place, dict) else path.parent / str(place)
        )

    return beside(places)


def _forecast(runs: list[PlannedRun], candidates: int, equal: str) -> str:
    """How many runs are to be done, and about how long they will train, by those that are finished."""
    done = [run for run in runs if run.state == "finished"]
    work = {run.folder: _work(run, candidates, equal) for run in runs}
    text = f"{len(runs)} runs, {len(done)} of them finished"
    left = sum(work[run.folder] for run in runs if run not in done)
    if left:
        text += f"; what is left trains as long as {left:.1f} runs on all rows"
    seconds = sum(read_evaluation(run.folder, "output_dir").get("train_seconds") or 0 for run in done)
    if left and seconds:
        text += f", about {seconds * left / sum(work[run.folder] for run in done) / 60:.0f} min, and select besides"
    return text


def _work(run: PlannedRun, candidates: int, equal: str) -> float:
    """Training of a run / that of the baseline; a budget that is no number of rows counts as all."""
    budget = run.given["selection_budget"]
    rows = None if budget is None or equal != "epochs" else Budget.parse(budget).rows(candidates)
    return (rows or candidates) / candidates
