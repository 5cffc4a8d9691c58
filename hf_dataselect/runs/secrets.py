"""What is never written: tokens, keys and passwords among options, and credentials in URLs."""

import copy
import json
import re
from typing import Any, Self

from ..errors import without_credentials


_SECRET = re.compile(
    r"(^|_)((auth|access|hub|hf|hugging_?face|api|bearer|refresh|session|security|secret|private|personal|account|"
    r"github|gitlab|wandb|openai)_?(token|key)|apikey|pass(word|wd|phrase)|pwd|secret|credentials?|authorization|bearer|"
    r"cookies?|conn(ection)?_?str(ing)?)$|^token$",
    re.IGNORECASE,
)
#: Value of an option `..._token` that is no token of text.
_RANDOM = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[\w.~+/=-]{20,}")


def without_secrets(value: Any) -> Any:
    """Options without the entries that hold secrets, at any depth, and without credentials in URLs."""
    if isinstance(value, dict):
        return {name: without_secrets(item) for name, item in value.items() if not _is_secret(name, item)}
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(map(without_secrets, value))
    return _without_in_text(value) if type(value) is str else value


def _is_secret(name: Any, value: Any) -> bool:
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(name)).replace("-", "_")
    random = name.lower().endswith("_token") and isinstance(value, str) and _RANDOM.fullmatch(value)
    return bool(_SECRET.search(name) or random)


def _without_in_text(text: str) -> Any:
    """A text without credentials; options as JSON, as the command line takes them, become options."""
    if text.lstrip().startswith(("{", "[")):
        try:
            options = json.loads(text)
        except (ValueError, RecursionError):
            options = None
        if isinstance(options, (dict, list)) and (cleared := without_secrets(options)) != options:
            return cleared
    return without_credentials(text)


class WithoutSecrets:
    """Mixed into [`~transformers.TrainingArguments`]: pickled or logged, they hold no secrets. Copies do."""

    def to_dict(self) -> dict[str, Any]:
        """As [`~transformers.TrainingArguments.to_dict`], which trackers log, without secrets at any depth."""
        return without_secrets(super().to_dict())  # type: ignore[misc]

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled, as into `training_args.bin`. A process that unpickles it has no secrets."""
        gone = {name for name, item in self.__dict__.items() if _is_secret(name, item)}
        return without_secrets(self.__dict__) | dict.fromkeys(gone)

    def __copy__(self) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        other = object.__new__(type(self))
        memo[id(self)] = other
        other.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return other
