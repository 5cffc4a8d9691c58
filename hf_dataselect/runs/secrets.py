"""What is never written: tokens, keys and passwords among options, and credentials in URLs."""

import copy
import json
import re
from typing import Any, Self


_SECRET = re.compile(
    r"(^|_)((auth|access|hub|hf|api|bearer|refresh|session|secret|private|account)_?(token|key)|token|apikey|"
    r"pass(word|wd|phrase)|secret|credentials?|authorization)$",
    re.IGNORECASE,
)
#: Options that name a token of text.
_TEXT = re.compile(r"(^|_)(eos|bos|pad|unk|sep|cls|mask|image|audio|video|boi|eoi)_token$", re.IGNORECASE)
#: `https://user:password@host`, and the parameter of a URL that signs it.
_IN_URL = re.compile(
    r"(?<=://)[^/\s@]+@|(?<=[?&])[\w-]*(?:token|key|signature|secret|password)=[^&\s]*&?", re.IGNORECASE
)


def without_secrets(value: Any) -> Any:
    """Options without the entries that hold secrets, at any depth, and without credentials in URLs."""
    if isinstance(value, dict):
        return {name: without_secrets(item) for name, item in value.items() if not _is_secret(name)}
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(map(without_secrets, value))
    return _without_in_text(value) if type(value) is str else value


def _is_secret(name: Any) -> bool:
    name = str(name).replace("-", "_")
    return bool(_SECRET.search(name)) and not _TEXT.search(name)


def _without_in_text(text: str) -> Any:
    """A text without credentials; options as JSON, as the command line takes them, become options."""
    if text.lstrip().startswith(("{", "[")):
        try:
            options = json.loads(text)
        except (ValueError, RecursionError):
            options = None
        if isinstance(options, (dict, list)) and (cleared := without_secrets(options)) != options:
            return cleared
    return _IN_URL.sub("", text)


class WithoutSecrets:
    """Mixed into [`~transformers.TrainingArguments`]: pickled or logged, they hold no secrets. Copies do."""

    def to_dict(self) -> dict[str, Any]:
        """As [`~transformers.TrainingArguments.to_dict`], which trackers log, without secrets at any depth."""
        return without_secrets(super().to_dict())  # type: ignore[misc]

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled, as into `training_args.bin`. A process that unpickles it has no secrets."""
        gone = {name for name in self.__dict__ if _is_secret(name)}
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
