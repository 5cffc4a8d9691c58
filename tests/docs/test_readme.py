"""The README: what it shows is run, with a tiny model in the place of the one that it names."""

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
from datasets import Dataset

from hf_dataselect.cli.main import main
from hf_dataselect.registry import method_names
from tests.docs.home import CPU, ROOT
from tests.docs.markdown import blocks, commands


README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = ", use_cpu=True, bf16=False, report_to='none', save_strategy='no', max_steps=2, disable_tqdm=True"
#: Fewer steps and runs than the commands ask for; the last of two values counts.
SHORT = ["--num_train_epochs", "1", "--save_strategy", "no", "--disable_tqdm", "true"]
SHORTER = {"compare": ["--methods", "length", "--budgets", "0.1", "--seeds", "0"]}
SAYS = {"train": "kept", "select": "Rows: runs/ifd", "compare": "report.html", "methods": "IFD"}
SAYS["recipe"] = "selection_method: ifd"
pytestmark = pytest.mark.usefixtures("at_home")


def on_cpu(code: str, config: str) -> str:
    """The code with the arguments that the README names for machines without a GPU."""
    changed = re.sub(rf'({config}\((?:f?"[^"]*")[^()]*)\)', rf"\1{PYTHON})", code)
    assert changed != code
    return changed


def test_two_lines_make_a_trainer_of_trl_select(monkeypatch):
    (diff,) = blocks(README, "diff")
    before, after = ("\n".join(line[1:] for line in diff.splitlines() if line[:1] in (sign, " ", "")) for sign in "-+")
    assert len([line for line in diff.splitlines() if line[:1] == "+"]) == 2
    plain, selecting = {}, {}
    exec(on_cpu(before, "SFTConfig"), plain)
    exec(on_cpu(after, "DataSelectingConfig"), selecting)
    trained = [len(names["trainer"].train_dataset) for names in (plain, selecting)]
    assert trained == [20, 1] and selecting["trainer"].selection.method == "ifd"


def test_the_example_compares_and_the_report_names_its_runs(capsys):
    (code,) = blocks(README, "python")
    example = (ROOT / "examples" / "first_run.py").read_text(encoding="utf-8")
    assert example.partition('"""\n\n')[2] == code
    exec(on_cpu(code, "DataSelectingConfig"), {})
    assert len(Dataset.from_parquet("best_rows.parquet")) == 3
    pir = json.loads(Path("runs/ifd/eval.json").read_text())["pir"]
    capsys.readouterr()
    (report,) = [command for command in commands(README) if command.startswith("hf-dataselect report")]
    main(shlex.split(report)[1:])
    shown = capsys.readouterr().out
    assert f"{pir['value']:.3f}" in shown and "random" in shown


def test_commands_run_one_after_the_other(capsys):
    ran = [shlex.split(command)[1:] for command in commands(README) if command.startswith("hf-dataselect")]
    for name, *arguments in ran:
        if name == "report":  # of the runs of the example
            continue
        extra = [] if name in ("methods", "recipe") else [*CPU, *SHORT, *SHORTER.get(name, [])]
        main([name, *arguments, *extra])
        assert SAYS[name] in capsys.readouterr().out
        if (name, *arguments[:2]) == ("train", "--config", "ifd"):
            evaluation = json.loads(Path("runs/ifd/eval.json").read_text())
            assert evaluation["pir"]["settings"], "it is compared with runs/full, which was trained before"
    assert {name for name, *_ in ran} == {*SAYS, "report"}


def test_make_knows_its_targets():
    targets = re.findall(r"`make (\w+)`", README)
    done = subprocess.run(["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True)
    assert len(targets) > 1 and done.returncode == 0, done.stderr


def test_it_is_short_and_has_the_place_of_the_decision_table():
    assert len(README.splitlines()) <= 150 and "<!-- decision table -->" in README
    assert all(f"`{name}`" in README for name in method_names())


def test_it_names_every_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = README.partition("Extras are asked for by name")[2].partition("\n\n")[0]
    assert set(re.findall("`([a-z-]+)`", named)) == set(extras) - {"test"}
