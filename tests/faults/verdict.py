"""What became of a case: what was lost, how it was recovered, in how many seconds, and whether that is as expected."""

import json
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.faults.case import At, Case, Damage, Run
from tests.faults.laboratory import KEY, TOKEN, Laboratory, Result, content_of, undisturbed


@dataclass
class Verdict:
    """Of a case whose runs are over, and whose folder is as they left it."""

    case: Case
    laboratory: Laboratory
    results: list[Result]
    #: Of the judge, by question.
    calls: Counter
    #: Factor of the seconds that the case may take, for a machine that is busy.
    patience: float = 1.0
    #: Why it is not what is expected.
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self):
        case, self.last = self.case, self.results[-1]
        self.faulty = next((one for one in self.results if one.run.inject is not None), self.last)
        self.said, self.log = self._said(), self.last.log
        self._check_ends()
        self._check_secrets()
        if case.says and self.said is None:
            self.wrong.append(f"nothing says {case.says!r}, but: {self._end_of(self.last)}")
        waited = [one for one in self.results if isinstance(one.run.inject, At) and one.run.inject.action == "wait"]
        for one in waited + [self.last] * (case.expected in ("recovered", "recomputed") and self.last not in waited):
            self._check_same(one)
        if case.unscorable is not None:
            self._check_unscorable()
        self.twice = self._done_twice()
        if case.expected == "recomputed" and not self.twice:
            self.wrong.append("nothing is computed anew")

    @property
    def lost(self) -> str:
        if self.case.expected == "refused" and any(isinstance(step, Damage) for step in self.case.steps):
            return "the file"
        return ", ".join(self.twice) or "nothing"

    @property
    def seconds(self) -> float:
        return self.faulty.seconds if self.case.within else self.last.seconds

    @property
    def how(self) -> str:
        """How it was recovered, or why not."""
        runs = [step for step in self.case.steps if isinstance(step, Run)]
        quoted = f"“{self.said}”" if self.said else ""
        if self.wrong:
            return "**not recovered**: " + "; ".join(self.wrong)
        if self.case.expected in ("refused", "named"):
            return f"{self.case.expected}{': ' if quoted else ''}{quoted}"
        same = "the same rows" + " and evaluation" * (runs[-1].command in ("train", "compare"))
        if self.case.expected == "recomputed":
            how = "computed anew"
        elif "resume_from_checkpoint" in runs[-1].options:
            how = "resumed"
        else:
            how = "run again" if len(runs) > 1 and runs[-1].folder == runs[0].folder else "the run goes on"
        return f"{how}, {same}{': ' if quoted else ''}{quoted}"

    def _check_ends(self) -> None:
        case = self.case
        for one in self.results:
            if not one.met_fault:
                self.wrong.append(f"the fault was not met: {one.run.inject}")
            if any(rank.hung for rank in one.ended):
                self.wrong.append("it hung")
        if case.within is not None and self.faulty.seconds > case.within * self.patience:
            self.wrong.append(f"it took {self.faulty.seconds:.1f} s, not {case.within:g}")
        if case.clean and "Traceback" in self.faulty.log:
            self.wrong.append(f"a traceback: {self._end_of(self.faulty)}")
        if case.expected == "refused":
            if "Traceback" in self.last.log:
                self.wrong.append(f"a traceback: {self._end_of(self.last)}")
            if self.last.exitcode != 2:
                self.wrong.append(f"exit code {self.last.exitcode}")

    def _check_secrets(self) -> None:
        """No secret is in any file, and on no terminal and no page what the case says may not be there."""
        found, folder = [], self.laboratory.folder
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            page = path.suffix in (".txt", ".html", ".md")
            pattern = "|".join([KEY, TOKEN, *([self.case.absent] if self.case.absent and page else [])])
            if held := re.search(pattern.encode(), path.read_bytes()):
                shown = "the log" if path.suffix == ".txt" else path.relative_to(folder)
                found.append(f"{shown} holds {held[0].decode(errors='replace')!r}")
        self.wrong += sorted(set(found))

    def _check_same(self, one: Result) -> None:
        """A run ended well, and with what the undisturbed one gives."""
        if one.exitcode:
            self.wrong.append(f"exit code {one.exitcode}: {self._end_of(one)}")
        elif one.run.command != "report":
            reference, _ = self.laboratory.reference(one.run)
            found = content_of(self.laboratory.folder / one.run.folder)
            self.wrong += [f"another {name}" for name in reference if not _alike(found.get(name), reference[name])]

    def _check_unscorable(self) -> None:
        path = self.laboratory.folder / self.last.run.folder / "selection.json"
        found = json.loads(path.read_text())["unscorable"] if path.exists() else {}
        rows = sorted(row for rows in found.values() for row in rows)
        if rows != [*self.case.unscorable]:
            self.wrong.append(f"unscorable are {rows or 'none'}, not {[*self.case.unscorable]}")

    def _done_twice(self) -> list[str]:
        """Scores, steps and calls of all runs beyond those of an undisturbed run."""
        done, last = Counter(), self.last.run
        if last.command != "report" and not any(one.exitcode == 2 for one in self.results):
            for one in self.results:
                done.update({name: count for name, count in one.tallies[0].items() if name != "fault"})
            for run in {repr(undisturbed(one.run)): one.run for one in self.results}.values():
                _, whole = self.laboratory.reference(run)
                done.subtract({name: count for name, count in whole.tallies[0].items() if name != "fault"})
        done["judge calls"] = sum(self.calls.values()) - len(self.calls)
        return [f"{count:,} {name[: -1 if count == 1 else None]}" for name, count in done.items() if count > 0]

    def _said(self) -> str | None:
        """The line that says what `case.says` asks for: of the log, or of a row's reason in the run folder."""
        if not self.case.says:
            return None
        path = self.laboratory.folder / self.last.run.folder / "selection.json"
        lines = self.last.log.splitlines()[::-1]
        lines += path.read_text(errors="replace").splitlines() if path.exists() else []
        return next((self._shown(line) for line in lines if re.search(self.case.says, line)), None)

    def _end_of(self, one: Result) -> str:
        return self._shown((one.log.strip() or "nothing").splitlines()[-1])

    def _shown(self, line: str) -> str:
        """A line of a log as the table shows it: no paths of this machine, and no longer than needed."""
        line = re.sub(r"^.*(\[hf_dataselect\]|hf-dataselect: error:) ", "", line.strip())
        for folder in (self.laboratory.folder, self.laboratory.root):
            line = line.replace(f"{folder}/", "").replace(str(folder), ".")
        line = re.sub(r"http://127\.0\.0\.1:\d+", "http://…", line)
        line = re.sub(r"\b[0-9a-f]{20,}", "…", line)
        return line if len(line) <= 160 else line[:159] + "…"


def _alike(found: Any, reference: Any) -> bool:
    """Equal, but for the rounding of numbers: rows that are computed anew are batched with others."""
    if isinstance(reference, dict) and isinstance(found, dict):
        return found.keys() == reference.keys() and all(_alike(found[name], reference[name]) for name in reference)
    if isinstance(reference, list) and isinstance(found, list):
        return len(found) == len(reference) and all(map(_alike, found, reference))
    if isinstance(reference, float) and isinstance(found, float):
        return (
            math.isclose(found, reference, rel_tol=1e-5, abs_tol=1e-6) or math.isnan(found) and math.isnan(reference)
        )
    return found == reference
