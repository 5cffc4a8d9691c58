"""Modules, commands and scripts as processes of their own, on one rank or several."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path


ROOT = Path(__file__).parents[1]


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **extra}


def run(processes: int, recipe: Path, *options: str, command: str = "train") -> subprocess.CompletedProcess:
    return launch(processes, "hf_dataselect", command, "--config", str(recipe), *options, cwd=recipe.parent)


def launch(processes: int, module: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """A module as so many processes, to its end."""
    command = [sys.executable, "-m"]
    if processes > 1:
        # Without MPI, `accelerate launch` starts several processes only with `--multi_gpu`; `use_cpu` keeps them here.
        command += ["accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
        command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        command += ["--main_process_port", "0", "-m"]
    done = subprocess.run(
        [*command, module, *arguments], env=environment(), capture_output=True, text=True, timeout=600, cwd=cwd
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def on_two_ranks(script: str, folder: Path, *arguments: str, **extra: str) -> None:
    """A script, written to `folder`, on two ranks of the CPU, to its end; `folder` is its first argument."""
    path = folder / "on_ranks.py"
    path.write_text(textwrap.dedent(script))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environs = environment(ACCELERATE_USE_CPU="true", **extra)
    command += [str(path), str(folder), *arguments]
    done = subprocess.run(command, env=environs, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
