"""The house: which room may import from which, no circles, no plumbing in selectors and features."""

import ast
import importlib
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import hf_dataselect


PACKAGE = Path(hf_dataselect.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__").removesuffix("__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

#: From the ground up: a room may import from itself and from those below it that it names. `*` is all below.
ROOMS = {
    "errors": "",
    "options": "errors",
    "compat": "errors",
    "recipe_files": "options",
    "nested": "",
    "parsing": "errors compat options nested recipe_files",
    "engines": "",
    "engines.store": "errors compat",
    "engines.runtime": "errors compat engines.store",
    "engines.forward": "errors compat engines.store engines.runtime",
    "engines.gradients": "errors options compat engines.store engines.runtime engines.forward",
    "engines.tuning": "errors compat engines.store engines.runtime engines.gradients",
    "engines.subset": "errors compat engines.store engines.runtime",
    "engines.llm": "errors options compat engines.store engines.runtime engines.forward",
    "data": "errors options compat engines.store engines.runtime",
    "budget": "errors options",
    "selection": "errors",
    "context": "errors data selection engines.forward engines.runtime engines.subset engines.llm",
    "card": "",
    "selector": "errors card context data budget options engines.subset engines.forward",
    "features": "errors compat options context data engines.store engines.runtime engines.forward engines.gradients "
    "engines.tuning engines.subset engines.llm",
    "runs": "errors compat selection data engines.store",
    "fitted": "errors compat options parsing context data features engines.store engines.runtime engines.tuning "
    "engines.llm engines.subset runs",
    "diversity": "errors options context data features engines.subset engines.forward",
    "policy": "card context data options",
    "policies": "errors card context data features options policy",
    "declared": "card",
    "sharding_refusals": "compat engines.runtime",
    "plugins": "",
    "registry": "errors options declared plugins policy selector engines.forward",
    "expression": "",
    "rated": "context data registry selector",
    "selectors": "errors options context selector registry rated expression data features fitted diversity "
    "engines.subset engines.gradients engines.tuning engines.llm",
    "pipeline": "*",
    "plan": "*",
    "streamed": "*",
    "service": "*",
    "parts": "*",
    "testing": "*",
    "evaluation": "errors compat options card context data registry selector selection runs features engines.store "
    "engines.runtime engines.forward engines.llm",
    "training": "*",
    "cli": "*",
    "__main__": "cli",
    "": "*",
}


#: Imports that are still to be mended.
OPEN = {}


def room_of(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "engines" and len(parts) > 1 else parts[0]


def imports_of(path: Path, everywhere: bool = True) -> set[str]:
    """Modules of this package that a file imports: at any depth in it, or only as it loads."""
    package = path.relative_to(PACKAGE).parts[:-1]
    tree = ast.parse(path.read_text())
    lazy = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If)
        and "TYPE_CHECKING" in ast.dump(block.test)
        or not everywhere
        and isinstance(block, ast.FunctionDef)
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and node not in lazy:
            base = package[: len(package) - node.level + 1]
            module = ".".join([*base, *(node.module.split(".") if node.module else [])])
            names = {f"{module}.{alias.name}".lstrip(".") for alias in node.names}
            found |= {name if name in MODULES else module for name in names}
    return found - {""}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downwards(module):
    mine = room_of(module)
    allowed = ROOMS[mine].split()
    below = list(ROOMS)[: list(ROOMS).index(mine)]
    assert set(allowed) - {"*"} <= set(below)
    rooms = {room_of(name) for name in imports_of(MODULES[module])} - {mine}
    wrong = rooms - set(below if allowed == ["*"] else allowed) - OPEN.get(module, set())
    assert not wrong, f"{module} imports from {wrong}"


def test_no_file_imports_in_a_circle():
    TopologicalSorter({name: imports_of(path) for name, path in MODULES.items()}).prepare()


#: What a method and a feature say nothing of: processes, the cache, progress bars.
PLUMBING = {"accelerator", "rank", "world", "is_main", "on_main", "broadcast", "broadcast_arrays", "gather", "wait"}
PLUMBING |= {"cache_dir", "store", "vector_store", "stored_vectors", "embedding_store", "RowStore", "VectorStore"}
PLUMBING |= {"tqdm"}


@pytest.mark.parametrize("module", [name for name in MODULES if room_of(name) in ("selectors", "features")])
def test_methods_and_features_are_written_as_if_there_were_one_process(module):
    names = {
        getattr(node, kind, None)
        for node in ast.walk(ast.parse(MODULES[module].read_text()))
        for kind in ("id", "attr", "name", "arg")
    }
    said = names & PLUMBING
    assert not said, f"{module} speaks of {said}: leave that to an engine or to the context"


def without_encoding(path: Path) -> list[str]:
    """Calls that read or write text in the encoding of the locale."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or any(keyword.arg in ("encoding", None) for keyword in node.keywords):
            continue
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        owner = ast.unparse(getattr(node.func, "value", ast.Constant(None)))
        modes = [*node.args[:2], *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
        modes = [mode.value for mode in modes if isinstance(mode, ast.Constant) and isinstance(mode.value, str)]
        text = called == "open" and owner not in ("os", "Image") and not any("b" in mode for mode in modes)
        if text or called in ("read_text", "write_text"):
            found.append(f"{path.name}, line {node.lineno}: {ast.unparse(node)}")
    return found


def test_text_is_read_and_written_as_utf_8_whatever_the_locale():
    root = PACKAGE.parent
    files = [
        path for room in ("hf_dataselect", "benchmarks", "recipes") for path in sorted((root / room).rglob("*.py"))
    ]
    assert len(files) > 150 and not [line for path in files for line in without_encoding(path)]


@pytest.mark.parametrize("line", ["open(p)", "open(p, 'a')", "p.open()", "p.read_text()", "gzip.open(p, mode='rt')"])
def test_the_test_sees_a_file_opened_in_the_locale(tmp_path, line):
    (tmp_path / "file.py").write_text(line, encoding="utf-8")
    assert len(without_encoding(tmp_path / "file.py")) == 1


#: Lines of a file at most, and the files of tests that have more: one that is split leaves the list, none joins it.
LONGEST = 300
TOO_LONG = """
test_contract test_compat
engines/forward/test_likelihood engines/gradients/test_collect engines/llm/test_judge engines/llm/test_local
engines/runtime/test_model_state engines/tuning/test_warm_up
selectors/test_auto selectors/test_deita selectors/test_instruction_mining selectors/test_instructiongpt4
selectors/test_less selectors/test_likelihood_family selectors/test_mods selectors/test_nuggets
"""


def test_a_file_has_300_lines_at_most():
    root = PACKAGE.parent
    files = [path for room in ("hf_dataselect", "tests") for path in sorted((root / room).rglob("*.py"))]
    long = {str(path.relative_to(root)) for path in files if len(path.read_bytes().splitlines()) > LONGEST}
    assert long == {f"tests/{name}.py" for name in TOO_LONG.split()}


def test_every_room_says_what_is_in_it():
    for path in PACKAGE.rglob("__init__.py"):
        assert len(ast.get_docstring(ast.parse(path.read_text())) or "") > 40, path


def test_the_features_that_are_public_exist():
    table = (PACKAGE / "features" / "__init__.py").read_text()
    for module, name in re.findall(r"\[`~(\w+)\.(\w+)`\]", table):
        feature = getattr(importlib.import_module(f"hf_dataselect.features.{module}"), name)
        assert len(feature.__doc__) > 40
    named = set(re.findall(r"\[`~(\w+)\.", table))
    assert named | {"image_loss"} == {path.stem for path in (PACKAGE / "features").glob("*.py")} - {"__init__"}
