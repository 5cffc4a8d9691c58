"""
Four domains, one of them weak: random rows, rows chosen for the weak one, and the policy `domains` with a guard.

    python benchmarks/four_domains.py runs/four_domains --model MODEL --sources places.yaml
    python benchmarks/four_domains.py runs/four_domains --results results/guard/four-domains.json

The first trains what is not finished yet; the second writes what is, and its table into docs/while-training.md. The
rows are those of the scenario `four-domains`. All runs make as many updates with the same settings, on LoRA:

| arm | trains on |
|---|---|
| `random` | two fifths of the pool at random, each row once: the shares of the pool |
| `rds` | the tenth of the pool that is most like 20 examples of mathematics, each row four times |
| `domains` | the rows of `random`, mathematics weighing four times as much; a domain that is HARMED weighs more |

Losses of held-out rows of each domain are those of the guard (`guard.json`).
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from datasets import Dataset
from peft import LoraConfig
from scipy.stats import t
from transformers import AutoModelForCausalLM, set_seed

from hf_dataselect import DataSelectingConfig, DataSelectingTrainer
from hf_dataselect.data.load import load_rows
from hf_dataselect.engines.store.checked import read_json, write_json
from hf_dataselect.engines.store.files import write_atomic
from hf_dataselect.evaluation.benchmark import Setting
from hf_dataselect.evaluation.comparison.pir import benchmark_pir
from hf_dataselect.runs.files import GUARD, POLICY, read, read_versions
from hf_dataselect.runs.folder import read_evaluation, read_selection
from hf_dataselect.training.scenario import load_scenario, make_rows


#: The page with the table, and the lines that it stands between.
PAGE = Path(__file__).parents[1] / "docs" / "while-training.md"
MARKS = "<!-- four domains -->\n", "<!-- end of four domains -->"
SEEDS = (0, 1, 2)
DOMAINS = ("math", "code", "general", "chinese")
UPDATES = 48
#: The fastest on a CPU that computes in bfloat16; the adapter is in float32.
MODEL = {"dtype": "bfloat16", "attn_implementation": "eager"}
TRAINING = {
    "max_steps": UPDATES,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 2,
    "max_length": 256,
    "gradient_checkpointing": False,
    "save_strategy": "no",
    "report_to": "none",
    "logging_steps": 10,
    "disable_tqdm": True,
}
ARMS: dict[str, dict[str, Any]] = {
    "random": {"selection_method": "random", "selection_budget": 0.4},
    "rds": {"selection_method": "rds", "selection_budget": 0.1},
    "domains": {
        "selection_method": "random",
        "selection_budget": 0.4,
        "selection_policy": "domains",
        "selection_policy_kwargs": {"prefer": {"math": 4}},
        "eval_strategy": "steps",
        "eval_steps": UPDATES // 4,
    },
}


def train(arm: str, seed: int, folder: Path, model: str, files: dict[str, Path], own: dict[str, Any]) -> None:
    """One run, in a folder of its own."""
    given = ARMS[arm] | TRAINING | own | {"seed": seed, "output_dir": str(folder)}
    if arm == "rds":
        given["selection_target"] = str(files["target"])
    args = DataSelectingConfig(guard_dataset={name: str(files[name]) for name in DOMAINS}, **given)
    held_out: Dataset = load_rows(str(files["math"]))
    set_seed(seed)  # of the adapter, which is made before the trainer's own
    DataSelectingTrainer(
        AutoModelForCausalLM.from_pretrained(model, **MODEL),
        args,
        train_dataset=load_rows(str(files["pool"])),
        eval_dataset=held_out.select(range(4)),  # an evaluation needs some; the guard measures all
        peft_config=LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=["q_proj", "v_proj"]),
    ).train()


def finished(folder: Path) -> bool:
    """Whether a run has come to its end."""
    return (folder / GUARD).is_file() and read(folder, GUARD)["history"][-1]["step"] == UPDATES


def finished_runs(folder: Path) -> dict[str, Any]:
    """What the finished runs found, without rows."""
    runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for arm, seed in ((arm, seed) for arm in ARMS for seed in SEEDS):
        if finished(run := folder / f"{arm}-{seed}"):
            guard, selection = read(run, GUARD), read_selection(run)
            policy = read(run, POLICY)["history"] if (run / POLICY).is_file() else []
            runs[arm].append(
                {
                    "seed": seed,
                    "rows": len(selection.indices),
                    "train_seconds": read_evaluation(run)["train_seconds"],
                    "domains": {name: _rounded(one) for name, one in guard["domains"].items()},
                    "history": [_rounded(entry) for entry in guard["history"]],
                    "shares": [_rounded({"from_step": one["from_step"]} | one["share"]) for one in policy],
                }
            )
    versions = read_versions(folder / "random-0")
    return {"updates": UPDATES, "training": TRAINING | MODEL, "arms": ARMS, "versions": versions, "runs": runs}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 5) if isinstance(value, float) else value


def settings(runs: list[dict[str, Any]]) -> list[dict[str, Setting]]:
    return [
        {name: Setting.of(np.array(one["losses"], float), False) for name, one in run["domains"].items()}
        for run in runs
    ]


def said(results: dict[str, Any]) -> str:
    """What the page says: losses with intervals over seeds, verdicts, ratios to the random rows, shares over time."""
    lines = [
        "| domain | rows by | loss before | after (95 % over seeds) | change | verdicts | against `random` |",
        "|---|---|---|---|---|---|---|",
    ]
    control = results["runs"]["random"]
    for name in DOMAINS:
        for arm, runs in results["runs"].items():
            if len(runs) < 2:
                continue
            losses = np.array([run["domains"][name]["loss"] for run in runs])
            half = t.ppf(0.975, len(runs) - 1) * losses.std(ddof=1) / np.sqrt(len(runs))
            change = np.mean([run["domains"][name]["change"] for run in runs])
            before = np.mean([loss for loss in runs[0]["domains"][name]["losses_before"] if loss is not None])
            verdicts = [run["domains"][name]["verdict"] for run in runs]
            counted = ", ".join(f"{verdicts.count(one)} {one}" for one in dict.fromkeys(verdicts))
            against = ""
            if arm != "random" and len(control) > 1:
                pir = benchmark_pir(settings(runs), settings(control))
                low, high = pir.intervals[name]
                against = f"{pir.settings[name]:.3f} ({low:.3f} to {high:.3f}): {pir.verdicts[name]}"
            after = f"{losses.mean():.3f} ({losses.mean() - half:.3f} to {losses.mean() + half:.3f})"
            lines.append(f"| {name} | `{arm}` | {before:.3f} | {after} | {change:+.1%} | {counted} | {against} |")
    steps = [step for run in results["runs"]["domains"] for step in run["shares"]]
    thirds = [[step for step in steps if (step["from_step"] - 1) * 3 // UPDATES == third] for third in range(3)]
    shares = [
        f"{name} {', '.join(f'{np.mean([one[name] for one in third]):.0%}' for third in thirds)}" for name in DOMAINS
    ]
    what = "Shares of the weighted tokens under `domains`, in the first, second and last third of the updates"
    return "\n".join([*lines, "", f"{what}: {'; '.join(shares)}."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--sources", type=Path, help="YAML: hub name of a dataset -> file or folder in its place")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, choices=SEEDS)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--use_cpu", action="store_true")
    parser.add_argument("--results", type=Path, help="write what the finished runs found there, and to the page")
    given = parser.parse_args()
    if given.results:
        given.results.parent.mkdir(parents=True, exist_ok=True)
        write_json(given.results, finished_runs(given.folder))
        text = said(read_json(given.results))
        before, begin, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
        _, end, after = rest.partition(MARKS[1])
        write_atomic(PAGE, f"{before}{begin}{text}\n{end}{after}")
        print(text)
        return
    places = yaml.safe_load(given.sources.read_text(encoding="utf-8")) if given.sources else {}
    files = make_rows(load_scenario("four-domains", places), given.folder / "rows")
    own = {"use_cpu": True, "bf16": False} if given.use_cpu else {}
    for seed in given.seeds:
        for arm in given.arms:
            folder = given.folder / f"{arm}-{seed}"
            if not finished(folder):
                print(f"{folder.name} begins", flush=True)
                train(arm, seed, folder, given.model, files, own)
                print(f"{folder.name} is finished", flush=True)


if __name__ == "__main__":
    main()
