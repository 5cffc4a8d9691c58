"""Rows, folders and labels that try to steer a terminal or a page show as what they are."""

import json
import re
from pathlib import Path

import pytest

from hf_dataselect.cli.main import main
from hf_dataselect.errors import DamagedFile, SelectionError, printable
from tests.rows import alpaca_rows
from tests.tiny_training import write_recipe


STEERING = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
HOSTILE = ("\x1b]0;TITLE\x07\x1b[31mred\x1b[2J", "\u202eevil\u202c", "\u2066x\u2069", "say \x08\x08\x7f", "\x9b2J")
HOSTILE += ("a\x00b", "<script>x</script>", "a|b|c <b>bold</b> ![](http://x/y.png)", "{{ 7*7 }} {% raw %}", "-->]]>")


def unescaped(folder: Path) -> list[str]:
    """Text files below the folder, and names of none, with characters that steer."""
    files = [path for path in folder.rglob("*") if path.suffix in (".json", ".yaml", ".md", ".html")]
    assert files
    return [str(path) for path in files if STEERING.search(path.read_text(encoding="utf-8"))]


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = write_recipe(tmp_path, selection_method="length", selection_kwargs={}, max_steps=1)
    rows = alpaca_rows(30)
    for row, text in zip(rows, HOSTILE * 3, strict=True):
        row["instruction"], row["source"] = f"{text} {row['instruction']}", text
        row["output"] = f"{text} {row['output']} " + "long " * len(row["instruction"])
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_commands_show_rows_and_folders_without_what_steers(recipe, tmp_path, capfd):
    named = {name: tmp_path / "runs" / f"{name}{HOSTILE[0]}\u202e<b>" for name in ("full", "length")}
    given = ["--config", str(recipe)]
    main(
        [
            "train",
            *given,
            "--selection_method",
            "full",
            "--selection_budget",
            "1.0",
            "--output_dir",
            str(named["full"]),
        ]
    )
    for command in ("train", "select"):
        main([command, *given, "--output_dir", str(named["length"] if command == "train" else tmp_path / "picked")])
    main(
        ["report", *map(str, named.values()), "--output_dir", str(tmp_path / "report")]
        + ["--dataset_name", str(tmp_path / "rows.jsonl"), "--count_by", "source"]
    )
    shown = capfd.readouterr()
    assert "\\u001b]0;TITLE\\u0007" in shown.out and "\\u202eevil\\u202c" in shown.out
    assert not STEERING.search(shown.out) and not STEERING.search(shown.err.replace("\x1b[A", ""))
    assert (
        not unescaped(tmp_path / "report") and not unescaped(tmp_path / "runs") and not unescaped(tmp_path / "picked")
    )
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<script" not in page and "<b>" not in page and "&lt;script&gt;" in page and ">49<" not in page
    examples = json.loads((tmp_path / "report" / "report.json").read_text())["examples"]
    assert any(STEERING.search(row["prompt"]) for rows in examples.values() for row in rows), "data stays as it is"


def test_errors_and_labels_of_pairs_show_without_what_steers(tmp_path, capsys):
    pair = {"instruction": HOSTILE[0], "output_1": "a", "output_2": HOSTILE[1], "label": 1, "verdict": 2}
    named = tmp_path / f"pairs{HOSTILE[1]}.jsonl"
    named.write_text("".join(json.dumps(pair) + "\n" for _ in range(3)))
    main(["judge-check", str(named), "--replay", "verdict"])
    with pytest.raises(SystemExit):
        main(["judge-check", str(named), "--replay", HOSTILE[1]])
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path / HOSTILE[0])])
    shown = capsys.readouterr()
    assert "\\u202eevil\\u202c" in shown.out and "\\x1b" in shown.err
    assert not STEERING.search(shown.out + shown.err)


def test_what_steers_is_escaped_and_nothing_else():
    assert printable("a\tb\nc Größe 漢字 \u200d") == "a\tb\nc Größe 漢字 \u200d"
    assert (
        printable("\r\x00\x1f\x7f\x9f\u202a\u2069\udcff") == "\\u000d\\u0000\\u001f\\u007f\\u009f\\u202a\\u2069\\udcff"
    )
    assert json.loads(printable(json.dumps("\x7f\u202e", ensure_ascii=False))) == "\x7f\u202e"
    for error in (SelectionError("\x1b"), DamagedFile("\x1b", "\x1b", "\x1b")):
        assert "\x1b" not in str(error)
