"""What lies in a cache folder: each entry, what it is of, and which of them can go."""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from .checked import verified, write_json
from .files import check_cache
from .identity import digest
from .locks import is_locked


logger = logging.getLogger(__name__)

#: Kinds of entries that are files, by where they lie; the others are folders, of the kind that their engine names.
FILES = {
    "warm-up": "warmup/*.safetensors",
    "projection": "projection/*.json",
    "replies": "judge/responses.jsonl",
    "model": "models/*.json",
}
#: Engines that name the folders of their rows. What an earlier version or a method of one's own names is not here.
ENGINES = frozenset(
    {"embedding", "gradients", "likelihood", "nearest distance", "next_token", "noisy losses", "one-shot", "reward"}
    | {"token losses", "token ranks", "tuned loss", "yes or no"}
)
#: Kinds that are only removed if they are named: a judge was paid for its replies, and the others take no room.
KEPT = frozenset({"replies", "model"})


class Entry(NamedTuple):
    """A folder of rows, or a file."""

    path: Path
    #: Its engine, or one of [`FILES`].
    kind: str
    #: Name of the model that it is of, `""` where that is not known.
    model: str
    #: Bytes.
    size: int
    #: When it was last written to, in seconds since 1970.
    written: float

    @property
    def in_use(self) -> bool:
        """Whether a run is computing what it holds."""
        folder = self.path if self.path.is_dir() else self.path.parent
        return any(map(is_locked, folder.glob("*.lock")))


def note_model(cache_dir: Path, identity: str, model: nn.Module) -> None:
    """Write down what a model is called whose results are kept by its identity."""
    path = Path(cache_dir) / "models" / f"{identity}.json"
    try:
        if not path.exists() and check_cache(cache_dir):
            path.parent.mkdir(parents=True, exist_ok=True)
            config = getattr(model, "config", None)
            write_json(path, {"name": getattr(config, "_name_or_path", "") or type(model).__name__})
    except OSError as error:  # a name is all that is missing
        logger.debug("%s can't be written: %s", path, error)


def entries(cache_dir: Path) -> list[Entry]:
    """The entries of a cache folder, the largest first, without files that this package did not write."""
    names = {path.stem: _described(path).get("name", "") for path in cache_dir.glob(FILES["model"])}
    listed = [_entry(path, kind, names) for kind, pattern in FILES.items() for path in cache_dir.glob(pattern)]
    for path in cache_dir.glob("*/namespace.json"):
        namespace = _described(path)
        if digest(namespace) == path.parent.name:
            listed.append(_entry(path.parent, str(namespace.get("engine", "")), names, namespace))
    return sorted(listed, key=lambda entry: entry.size, reverse=True)


def remove(entry: Entry) -> None:
    """
    Remove an entry.

    Raises:
        `OSError`: it can't be removed.
    """
    if entry.path.is_dir():
        shutil.rmtree(entry.path)
    else:
        entry.path.unlink(missing_ok=True)


def _entry(path: Path, kind: str, names: dict[str, str], namespace: dict[str, Any] | None = None) -> Entry:
    model = names.get(path.stem, "") if kind == "model" else next(_named(namespace, names), "")
    stats = [file.stat() for file in (path.iterdir() if path.is_dir() else [path])]
    return Entry(path, kind, model, sum(s.st_size for s in stats), max(s.st_mtime for s in stats))


def _named(value: Any, names: dict[str, str]) -> Iterator[str]:
    """Names of the models whose identities are in a namespace."""
    if isinstance(value, dict):
        for part in value.values():
            yield from _named(part, names)
    elif isinstance(value, str) and value in names:
        yield names[value]


def _described(path: Path) -> dict[str, Any]:
    try:
        return verified(json.loads(path.read_bytes().decode()), unchecked=True)
    except (OSError, ValueError, RecursionError):
        return {}
