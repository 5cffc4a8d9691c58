"""The pages of the repository, as a reader of the files and of the site has them."""

import importlib.util
import re
from functools import cache
from types import ModuleType

from tests.docs.home import ROOT


@cache
def generator() -> ModuleType:
    """`docs/pages.py`."""
    spec = importlib.util.spec_from_file_location("docs_pages", ROOT / "docs" / "pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def pages() -> dict[str, str]:
    """Text of each page by its path from the root, generated pages among them."""
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    written = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted(paths)}
    return written | {f"docs/{path}": text for path, text in generator().generated().items()}


def blocks(text: str, language: str) -> list[str]:
    """Fenced blocks, also those within a list."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", text, re.DOTALL | re.MULTILINE)
    return [re.sub(f"^{indent}", "", code, flags=re.MULTILINE) for indent, code in found]


def prose(text: str) -> str:
    """Without fenced blocks and code."""
    return re.sub(r"`[^`\n]*`", "`code`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE))


def commands(text: str) -> list[str]:
    """Command lines in blocks of bash: without comments, a continued one in a line."""
    lines = "\n".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    return [" ".join(re.sub(r"(^| )#.*", "", line).split()) for line in lines if line.strip() and line[0] != "#"]


def tables(text: str) -> list[list[list[str]]]:
    """Cells of each table, without its head."""
    found = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    cut = [[re.split(r" ?(?<!\\)\| ?", line)[1:-1] for line in table.splitlines()] for table in found]
    return [rows[2:] for rows in cut]


def anchors(text: str) -> set[str]:
    """Anchors of headings, as GitHub and mkdocs make them of plain words."""
    titles = re.findall(
        r"^#+ (.*)$", re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE
    )
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}
