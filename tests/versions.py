"""
`python -m tests.versions` runs the core part of the suite on the versions that are installed, whatever they are, and
writes them with the result into the table of docs/versions.md. `make test-lowest` and `make test-newest` call it.
"""

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path


ROOT = Path(__file__).parents[1]
#: What other versions change: private names, preparation, templates, configs, scores, training.
CORE = ["tests/test_compat.py", "tests/data/test_preparation.py", "tests/test_service.py"]
CORE += ["tests/training/test_config.py", "tests/training/test_equal.py", "tests/training/test_trainer.py"]
CORE += ["tests/training/test_trainer_runs.py"]
#: It asks for the versions of constraints.txt, which are not these.
LEFT_OUT = "tests/test_compat.py::test_versions_are_those_of_the_constraints"
SHOWN = ["trl", "transformers", "torch", "accelerate", "datasets", "peft", "huggingface_hub", "bitsandbytes", "numpy"]
TABLE = ROOT / "docs" / "versions.md"


def main() -> int:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--tb=short",
        "--deselect",
        LEFT_OUT,
        *CORE,
    ]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    counts = done.stdout.strip().splitlines()[-1].strip("= ").partition(" in ")[0]
    cells = [platform.python_version(), *map(version, SHOWN)]
    start = f"| {' | '.join(cells)} |"
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if not line.startswith(start)]
    TABLE.write_text("\n".join([*lines, f"{start} {counts} |"]) + "\n", encoding="utf-8")
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main())
