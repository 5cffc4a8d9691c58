"""Options: typed, checked, and refused with the nearest right name."""

import subprocess
import sys

import pytest

from hf_dataselect.budget import parse_budget, rows_to_keep
from hf_dataselect.registry import load_selector
from hf_dataselect.selector import Selector
from hf_dataselect.selectors.ifd import IFD
from hf_dataselect.training.config import DataSelectingConfig


def config(tmp_path, **options) -> DataSelectingConfig:
    return DataSelectingConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none", **options)


@pytest.mark.parametrize(
    ("given", "means"),
    [(0.05, 0.05), ("0.05", 0.05), (1.0, 1.0), ("1.0", 1.0), (2, 2), ("500", 500), (500.0, 500), ("5e2", 500)],
)
def test_a_budget_at_most_one_is_a_fraction_and_more_is_a_count(given, means):
    assert parse_budget(given) == means and type(parse_budget(given)) is type(means)


@pytest.mark.parametrize("given", [0, 0.0, -3, "-0.5", 1, "1", 1.5, "many", float("nan"), float("inf"), None, True])
def test_a_budget_that_is_none_is_refused(given):
    with pytest.raises(ValueError, match="selection_budget"):
        parse_budget(given)


def test_none_clears_the_baseline_of_a_recipe(tmp_path):
    assert config(tmp_path, baseline_dir="none").baseline_dir is None
    assert config(tmp_path, baseline_dir="runs/full").baseline_dir == "runs/full"


def test_one_is_never_confused_with_all(tmp_path):
    with pytest.raises(ValueError, match="one row or all of them"):
        config(tmp_path, selection_method="random", selection_budget=1)


def test_rows_to_keep():
    assert rows_to_keep(0.05, 1000) == 50 and rows_to_keep(0.29, 100) == 29
    assert rows_to_keep(0.001, 10) == 1 and rows_to_keep(1.0, 7) == 7 and rows_to_keep(7, 7) == 7
    with pytest.raises(ValueError, match="more rows than the 7"):
        rows_to_keep(8, 7)


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
        ({"selection_method": "ifd", "selection_kwargs": {"warmup_clusters": 0}}, "must be positive"),
        ({"selection_method": "ifd", "selection_kwargs": "{broken"}, "not JSON"),
        ({"selection_method": "ifd", "selection_kwargs": [1]}, "must be a mapping"),
        ({"selection_batch_tokens": 0}, "selection_batch_tokens"),
        ({"selection_dtype": "int8"}, "selection_dtype"),
        ({"benchmark_max_new_tokens": 0}, "benchmark_max_new_tokens"),
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
    from dataclasses import fields

    own = [f for f in fields(DataSelectingConfig) if f.name.startswith(("selection_", "baseline_", "benchmark"))]
    assert len(own) == 12 and all(len(field.metadata["help"]) > 40 for field in own)


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
