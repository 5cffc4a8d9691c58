"""The report says how runs were trained differently, where their options don't."""

from pathlib import Path

import pytest

from hf_dataselect.evaluation.comparison.comparison import compare_runs
from hf_dataselect.evaluation.report.report import to_markdown
from hf_dataselect.evaluation.report.sections import sections
from hf_dataselect.runs.folder import write_settings
from tests.reported_runs import make_run, tables


#: What was done to 12 rows in updates of 2, and to 3 of them.
FULL = {"updates": 18, "epochs": 3.0, "tokens": 3600, "learning_rate": 1e-3}
FULL |= {"ranks": 1, "batch_size": 2, "max_length": 512}
FEWER = FULL | {"updates": 6, "tokens": 900}


def trained(folder: Path, method: str, figures: dict | None, **more) -> Path:
    rows = {} if method == "full" else {"rows": [1, 5, 7]}
    return make_run(folder, method, evaluation={"trained": figures} if figures else {}, **rows, **more)


def said(*runs: Path) -> list[str]:
    text = to_markdown(sections(compare_runs([*runs]))).split("## Runs")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if not line.startswith("|")]
    return [line for line in lines if "not only in its rows" in line or " updates" in line]


def test_updates_are_in_the_table_and_their_factor_is_said_once(tmp_path):
    runs = [trained(tmp_path / "full", "full", FULL), trained(tmp_path / "random", "random", FEWER)]
    assert said(*runs) == ["- The baseline got 3 times as many optimizer updates as the runs on fewer rows."]
    runs += [trained(tmp_path / "one", "length", FEWER | {"updates": 1}), trained(tmp_path / "old", "ifd", None)]
    assert said(*runs)[0] == "- The baseline got 3 to 18 times as many optimizer updates as the runs on fewer rows."
    shown = tables(to_markdown(sections(compare_runs(runs))))
    assert [row["updates"] for row in shown["Runs"]] == ["18", "6", "1", ""]
    tokens = {row["run"]: row["how much"] for row in shown["Row accounting"] if row["what"] == "tokens trained"}
    assert tokens == {"full": "3,600", "random": "900", "one": "900"}


@pytest.mark.parametrize(
    "figures, options, named",
    [
        ({"ranks": 2, "batch_size": 4}, {}, "ranks (2 against 1), effective batch size (4 against 2)"),
        ({"epochs": 1.5}, {}, "epochs trained (1.5 against 3)"),
        ({"learning_rate": 5e-4}, {}, "peak learning rate (0.0005 against 0.001)"),
        ({"max_length": None}, {}, "`max_length` (none against 512)"),
        ({"ranks": [2, 1]}, {}, "ranks (2, then 1 against 1)"),
        # What an option says is not said again.
        ({"learning_rate": 5e-4}, {"learning_rate": 5e-4}, "`learning_rate`"),
        ({"batch_size": 4}, {"gradient_accumulation_steps": 2}, "`gradient_accumulation_steps`"),
        ({"epochs": 1.0, "updates": 2, "tokens": 300}, {"num_train_epochs": 1}, "`num_train_epochs`"),
        ({"max_length": 9, "tokens": 30}, {"max_length": 9}, "`max_length`"),
        # What is not known is not compared; as many tokens need not be the same.
        ({"learning_rate": None, "tokens": None}, {}, None),
        ({"tokens": 908, "learning_rate": 1e-3 + 1e-12}, {}, None),
    ],
)
def test_what_differs_from_the_baseline_and_the_control_is_named_once(tmp_path, figures, options, named):
    full, random = trained(tmp_path / "full", "full", FULL), trained(tmp_path / "random", "random", FEWER)
    ifd = trained(tmp_path / "ifd", "ifd", FEWER | figures, **options)
    beside = "the baseline" if options else "the baseline and its control"  # with other options it has no control
    expected = [f"- ifd: differs from {beside} not only in its rows: {named}."] if named else []
    assert said(full, random, ifd)[1:] == expected


def test_updates_are_compared_where_rows_are_as_many(tmp_path):
    runs = [trained(tmp_path / "full", "full", FULL), trained(tmp_path / "random", "random", FEWER)]
    runs.append(trained(tmp_path / "ifd", "ifd", FEWER | {"updates": 5, "tokens": 1200}))
    assert said(*runs)[1:] == [
        "- ifd: differs from its control not only in its rows: optimizer updates (5 against 6)."
    ]


def test_every_seed_is_compared(tmp_path):
    runs = []
    for seed in (1, 2):
        given = {"selection": {"facts": {"seed": seed}}, "seed": seed}
        runs += [trained(tmp_path / f"full{seed}", "full", FULL, **given)]
        runs += [trained(tmp_path / f"ifd{seed}", "ifd", FEWER | {"ranks": seed, "tokens": 900 * seed}, **given)]
    assert said(*runs)[1:] == ["- ifd 3: differs from the baseline not only in its rows: ranks (1 or 2 against 1)."]
    shown = tables(to_markdown(sections(compare_runs(runs))))
    assert [row["how much"] for row in shown["Row accounting"] if row["what"] == "tokens trained"] == [
        "3,600",
        "1,350",
    ]


def test_other_numbers_of_updates_for_as_many_tokens_part_neither_seeds_nor_the_control(tmp_path):
    runs, steps = [], iter(range(17, 21))
    for seed in (1, 2):
        given = {"selection": {"facts": {"seed": seed}}, "seed": seed}
        runs.append(trained(tmp_path / f"full{seed}", "full", FULL, **given))
        for method in ("random", "ifd"):
            updates = next(steps)
            figures = FULL | {"updates": updates, "epochs": 12.0}
            runs.append(trained(tmp_path / f"{method}{seed}", method, figures, max_steps=updates, **given))
    for run in runs:
        write_settings(run, {"equal": "tokens"}, finished=True)
    found = compare_runs(runs)
    assert [group.name for group in found.groups] == ["full", "random 3", "ifd 3"]
    assert found.groups[2].over_control is not None
    lines = said(*runs)  # what `equal` asks for is no difference
    assert not any("differs" in line or "max_steps" in line for line in lines)
    (runs[2] / "compared.json").unlink()
    assert any("`equal`, `max_steps`" in line for line in said(*runs[:3]))
