"""Inside a run: faults at a phase, and a tally of the work done, which outlives a kill."""

import errno
import fnmatch
import importlib
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults.case import At, Nan
from tests.sharded import shard_on_cpus


#: What ends each phase, and whether the fault comes after it.
PHASES = {
    "scoring": ("hf_dataselect.engines.store.row_store:RowStore.append", True),
    "vectors": ("hf_dataselect.engines.store.vector_store:VectorStore.append", True),
    "warm-up": ("transformers:Trainer.training_step", False),
    "judge": ("hf_dataselect.engines.store.replies:ReplyStore.append", True),
    "training": ("transformers:Trainer.training_step", False),
    "evaluation": ("hf_dataselect.evaluation.benchmarks.held_out:HeldOut.run", False),
    "checkpoint": ("transformers:Trainer._save_optimizer_and_scheduler", False),
    "random state": ("transformers:Trainer._save_rng_state", False),
    "model": ("transformers:Trainer._save", False),
    "loss of a subset": ("hf_dataselect.fitted.subset_losses:SubsetLosses._add", True),
    "writing": ("os:replace", False),
}


@dataclass
class Patch:
    """Called in each rank before its command: counts the work in the file `tally-RANK`, and injects."""

    tally: Path
    inject: At | Nan | None = None

    def __call__(self, rank: int) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
        shard_on_cpus()
        self.done = {"scores": 0, "warm-up steps": 0, "training steps": 0}
        self.file = os.open(f"{self.tally}-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self._note()
        _wrap("hf_dataselect.engines.store.row_store:RecordStore.append", before=self._count_rows)
        _wrap("transformers:Trainer.training_step", before=self._count_step)
        if isinstance(self.inject, Nan):
            _nan_for(self.inject.character)
        elif self.inject is not None and self.inject.rank == rank:
            self._arm(self.inject)

    def _note(self, **more: float) -> None:
        self.done |= more
        os.pwrite(self.file, json.dumps(self.done).ljust(300).encode(), 0)

    def _count_rows(self, store, keys, *arguments, **options) -> None:
        self._note(scores=self.done["scores"] + len(keys))

    def _count_step(self, trainer, *arguments, **options) -> None:
        name = "training steps" if _is_training(trainer) else "warm-up steps"
        self._note(**{name: self.done[name] + 1})

    def _arm(self, at: At) -> None:
        phase, _, name = at.phase.partition(" ") if at.phase.startswith("writing") else (at.phase, "", "")
        seen = 0

        def meet(*arguments, **options) -> None:
            nonlocal seen
            if phase in ("warm-up", "training") and _is_training(arguments[0]) != (phase == "training"):
                return
            if phase == "writing" and not fnmatch.fnmatch(str(arguments[1]), f"*/{name}"):
                return
            seen += 1
            if seen == at.call:
                time.sleep(at.pause)
                self._note(fault=time.monotonic())
                self._act(at.action, str(arguments[-1]))

        what, after = PHASES[phase]
        _wrap(what, **{"after" if after else "before": meet})

    def _act(self, action: str, target: str) -> None:
        sys.stderr.flush()
        if action == "raise":
            raise RuntimeError("the injected error")
        if action == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)
        if action == "wait":
            end = time.monotonic() + 60
            while not self.tally.with_name("go").exists() and time.monotonic() < end:
                time.sleep(0.02)
            return
        os.kill(os.getpid(), getattr(signal, f"SIG{action.upper()}"))
        time.sleep(0.3)  # until it arrives


def _is_training(trainer) -> bool:
    from hf_dataselect.training.trainer import DataSelectingTrainer

    return isinstance(trainer, DataSelectingTrainer)


def _wrap(what: str, before=None, after=None) -> None:
    module, _, path = what.partition(":")
    owner = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    real = getattr(owner, name)

    def wrapped(*arguments, **options):
        if before is not None:
            before(*arguments, **options)
        result = real(*arguments, **options)
        if after is not None:
            after(*arguments, **options)
        return result

    setattr(owner, name, wrapped)


def _nan_for(character: str) -> None:
    import transformers

    from tests.tiny import tiny_tokenizer

    (token,) = tiny_tokenizer()(character, add_special_tokens=False)["input_ids"]
    real = transformers.LlamaModel.forward

    def forward(self, *arguments, **options):
        output = real(self, *arguments, **options)
        ids = options.get("input_ids", arguments[0] if arguments else None)
        if ids is not None and (ids == token).any():
            states = output.last_hidden_state.clone()
            states[(ids == token).any(1)] = float("nan")
            output.last_hidden_state = states
        return output

    transformers.LlamaModel.forward = forward
