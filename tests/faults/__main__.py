"""Inject all faults and write `docs/faults.md`; `python -m tests.faults PATTERN` writes some lines of it anew."""

import multiprocessing
import os
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor


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

    from tests.faults.case import Room
    from tests.faults.cases import CASES
    from tests.faults.examine import examine
    from tests.faults.table import PAGE, merged, page

    pattern = sys.argv[1] if len(sys.argv) > 1 else ""
    cases = [case for case in CASES if re.search(pattern, case.name)]
    if not mounting and any(isinstance(step, Room) for case in cases for step in case.steps):
        raise SystemExit("Disks of a size need `unshare` of Linux, and leave to mount: run it as root.")
    kinds = [kind for kind, _ in Counter(case.kind for case in cases).most_common()]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        lines = [line for found in pool.map(examine, kinds, [pattern] * len(kinds)) for line in found]
    PAGE.write_text(page(merged(CASES, lines)), encoding="utf-8")
    print(f"Written: {PAGE}")


if __name__ == "__main__":
    main()
