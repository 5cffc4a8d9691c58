"""Full and read-only disks: of the cache, and of the run folder."""

from tests.faults.case import At, Case, GoOn, Room, Run


#: Vectors of 2 MB an epoch.
_WIDE = {"selection_kwargs": {"projection_dim": 8192}}
_TRAINED = {"save_strategy": "steps", "save_steps": 1}


def _filled(method: str, phase: str, call: int, words: str) -> list[Case]:
    run = Run("select", method)
    steps = (Room("cache", "4m"), Run("select", method, At(phase, call, "wait")), Room("cache", "full"), GoOn())
    said = "can't be (saved|written|kept)"
    again = (Room("cache", "64m"), run)
    return [
        Case(
            "the cache's disk is full", f"`select`, `{method}`: from {words} on", "disk", steps, "recovered", says=said
        ),
        Case(
            "the cache's disk is full, then has room",
            f"`select`, `{method}`: from {words} on, run again",
            "disk",
            steps + again,
            "recovered",
        ),
    ]


def _at(name: str, command: str = "select", method: str = "ifd") -> Case:
    options = _TRAINED if command == "train" else {}
    return Case(
        "no space left",
        f"`{command}`, `{method}`: `{name}`; run again",
        "disk",
        (Run(command, method, At(f"writing {name}", 1, "full"), options), Run(command, method, options=options)),
        "recovered",
    )


CASES = [
    *_filled("ifd", "scoring", 3, "the 3rd batch of scores"),
    *_filled("ifd", "warm-up", 2, "the 2nd step of the warm-up"),
    *_filled("alpagasus", "judge", 20, "the 20th reply of the judge"),
    Case(
        "a cache disk of 12 kB",
        "`select`, `ifd`: before anything is computed",
        "disk",
        (Room("cache", "12k"), Run()),
        "refused",
        says="`selection_cache_dir=.*can't be written",
    ),
    Case(
        "a cache disk of 1.2 MB",
        "`select`, `less`: gradients, which are read back from the disk",
        "disk",
        (Room("cache", "1200k"), Run("select", "less", options=_WIDE)),
        "refused",
        says="make room|choose a folder",
    ),
    Case(
        "a cache disk of 1.2 MB, then of 64 MB",
        "`select`, `less`: run again with room",
        "disk",
        (
            Room("cache", "1200k"),
            Run("select", "less", options=_WIDE),
            Room("cache", "64m"),
            Run("select", "less", options=_WIDE),
        ),
        "recovered",
    ),
    _at("scores.parquet"),
    _at("selection.json"),
    _at("recipe.yaml"),
    _at("eval.json", "train", "length"),
    Case(
        "no space left",
        "`select`, `ifd`: the warm-up's weights",
        "disk",
        (Run("select", "ifd", At("writing *.safetensors", 1, "full")),),
        "recovered",
        says="can't be saved",
    ),
    Case(
        "a run folder of 8 kB",
        "`select`, `ifd`: before anything is computed",
        "disk",
        (Room("run", "8k"), Run()),
        "refused",
        says="`output_dir=.*can't be written",
    ),
    Case(
        "a run folder of 2.5 MB, then of 64 MB",
        "`train`, `length`: a checkpoint, then `--resume_from_checkpoint true`",
        "disk",
        (
            Room("run", "2500k"),
            Run("train", "length", options=_TRAINED),
            Room("run", "64m"),
            Run("train", "length", options=_TRAINED | {"resume_from_checkpoint": "true"}),
        ),
        "recovered",
    ),
    Case(
        "a read-only cache",
        "`select`, `ifd`: it holds all results",
        "disk",
        (Room("cache", "8m"), Run(), Room("cache", "read-only"), Run()),
        "recovered",
    ),
    Case(
        "a read-only cache",
        "`select`, `alpagasus`: it holds all replies",
        "disk",
        (Room("cache", "8m"), Run("select", "alpagasus"), Room("cache", "read-only"), Run("select", "alpagasus")),
        "recovered",
    ),
    Case(
        "a read-only run folder",
        "`select`, `ifd`: before anything is computed",
        "disk",
        (Room("run", "8m"), Room("run", "read-only"), Run()),
        "refused",
        says="`output_dir=.*can't be written",
    ),
]
