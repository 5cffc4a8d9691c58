"""Kills and Ctrl-C at each phase of six methods: the run is started again."""

from tests.faults.case import At, Case, Run


FITTED = {"subsets": 6, "subset_rows": 10, "indicators": ["len", "mtld"], "max_steps": None, "num_train_epochs": 1}
_SAVED = {"save_strategy": "steps", "save_steps": 1}
COMPARED = {"selection_method": None, "selection_budget": None, "methods": ["length"], "budgets": [0.2]}
_SIGNALS = {"kill": "SIGKILL", "term": "SIGTERM", "int": "Ctrl-C"}

#: Command, method, phase, its call, in words, options, the signals, and whether the first is of the short form.
_KILLS = [
    ("select", "ifd", "scoring", 6, "6th batch of scores", {}, "kill term int", True),
    ("select", "ifd", "warm-up", 3, "3rd step of the warm-up", {}, "kill term", False),
    (
        "select",
        "ifd",
        "writing *.safetensors",
        1,
        "the warm-up's weights, before they are in place",
        {},
        "kill",
        False,
    ),
    ("select", "ifd", "writing scores.parquet", 1, "`scores.parquet`, before it is in place", {}, "kill", False),
    ("select", "ifd", "writing selection.json", 1, "`selection.json`, before it is in place", {}, "kill", False),
    ("train", "length", "training", 2, "2nd step of the training", {}, "kill term int", True),
    ("train", "length", "evaluation", 1, "evaluation", {}, "kill", False),
    ("train", "length", "writing eval.json", 1, "`eval.json`, before it is in place", {}, "kill", False),
    ("train", "length", "model", 1, "saving the model", {}, "kill", False),
    ("select", "less", "warm-up", 4, "4th step of the warm-up", {}, "kill", False),
    ("select", "less", "vectors", 2, "2nd batch of gradients", {}, "kill", False),
    ("select", "mods", "scoring", 2, "2nd batch of rewards", {}, "kill", False),
    ("select", "mods", "warm-up", 2, "2nd step of the warm-up", {}, "kill term", False),
    ("select", "nuggets", "scoring", 5, "5th batch of one-shot losses", {}, "kill int", False),
    ("select", "deita", "scoring", 3, "3rd batch of complexity scores", {}, "kill", False),
    ("select", "alpagasus", "judge", 20, "20th reply of the judge", {}, "kill term", False),
    ("select", "instag", "judge", 20, "20th reply of the tagger", {}, "kill", False),
    ("fit-rule", "instruction_mining", "loss of a subset", 3, "loss of the 3rd subset", FITTED, "kill", False),
    ("fit-rule", "instruction_mining", "warm-up", 8, "tuning on a subset", FITTED, "kill", False),
    ("compare", "full", "training", 5, "training of its 2nd run", COMPARED | _SAVED, "kill", False),
    ("compare", "full", "writing selection.json", 3, "selection of its 3rd run", COMPARED | _SAVED, "kill", False),
]


def _killed(command, method, phase, call, words, options, actions, short) -> list[Case]:
    again = Run(command, method, options=options)
    return [
        Case(
            _SIGNALS[action],
            f"`{command}`{'' if command == 'compare' else f', `{method}`'}: {words}",
            "kill" if action != "int" else "interrupt",
            (Run(command, method, At(phase, call, action), options), again),
            "recovered",
            clean=action == "int",
            within=2.0 if action == "int" else None,
            short=short and number == 0,
        )
        for number, action in enumerate(actions.split())
    ]


def _resumed(phase: str, call: int, words: str) -> Case:
    first = Run("train", "length", At(phase, call, "kill"), _SAVED)
    again = Run("train", "length", options=_SAVED | {"resume_from_checkpoint": "true"})
    return Case(
        "SIGKILL",
        f"`train`, `length`: {words}, then `--resume_from_checkpoint true`",
        "kill",
        (first, again),
        "recovered",
    )


CASES = [case for kill in _KILLS for case in _killed(*kill)] + [
    _resumed("training", 3, "3rd step of the training"),
    _resumed("checkpoint", 2, "2nd checkpoint, before the optimizer's state"),
    _resumed("random state", 2, "2nd checkpoint, before the random state"),
    Case(
        "SIGKILL, then another learning rate",
        "`train`, `length`: 3rd step of the training, then `--resume_from_checkpoint true`",
        "kill",
        (
            Run("train", "length", At("training", 3, "kill"), _SAVED),
            Run("train", "length", options=_SAVED | {"resume_from_checkpoint": "true", "learning_rate": 1e-2}),
        ),
        "refused",
        says="learning_rate",
    ),
    Case(
        "SIGKILL, then another budget",
        "`train`, `length`: 3rd step of the training, then `--resume_from_checkpoint true`",
        "kill",
        (
            Run("train", "length", At("training", 3, "kill"), _SAVED),
            Run("train", "length", options=_SAVED | {"resume_from_checkpoint": "true", "selection_budget": 0.3}),
        ),
        "refused",
        says="budget",
    ),
]
