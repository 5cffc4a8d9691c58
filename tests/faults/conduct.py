"""A case from its first run to its verdict."""

import re
import shutil
from pathlib import Path

from tests.faults.case import At, Case, Damage, GoOn, Room, Run, Server
from tests.faults.laboratory import Laboratory, mount
from tests.faults.verdict import Verdict


def _flip(content: bytes, damage: Damage) -> bytes:
    place = min(int(len(content) * damage.at), len(content) - 1)
    return content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]


def _flip_many(content: bytes, damage: Damage) -> bytes:
    changed, step = bytearray(content), max(1, len(content) // 200)
    for place in range(len(content) - 1, len(content) // 2, -step):
        changed[place] ^= 0x03
    return bytes(changed)


#: What happens to a file's content.
DAMAGE = {
    "flip": _flip,
    "flip many": _flip_many,
    "cut": lambda content, damage: content[: int(len(content) * damage.at)],
    "empty": lambda content, damage: b"",
    "zeros": lambda content, damage: bytes(len(content)),
    "foreign": lambda content, damage: b"\xff\xfe of another program\n",
    "in front": lambda content, damage: b"xxxxx" + content,
    "nested": lambda content, damage: content + b"\n" + b"[" * 100_000 + b"\n",
}


def conduct(case: Case, laboratory: Laboratory, patience: float = 1) -> Verdict:
    """Run a case; `patience` lengthens the seconds that it may take, for a machine that is busy."""
    begun = [isinstance(step, Run) and step.inject is None for step in case.steps[:-1]] + [False]
    first = begun.index(False) if case.server == Server() else 0
    results, called = laboratory.begin(case.steps[:first])
    laboratory.serve(case.server)
    folder, waiting = laboratory.folder, None
    for step in case.steps[first:]:
        if isinstance(step, Room):
            mount(folder / step.folder, step.size)
        elif isinstance(step, Damage):
            _damage(folder, step)
        elif isinstance(step, Run):
            running = laboratory.start(step)
            if isinstance(step.inject, At) and step.inject.action == "wait":
                running.await_fault()
                waiting = running
                continue
            results.append(running.finish())
        if waiting is not None and isinstance(step, (Run, GoOn)):
            (folder / "go").touch()
            results.insert(0 if isinstance(step, Run) else len(results), waiting.finish())
            waiting = None
    called += laboratory.server.calls
    return Verdict(case, laboratory, results, called, patience)


def _damage(folder: Path, damage: Damage) -> None:
    paths = [path for path in sorted(folder.glob(damage.files)) if path.is_file() or damage.how == "delete"]
    assert paths, f"no file is like {damage.files}"
    for path in paths:
        if damage.how == "delete":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif damage.how == "copy":
            for target in [*folder.glob(damage.by)] or [folder / damage.by]:
                shutil.copyfile(path, target)
        elif damage.how in DAMAGE:
            path.write_bytes(DAMAGE[damage.how](path.read_bytes(), damage))
        else:
            content, places = re.subn(
                damage.how.encode(), damage.by.encode(errors="surrogateescape"), path.read_bytes()
            )
            assert places, f"{path} has nothing like {damage.how}"
            path.write_bytes(content)
