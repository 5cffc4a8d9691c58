"""The script for a machine with a GPU, on a CPU: each part gives numbers, one that fails or has no time says so."""

import json
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gpu import COLUMNS, LIMITS, Bench, main, table


def test_a_dry_run_measures_every_part(tmp_path, capsys):
    threads = torch.get_num_threads()
    main([str(tmp_path), "--dry_run", "--seconds", "200"])
    found = json.loads((tmp_path / "gpu.json").read_text("utf-8"))
    lines = {line["part"]: line for line in found["results"]}
    assert set(lines) == {
        "losses",
        "states",
        "one-shot pairs",
        "gradients",
        "LESS features",
        "Superfiltering",
    }
    assert all(line["engine"] > 0 and line["memory GB"] > 0 for line in lines.values())
    assert all(np.isfinite(lines[part]["ratio"]) for part in ("losses", "states", "one-shot pairs", "gradients"))
    assert lines["losses"]["largest difference"] < 0.05 > lines["one-shot pairs"]["largest difference"]
    assert 0 < lines["losses"]["share"] < 1 and "12 of 12" in lines["LESS features"]["what"]
    page = (tmp_path / "gpu.md").read_text("utf-8")
    assert page == table(found["facts"], found["results"]) and page.count("\n|") == 8 and "TFLOP/s" in page
    assert threads == torch.get_num_threads() and "| losses | 135M | tokens/s |" in capsys.readouterr().out


def test_parts_are_limited_and_written_at_once(tmp_path, monkeypatch):
    monkeypatch.setitem(LIMITS, "losses", 0.2)
    bench = Bench(tmp_path, True, time.perf_counter() + 60, torch.device("cpu"))
    bench.part("losses", "7B", lambda: time.sleep(0.4) or {"what": "never", "engine": 1.0})
    bench.part("states", "7B", lambda: {"what": "tokens/s", "engine": 1 / 0})
    bench.deadline = 0
    bench.part("gradients", "7B", lambda: pytest.fail("there is no time"))
    said = [
        (line.get("failed") or line["left out"]) for line in json.loads((tmp_path / "gpu.json").read_text())["results"]
    ]
    assert said == ["TimeoutError: its 0 s were over", "ZeroDivisionError: division by zero", "the time was up"]
    assert all(line.count("|") == len(COLUMNS) + 1 for line in (tmp_path / "gpu.md").read_text().splitlines()[2:])


def test_without_a_gpu_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="torch sees no GPU here"):
        main([str(tmp_path)])


def test_the_script_is_sound_bash():
    script = Path(__file__).parents[1] / "benchmarks" / "gpu.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
