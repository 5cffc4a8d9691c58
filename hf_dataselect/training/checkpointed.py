"""[`Checkpointed`]: a callback whose state is in each checkpoint, so that a resumed run goes on as it would have."""

import base64
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..engines.store.checked import read_json, write_json


class Checkpointed(TrainerCallback, ABC):
    """
    A callback that writes its state beside the weights of each checkpoint, and reads it back where a run resumes.
    """

    #: Name of the file.
    FILE: ClassVar[str]
    #: The checkpoint that training resumes from, where it is not in `output_dir`.
    resumed_from: Path | None = None

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, as JSON."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a [`state_dict`]."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        if not state.global_step:
            return
        path = (self.resumed_from or _checkpoint(args, state)) / self.FILE
        if not path.is_file():
            raise ValueError(
                f"`resume_from_checkpoint`: {path} is missing, so that other rows would be drawn: resume from a "
                "checkpoint that has it."
            )
        self.load_state_dict(read_json(path, "Resume from another checkpoint."))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        if args.should_save:
            write_json(_checkpoint(args, state) / self.FILE, self.state_dict())


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"


def packed(value: Any) -> Any:
    """Mappings and lists with arrays as JSON, bit for bit."""
    if isinstance(value, dict):
        return {name: packed(item) for name, item in value.items()}
    if isinstance(value, list):
        return [packed(item) for item in value]
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.str, "shape": value.shape, "data": base64.b64encode(value.tobytes()).decode()}
    return value


def unpacked(value: Any) -> Any:
    """What [`packed`] was given."""
    if isinstance(value, list):
        return [unpacked(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"dtype", "shape", "data"}:
        return np.frombuffer(base64.b64decode(value["data"]), value["dtype"]).reshape(value["shape"]).copy()
    return {name: unpacked(item) for name, item in value.items()}
