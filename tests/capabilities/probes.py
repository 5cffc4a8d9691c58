"""What comes of a method in a mode, in the words of the code."""

import json
import re
import time
import traceback
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate.utils import gather_object

import hf_dataselect
from hf_dataselect.registry import selector_class
from hf_dataselect.training.trainer import DataSelectingTrainer
from tests.capabilities.modes import MODES, Mode, NotHere
from tests.processes import start_ranks
from tests.rows import alpaca
from tests.scripted import ScriptedJudge
from tests.selectors.small import OPTIONS, in_folders, save_models
from tests.tiny_training import tiny_trainer


PACKAGE = str(Path(hf_dataselect.__file__).parent)
#: Seconds that a method may take; a hung one is ended.
MOST = 180
#: Seconds that the other ranks may go on after one has ended.
GRACE = 20
#: First words of an outcome.
WORKS, REFUSED, FAILS, NOT_RUN = "works", "refused", "fails", "not run"
#: Works, but not with the rows of one process, or not in their order.
OTHER, REORDERED = "works, other rows", "works, other order"
#: A judge whose replies are scripted; its server is never asked.
JUDGED, SERVER = {"judge": "openai:scripted"}, {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
#: Small enough trials.
AUTO = {"kwargs": {"methods": ["length"], "auto_budget": 60.0}, "selection_budget": 8, "max_steps": 2}


def prepare(folder: Path) -> None:
    """What all probes read."""
    (folder / "folders.json").write_text(json.dumps(save_models(folder)), encoding="utf-8")
    alpaca(3, seed=9).to_json(folder / "target.jsonl")


def trainer_of(name: str, mode: Mode, folder: Path) -> DataSelectingTrainer:
    folders = json.loads((folder / "folders.json").read_text(encoding="utf-8"))
    kind, kwargs = selector_class(name), in_folders(OPTIONS.get(name, {}), folders)
    given = {"kwargs": kwargs, "selection_budget": None if kind.fixed_budget else 9, "eval_dataset": alpaca(8, seed=5)}
    given |= AUTO if name == "auto" else {}
    given |= {"selection_target": str(folder / "target.jsonl")}
    given |= JUDGED if "judge" in kind(**kwargs).needs() else {}
    return tiny_trainer(folder / name, name, **given | mode.rows(name) | mode.model(folder))


def judged(text: str) -> str:
    """A rating or tags, always the same for the same question."""
    number = len(text) + text.count("e")
    return f'["all", "kind {number % 5}", "kind {number % 11}"]' if "JSON" in text else f"{number % 6}\nFor a reason."


def outcome(name: str, mode: Mode, folder: Path) -> tuple[str, list[int]]:
    """What comes of a method, and the rows that it keeps."""
    if mode.package is not None and find_spec(mode.package) is None:
        return f"{NOT_RUN}: `{mode.package}` is not installed", []
    try:
        trainer = trainer_of(name, mode, folder)
        if trainer.args.judge is not None:
            trainer.__dict__["judge"] = ScriptedJudge(judged, trainer.args.runtime(trainer.accelerator))
        rows = mode.select(trainer).indices.tolist()
        if mode.sharded is not None and trainer.plan.uses_model and mode.sharded(trainer.model) == 0:
            return f"{FAILS}: the model was not sharded", rows
        return WORKS, rows
    except NotHere as error:
        return f"{NOT_RUN}: {error}", []
    except Exception as error:
        said = re.sub(rf"{re.escape(str(folder))}[\w/.-]*", "FOLDER", str(error)).strip().partition("\n")[0]
        raised_by = traceback.extract_tb(error.__traceback__)[-1].filename
        if isinstance(error, (ValueError, TypeError)) and raised_by.startswith(PACKAGE):
            return f"{REFUSED}: {said.replace(f'`{name}`', '`METHOD`').replace(repr(name), repr('METHOD'))}", []
        traceback.print_exc()
        return f"{FAILS}: {type(error).__name__}: {said[:200]}", []


def probe_all(key: str, names: Sequence[str], folder: Path) -> None:
    """Probe these methods, on every rank, and write down what comes of each; end where ranks may be out of step."""
    torch.set_num_threads(1)
    mode = MODES[key]
    for name in names:
        began = time.perf_counter()
        said, rows = outcome(name, mode, folder / key)
        alike = True
        if torch.distributed.is_initialized() and not said.startswith(FAILS):
            alike = len({(one, *kept) for one, kept in gather_object([(said, rows)])}) == 1
        line = {"method": name, "said": said if alike else f"{FAILS}: the ranks differ", "rows": rows}
        with open(folder / f"{key}.jsonl", "a", encoding="utf-8") as file:
            if not (torch.distributed.is_initialized() and torch.distributed.get_rank()) or said.startswith(FAILS):
                file.write(json.dumps(line | {"seconds": round(time.perf_counter() - began, 2)}) + "\n")
        if mode.ranks > 1 and (said.startswith(FAILS) or not alike):
            return


def probe(key: str, names: Sequence[str], folder: Path, tell: Callable[[dict], None] = lambda line: None) -> dict:
    """
    What comes of each method in a mode, in processes of their own: new ones go on after what ends or hangs. What is in
    the folder already is not probed again.
    """
    mode, found, results = MODES[key], dict[str, dict](), folder / f"{key}.jsonl"
    if not results.exists():
        (folder / key).mkdir(exist_ok=True)
        prepare(folder / key)
        results.touch()

    def read() -> bool:
        """Whether there is more to read than before."""
        new = [
            line for line in map(json.loads, results.read_text("utf-8").splitlines()) if line["method"] not in found
        ]
        for line in new:
            found[line["method"]] = line
            tell(line)
        return bool(new)

    read()
    while todo := [name for name in names if name not in found]:
        ranks = {"ranks": mode.ranks, "env": SERVER | mode.env, "patch": mode.patch, "timeout": 1e6}
        with start_ranks(probe_all, key, todo, folder, folder=folder, **ranks) as run:
            deadline = time.monotonic() + MOST
            while (running := run.running(within=0.5)) and time.monotonic() < deadline:
                if len(running) < mode.ranks:  # the others wait for those that ended
                    deadline = min(deadline, time.monotonic() + GRACE)
                elif read():
                    deadline = time.monotonic() + MOST
        read()
        left = [name for name in todo if name not in found]
        told = [found[name]["said"] for name in todo if name in found]
        if left and not (told and told[-1].startswith(FAILS)):
            last = [(run.log(rank).strip().splitlines() or [""])[-1] for rank in range(mode.ranks)]
            said = f"{FAILS}: it {'hangs' if running else 'ends the process'}: {' / '.join(last)}"
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"method": left[0], "said": said[:300], "rows": [], "seconds": 0.0}) + "\n")
            read()
    return found
