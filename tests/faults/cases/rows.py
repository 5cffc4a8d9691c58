"""Rows that give NaN, control characters in rows, and secrets in options."""

from tests.faults.case import Case, Nan, Run


_HURT = {"dataset_name": "ROOT/nan.jsonl", "selection_budget": 0.99}
_ESCAPES = {"dataset_name": "ROOT/escapes.jsonl"}
_SECRETS = {"hub_token": "hf_TOKENtokenTOKENtoken", "model_init_kwargs": {"token": "hf_TOKENtokenTOKENtoken"}}


def _nan(method: str, kwargs: dict, words: str, says: str = "finite", unscorable: tuple = (4,), **more) -> Case:
    run = Run("select", method, Nan(), _HURT | {"selection_kwargs": kwargs})
    return Case(
        "NaN for row 4",
        f"`select`, `{method}`: {words}",
        "rows",
        (run,),
        "named",
        says,
        unscorable=unscorable,
        **more,
    )


def _secret(command: str, method: str, **options) -> Case:
    return Case(
        "tokens in `hub_token` and `model_init_kwargs`",
        f"`{command}`, `{method}`: all files and the log",
        "rows",
        (Run(command, method, options=_SECRETS | options),),
        "recovered",
        short=command == "train",
    )


CASES = [
    _nan("perplexity", {}, "a loss"),
    _nan("ifd", {"warmup": "none"}, "two losses"),
    _nan("nuggets", {"tasks": 12}, "a task among twelve", "tasks left out.*: 1 rows", (), short=True),
    _nan("rds", {}, "a hidden state"),
    _secret("train", "length", save_strategy="steps", save_steps=1),
    _secret("select", "perplexity"),
    _secret("fit-rule", "instruction_mining", subsets=6, subset_rows=10, indicators=["len", "mtld"], max_steps=None),
    Case(
        "control characters in rows",
        "`report`: the terminal and the pages",
        "rows",
        (
            Run("train", "full", options=_ESCAPES, folder="full"),
            Run("train", "length", options=_ESCAPES | {"baseline_dir": "FOLDER/full"}),
            Run(
                "report",
                options={"runs": ["full", "run"], "output_dir": "FOLDER/pages", "dataset_name": "ROOT/escapes.jsonl"},
            ),
        ),
        "recovered",
        absent="\x1b\\]0|\x1b\\[31m|\x1b\\[2J|\u202e|<script>alert",
    ),
]
