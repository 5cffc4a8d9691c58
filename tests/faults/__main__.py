"""Inject all faults and write `docs/faults.md`; `python -m tests.faults PATTERN` only shows what becomes of some."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path


#: Ways to a process that may mount disks of its own; Linux only.
_MOUNTING = (["unshare", "--map-root-user", "--mount"], ["unshare", "--mount"])


def may_mount() -> bool:
    """Whether this process can mount; if another one can, that one takes its place."""
    if "FAULTS_MOUNT" not in os.environ:
        for command in _MOUNTING:
            try:
                able = subprocess.run([*command, "true"], capture_output=True).returncode == 0
            except FileNotFoundError:
                able = False
            if able:
                os.environ["FAULTS_MOUNT"] = "yes"
                os.execvp(command[0], [*command, sys.executable, "-m", "tests.faults", *sys.argv[1:]])
    return os.environ.get("FAULTS_MOUNT") == "yes"


def main() -> None:
    mounting = may_mount()

    import tests.conftest  # noqa: F401  no hub, one thread
    from tests.faults.case import Room
    from tests.faults.cases import CASES
    from tests.faults.conduct import conduct
    from tests.faults.laboratory import Laboratory
    from tests.faults.table import PAGE, line, page

    pattern = sys.argv[1] if len(sys.argv) > 1 else None
    cases = [case for case in CASES if pattern is None or re.search(pattern, f"{case.kind}: {case.name}")]
    if not mounting and any(isinstance(step, Room) for case in cases for step in case.steps):
        raise SystemExit("Disks of a size need `unshare` of Linux, and leave to mount: run it as root.")
    verdicts = []
    with tempfile.TemporaryDirectory() as root, Laboratory(Path(root) / "laboratory") as laboratory:
        for case in cases:
            verdicts.append(conduct(case, laboratory))
            print(f"{len(verdicts)}/{len(cases)} {line(verdicts[-1])}", flush=True)
            if pattern is not None and verdicts[-1].wrong:
                print(verdicts[-1].log[-4000:], flush=True)
    if pattern is None:
        PAGE.write_text(page(verdicts), encoding="utf-8")
        print(f"Written: {PAGE}")


if __name__ == "__main__":
    main()
