"""Selections computed in parts by jobs of their own, which the one that follows reads."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

import hf_dataselect
from hf_dataselect.cli.main import main
from hf_dataselect.context import Context
from hf_dataselect.data.records import Records
from hf_dataselect.diversity import Diversity
from hf_dataselect.engines.runtime.part import Part
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.errors import NoUsableRow, SelectionError
from hf_dataselect.parts import check_part, compute_part
from hf_dataselect.plan import SelectionPlan
from hf_dataselect.registry import load_selector, method_names, selector_class
from hf_dataselect.service import select_dataset
from tests.engines.llm.test_local import reward_model
from tests.rows import alpaca
from tests.scripted import ScriptedJudge
from tests.selectors.small import OPTIONS
from tests.tiny import context_of, tiny_model, tiny_tokenizer
from tests.tiny_training import write_recipe


ROOT = Path(hf_dataselect.__file__).parents[1]
#: One of each way to split, and of each engine that keeps results.
METHODS = {
    "alpagasus": {"threshold": None},
    "bids": OPTIONS["bids"] | {"gradient_bits": 8, "projection_dim": "auto"},
    "deita": {"complexity_scorer": "model", "quality_scorer": "model"},
    "mods": OPTIONS["mods"],
    "nuggets": OPTIONS["nuggets"],
    "perplexity": {},
}


def made(name: str, reward: Path, cache: Path | None) -> tuple[SelectionPlan, Context]:
    options = {key: str(reward) if value == "REWARD" else value for key, value in METHODS[name].items()}
    records, target = Records(alpaca(14)), Records(alpaca(3, seed=9))
    tokenizer = tiny_tokenizer()
    ctx = context_of(tokenizer, tiny_model(tokenizer), cache_dir=cache, target=target, dtype="float32", max_length=128)
    diversity = Diversity("filter", encoder="model") if name == "perplexity" else None
    judge = ScriptedJudge(lambda text: str(len(text) % 6), ctx.runtime)
    plan = SelectionPlan(records, load_selector(name, options), 4, target=target, diversity=diversity)
    return plan, dataclasses.replace(ctx, judge=judge, diversity=diversity)


def computed(passes: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in passes.items() if count and not name.startswith("cached")}


@pytest.fixture(scope="module")
def reward(tmp_path_factory) -> Path:
    folder, tokenizer = tmp_path_factory.mktemp("reward"), tiny_tokenizer()
    for part in (reward_model(tokenizer), tokenizer):
        part.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_after_the_parts_nothing_is_left_to_compute(name, reward, tmp_path):
    plan, ctx = made(name, reward, None)
    alone = plan.select(ctx, None, {})
    spent = []
    for part in (Part(2, 2), Part(1, 2)):  # the one that comes first computes what both need
        plan, ctx = made(name, reward, tmp_path)
        check_part(plan, part, tmp_path)
        spent.append(computed(compute_part(plan, ctx, part)))
        assert not ctx.account.rows("unscorable"), "rows of other parts are none of its"
    assert all(spent) and all(sum(part.values()) < sum(computed(alone.passes).values()) for part in spent)
    plan, ctx = made(name, reward, tmp_path)
    after = plan.select(ctx, None, {})
    assert computed(after.passes) == {}
    np.testing.assert_allclose(after.scores, alone.scores, rtol=1e-4, atol=1e-4)  # gradients are kept in 16 bits
    assert after.indices.tolist() == alone.indices.tolist()


def test_an_array_of_jobs_and_the_selections_that_read_it_also_for_any_trainer(tmp_path, capsys):
    recipe = str(write_recipe(tmp_path, selection_method="perplexity", selection_kwargs={}, disable_tqdm=True))
    stub = tmp_path / "bin" / "hf-dataselect"
    stub.parent.mkdir()
    stub.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)
    environment = {"PATH": f"{stub.parent}:{os.environ['PATH']}"}

    def job(**given: str) -> list[str]:
        """The command line of a job, with the options that SLURM sets."""
        script = ["bash", str(ROOT / "recipes/slurm/select.sh"), "--config", recipe]
        return subprocess.run(
            script, env=environment | given, capture_output=True, text=True, check=True
        ).stdout.split()

    for number in "123":
        main(job(SLURM_ARRAY_TASK_ID=number, SLURM_ARRAY_TASK_MAX="3"))
        assert f"Part {number}/3 is computed: 8 forward rows," in capsys.readouterr().out
    main(job(SLURM_ARRAY_TASK_ID="2", SLURM_ARRAY_TASK_MAX="2", PARTS="3"))  # again: it was killed, or finished
    assert "Part 2/3 is computed: nothing was left." in capsys.readouterr().out
    assert not (tmp_path / "run" / "selection.json").exists()
    main(job())
    found = json.loads((tmp_path / "run" / "selection.json").read_text())
    assert computed(found["passes"]) == {} and found["passes"]["cached_rows"] == 24 and len(found["indices"]) == 6
    rows, model = Dataset.from_json(str(tmp_path / "rows.jsonl")), str(tmp_path / "model")
    _, selection = select_dataset(rows, "perplexity", model, budget=6, cache_dir=tmp_path / "cache")
    assert computed(selection.passes) == {} and selection.indices.tolist() == found["indices"]


def test_a_part_has_no_forecast(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["select", "--config", "ifd", "--part", "1/3", "--dry_run"])
    assert "`--part 1/3` with `--dry_run`: the forecast is that of all parts" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["0/3", "4/3", "1/0", "2", "1/3/4", "-1/3", "a/b", "1.5/3", ""])
def test_what_is_no_part_is_refused(given, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["select", "--config", "ifd", "--part", given])
    assert f"`part={given!r}` must be i/N" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "part", "cache", "said"),
    [
        ("length", "1/2", True, "`length` with these options computes nothing row by row"),
        ("perplexity", "1/25", True, "24 rows can't be split into so many parts"),
        ("perplexity", "1/2", False, "set `selection_cache_dir` to a folder"),
    ],
)
def test_what_has_no_parts_is_refused_by_name(name, part, cache, said, tmp_path):
    plan = SelectionPlan(Records(alpaca()), load_selector(name))
    with pytest.raises(ValueError, match=said):
        check_part(plan, Part.parse(part), tmp_path if cache else None)


def test_every_method_that_runs_a_model_says_what_splits():
    silent = {name for name in method_names() if selector_class(name).splits is None}
    assert silent == {"auto", "bm25", "column", "dsir", "full", "length", "pass_rate", "random"}


def test_methods_of_others_split_where_all_of_these_do():
    def split(name: str, **options) -> str | None:
        return load_selector(name, options).splits

    assert split("blend", members={"perplexity": 1, "length": 1}) == "rows"
    assert split("blend", members={"perplexity": 1, "ifd": 1}) == "features"
    assert split("blend", members={"length": 1, "bm25": 1}) is None
    assert split("cascade", method="perplexity", prefilter="length", keep=0.5) == "features"
    for name in ("car", "qdit"):
        assert split(name, quality="perplexity", encoder="model") == "selection"
        assert split(name, quality="length", encoder="model") == "selection"


def test_parts_hold_each_row_once_and_equal_rows_together():
    keys = np.random.default_rng(0).integers(0, 50, 200).astype("V16")
    held = np.stack([part.holds(keys) for part in Part(2, 7).turns()])
    assert (held.sum(0) == 1).all() and [part.number for part in Part(6, 7).turns()] == [6, 7, 1, 2, 3, 4, 5]
    distinct = [len(np.unique(keys[mine])) for mine in held]
    assert sum(distinct) == len(np.unique(keys)) and max(distinct) - min(distinct) <= 1


def test_actors_compute_the_parts(tmp_path):
    pytest.importorskip("ray")
    recipe = write_recipe(tmp_path, selection_method="perplexity", selection_kwargs={}, disable_tqdm=True)
    command = [sys.executable, str(ROOT / "recipes/ray/parts.py"), "3", "--config", str(recipe)]
    subprocess.run(command, check=True, timeout=300)
    found = json.loads((tmp_path / "run" / "selection.json").read_text())
    assert computed(found["passes"]) == {} and found["passes"]["cached_rows"] == 24


def test_a_part_without_usable_rows_leaves_the_others_to_go_on_and_any_other_error_ends_it():
    ctx = Context(None, runtime=Runtime(part=Part(1, 3)))
    asked = []

    def compute(ctx: Context, error: type[Exception]) -> str:
        asked.append(ctx.runtime.part)
        if ctx.runtime.part == Part(1, 3):
            raise error("here")
        return "of all rows"

    assert ctx.of_all_parts(lambda ctx: compute(ctx, NoUsableRow)) == "of all rows"
    assert asked == [Part(1, 3), Part(2, 3), Part(3, 3), None]
    with pytest.raises(SelectionError, match="here"):  # of this rank alone, maybe: the others must hear of it
        ctx.of_all_parts(lambda ctx: compute(ctx, SelectionError))
