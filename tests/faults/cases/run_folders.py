"""Run folders: damaged files, files of two runs in one folder, and two runs at once."""

from tests.faults.case import At, Case, Damage, Run
from tests.faults.cases.kills import COMPARED, FITTED


_BASELINE = Run("train", "full", folder="full")
_TRAINED = Run("train", "length", options={"baseline_dir": "FOLDER/full"})
_OTHER = Run("train", "random", options={"baseline_dir": "FOLDER/full"}, folder="other")
_REPORT = Run("report", options={"runs": ["full", "run"]})
_FIT = Run("fit-rule", "instruction_mining", options=FITTED)
_RULED = Run(
    "select", "instruction_mining", options={"selection_kwargs": {"rule": "FOLDER/run/rule.json"}}, folder="used"
)
_COMPARED = Run("compare", "full", options=COMPARED)

#: File of a run folder, how it is damaged, in words, by, whether the short form has it.
_DAMAGES = [
    ("selection.json", "cut", "cut in half", "", False),
    ("selection.json", "empty", "emptied", "", False),
    ("selection.json", r'"indices": \[', "other rows kept", '"indices": [59, ', True),
    ("scores.parquet", "cut", "cut in half", "", False),
    ("scores.parquet", "flip", "a bit flipped", "", False),
    ("scores.parquet", "empty", "emptied", "", False),
    ("scores.parquet", "delete", "deleted", "", False),
    ("eval.json", "cut", "cut in half", "", False),
    ("eval.json", r'"score": \d', "a score changed", '"score": 9', True),
    ("eval.json", "foreign", "of another program", "", False),
    ("recipe.yaml", "cut", "cut in half", "", False),
    ("recipe.yaml", r"^", "a Python object", "a: !!python/object/apply:os.system ['touch PWNED']\n", False),
    ("versions.json", "cut", "cut in half", "", False),
]


def _damaged(name: str, how: str, words: str, by: str, short: bool) -> Case:
    return Case(
        f"`{name}`: {words}",
        "`report`: a run folder",
        "run folder",
        (_BASELINE, _TRAINED, Damage(f"run/{name}", how, by), _REPORT),
        "refused",
        says=name.replace(".", r"\."),
        short=short,
    )


def _mixed(name: str) -> Case:
    return Case(
        f"`{name}` of another run",
        "`report`: a run folder",
        "run folder",
        (_BASELINE, _TRAINED, _OTHER, Damage(f"other/{name}", "copy", f"run/{name}"), _REPORT),
        "refused",
        says=name.replace(".", r"\."),
        short=name == "scores.parquet",
    )


def _fitted(how: str, words: str, by: str = "") -> Case:
    return Case(
        f"`subsets.jsonl`: {words}",
        "`fit-rule`, `instruction_mining`: run again",
        "run folder",
        (_FIT, Damage("run/subsets.jsonl", how, by, at=0.4), _FIT),
        "recomputed",
        says=r"subsets\.jsonl: .* lines are damaged",
    )


def _used(how: str, words: str, by: str = "") -> Case:
    return Case(
        f"`rule.json`: {words}",
        "`select`, `instruction_mining`: the rule is used",
        "run folder",
        (_FIT, Damage("run/rule.json", how, by), _RULED),
        "refused",
        says=r"rule\.json",
    )


def _compared(how: str, words: str, by: str = "") -> Case:
    return Case(
        f"`compared.json`: {words}",
        "`compare`: run again",
        "run folder",
        (_COMPARED, Damage("run/length-*/compared.json", how, by), _COMPARED),
        "named",
        says=r"compared\.json",
        clean=True,
    )


def _second(fault: str, phase: str, call: int) -> Case:
    """A second method in the folder of a finished run is killed."""
    killed = Run("train", "random", At(phase, call, "kill"), {"baseline_dir": "FOLDER/full"})
    return Case(
        "SIGKILL of a second method in one folder",
        f"`report`: {fault}",
        "run folder",
        (_BASELINE, _TRAINED, killed, _REPORT),
        "refused",
        says="run",
    )


CASES = [
    *(_damaged(*damage) for damage in _DAMAGES),
    *(_mixed(name) for name in ("selection.json", "scores.parquet", "eval.json", "recipe.yaml")),
    _fitted("cut", "cut in half"),
    _fitted(r'"loss": \d', "losses changed", '"loss": 1'),
    _fitted(r'"loss": ', "losses in words", '"loss": "x", "was": '),
    _fitted("flip", "a bit flipped"),
    _used("cut", "cut in half"),
    _used("empty", "emptied"),
    _used(r'("len[^"]*": -?)\d', "a coefficient changed", r"\g<1>9"),
    _compared("cut", "cut in half"),
    _compared('"finished": true', "another content", '"finished": 5'),
    _second("between its `scores.parquet` and its `selection.json`", "writing selection.json", 1),
    _second("in its training", "training", 2),
    Case(
        "a second method in one folder",
        "`train`, `length`, then `random`",
        "run folder",
        (_BASELINE, _TRAINED, Run("train", "random", options={"baseline_dir": "FOLDER/full"})),
        "recovered",
    ),
    Case(
        "another selection in the folder of a trained run",
        "`report`: after `train`, `length`, then `select`, `random`",
        "run folder",
        (_BASELINE, _TRAINED, Run("select", "random"), _REPORT),
        "refused",
        says="run",
    ),
    Case(
        "a second run while the first one runs",
        "`select`, `ifd`: one `output_dir`",
        "run folder",
        (Run("select", "ifd", At("scoring", 2, "wait")), Run("select", "length")),
        "refused",
        says="output_dir",
        short=True,
    ),
    Case(
        "a second run while the first one trains",
        "`train`, `length`: one `output_dir`",
        "run folder",
        (Run("train", "length", At("training", 2, "wait")), Run("train", "random")),
        "refused",
        says="output_dir",
    ),
    Case(
        "a second run with equal options",
        "`select`, `ifd`: one cache, two run folders",
        "run folder",
        (Run("select", "ifd", At("scoring", 2, "wait")), Run("select", "ifd", folder="other")),
        "recovered",
    ),
]
