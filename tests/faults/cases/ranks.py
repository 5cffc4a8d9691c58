"""Two ranks, or three that shard the model by FSDP2, one of which fails."""

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
_FSDP2 = {"fsdp": "full_shard", "fsdp_config": {"transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"]}}
#: Scoring where the model is sharded.
_SHARDED = next(
    (command, method, phase, call, f"{words}, sharded by FSDP2", options | _FSDP2, name)
    for command, method, phase, call, words, options, name in _PHASES
    if phase == "scoring"
)
#: Seconds from the fault to the end of the other rank; and those that a group waits for a rank that is silent.
_WITHIN, _TIMEOUT = 30.0, 10
_SILENT = r"Rank 1 has not been heard of for \d+ s; it was at: "


def _failed(command, method, phase, call, words, options, name, action, ranks=2) -> Case:
    given = options | {"ddp_timeout": _TIMEOUT}
    return Case(
        _ACTIONS[action],
        f"`{command}`, `{method}`, {ranks} ranks: {words}",
        "ranks",
        (Run(command, method, At(phase, call, action, rank=1, pause=1.5), given, ranks=ranks),),
        "named",
        says=f"Rank 1 failed at: {name}.* the injected error" if action == "raise" else f"{_SILENT}{name}",
        within=_WITHIN,
        short=action == "kill" and phase == "scoring" and ranks == 2,
    )


def _again(command, method, phase, call, words, options, name, ranks=2) -> Case:
    killed = Run(command, method, At(phase, call, "kill", rank=1), options, ranks=ranks)
    return Case(
        "SIGKILL of rank 1",
        f"`{command}`, `{method}`, {ranks} ranks: {words}; run again",
        "ranks",
        (killed, Run(command, method, options=options, ranks=ranks)),
        "recovered",
    )


CASES = [
    *(_failed(*phase, action) for phase in _PHASES for action in _ACTIONS),
    *(_again(*phase) for phase in _PHASES),
    _failed(*_SHARDED, "raise", ranks=3),
    _again(*_SHARDED, ranks=3),
]
