"""Several ranks, and kills: the same rows, and nothing scored twice."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_dataselect.cli.main import main
from tests.processes import launch, run, start_ranks
from tests.tiny_training import write_recipe


SMALL = {"selection_budget": 0.25, "selection_dtype": "float32", "selection_batch_tokens": 256}
GENERATED = {"benchmark_metrics": ["exact_match"], "benchmark_max_new_tokens": 4}


def selection(folder: Path) -> dict:
    return json.loads((folder / "selection.json").read_text())


def by_script(_, recipe: Path, *options: str) -> None:
    command = [str(Path(sys.executable).with_name("hf-dataselect")), "train", "--config", str(recipe), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=recipe.parent)
    assert done.returncode == 0 and "Run folder: " in done.stdout, done.stderr[-4000:]


def by_accelerate(processes: int, recipe: Path, *options: str) -> None:
    launch(processes, "hf_dataselect", "train", "--config", str(recipe), *options, cwd=recipe.parent)


@pytest.mark.long
@pytest.mark.parametrize("kwargs", [{"warmup": "none"}, {"warmup_clusters": 2, "warmup_batch_size": 1}], ids=str)
def test_two_ranks_choose_the_rows_of_one_and_train_the_same_model(tmp_path, kwargs):
    # Training and warm-up average over both ranks' batches: with half of them on a rank, the updates are the same.
    recipe = write_recipe(tmp_path, n=48, **SMALL, **GENERATED, selection_kwargs=kwargs, selection_cache_dir="none")
    starts = (run, run) if "warmup_clusters" in kwargs else (by_script, by_accelerate)  # as users do
    for processes, start in zip((1, 2), starts, strict=True):
        given = kwargs | ({"warmup_gradient_accumulation": 16 // processes} if "warmup_clusters" in kwargs else {})
        options = {"output_dir": str(tmp_path / f"{processes}"), "selection_kwargs": json.dumps(given)}
        options |= {"per_device_train_batch_size": str(4 // processes), "learning_rate": "0.01"}
        start(processes, recipe, *(part for name, value in options.items() for part in (f"--{name}", value)))
    one, two = selection(tmp_path / "1"), selection(tmp_path / "2")
    assert two["facts"]["processes"] == 2 and one["facts"]["processes"] == 1
    assert one["indices"] == two["indices"] and one["dropped"] == two["dropped"]
    model, alone, together = (load_file(tmp_path / name / "model.safetensors") for name in ("model", "1", "2"))
    for name, before in model.items():
        assert (alone[name] - before).abs().max() > 1e-3, "it is trained"
        # Adam gives a gradient of nearly nothing, which is rounding, a whole step.
        assert torch.isclose(together[name], alone[name], rtol=1e-3, atol=2e-4).double().mean() > 0.999
    evaluations = [json.loads((tmp_path / name / "eval.json").read_text()) for name in "12"]
    scores = [{name: setting["score"] for name, setting in run["settings"].items()} for run in evaluations]
    assert scores[0].keys() == {"answer_loss", "token_accuracy", "exact_match"}
    assert scores[1] == pytest.approx(scores[0], rel=1e-3)
    assert [run["ranks_agree"] for run in evaluations] == [True, True]


def test_a_killed_run_scores_only_what_is_missing(tmp_path):
    recipe = write_recipe(tmp_path, n=400, **{**SMALL, "selection_batch_tokens": 128})
    whole = tmp_path / "whole"
    main(["select", "--config", str(recipe), "--output_dir", str(whole), "--selection_cache_dir", "none"])
    cache = tmp_path / "cache"
    command = ["select", "--config", str(recipe), "--output_dir", str(tmp_path / "cut")]
    command += ["--selection_cache_dir", str(cache)]
    with start_ranks(command, ranks=1, folder=tmp_path) as killed:
        deadline = time.monotonic() + 120
        while stored(cache) < 2_000 and time.monotonic() < deadline and killed.running(within=0.002):
            pass
        assert killed.running(), f"the run ended before it could be killed:\n{killed.log()}"
    assert not (tmp_path / "cut" / "selection.json").exists()
    main(command)
    resumed, reference = selection(tmp_path / "cut"), selection(whole)
    assert resumed["indices"] == reference["indices"] and resumed["dropped"] == reference["dropped"]
    passes = resumed["passes"]
    assert passes["cached_rows"] >= 2_000 // 52 and passes["cached_rows"] + passes["forward_rows"] == 800


def stored(cache: Path) -> int:
    """Bytes of results in a cache folder."""
    return sum(path.stat().st_size for path in cache.glob("*/*.rows"))
