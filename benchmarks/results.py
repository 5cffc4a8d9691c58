"""
The results page: what the comparisons of the scenarios found, in one file each, and a page made of these files.

    python benchmarks/results.py runs/scenarios/*          # reads finished runs, writes results/*.json and the page
    python benchmarks/results.py                           # the page alone, from results/*.json

A comparison that is under way is read as far as it is; the page says how many of its runs are finished. Every sentence
about a method is by an interval: without one that excludes 1, a method is said to show no significant difference.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hf_dataselect.data.load import load_rows
from hf_dataselect.data.records import Records
from hf_dataselect.engines.store.checked import read_json
from hf_dataselect.engines.store.files import write_atomic
from hf_dataselect.evaluation.comparison.comparison import add_rows, compare_runs
from hf_dataselect.evaluation.comparison.evaluated_runs import Group
from hf_dataselect.evaluation.comparison.pir import PIR, SAME
from hf_dataselect.evaluation.report.report import to_markdown
from hf_dataselect.evaluation.report.section import Section, Table, number
from hf_dataselect.training.compare_arguments import CompareArguments
from hf_dataselect.training.scenario import DRAWN, load_scenario, names


EQUAL = {"epochs": "equally many epochs", "updates": "equally many updates", "tokens": "equally many tokens"}

WORDS = {"better": "Better than", "worse": "Worse than", SAME: "No significant difference from"}
WORDS |= {"unknown": "Without an interval, so without a verdict, against"}
#: Options of training that the files keep.
TRAINING = ("num_train_epochs", "per_device_train_batch_size", "learning_rate", "lora_r", "dtype", "max_length")


def collected(folder: Path, equal: str) -> dict[str, Any] | None:
    """What a comparison of a scenario found so far; `None` without a finished baseline and another run."""
    runs = sorted(path.parent for path in (folder / equal).glob("*/eval.json"))
    names = {run.name.partition("-")[0] for run in runs}
    if len(names) < 2 or "full" not in names:
        return None
    comparison = compare_runs(runs)
    given = yaml.safe_load((folder / f"{equal}.yaml").read_text(encoding="utf-8"))
    add_rows(comparison, Records(load_rows(given["dataset_name"])), given["count_by"], examples=0)
    drawn, scenario = read_json(folder / "rows" / DRAWN), load_scenario(str(folder / "scenario.yaml"))
    here = {source["dataset"] for source in drawn["asked"]["pool"]}
    first = comparison.groups[0].runs[0]
    found = {
        "scenario": folder.name,
        "equal": equal,
        "question": scenario.question,
        "model": _without_folder(first.selection.facts.get("model")),
        "pool": [{"dataset": source.dataset, "rows": source.rows} for source in scenario.pool],
        "pool_seed": drawn["asked"]["pool_seed"],
        "rows": drawn["rows"],
        "copies": here != {source.dataset for source in scenario.pool},
        "training": {name: first.recipe.get(name) for name in TRAINING},
        "versions": first.versions,
        "held_out": {name: len(load_rows(str(folder / "rows" / f"{name}.jsonl"))) for name in scenario.held_out},
        "runs": len(runs),
        "planned": _planned(scenario.compare),
        "count_by": comparison.column,
        "tallies": comparison.tallies,
        "groups": [_described(group) for group in comparison.groups],
    }
    return json.loads(json.dumps(found), parse_constant=lambda name: None)  # NaN, infinity: null


def _planned(compare: dict[str, Any]) -> int:
    """How many runs the scenario's own options make."""
    own = {item.name for item in dataclasses.fields(CompareArguments)}
    arguments = CompareArguments(**{name: value for name, value in compare.items() if name in own})
    return len(list(arguments.runs()))


def _without_folder(value: Any) -> Any:
    """The name of a model or file, without where it lies on this machine."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _described(group: Group) -> dict[str, Any]:
    settings = {name for run in group.runs for name in run.settings}
    return {
        "name": group.name,
        "method": group.method,
        "budget": None if group.method == "full" else group.selection.budget,
        "options": {name: _without_folder(value) for name, value in group.selection.options.items()},
        "seeds": sorted(run.seed for run in group.runs),
        "kept": len(group.selection.indices),
        "updates": group.trained("updates"),
        "selection_seconds": group.selection_seconds,
        "train_seconds": group.train_seconds,
        "str": group.str_ratio,
        "scores": {name: group.score(name) for name in sorted(settings)},
        "over_baseline": _pir(group.pir),
        "over_control": _pir(group.over_control),
    }


def _pir(pir: PIR | None) -> dict[str, Any] | None:
    if pir is None:
        return None
    names = ("value", "low", "high", "verdict", "interval", "settings", "intervals")
    return {name: getattr(pir, name) for name in names}


def verdicts(result: dict[str, Any], against: str) -> dict[str, list[str]]:
    """Groups by verdict against the control (`over_control`) or the baseline (`over_baseline`), without `full`."""
    found: dict[str, list[str]] = {}
    for group in result["groups"]:
        pir = group[against]
        if pir is not None and group["method"] != "full" and (against, group["method"]) != ("over_control", "random"):
            found.setdefault(pir["verdict"], []).append(_stated(group, pir))
    return found


def by_setting(result: dict[str, Any]) -> dict[str, list[str]]:
    """Gains and harms on single test sets against the control, each by its own interval, where there are several."""
    found: dict[str, list[str]] = {}
    for group in result["groups"] if len(result["held_out"]) > 1 else ():
        pir = group["over_control"]
        for name, (low, high) in (pir["intervals"] if pir and group["method"] != "random" else {}).items():
            if None not in (low, high) and not low <= 1 <= high:
                stated = f"`{_name(group)}` {name} {pir['settings'][name]:.3f} ({low:.3f} to {high:.3f})"
                found.setdefault("better" if low > 1 else "worse", []).append(stated)
    return found


def _stated(group: dict[str, Any], pir: dict[str, Any]) -> str:
    return f"`{_name(group)}` {pir['value']:.3f}" + (f" ({_interval(pir)})" if _interval(pir) else "")


def _name(group: dict[str, Any]) -> str:
    return group["method"] if group["budget"] is None else f"{group['method']} {group['budget']}"


def _interval(pir: dict[str, Any] | None) -> str:
    return "" if pir is None or pir["low"] is None else f"{pir['low']:.3f} to {pir['high'] or np.inf:.3f}"


def section(result: dict[str, Any]) -> Section:
    """A comparison in sentences and a table."""
    groups, counted = result["groups"], f"kept, first seed, by {result['count_by']}"
    pool = ", ".join(f"{source['rows']:,} {source['dataset']}" for source in result["pool"])
    runs = f"{result['runs']} runs are finished of the {result['planned']} that the scenario has"
    text = [f"{result['question']} Pool: {pool}. {runs}; `{_command(result)}`."]
    if alone := [_name(group) for group in groups if len(group["seeds"]) == 1]:
        text.append(f"Of one run only, so that its intervals leave out the variance between runs: {', '.join(alone)}.")
    for against, other in (("over_control", "as many random rows"), ("over_baseline", "training on everything")):
        found = verdicts(result, against)
        for verdict, words in WORDS.items():
            if found.get(verdict):
                text.append(f"{words} {other}: {', '.join(found[verdict])}.")
    for verdict, stated in by_setting(result).items():
        text.append(f"On a single test set, {verdict} than as many random rows: {', '.join(stated)}.")
    head = ["run", "seeds", "rows", "updates", "STR", "over random", "95 % interval", "over everything"]
    head += ["95 % interval", *groups[0]["scores"], counted]
    rows = []
    for group in groups:
        rows.append(
            [_name(group), str(len(group["seeds"])), f"{group['kept']:,}", number(group["updates"], 0)]
            + [number(group["str"], 2)]
            + [cell for key in ("over_control", "over_baseline") for cell in _cells(group[key])]
            + [number(score, 4) for score in group["scores"].values()]
            + [
                ", ".join(
                    f"{count} {name}" for name, count in result["tallies"].get(group["name"], {}).items() if count
                )
            ]
        )
    return Section(_title(result), text, Table(head, rows, 1))


def _title(result: dict[str, Any]) -> str:
    return f"{result['scenario']}, {EQUAL[result['equal']]}"


def _command(result: dict[str, Any]) -> str:
    """What repeats the runs that are finished."""
    seeds = sorted({seed for group in result["groups"] for seed in group["seeds"]})
    methods = dict.fromkeys(group["method"] for group in result["groups"] if group["method"] != "random")
    methods = [*methods][1:] or ["full"]  # which is the first, and always among them
    seed = f" --pool_seed {result['pool_seed']}" if result["pool_seed"] else ""
    name = result["scenario"].removesuffix(f"-pool{result['pool_seed']}")
    command = f"hf-dataselect scenario {name}{'' if name in names() else '.yaml'}{seed} --equal {result['equal']}"
    return f"{command} --methods {' '.join(methods)} --seeds {' '.join(map(str, seeds))}"


def _cells(pir: dict[str, Any] | None) -> list[str]:
    return ["", ""] if pir is None else [number(pir["value"]), _interval(pir)]


def summary(results: list[dict[str, Any]]) -> Section:
    """Which methods were better and worse than random, by question."""
    rows = []
    for result in results:
        found = verdicts(result, "over_control")
        groups = [group for group in result["groups"] if group["over_control"] and group["method"] != "random"]
        costs = [group["str"] for group in groups if group["str"] is not None]
        rows.append(
            [result["scenario"], result["equal"], _range([{"": len(group["seeds"])} for group in result["groups"]])]
            + [", ".join(found.get("better", [])) or "none"]
            + [", ".join(found.get("worse", [])) or "none", str(len(found.get(SAME, [])))]
            + [", ".join(verdicts(result, "over_baseline").get("better", [])) or "none"]
            + [f"{min(costs):.2f} to {max(costs):.2f}" if costs else ""]
        )
    head = "scenario, equal, seeds, better than random, worse than random, no difference, better than everything"
    text = (
        "In brackets: 95 % interval of the PIR over the control, each by itself. Of 40 comparisons in which nothing "
        "differs, one is called better and one worse by chance. With one seed, an interval is about these runs alone."
    )
    return Section("Which method for which question", [text], Table([*head.split(", "), "STR"], rows, None))


def _range(counts: list[dict[str, int]]) -> str:
    """The least and the largest sum."""
    sums = sorted({sum(each.values()) for each in counts})
    return f"{sums[0]:,}" if len(sums) == 1 else f"{sums[0]:,} to {sums[-1]:,}"


def page(results: list[dict[str, Any]], folder: Path) -> str:
    """The page."""
    models = ", ".join(sorted({result["model"] for result in results}))
    versions = results[0]["versions"]
    size = _range([result["tallies"]["candidates"] for result in results])
    tested = _range([result["held_out"] for result in results])
    limits = (
        f"Limits first: the model {models}, LoRA, pools of {size} rows, one draw of the rows of each pool, {tested} "
        "test rows, loss and token accuracy of reference answers, not what the model writes. The intervals cover the "
        "test rows and the seeds, not other draws of the pool (`--pool_seed 1` makes one), models and sizes. "
        "`hf-dataselect scenario` takes your model as `--model_name_or_path`; a larger run is one YAML away "
        "(`recipes/scenarios/target-large.yaml`)."
    )
    how = (
        "`make results` repeats all runs, some hours on 2 cores; finished ones are not repeated. The numbers are in "
        'the JSON files beside this page, with the hash of every set of rows. "Over random" is the PIR (benchmark '
        'ratio, above 1 is better) over the model trained on as many random rows, "over everything" that over the '
        "model trained on the whole pool (BM). STR: seconds of selecting / seconds of training on everything."
    )
    if any(result["copies"] for result in results):
        how += " Rows were drawn from copies or parts of the datasets: a run by hub names may draw others."
    how += " Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items() if version) + "."
    body = to_markdown([summary(results), *map(section, results)])
    for result in results:
        name, title = f"{result['scenario']}-{result['equal']}.svg", f"## {_title(result)}\n"
        if (folder / name).is_file():
            body = body.replace(title, f"{title}\n![PIR over the control by method, with intervals]({name})\n")
    return f"# Results\n\n{limits}\n\n{how}\n\n{body}\n"


def draw(result: dict[str, Any], path: Path) -> None:
    """PIR over the control by method and budget, with its interval."""
    import matplotlib
    from matplotlib.figure import Figure

    groups = [group for group in result["groups"] if group["over_control"] and group["method"] != "random"]
    if not (groups := [group for group in groups if group["over_control"]["low"] is not None]):
        return
    groups.sort(key=lambda group: (str(group["budget"]), group["over_control"]["value"]))
    figure = Figure(figsize=(7.2, 1 + 0.3 * len(groups)), layout="constrained")
    axis = figure.subplots()
    for place, group in enumerate(groups):
        pir = group["over_control"]
        color = {"better": "#1a7f37", "worse": "#c0392b"}.get(pir["verdict"], "#47525e")
        axis.hlines(place, pir["low"], pir["high"] or pir["value"], color=color, linewidth=2)
        axis.plot(pir["value"], place, "o", color=color)
    axis.axvline(1, color="black", linewidth=1)
    axis.set_yticks(range(len(groups)), [_name(group) for group in groups])
    axis.set(xlabel="PIR over as many random rows; above 1: better", title=_title(result))
    axis.spines[["top", "right"]].set_visible(False)
    with matplotlib.rc_context({"svg.hashsalt": path.name}):
        figure.savefig(path, metadata={"Date": None})


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="folders of scenarios")
    parser.add_argument("--output_dir", type=Path, default=Path("results"))
    options = parser.parse_args(argv)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    for folder in options.folders:
        for equal in EQUAL:
            if (folder / f"{equal}.yaml").is_file() and (found := collected(folder, equal)) is not None:
                path = options.output_dir / f"{folder.name}-{equal}.json"
                write_atomic(path, json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(options.output_dir.glob("*.json"))]
    if not results:
        parser.error("no comparison is finished: `hf-dataselect scenario NAME` makes one")
    for result in results:
        draw(result, options.output_dir / f"{result['scenario']}-{result['equal']}.svg")
    write_atomic(options.output_dir / "README.md", page(results, options.output_dir))


if __name__ == "__main__":
    main()
