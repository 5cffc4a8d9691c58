"""
Scenarios (`hf-dataselect scenario`): a question that a user has, as a pool, a target, held-out rows and a comparison.

A scenario is a YAML file, see [`Scenario`]. Its rows are drawn once, into files that later commands use as they are;
the comparison then runs on these files as any other does.
"""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import recipe_files
from ..data.leakage import overlap
from ..data.load import load_rows
from ..data.near_duplicates import NearDuplicates, add_near_duplicates
from ..data.noise import Corruption, corrupt
from ..data.pool import Row, Source, draw, located, mixed, write_rows
from ..data.records import Records
from ..data.rows_hash import rows_hash
from ..engines.store.checked import read_json, write_json
from ..errors import Checks
from ..options import NonNegativeInt, check_declared, nearest, typed_options
from ..parsing import read_yaml


#: The scenarios that come with the package.
FOLDER = recipe_files.FOLDER / "scenarios"
#: In a scenario's folder: what its rows were drawn by, and the hash of each file.
DRAWN = "drawn.json"


@dataclass
class Scenario:
    """
    A question, and what it takes to answer it.

    Args:
        question (`str`):
            One sentence.
        pool (`list[Source]`):
            Where the candidates come from.
        held_out (`dict[str, list[Source]]`):
            Test sets by name: where harm matters, one for each domain.
        compare (`dict`):
            Options of `hf-dataselect compare`: methods, budgets, seeds, training.
        target (`list[Source]`, *optional*):
            Target-task examples, in neither pool nor test sets.
        corrupt ([`Corruption`], *optional*):
            Faults to plant in the pool.
        duplicate ([`NearDuplicates`], *optional*):
            Near-duplicates to add to it.
        equal (`list[str]`, *optional*):
            One comparison for each, see `equal` of `hf-dataselect compare`.
        pool_seed (`int`, *optional*, defaults to `0`):
            Another one draws other rows: of pool, target and test sets.
    """

    question: str
    pool: list[Source]
    held_out: dict[str, list[Source]]
    compare: dict[str, Any]
    target: list[Source] = field(default_factory=list)
    corrupt: Corruption | None = None
    duplicate: NearDuplicates | None = None
    equal: list[str] = field(default_factory=lambda: ["epochs", "updates"])
    pool_seed: NonNegativeInt = 0

    def __post_init__(self):
        check_declared(self)
        for name in self.held_out:
            if name in ("pool", "target") or not re.fullmatch(r"[\w.+-]+", name):
                raise ValueError(
                    f"`held_out`: {name!r} can't name a test set: choose another name than 'pool' and 'target', of "
                    "letters, digits and . _ + -."
                )

    @property
    def count_by(self) -> str:
        """The column by which the report counts the rows kept."""
        return "fault" if self.corrupt or self.duplicate else "source"


def names() -> list[str]:
    """The scenarios that come with the package."""
    return recipe_files.recipe_names("scenarios")


def load_scenario(name: str, places: Mapping[str, Any] | None = None) -> Scenario:
    """
    A scenario by name, or from a YAML file of the user's own.

    Args:
        name (`str`):
            Name, or path of a `.yaml` file. Its `base` may name a scenario that it changes: options of `compare` are
            changed one by one, everything else is replaced.
        places (`Mapping`, *optional*):
            Where datasets lie on this machine, see [`~pool.located`]; models of `compare`, too.

    Raises:
        `ValueError`: no such scenario, or a wrong, unknown or missing option; all of them at once.
    """
    described = describe(name)
    what, checks = f"scenario {name!r}", Checks()
    known = [item.name for item in dataclasses.fields(Scenario)]
    for key in described.keys() - known:
        checks.errors.append(ValueError(f"{what} has no option {key!r}{nearest(str(key), known)}"))
    for key in ("question", "pool", "held_out", "compare"):
        if not described.get(key):
            checks.errors.append(ValueError(f"{what} needs `{key}`."))
    checks.finish()
    places = places or {}
    held_out = described["held_out"]
    if not isinstance(held_out, dict):
        raise ValueError(f"{what}: `held_out` must map the name of each test set to its rows, got {held_out!r}.")
    given = {
        "pool": checks(_sources, described["pool"], "pool", places),
        "target": checks(_sources, described.get("target") or [], "target", places),
        "held_out": {key: checks(_sources, item, f"held_out: {key}", places) for key, item in held_out.items()},
    }
    for key, kind in (("corrupt", Corruption), ("duplicate", NearDuplicates)):
        if described.get(key):
            given[key] = checks(_made, kind, described[key], key)
    checks.finish()
    compare = _placed(described["compare"], places)
    return typed_options(Scenario, described | given | {"compare": compare}, what)


def _placed(value: Any, places: Mapping[str, Any]) -> Any:
    """The options with each model that the mapping has in its place."""
    if isinstance(value, dict):
        return {name: _placed(item, places) for name, item in value.items()}
    place = places.get(value) if isinstance(value, str) else None
    return value if place is None or isinstance(place, Mapping) else str(place)


def describe(name: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The mapping of a scenario's file, merged into that of its base; `above` are scenarios that have it as base."""
    own = name.endswith((".yaml", ".yml"))
    path = Path(name).expanduser() if own else FOLDER / f"{name}.yaml"
    if not path.is_file():
        if own:
            raise ValueError(f"scenario {name!r}: there is no such file.")
        raise ValueError(f"scenario {name!r} does not exist{nearest(name, names())}")
    described = read_yaml(path, f"scenario {name!r}")
    if not isinstance(described, dict):
        raise ValueError(f"scenario {name!r} must be a mapping of options in YAML.")
    base = described.pop("base", None)
    if base is None:
        return described
    if base in (above := (*above, name)):
        raise ValueError(f"scenario {name!r}: `base={base!r}` leads back to it.")
    changed = describe(str(base), above)
    given = described.get("compare") or {}
    if not isinstance(given, dict):
        raise ValueError(f"scenario {name!r}: `compare` must be a mapping of options, got {given!r}.")
    kwargs = changed["compare"].get("method_kwargs", {}) | (given.get("method_kwargs") or {})
    return changed | described | {"compare": changed["compare"] | given | {"method_kwargs": kwargs}}


def _made(kind: type, given: Any, option: str) -> Any:
    """An instance, whose missing options are named."""
    required = [
        item.name for item in dataclasses.fields(kind) if item.default is item.default_factory is dataclasses.MISSING
    ]
    if isinstance(given, dict) and (missing := [name for name in required if name not in given]):
        raise ValueError(f"`{option}` needs `{'` and `'.join(missing)}`.")
    return typed_options(kind, given, option)


def _sources(given: Any, option: str, places: Mapping[str, Any]) -> list[Source]:
    given = [given] if isinstance(given, dict) else given
    if not isinstance(given, list) or not all(isinstance(item, dict) for item in given):
        raise ValueError(f"`{option}` must be a list of mappings such as {{dataset: ..., rows: 100}}, got {given!r}.")
    checks = Checks()
    sources = [checks(lambda item=item: located(_made(Source, item, option), places)) for item in given]
    checks.finish()
    return sources


def drawn_rows(scenario: Scenario) -> dict[str, list[Row]]:
    """
    The rows of a scenario: `pool`, `target` and each test set, none in two of them.

    Raises:
        `ValueError`: a source that can't be read or is too small; all of them at once.
    """
    seed, checks, taken = scenario.pool_seed, Checks(), set()
    drawn = {name: checks(draw, sources, seed, taken) for name, sources in scenario.held_out.items()}
    drawn["target"] = checks(draw, scenario.target, seed, taken)
    drawn["pool"] = checks(draw, scenario.pool, seed, taken)
    checks.finish()
    if scenario.corrupt:
        drawn["pool"] = corrupt(drawn["pool"], scenario.corrupt, seed)
    if scenario.duplicate:
        drawn["pool"] = add_near_duplicates(drawn["pool"], scenario.duplicate, seed)
    return {name: mixed(rows, seed) for name, rows in drawn.items() if rows}


def make_rows(scenario: Scenario, folder: Path) -> dict[str, Path]:
    """
    Draw the rows of a scenario into files, or check those that lie there.

    Args:
        scenario ([`Scenario`]):
            The scenario.
        folder (`Path`):
            Where the files are, or will be.

    Returns:
        `dict[str, Path]`: the files of `pool`, `target` (if there is one) and each test set.

    Raises:
        `ValueError`: the files were drawn by other options, or were changed; or see [`drawn_rows`].
    """
    asked = {item.name: getattr(scenario, item.name) for item in dataclasses.fields(scenario)}
    asked = {name: value for name, value in asked.items() if name not in ("question", "compare", "equal")}
    asked = json.loads(json.dumps(asked, default=dataclasses.asdict))
    if (folder / DRAWN).is_file():
        return _files_of(read_json(folder / DRAWN), asked, folder)
    drawn = drawn_rows(scenario)
    folder.mkdir(parents=True, exist_ok=True)
    files, hashes = {name: folder / f"{name}.jsonl" for name in drawn}, {}
    for name, rows in drawn.items():
        write_rows(rows, files[name])
        hashes[name] = rows_hash(load_rows(str(files[name])))
    records = {name: Records(load_rows(str(path)), name=name) for name, path in files.items()}
    for name in records:
        shared = overlap(records[name], {other: records[other] for other in records if other != name})
        if shared:
            raise AssertionError(f"`{name}` shares rows with {', '.join(shared)}")
    write_json(folder / DRAWN, {"asked": asked, "rows": hashes})
    return files


def _files_of(drawn: dict[str, Any], asked: dict[str, Any], folder: Path) -> dict[str, Path]:
    """The files that were drawn before, if they are what is asked for."""
    held = drawn["asked"]
    if differ := [name for name in asked if held.get(name) != asked[name]]:
        said = "; ".join(f"`{name}` was {json.dumps(held.get(name))}, is {json.dumps(asked[name])}" for name in differ)
        raise ValueError(
            f"`output_dir`: {folder} holds rows that were drawn by other options ({said}). Choose another "
            "`output_dir`, or delete that folder."
        )
    files = {name: folder / f"{name}.jsonl" for name in drawn["rows"]}
    for name, path in files.items():
        if not path.is_file() or rows_hash(load_rows(str(path))) != drawn["rows"][name]:
            raise ValueError(
                f"`output_dir`: {path} is missing or was changed: delete {folder}, and draw the rows anew."
            )
    return files


def counted(path: Path) -> str:
    """Number of rows of a file, by source and fault."""
    rows = load_rows(str(path))
    parts = []
    for column in ("source", "fault"):
        counts = Counter(rows[column])
        if set(counts) != {"none"}:
            parts.append(", ".join(f"{number:,} {name}" for name, number in counts.most_common()))
    return f"{len(rows):,} rows: {'; '.join(parts)}"


def comparison_of(scenario: Scenario, equal: str, folder: Path, files: Mapping[str, Path]) -> dict[str, Any]:
    """Options of `hf-dataselect compare` for the rows in these files; all test sets are benchmarks."""
    test_sets = [name for name in files if name not in ("pool", "target")]
    given = {
        "dataset_name": str(files["pool"]),
        "selection_target": str(files["target"]) if "target" in files else None,
        "benchmarks": [{"kind": "held_out", "name": name, "dataset": str(files[name])} for name in test_sets],
        "output_dir": str(folder / equal),
        "count_by": scenario.count_by,
        "equal": equal,
        "eval_strategy": "no",
    }
    return scenario.compare | {name: value for name, value in given.items() if value is not None}
