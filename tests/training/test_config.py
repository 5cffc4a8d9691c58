"""Options: typed, checked, and refused with the nearest right name."""

import ast
import copy
import dataclasses
import inspect
import json
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from hf_dataselect.registry import load_selector
from hf_dataselect.selector import Selector, method_name
from hf_dataselect.selectors.ifd import IFD
from hf_dataselect.training.compare_arguments import CompareArguments
from hf_dataselect.training.config import DataSelectingConfig
from hf_dataselect.training.recipe import DataArguments


def config(tmp_path, **options) -> DataSelectingConfig:
    return DataSelectingConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none", **options)


def test_none_clears_the_baseline_of_a_recipe(tmp_path):
    assert config(tmp_path, baseline_dir="none").baseline_dir is None
    assert config(tmp_path, baseline_dir="runs/full").baseline_dir == "runs/full"


def test_one_is_never_confused_with_all(tmp_path):
    with pytest.raises(ValueError, match="one row or all of them"):
        config(tmp_path, selection_method="random", selection_budget=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"selection_method": "ifdd"}, "did you mean 'ifd'"),
        ({"selection_method": "no.such.module:Thing"}, "can't be imported"),
        ({"selection_method": "pathlib:Path"}, "is not a `Selector`"),
        ({"selection_method": "ifd", "selection_kwargs": {"warmup_row": 3}}, "no option 'warmup_row'; did you mean"),
        (
            {"selection_method": "ifd", "selection_kwargs": {"warmup": "qlora"}},
            "must be one of 'lora', 'full', 'none'",
        ),
        ({"selection_method": "ifd", "selection_kwargs": {"warmup_clusters": "ten"}}, "must be int"),
        ({"selection_method": "ifd", "selection_kwargs": {"warmup_clusters": 2.5}}, "must be int"),
        ({"selection_method": "ifd", "selection_kwargs": {"warmup_clusters": 0}}, "must be at least 1"),
        ({"selection_method": "ifd", "selection_kwargs": "{broken"}, "not JSON"),
        ({"selection_method": "ifd", "selection_kwargs": [1]}, "must be a mapping"),
        ({"selection_batch_tokens": 0}, "`selection_batch_tokens=0` must be at least 1"),
        ({"selection_dtype": "int8"}, "`selection_dtype='int8'` must be one of 'auto', 'float32'"),
        ({"benchmark_max_new_tokens": 0}, "`benchmark_max_new_tokens=0` must be at least 1"),
        ({"vllm_gpu_memory_utilization": 1.5}, "must be in \\(0, 1]"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **options)


def test_options_are_typed_from_the_selector(tmp_path):
    given = '{"warmup_learning_rate": "5e-5", "warmup_clusters": "7", "drop_above_one": "false"}'
    selector = config(tmp_path, selection_method="ifd", selection_kwargs=given).selector
    assert (selector.warmup_learning_rate, selector.warmup_clusters, selector.drop_above_one) == (5e-5, 7, False)
    assert type(selector.warmup_clusters) is int


def test_classes_and_instances_are_selectors_too(tmp_path):
    assert config(tmp_path, selection_method="hf_dataselect.selectors.ifd:IFD").selector == IFD()
    assert load_selector(IFD(warmup="none")).warmup == "none"
    with pytest.raises(ValueError, match="together with a selector instance"):
        load_selector(IFD(), {"warmup": "none"})


def test_a_missing_extra_is_named_before_anything_loads(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install hf_dataselect\[embed\]"):
        load_selector("superfiltering", {"diversity": True})
    load_selector("superfiltering")


def test_every_option_has_a_help_text(tmp_path):
    own = [
        f
        for f in dataclasses.fields(DataSelectingConfig)
        if f.name.startswith(("selection_", "baseline_", "benchmark"))
    ]
    assert len(own) == 17 and all(len(field.metadata["help"]) > 40 for field in own)


@pytest.mark.parametrize("kind", [DataSelectingConfig, DataArguments, CompareArguments])
def test_a_field_is_documented_once(kind):
    written = ast.get_docstring(ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0])
    shown = " ".join(kind.__doc__.split())
    own = [item for item in dataclasses.fields(kind) if item.name in vars(kind)["__annotations__"]]
    assert own and not any(f"{item.name} (" in written for item in own), "the `help` of a field is its documentation"
    for item in own:
        assert f" {shown}".count(f" {item.name} (`") == 1 and shown.count(" ".join(item.metadata["help"].split())) == 1


def test_it_is_plain_data(tmp_path):
    given = {"selection_method": "ifd", "selection_kwargs": {"warmup": "none"}, "judge_kwargs": {"retries": "2"}}
    given |= {
        "selection_diversity": "filter",
        "benchmarks": [{"kind": "lm_eval", "tasks": ["x"]}],
        "baseline_dir": "b",
    }
    args = config(tmp_path, **given)
    assert all(args.to_dict()[name] == value for name, value in given.items())
    json.loads(args.to_json_string())
    for copied in (pickle.loads(pickle.dumps(args)), copy.deepcopy(args), dataclasses.replace(args)):
        assert copied.to_dict() == args.to_dict() and copied.selector == args.selector == IFD(warmup="none")
        assert copied.diversity.kind == "filter" and copied.judge_options.retries == 2
    assert pickle.loads(pickle.dumps(args)).given == args.given
    other = dataclasses.replace(args, selection_method="length", selection_kwargs=None, selection_budget=0.5)
    assert method_name(other.selector) == "length" and method_name(args.selector) == "ifd"
    with pytest.raises(ValueError, match="no option 'warmup'"):
        dataclasses.replace(args, selection_method="length")
    kept = {name: value for name, value in vars(args).items() if name in given or name == "_given"}
    assert not any(dataclasses.is_dataclass(value) for value in kept.values())


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    assert config(tmp_path).runtime(None).cache_dir == tmp_path / "cache"  # the tests set it
    monkeypatch.setenv("HF_DATASELECT_CACHE", str(tmp_path / "other"))
    assert config(tmp_path).runtime(None).cache_dir == tmp_path / "other"
    assert config(tmp_path, selection_cache_dir="none").runtime(None).cache_dir is None
    assert [config(tmp_path, disable_tqdm=off).runtime(None).silent for off in (True, False)] == [True, False]
    assert config(tmp_path, selection_cache_dir="~/x").runtime(None).cache_dir == Path("~/x").expanduser()
    monkeypatch.delenv("HF_DATASELECT_CACHE")
    assert config(tmp_path).selection_cache_dir == "~/.cache/hf_dataselect"


def test_given_arguments_repeat_the_run_and_hold_no_secret(tmp_path):
    args = config(tmp_path, selection_method="random", selection_budget="0.5", learning_rate=1e-3, hub_token="secret")
    again = DataSelectingConfig(**args.given)
    assert again.selection_budget == 0.5 and again.learning_rate == 1e-3 and "secret" not in str(args.given)


def test_importing_the_package_is_instant_and_loads_no_torch():
    code = (
        "import sys, hf_dataselect; print('torch' in sys.modules, 'transformers' in sys.modules, dir(hf_dataselect))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.startswith("False False") and "DataSelectingTrainer" in printed


def test_the_public_names_are_there():
    import hf_dataselect

    assert all(getattr(hf_dataselect, name) is not None for name in hf_dataselect.__all__)
    assert issubclass(IFD, Selector)
    with pytest.raises(AttributeError):
        hf_dataselect.nothing  # noqa: B018
