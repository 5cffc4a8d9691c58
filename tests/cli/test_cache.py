"""`hf-dataselect cache` on what a selection leaves."""

import os
import re
import time
from pathlib import Path

import pytest
from filelock import FileLock

import hf_dataselect
from hf_dataselect.cli.main import main
from hf_dataselect.engines.forward.wants import TOKENS
from hf_dataselect.engines.store.contents import ENGINES, entries
from hf_dataselect.engines.store.replies import Reply, ReplyStore
from hf_dataselect.pipeline import select
from hf_dataselect.selectors.perplexity import Perplexity
from hf_dataselect.selectors.rds import RDS
from hf_dataselect.testing import sample_rows, tiny_context


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "kept"
    ctx = tiny_context(cache_dir=folder)
    ctx.model.config._name_or_path = "some/model"
    for method in (RDS(), Perplexity()):
        select(sample_rows(), method, 4, ctx)
    ReplyStore(folder / "judge").append("0f" * 16, "a judge", Reply("a reply"))
    (folder / "mine").mkdir()
    (folder / "mine" / "namespace.json").write_text("{}")
    return folder


def said(capsys, *argv: str) -> str:
    main(["cache", *argv])
    return capsys.readouterr().out


def kinds(folder) -> list[str]:
    return sorted(entry.kind for entry in entries(folder))


def test_entries_are_listed_with_what_they_are_of(folder, capsys):
    found = said(capsys, "--cache_dir", str(folder))
    assert found.count("| some/model |") == 3 and "| embedding |" in found and "mine" not in found
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.parent.name != "mine")
    assert sum(entry.size for entry in entries(folder)) == size
    assert "4 entries" in found and "| likelihood | 1 |" in said(capsys, "size", "--cache_dir", str(folder))


def test_options_of_cache_clean_say_what_goes_and_replies_go_only_by_name(folder, capsys):
    given = ["clean", "--cache_dir", str(folder)]
    before = kinds(folder)
    assert before == ["embedding", "likelihood", "model", "replies"]
    assert "removed 0 entries" in said(capsys, *given, "--older_than", "1") and kinds(folder) == before
    assert "would remove 2 entries" in said(capsys, *given, "--all", "--dry_run") and kinds(folder) == before
    old = next(entry.path for entry in entries(folder) if entry.kind == "likelihood")
    for file in old.iterdir():
        os.utime(file, (time.time() - 3 * 86400,) * 2)
    with FileLock(old / "work.lock"):
        os.utime(old / "work.lock", (time.time() - 3 * 86400,) * 2)
        assert "a run is writing to it" in said(capsys, *given, "--older_than", "2") and kinds(folder) == before
    assert "removed 1 entry," in said(capsys, *given, "--older_than", "2")
    assert kinds(folder) == ["embedding", "model", "replies"]
    assert "holds none of gradients" in said(capsys, *given, "--kind", "gradients") and len(kinds(folder)) == 3
    said(capsys, *given, "--all")
    said(capsys, *given, "--kind", "replies")
    assert kinds(folder) == ["model"] and (folder / "mine" / "namespace.json").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["clean"], "say what may go"),
        (["list", "--all"], "`list` removes nothing"),
        (["clean", "--older_than", "-1"], "must be 0 days or more"),
        (["clean", "--kind", "replies", "embeddings"], "`--kind embeddings`: there is no such kind; did you mean 'em"),
        (["purge"], "invalid choice: 'purge'"),
    ],
)
def test_wrong_options_remove_nothing(folder, capsys, argv, message):
    before = kinds(folder)
    with pytest.raises(SystemExit):
        main(["cache", *argv, "--cache_dir", str(folder)])
    assert message in capsys.readouterr().err and kinds(folder) == before


def test_every_engine_that_names_what_it_keeps_is_a_kind():
    """`shared_pass` names what its methods want."""
    code = [path.read_text(encoding="utf-8") for path in Path(hf_dataselect.__file__).parent.rglob("*.py")]
    named = {name for text in code for name in re.findall(r'"engine": "([^"]+)"', text)}
    assert named | TOKENS == ENGINES


def test_a_folder_that_is_not_there_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["cache", "--cache_dir", str(tmp_path / "none there")])
    assert "there is no such folder" in capsys.readouterr().err
