"""Several ranks, and kills: the same rows, and nothing scored twice."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.processes import environment, run
from tests.tiny_training import write_recipe


SMALL = {"selection_budget": 0.25, "selection_dtype": "float32", "selection_batch_tokens": 256}
GENERATED = {"benchmark_metrics": ["exact_match"], "benchmark_max_new_tokens": 4}


def selection(folder: Path) -> dict:
    return json.loads((folder / "selection.json").read_text())


@pytest.mark.parametrize("kwargs", [{"warmup": "none"}, {"warmup_clusters": 2, "warmup_batch_size": 1}], ids=str)
def test_two_ranks_choose_the_rows_of_one_and_train_the_same_model(tmp_path, kwargs):
    # Training and warm-up average over both ranks' batches: with half of them on a rank, the updates are the same.
    recipe = write_recipe(tmp_path, n=48, **SMALL, **GENERATED, selection_kwargs=kwargs, selection_cache_dir="none")
    for processes in (1, 2):
        given = kwargs | ({"warmup_gradient_accumulation": 16 // processes} if "warmup_clusters" in kwargs else {})
        options = {"output_dir": str(tmp_path / f"{processes}"), "selection_kwargs": json.dumps(given)}
        options |= {"per_device_train_batch_size": str(4 // processes), "learning_rate": "0.01"}
        run(processes, recipe, *(part for name, value in options.items() for part in (f"--{name}", value)))
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
    run(1, recipe, "--output_dir", str(whole), "--selection_cache_dir", "none", command="select")
    cache = tmp_path / "cache"
    command = [sys.executable, "-m", "hf_dataselect", "select", "--config", str(recipe)]
    command += ["--output_dir", str(tmp_path / "cut"), "--selection_cache_dir", str(cache)]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while stored(cache) < 2_000 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.002)
        assert process.poll() is None, "the run ended before it could be killed"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "cut" / "selection.json").exists()
    run(1, recipe, "--output_dir", str(tmp_path / "cut"), "--selection_cache_dir", str(cache), command="select")
    resumed, reference = selection(tmp_path / "cut"), selection(whole)
    assert resumed["indices"] == reference["indices"] and resumed["dropped"] == reference["dropped"]
    passes = resumed["passes"]
    assert passes["cached_rows"] >= 2_000 // 52 and passes["cached_rows"] + passes["forward_rows"] == 800


def stored(cache: Path) -> int:
    """Bytes of results in a cache folder."""
    return sum(path.stat().st_size for path in cache.glob("*/*.rows"))
