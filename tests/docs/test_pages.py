"""The pages: links lead somewhere, code runs or parses, numbers and messages are those of the code."""

import ast
import contextlib
import dataclasses
import importlib
import io
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import yaml
from datasets import Dataset
from trl import ModelConfig, SFTConfig

import hf_dataselect
from hf_dataselect import DataSelectingConfig
from hf_dataselect.cli.console import without_part
from hf_dataselect.cli.main import COMMANDS, main
from hf_dataselect.cli.methods import method_table, policy_table
from hf_dataselect.engines.runtime.part import Part
from hf_dataselect.evaluation.benchmark import Setting
from hf_dataselect.evaluation.comparison.pir import benchmark_pir, selection_to_tuning_ratio
from hf_dataselect.evaluation.comparison.wins import wins_pir
from hf_dataselect.recipe_files import recipe_file
from hf_dataselect.registry import method_names, selector_class
from hf_dataselect.testing import check_selector
from hf_dataselect.training.audit_arguments import AuditArguments
from hf_dataselect.training.compare_arguments import CompareArguments
from hf_dataselect.training.recipe import DataArguments, parse_recipe
from tests.docs.home import MODEL, ROOT
from tests.docs.markdown import anchors, blocks, commands, generator, pages, prose, tables
from tests.rows import alpaca


PAGES = list(pages())
RECIPES = {"train": None, "select": None, "compare": CompareArguments, "audit": AuditArguments}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_a_page_and_a_heading_of_it(page):
    for target in re.findall(r"\]\(([^()\s]+)\)", prose(pages()[page])):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        name = str(there.relative_to(ROOT))
        assert name in pages() or there.exists(), f"{page}: {target} leads nowhere"
        assert not anchor or anchor in anchors(pages()[name]), f"{page}: {name} has no heading #{anchor}"


def test_every_page_is_in_the_navigation():
    listed = {f"docs/{page}" for names in generator().NAVIGATION.values() for page in names}
    assert listed == {page for page in PAGES if page.startswith("docs/") and not page.startswith("docs/methods/")}


@pytest.mark.parametrize("page", PAGES)
def test_python_compiles_and_names_what_exists(page):
    for code in blocks(pages()[page], "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("hf_dataselect"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(pages()[page], "yaml")])
def test_options_in_yaml_exist(page):
    kinds = [DataArguments, DataSelectingConfig, ModelConfig, CompareArguments]
    known = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    if page == "docs/scenarios.md":
        known |= {"base", "question", "target", "held_out", "compare"}
    for code in blocks(pages()[page], "yaml"):
        options = yaml.safe_load(code)
        assert set(options) <= known or all("/" in name for name in options), f"{page}: {set(options) - known}"


@cache
def options_of(command: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        main([command, "--help"])
    return said.getvalue()


@pytest.mark.parametrize("page", [page for page in PAGES if "hf-dataselect" in "".join(commands(pages()[page]))])
def test_commands_are_taken(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for command in commands(pages()[page]):
        command = command.replace("-m hf_dataselect", "; hf-dataselect").split("; ")[-1]
        if not command.startswith("hf-dataselect"):
            continue
        _, name, *arguments = shlex.split(command.replace("&& ", ""))
        assert name in COMMANDS, command
        arguments, part = without_part(arguments)
        assert part is None or Part.parse(part) and name == "select"
        if name in RECIPES and "--help" not in arguments and "--dry_run" not in arguments:
            cpu = ["--use_cpu", "true", "--bf16", "false"]
            recipe = parse_recipe([*arguments, *cpu], name, RECIPES[name])
            assert recipe.model.model_name_or_path
        else:
            assert "--config" not in arguments or recipe_file(arguments[arguments.index("--config") + 1]).is_file()
            known = options_of(name) + (options_of("compare") if name == "scenario" else "") + "--config"
            for option in (argument for argument in arguments if argument.startswith("--")):
                assert option.partition("=")[0] in known, f"{page}: {command}"


# What a page says is what the code says ------------------------------------------------------------------------------


def test_the_worked_example_is_computed():
    page = pages()["docs/concepts.md"]
    scores, judged = tables(page)[1:]
    bm, control, sem = (
        {"answer_loss": Setting(float(loss), False), "token_accuracy": Setting(float(right), True)}
        for _, loss, right in scores
    )
    for over, shown in ((bm, "0.960 + 1.014"), (control, "1.056 + 1.076")):
        pir = benchmark_pir(sem, over)
        assert " + ".join(f"{pir.settings[name]:.3f}" for name in ("answer_loss", "token_accuracy")) == shown
        assert f"({shown}) / 2 = {pir.value:.3f}" in page
    assert f"STR** = 90 s / 600 s = {selection_to_tuning_ratio(90, 600):.2f}" in page
    outcomes = {name: [1] * int(won) + [0] * int(tied) + [-1] * int(lost) for name, won, tied, lost, _ in judged}
    pir = wins_pir(outcomes)
    assert [f"{pir.settings[name]:.3f}" for name in outcomes] == [row[-1] for row in judged]
    assert f"/ 2 = {pir.value:.3f}" in page and f"is {pir.low:.2f} to {pir.high:.2f}" in page
    assert pir.verdict in page


def templates() -> list[str]:
    """The texts of the package but docstrings, with a NUL where a value is put."""
    found = []
    for path in sorted((ROOT / "hf_dataselect").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
                found.append(re.sub(r"%[sdr]|%\.\d?g", "\0", node.value))
    return found


def said_by(message: str, texts: list[str]) -> bool:
    """Whether a message, with `...` for values, is in one of the texts."""
    pattern = re.compile(".*".join(map(re.escape, message.split("..."))), re.DOTALL)
    return any(pattern.search(text) for text in texts)


def test_each_message_exists_in_the_code():
    texts, quoted = templates(), [row[0] for table in tables(pages()["docs/troubleshooting.md"]) for row in table]
    plain = [re.sub(r"^(`+) ?(.*?) ?\1$", r"\2", message) for message in quoted]
    assert len(plain) > 30 and not [message for message in plain if not said_by(message, texts)]
    assert not said_by("asks for fewer rows than the ... of the dataset", texts)


def test_the_table_of_methods_is_in_step_with_the_cards():
    assert method_table() in pages()["docs/methods.md"], "paste the output of `hf-dataselect methods`"
    assert policy_table() in pages()["docs/while-training.md"], "paste its second table"


def test_the_table_of_options_has_each_of_our_own():
    theirs = {field.name for field in dataclasses.fields(SFTConfig)}
    ours = {field.name for field in dataclasses.fields(DataSelectingConfig)} - theirs
    named = {name for row in tables(pages()["docs/options.md"])[0] for name in re.findall(r"`(\w+)`", " ".join(row))}
    assert ours <= named


@pytest.mark.parametrize("name", method_names())
def test_the_page_of_a_method_says_what_each_option_does(name):
    page = pages()[f"docs/methods/{name}.md"]
    rows = tables(page.partition("## Options")[2].partition("\n## ")[0])
    fields = [field.name for field in dataclasses.fields(selector_class(name))]
    assert [row[0].strip("`") for row in (rows or [[]])[0]] == fields
    assert all(len(row[2]) > 8 for row in (rows or [[]])[0])
    assert f"selection_method: {name}" in page and "](" not in re.sub(r"\]\([^()\s]+\)", "", page)


def test_the_paper_index_has_every_paper_of_a_method_and_its_claim():
    index = pages()["docs/papers.md"]
    papers = {selector_class(name).card.paper for name in method_names()} - {None}
    assert papers <= set(re.findall(r"arxiv\.org/abs/([\d.]+)", index)) and "2406.14115" in index
    assert "ChatGPT rates 4.5 or more" in index and "selection_method: less" in index


# Code that is run ----------------------------------------------------------------------------------------------------


def test_the_walk_through_makes_a_method(at_home, tmp_path, monkeypatch, capsys):
    first, second, *uses = blocks(pages()["docs/add-a-method.md"], "python")
    (tmp_path / "novelty.py").write_text(f"{first}\n\n{second}")
    monkeypatch.syspath_prepend(tmp_path)
    names = dict(vars(importlib.import_module("novelty"))) | {"pool": alpaca(16)}
    for code in uses:
        exec(compile(code, "add-a-method.md", "exec"), names)
    words = [(row["output"].lower().split(), f"{row['instruction']} {row['input']}".lower()) for row in alpaca(16)]
    expected = [len(set(said) - set(asked.split())) / len(set(said)) for said, asked in words]
    assert names["selection"].scores == pytest.approx(expected) and "kept 4 of 16" in capsys.readouterr().out
    main(["methods", "novelty:Novelty"])
    assert "answers with words of their own" in capsys.readouterr().out


def test_the_skill_selects_and_makes_a_method(at_home, tmp_path, monkeypatch):
    use, own = blocks(pages()["SKILL.md"], "python")
    alpaca(16).to_json("rows.jsonl")
    names = {}
    exec(compile(use, "SKILL.md", "exec"), names)
    assert len(names["kept"]) == 4 == len(Path("kept.jsonl").read_text().splitlines())
    (tmp_path / "calm.py").write_text(own)
    monkeypatch.syspath_prepend(tmp_path)
    check_selector(importlib.import_module("calm").Calm(highest=0.5))


def test_rows_of_chats_become_their_last_answer():
    turns = [{"role": role, "content": role} for role in ("user", "assistant") * 2]
    names = {"rows": Dataset.from_list([{"messages": turns}])}
    exec(*blocks(pages()["docs/rows.md"], "python"), names)
    assert names["rows"][0] == {"prompt": turns[:3], "completion": turns[3:]}


def test_rows_for_several_targets(at_home):
    names = {}
    exec(*blocks(pages()["docs/targets.md"], "python"), names)
    assert len(names["for_tasks"](alpaca(60), MODEL, alpaca(2, seed=1), alpaca(2, seed=2))) == 1


def test_the_site_builds(tmp_path):
    config = pytest.importorskip("mkdocs.config", reason="the site needs mkdocs: pip install hf_dataselect[docs]")
    from mkdocs.commands.build import build

    build(config.load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True))
    first, ifd = ((tmp_path / "site" / path).read_text() for path in ("index.html", "methods/ifd/index.html"))
    assert "Fine-tuning on a well-chosen few percent" in first and 'href="methods/ifd/"' not in ifd
    assert hf_dataselect.__name__ in first and "warmup_clusters" in ifd
