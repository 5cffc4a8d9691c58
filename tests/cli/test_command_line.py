"""Help, recipes by name, options of mappings, forecasts: what answers at once, and before anything is trained."""

import dataclasses
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from hf_dataselect.cli.main import COMMANDS, main
from hf_dataselect.cli.parsers import OF_TRL, PARSERS, RECIPE_COMMANDS, help_of
from hf_dataselect.compat.bitsandbytes import bitsandbytes_later
from hf_dataselect.data.load import load_rows
from hf_dataselect.declared import card_of, method_names, options_of
from hf_dataselect.errors import Checks
from hf_dataselect.evaluation.benchmark import benchmark_class, benchmark_kinds, load_benchmarks
from hf_dataselect.fitted.rules.fit_rule import METHODS
from hf_dataselect.nested import take_nested, with_nested
from hf_dataselect.parsing import parse_options
from hf_dataselect.recipe_files import FOLDER, recipe_file, recipe_names
from hf_dataselect.registry import load_selector, selector_class
from hf_dataselect.training.config import DataSelectingConfig
from hf_dataselect.training.recipe import parse_recipe
from tests.tiny_training import write_recipe


ROOT = Path(__file__).parents[2]


@pytest.fixture
def recipe(tmp_path) -> Path:
    return write_recipe(tmp_path, selection_kwargs={"warmup": "none"})


def refused(capsys, argv: list[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_help_methods_recipes_and_version_load_neither_torch_nor_trl():
    code = (
        "import sys; from hf_dataselect.cli.main import COMMANDS, main\n"
        "from hf_dataselect.cli.parsers import help_of\n"
        "main([]); main(['--version']); main(['methods']); main(['recipe']); [help_of(name) for name in COMMANDS]\n"
        "print([name for name in ('torch', 'transformers', 'trl', 'datasets', 'peft', 'scipy', 'accelerate', "
        "'bitsandbytes') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]" and done.stderr == ""
    assert "hf_dataselect 0." in done.stdout and "| `ifd` |" in done.stdout


@pytest.mark.parametrize("command", RECIPE_COMMANDS)
def test_help_shows_every_option_of_the_package_before_those_of_trl(command):
    shown, said = help_of(command), RECIPE_COMMANDS[command][1]
    places = [shown.index("--config RECIPE")]
    for module, name in said:
        kind = getattr(import_module(f"hf_dataselect.{module}"), name)
        own = {item.name: item for item in dataclasses.fields(kind) if item.name in vars(kind)["__annotations__"]}
        found = {option.name: option for option in options_of(module, name)}
        assert found.keys() == own.keys()
        for option, item in own.items():
            assert found[option].help == item.metadata["help"] and f"\n  --{option}" in shown
            if not isinstance(item.default, (type(None), type(dataclasses.MISSING))):
                assert (
                    found[option].default == repr(item.default) and f"--{option} (default {item.default!r})" in shown
                )
        places.append(shown.index(f"--{found and next(iter(found))}"))
    assert places[0] == min(places) and max(places) < shown.index("TRL's options, of which")
    assert all(f"\n  --{name}\n" in shown for name in OF_TRL)


def test_the_options_of_trl_that_help_names_exist(tmp_path):
    path = write_recipe(tmp_path)
    found = parse_recipe(["--config", str(path)])
    known = {item.name for part in (found.args, found.data, found.model) for item in dataclasses.fields(part)}
    assert OF_TRL.keys() <= known
    with pytest.raises(SystemExit) as stopped:
        parse_recipe(["--help-all"])
    assert stopped.value.code == 0


def test_cards_are_read_from_the_source_as_they_are():
    for name in method_names():
        assert card_of(name) == selector_class(name).card


def test_fit_rule_names_the_indicators_of_each_method():
    said = next(o.help for o in options_of("fitted.rules.fit_rule", "FitRuleArguments") if o.name == "indicators")
    assert all(f"{method}: {', '.join(names)}" in said for method, names in METHODS.items())


def test_a_recipe_is_found_by_its_name_and_printed(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["recipe"])
    listed = capsys.readouterr().out
    assert all(re.search(rf"(?m)^{re.escape(name)} +\S", listed) for name in recipe_names())
    main(["recipe", "ifd"])
    assert capsys.readouterr().out == (ROOT / "recipes" / "ifd.yaml").read_text(encoding="utf-8")
    model = str(write_recipe(tmp_path).parent / "model")
    args = parse_recipe(["--config", "length", "--model_name_or_path", model, "--bf16", "false"]).args
    assert args.selection_method == "length" and recipe_file("ifd") == FOLDER / "ifd.yaml"
    assert recipe_file("recipes/ifd.yaml") == FOLDER / "ifd.yaml"  # as the docs call it in a clone
    assert "did you mean 'ifd'" in refused(capsys, ["train", "--config", "idf"])
    (tmp_path / "length").write_text("selection_method: random\n", encoding="utf-8")
    assert recipe_file("length") == Path("length")  # a file of the user's comes first


def test_rows_of_a_packaged_recipe_are_found_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    @dataclasses.dataclass
    class Options:
        dataset_name: str = ""
        output_dir: str = ""

    (tmp_path / "mine.yaml").write_text("dataset_name: recipes/quickstart/heldout.jsonl\noutput_dir: recipes/none\n")
    (found,) = parse_options([Options], ["--config", "mine.yaml"], "x", Checks())
    assert len(load_rows(found.dataset_name)) == 60 and found.output_dir == "recipes/none"


def test_recipes_are_installed_inside_the_package(tmp_path):
    build = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path), "build_py", "--build-lib"]
    subprocess.run([*build, str(tmp_path / "lib")], cwd=ROOT, check=True, capture_output=True)
    built = {
        path.relative_to(tmp_path / "lib" / "hf_dataselect")
        for path in (tmp_path / "lib").rglob("*")
        if path.is_file()
    }
    ours = {
        path.relative_to(ROOT) for path in (ROOT / "recipes").rglob("*") if path.is_file() and path.suffix != ".pyc"
    }
    package = {path.relative_to(ROOT / "hf_dataselect") for path in (ROOT / "hf_dataselect").rglob("*.py")}
    assert ours and ours <= built and package <= built


def test_an_option_of_a_mapping_is_set_alone_or_the_mapping_in_yaml(recipe):
    given = ["--config", str(recipe)]
    kwargs = parse_recipe([*given, "--selection_kwargs.ratio", "perplexity"]).args.selection_kwargs
    assert kwargs == {"warmup": "none", "ratio": "perplexity"}
    kwargs = parse_recipe([*given, "--selection_kwargs", "{warmup: lora}", "--selection_kwargs.warmup_epochs=2"]).args
    assert kwargs.selection_kwargs == {"warmup": "lora", "warmup_epochs": 2} and kwargs.selector.warmup_epochs == 2
    benchmarks = ["--benchmarks", "[{kind: gsm8k, dataset: a.jsonl}]", "--benchmarks.0.limit", "3"]
    assert parse_recipe([*given, *benchmarks]).args.benchmarks == [{"kind": "gsm8k", "dataset": "a.jsonl", "limit": 3}]
    assert parse_recipe([*given, "--selection_diversity", "filter"]).args.diversity.kind == "filter"


def test_wrong_options_of_mappings_are_told_with_all_others(recipe, capsys):
    given = [
        "--selection_kwargs.warm",
        "1",
        "--learning_rate.x",
        "3",
        "--selection_kwarg.a",
        "1",
        "--judge_kwargs",
        "{a",
    ]
    said = refused(capsys, ["train", "--config", str(recipe), *given, "--benchmarks.0.limit", "3"])
    for words in (
        "no option 'warm'",
        "`learning_rate` is no mapping",
        "`selection_kwarg` (did you mean",
        "JSON nor YAML",
    ):
        assert words in said
    assert "`--a.b` needs a value" in _error(take_nested, ["--a.b", "--c"])
    assert "0 to 1" in _error(with_nested, [1, 2], ["5"], 0)
    assert with_nested({"a": [1, {"b": 2}]}, ["a", "1", "b"], 3) == {"a": [1, {"b": 3}]}


def _error(function, *arguments) -> str:
    with pytest.raises(ValueError) as error:
        function(*arguments)
    return str(error.value)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["report", "runs/a", "--bseline", "x"], "`bseline` (did you mean `baseline`?)"),
        (["report", "runs/a", "--base", "x"], "`base` (did you mean `baseline`?)"),  # no abbreviations
        (["judge-check"], "pairs"),
        (["methods", "--fro", "noise"], "`fro` (did you mean `for`?)"),
        (["methods", "--quesion", "noise"], "Unknown options: `quesion`."),  # `question` is no option
        (["trian"], "did you mean 'train'"),
        (["train", "--selection_bud", "3"], "`selection_bud` (did you mean `selection_budget`?)"),
    ],
)
def test_misspelt_options_and_commands_are_named_with_the_nearest(argv, said, capsys):
    assert said in refused(capsys, argv)


def test_what_a_method_is_given_elsewhere_is_named(capsys):
    assert "`target` is given by `selection_target`" in _error(load_selector, "rds", {"target": "rows.jsonl"})
    main(["methods", "rds"])
    assert "target (`selection_target`)" in capsys.readouterr().out


def test_the_length_of_answers_is_the_default_of_every_kind():
    described = [{"kind": "gsm8k", "dataset": "a"}, {"kind": "generation", "dataset": "b", "max_new_tokens": 7}]
    assert [found.max_new_tokens for found in load_benchmarks(described, 33)] == [33, 7]
    assert [found.max_new_tokens for found in load_benchmarks(described)] == [512, 7]
    assert DataSelectingConfig("x", use_cpu=True, bf16=False).benchmark_max_new_tokens is None


def test_the_docs_have_the_options_of_every_kind_of_benchmark():
    docs = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for kind in benchmark_kinds():
        table = docs.partition(f"## `{kind}`")[2].partition("\n## ")[0]
        options = {item.name for item in dataclasses.fields(benchmark_class(kind)) if item.init}
        assert set(re.findall(r"(?m)^\| `(\w+)` \|", table)) == options, kind
        defaults = {item.name: item.default for item in dataclasses.fields(benchmark_class(kind)) if item.init}
        for name, default in defaults.items():
            if isinstance(default, (int, str)) and default and len(str(default)) < 20:
                assert f"| `{name}` | `{default}` |".lower() in table.lower(), (kind, name)


def test_env_tells_versions_and_no_secrets(capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnopqrstuvwxyz")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    main(["env"])
    said = capsys.readouterr().out
    assert "- torch: " in said and "- HF_HUB_OFFLINE: 1" in said and "hf_abc" not in said


def test_bitsandbytes_comes_when_it_is_asked_for(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] in ("bitsandbytes", "peft")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("hf_dataselect.compat.bitsandbytes.find_spec", lambda name: object())
    with bitsandbytes_later():
        later = sys.modules["bitsandbytes"]
        assert not hasattr(later, "__file__")
    assert "bitsandbytes" not in sys.modules
    real = type(sys)("bitsandbytes")
    real.functional = "there"
    monkeypatch.setitem(sys.modules, "bitsandbytes", real)
    assert later.functional == "there"


def test_every_command_has_options():
    assert {*PARSERS, *RECIPE_COMMANDS} == set(COMMANDS)
