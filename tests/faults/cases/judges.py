"""Servers that judge: refusals, silence, garbage, and keys in what they say."""

from typing import Any

from tests.faults.case import At, Case, Damage, GoOn, Room, Run, Server, Signal


def _judged(inject: Any = None, rows: str = "few", ranks: int = 1, method: str = "alpagasus", **options: Any) -> Run:
    kwargs = {
        name: options.pop(name) for name in ("retries", "timeout", "concurrency", "max_calls") if name in options
    }
    given = {"dataset_name": f"ROOT/{rows}.jsonl", "judge_kwargs": {"concurrency": 4} | kwargs, **options}
    return Run("select", method, inject, given, ranks=ranks)


def _served(fault: str, server: Server, expected: str, says: str = "", within: float | None = None, **options) -> Case:
    short = options.pop("short", False)
    case = (_judged(**options),)
    return Case(
        fault,
        "`select`, `alpagasus`: the judge",
        "judge",
        case,
        expected,
        says,
        within=within,
        server=server,
        short=short,
    )


CASES = [
    _served("429, three times for each question", Server("429", calls=3), "recovered"),
    _served("429, always", Server("429"), "refused", "HTTP 429.*, 2 tries", retries=1, short=True),
    _served("429, always, for some rows", Server("429", share=0.3), "named", "HTTP 429.*, 2 tries", retries=1),
    _served("500, once for each question", Server("500", calls=1), "recovered", retries=1),
    _served(
        "Retry-After of 28 hours", Server("429 for a day"), "refused", "asks to wait for 100,000 s", 30, retries=1
    ),
    _served("silence", Server("slow"), "refused", "no reply within 1 s", 15, retries=0, timeout=1),
    _served("a byte every 50 ms", Server("drip"), "refused", "1 s", 15, retries=0, timeout=1),
    _served("half a reply, twice for each question", Server("cut", calls=2), "recovered"),
    _served("half a reply, always", Server("cut"), "refused", "connection failed", 15, retries=0),
    _served("garbage, once for each question", Server("nonsense", calls=1), "recovered"),
    _served("the page of a proxy, always", Server("html"), "refused", "the reply is no JSON", retries=0),
    _served("a list without choices, always", Server("empty list"), "refused", "no chat completion", retries=0),
    _served("replies without end", Server("endless"), "refused", "longer than", 30, retries=0),
    _served("64 MB in a reply of 64 kB", Server("bomb"), "refused", "longer than", 30, retries=0),
    _served("100,000 brackets, once for each question", Server("deep", calls=1), "recovered"),
    _served("numbers of tokens in words", Server("usage in words"), "recovered"),
    _served("the key in each reply", Server(reply="\nAuthorization: Bearer KEY"), "recovered"),
    _served("400, with the key in its text", Server("400"), "refused", "HTTP 400", retries=0),
    _served("401", Server("401"), "refused", "`OPENAI_API_KEY` is refused"),
    _served("403, with the key in its text", Server("403"), "refused", "`OPENAI_API_KEY`"),
    _served("404", Server("404"), "refused", "does not have this model"),
    _served("no credit", Server("no credit"), "refused", "no credit left"),
    _served("fewer calls allowed than needed", Server(), "refused", "max_calls=5", max_calls=5),
    _served("retries beyond the calls allowed", Server("500"), "refused", "max_calls=14", max_calls=14, retries=6),
    Case(
        "the cache is deleted",
        "`select`, `alpagasus`: at the 20th reply of the judge",
        "judge",
        (_judged(At("judge", 20, "wait"), rows="rows"), Damage("cache", "delete"), GoOn()),
        "recovered",
        says=r"responses\.jsonl|can't be (saved|written|kept)",
    ),
    Case(
        "the cache's disk is full",
        "`select`, `instag`: from the 20th reply of the tagger on",
        "judge",
        (
            Room("cache", "4m"),
            _judged(At("judge", 20, "wait"), rows="rows", method="instag"),
            Room("cache", "full"),
            GoOn(),
        ),
        "recovered",
        says="can't be (saved|written|kept)",
    ),
    Case(
        "Ctrl-C",
        "`select`, `alpagasus`: the judge answers, 20 calls made; run again",
        "interrupt",
        (_judged(Signal("int", 20), rows="rows"), _judged(rows="rows")),
        "recovered",
        clean=True,
        within=2.0,
        server=Server(delay=0.05),
    ),
    *(
        Case(
            word,
            f"`select`, `alpagasus`: {words}",
            "interrupt",
            (_judged(Signal(signal, 4), timeout=60),),
            "named",
            says=says,
            clean=True,
            within=2.0,
            server=Server(fault),
            short=fault == "slow" and signal == "int",
        )
        for fault, words in (("slow", "the judge is silent"), ("429 for a day", "the judge asks to wait"))
        for word, signal, says in (("Ctrl-C", "int", "stopped by Ctrl-C"), ("SIGTERM", "term", "stopped by SIGTERM"))
    ),
    Case(
        "a judge slower than the ranks' time-out",
        "`select`, `alpagasus`, 2 ranks: 12 s of calls, `ddp_timeout` 5 s",
        "judge",
        (_judged(ranks=2, concurrency=1, ddp_timeout=5),),
        "recovered",
        server=Server(delay=1.0),
    ),
]
