"""The recipes: each parses, says where its values come from, and the quickstart's rows are what their maker says."""

import filecmp
import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from datasets import Dataset

from hf_dataselect.cli.main import main
from hf_dataselect.data.leakage import overlap
from hf_dataselect.data.records import Records
from hf_dataselect.evaluation.audit.findings import CONTROLS
from hf_dataselect.plan import SelectionPlan
from hf_dataselect.registry import policy_class, selector_class
from hf_dataselect.training.audit_arguments import AuditArguments
from hf_dataselect.training.compare_arguments import CompareArguments
from hf_dataselect.training.recipe import parse_recipe
from hf_dataselect.training.scenario import load_scenario
from tests.rows import alpaca
from tests.shared_data import smollm2_path


ROOT = Path(__file__).resolve().parents[2]
#: Of one run each; the others compare many.
OF_MANY = ("audit", "audit-target", "compare", "quickstart")
#: Of rows that other trainers train on.
SELECT_ONLY = ("pass_rate", "reward_gap")
RECIPES = sorted(path for path in (ROOT / "recipes").glob("*.yaml") if path.stem not in OF_MANY)
TRAINED = [path for path in RECIPES if path.stem not in SELECT_ONLY]
LAUNCHERS = sorted((ROOT / "recipes" / "accelerate").glob("*.yaml"))
QUICKSTART = ROOT / "recipes" / "quickstart"
PARTS = ("candidates", "target", "heldout")
COLUMNS = ["instruction", "input", "output", "topic", "fault"]


def recipe(name: str) -> dict:
    return yaml.safe_load((ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8"))


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (QUICKSTART / name).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_parses_and_names_a_method_and_its_options(path):
    found = parse_recipe(["--config", str(path), "--use_cpu", "true"])
    assert SelectionPlan(Records(alpaca(2)), found.args.selector, found.args.selection_budget).budget.value > 0
    assert found.data.dataset_name and found.model.model_name_or_path
    assert (found.data.eval_dataset_name is None) == (path.stem in SELECT_ONLY)
    assert path.stem == (found.args.selection_policy or found.args.selection_method)
    assert found.args.output_dir == f"runs/{path.stem}"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_names_the_paper_of_its_values(path):
    comments = " ".join(line.partition("#")[2] for line in path.read_text(encoding="utf-8").splitlines())
    policy, method = (recipe(path.stem).get(f"selection_{name}") for name in ("policy", "method"))
    paper = (policy_class(policy) if policy else selector_class(method)).card.paper
    assert f"arXiv {paper}" in comments if paper else "arXiv 2" in comments


def test_the_recipe_of_a_comparison_parses_and_trains_as_the_others_do():
    found = parse_recipe(
        ["--config", str(ROOT / "recipes" / "compare.yaml"), "--use_cpu", "true"], "compare", CompareArguments
    )
    runs = dict(found.more.runs())
    assert len(runs) == 3 * (1 + 2 * 4) and found.args.output_dir == "runs/compare"
    own = [item.name for item in fields(CompareArguments)]
    full = {key: value for key, value in recipe("full").items() if key not in ("selection_method", "output_dir")}
    assert {k: v for k, v in recipe("compare").items() if k not in (*own, "output_dir")} == full


def test_the_recipe_of_an_audit_parses_and_trains_as_the_others_do():
    argv = ["--config", str(ROOT / "recipes" / "audit.yaml"), "--use_cpu", "true"]
    found = parse_recipe(argv, "audit", AuditArguments)
    assert [entry.name for entry in found.more.entries] == ["ifd-none", "perplexity", "rds", "rds-max", "less"]
    own = [item.name for item in fields(AuditArguments)]
    full = {key: value for key, value in recipe("full").items() if key not in ("selection_method", "output_dir")}
    kept = {
        key: value for key, value in recipe("audit").items() if key not in (*own, "output_dir", "selection_target")
    }
    assert kept == full


def test_the_audit_at_full_size_has_as_many_selectors_and_the_rows_of_its_scenario():
    argv = ["--config", str(ROOT / "recipes" / "audit-target.yaml"), "--use_cpu", "true"]
    found, scenario = parse_recipe(argv, "audit", AuditArguments), load_scenario("target-1000")
    assert len(found.more.entries) + len(CONTROLS) >= 27 and found.more.subsets == 64
    assert sum(source.rows for source in scenario.pool) == 1000
    assert sum(source.rows for source in scenario.held_out["audit"]) == 40
    drawn = Path("runs/scenarios/target-1000/rows")
    files = [found.data.dataset_name, found.data.eval_dataset_name, found.args.selection_target]
    assert files == [str(drawn / f"{name}.jsonl") for name in ("pool", "audit", "target")]


#: Images take another model, other rows, a longer window and so another baseline.
OF_IMAGES = ("model_name_or_path", "dataset_name", "dataset_train_split", "eval_dataset_name", "dataset_test_split")
OF_IMAGES += ("max_length",)


def test_recipes_differ_in_the_selection_only():
    free = ("selection_method", "selection_budget", "selection_kwargs", "judge", "output_dir", "baseline_dir")
    free += ("selection_target", "selection_policy", "selection_policy_kwargs", "selection_schedule")
    kept = {path.stem: {key: value for key, value in recipe(path.stem).items() if key not in free} for path in TRAINED}
    full = kept.pop("full")
    images = {key: value for key, value in kept.pop("instructiongpt4").items() if key not in OF_IMAGES}
    assert images == {key: value for key, value in full.items() if key not in OF_IMAGES}
    for name, found in kept.items():
        assert {key: value for key, value in found.items() if key != "seed"} == full, name
        assert recipe(name)["baseline_dir"] == recipe("full")["output_dir"]


def test_values_of_the_papers():
    names = (
        "ifd",
        "length",
        "superfiltering",
        "alpagasus",
        "instag",
        "deita",
        "nuggets",
        "mods",
        "instruction_mining",
        "instructiongpt4",
    )
    found = {name: recipe(name) for name in names}
    assert found["ifd"]["selection_budget"] == found["superfiltering"]["selection_budget"] == 0.05
    options = found["ifd"]["selection_kwargs"]
    assert options["warmup_clusters"] * options["warmup_rows_per_cluster"] == 1000 and options["warmup_epochs"] == 1
    assert found["superfiltering"]["selection_kwargs"]["model"] == "gpt2"
    assert found["length"]["selection_budget"] == 1000
    less = recipe("less")["selection_kwargs"]
    assert (less["warmup_fraction"], less["warmup_epochs"], less["warmup_learning_rate"]) == (0.05, 4, 2e-5)
    assert (less["lora_r"], less["lora_alpha"], less["lora_dropout"]) == (128, 512, 0.1)
    assert less["warmup_batch_size"] * less["warmup_gradient_accumulation"] == 128 and less["projection_dim"] == 8192
    assert found["alpagasus"]["selection_budget"] == 1.0
    assert found["alpagasus"]["selection_kwargs"]["threshold"] == 4.5
    assert found["instag"]["selection_budget"] == found["deita"]["selection_budget"] == 6000
    assert found["instag"]["selection_kwargs"]["min_count"] == 20
    assert found["deita"]["selection_kwargs"]["threshold"] == 0.9
    assert "deita-complexity-scorer" in found["deita"]["selection_kwargs"]["complexity_scorer"]
    assert found["nuggets"]["selection_budget"] == 1.0
    assert found["nuggets"]["selection_kwargs"] == {"tasks": 100, "threshold": 0.8, "stop": "dropped"}
    options = found["mods"]["selection_kwargs"]
    assert found["mods"]["selection_budget"] == 4000 and "reward-model-deberta-v3" in options["reward_model"]
    assert options["quality_threshold"] == options["necessity_threshold"] == 0
    assert found["instruction_mining"]["selection_budget"] == 0.025
    assert found["instruction_mining"]["selection_kwargs"]["neighbour"] == 6
    assert found["instructiongpt4"]["selection_budget"] == 200 and found["instructiongpt4"]["max_length"] > 512
    options = found["instructiongpt4"]["selection_kwargs"]
    assert options["clusters"] == 10 and options["components"] == 6 + 6 and "bigG-14" in options["clip"]
    training = found["ifd"]
    assert training["per_device_train_batch_size"] * training["gradient_accumulation_steps"] == 128
    assert (training["num_train_epochs"], training["learning_rate"], training["max_length"]) == (3, 2e-5, 512)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("alpagasus", {"estimator": "digits", "threshold": None}),
        ("alpagasus", {"threshold": None, "max_new_tokens": 8}),
        ("instag", {"min_count": 1, "similarity": 0, "support": 0, "max_new_tokens": 40}),
        ("deita", {"complexity_scorer": "model", "quality_scorer": "model"}),
    ],
    ids=["alpagasus by digits", "alpagasus", "instag", "deita"],
)
def test_recipes_of_judged_methods_run_on_a_small_model(name, options, tmp_path, capsys):
    model, output = str(smollm2_path()), tmp_path / "run"
    alpaca(5).to_json(tmp_path / "rows.jsonl")
    given = {
        "model_name_or_path": model,
        "dataset_name": str(tmp_path / "rows.jsonl"),
        "selection_kwargs": json.dumps(options),
        "selection_cache_dir": str(tmp_path / "cache"),
        "selection_budget": "1.0",
        "judge": "self",
        "use_cpu": "true",
        "bf16": "false",
        "output_dir": str(output),
    }
    arguments = [item for option, value in given.items() for item in (f"--{option}", value)]
    try:
        main(["select", "--config", str(ROOT / "recipes" / f"{name}.yaml"), *arguments])
    except SystemExit:  # so small a model may rate or tag nothing that can be read; then it is said so
        assert "max_new_tokens" in options and "found no row to keep of 5: no " in capsys.readouterr().err
    else:
        found = json.loads((output / "selection.json").read_text())
        assert found["method"] == name and 0 < found["kept"] <= 5
        assert found["kept"] + sum(len(rows) for rows in {**found["unscorable"], **found["dropped"]}.values()) == 5
    assert name == "deita" or next((tmp_path / "cache").rglob("*.*"))


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.stem)
def test_accelerate_takes_the_launch_configuration(path):
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    command = ["--config_file", str(path), "-m", "hf_dataselect", "train", "--config", "recipes/ifd.yaml"]
    args, config, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    assert args.module and args.training_script == "hf_dataselect"
    assert bool(args.multi_gpu) is (path.stem == "multi_gpu") and config.use_cpu is (path.stem == "cpu")
    assert (args.num_processes > 1) is (path.stem in ("fsdp2", "multi_gpu", "zero3"))
    assert bool(args.use_fsdp) is (path.stem == "fsdp2") and (not args.use_fsdp or args.fsdp_version == 2)
    assert bool(args.use_deepspeed) is (path.stem == "zero3") and (not args.use_deepspeed or args.zero_stage == 3)


def test_there_are_launch_configurations_for_cpu_one_gpu_and_several():
    assert [path.stem for path in LAUNCHERS] == ["cpu", "fsdp2", "multi_gpu", "single_gpu", "zero3"]


def test_quickstart_rows_are_as_many_and_as_faulty_as_said():
    found, target, held_out = (rows(f"{name}.jsonl") for name in PARTS)
    assert (len(found), len(target), len(held_out)) == (288, 16, 60)
    assert all(list(row) == COLUMNS and row["instruction"] and row["output"] for row in found + target + held_out)
    faults = Counter(row["fault"] for row in found)
    assert faults.pop(None) == 216 and set(faults.values()) == {18}
    assert set(faults) == {"wrong_answer", "cut_answer", "other_question", "near_duplicate"}
    assert {(row["fault"], row["topic"]) for row in target + held_out} == {(None, "arithmetic")}
    assert Counter(row["topic"] for row in found)["arithmetic"] == 29


def test_no_row_of_the_quickstart_is_in_two_files_or_nearly():
    found = {name: Records(Dataset.from_list(rows(f"{name}.jsonl"))) for name in PARTS}
    for name, records in found.items():
        assert not overlap(records, {other: found[other] for other in PARTS if other != name})

    def words(record) -> set:
        return set(f"{record.prompt} {record.answer}".lower().split())

    pool = [words(record) for record in found["candidates"]]
    nearest = max(
        len(own & other) / len(own | other)
        for name in ("target", "heldout")
        for own in map(words, found[name])
        for other in pool
    )
    assert nearest < 0.5, "two of the task's own templates share more than half of their words"


def test_the_sums_of_the_word_problems_are_right():
    for row in rows("target.jsonl") + rows("heldout.jsonl"):
        for left, right in re.findall(r"((?:[\d.]+ [+x/-] )+[\d.]*\d) = ([\d.]*\d)", row["output"]):
            assert eval(left.replace("x", "*")) == pytest.approx(float(right)), row["output"]
    assert sum(" = " in row["output"] for row in rows("heldout.jsonl")) > 50


def test_quickstart_rows_are_made_again_to_the_byte(tmp_path):
    subprocess.run([sys.executable, str(QUICKSTART / "make_data.py"), "--out", str(tmp_path)], check=True)
    names = [f"{name}.jsonl" for name in PARTS]
    assert filecmp.cmpfiles(tmp_path, QUICKSTART, names, shallow=False)[0] == names


def test_the_quickstart_is_one_comparison_whose_options_exist():
    script = (QUICKSTART / "run.sh").read_text(encoding="utf-8")
    assert "compare --config recipes/quickstart.yaml" in script and "set -euo pipefail" in script
    found = parse_recipe(["--config", str(ROOT / "recipes" / "quickstart.yaml")], "compare", CompareArguments)
    names = [name for name, _ in found.more.runs()]
    assert names == ["full-seed42", "random-0.1-seed42", "rds-0.1-seed42", "bm25-0.1-seed42"]
    assert found.more.count_by in COLUMNS and found.args.eval_on_start
