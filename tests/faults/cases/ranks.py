"""Two ranks, one of which fails."""

from tests.faults.case import At, Case, Run


_ACTIONS = {"kill": "SIGKILL of rank 1", "stop": "SIGSTOP of rank 1", "raise": "an error in rank 1"}
#: Command, method, phase, its call, in words, options; and what the other rank calls it.
_PHASES = [
    (
        "select",
        "ifd",
        "scoring",
        4,
        "4th batch of scores",
        {"selection_kwargs": {"warmup": "none"}},
        "Scoring answers",
    ),
    ("select", "ifd", "warm-up", 2, "2nd step of the warm-up", {}, "Warming up"),
    ("train", "length", "training", 2, "2nd step of the training", {}, "Training"),
]
#: Seconds from the fault to the end of the other rank; and those that a group waits for a rank that is silent.
_WITHIN, _TIMEOUT = 30.0, 10
_SILENT = r"Rank 1 has not been heard of for \d+ s; it was at: "


def _failed(command, method, phase, call, words, options, name, action) -> Case:
    given = options | {"ddp_timeout": _TIMEOUT}
    return Case(
        _ACTIONS[action],
        f"`{command}`, `{method}`, 2 ranks: {words}",
        "ranks",
        (Run(command, method, At(phase, call, action, rank=1, pause=1.5), given, ranks=2),),
        "named",
        says=f"Rank 1 failed at: {name}.* the injected error" if action == "raise" else f"{_SILENT}{name}",
        within=_WITHIN,
        short=action == "kill" and phase == "scoring",
    )


def _again(command, method, phase, call, words, options, name) -> Case:
    killed = Run(command, method, At(phase, call, "kill", rank=1), options, ranks=2)
    return Case(
        "SIGKILL of rank 1",
        f"`{command}`, `{method}`, 2 ranks: {words}; run again",
        "ranks",
        (killed, Run(command, method, options=options, ranks=2)),
        "recovered",
    )


CASES = [
    *(_failed(*phase, action) for phase in _PHASES for action in _ACTIONS),
    *(_again(*phase) for phase in _PHASES),
]
