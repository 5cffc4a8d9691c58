"""Selectors of other packages: installed distributions that list them as entry points."""

import logging
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from hf_dataselect import DataSelectingConfig, select_dataset
from hf_dataselect.cli.main import main
from hf_dataselect.plugins import warn_of_clash
from hf_dataselect.registry import load_selector
from tests.rows import alpaca


SOURCE = '''
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hf_dataselect import Card, Selector


@dataclass
class Shortest(Selector):
    """Prefer short answers."""

    scale: float = 1.0
    card: ClassVar[Card] = Card(title="shortest answers")

    def needs(self):
        return frozenset({"text"})

    def score(self, features, ctx):
        return np.array([-self.scale * len(record.answer) for record in features], np.float32)


class NoSelector:
    pass
'''


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a distribution as pip does: a module, and its metadata beside it."""

    def installed(name: str, **points: str) -> Path:
        folder = tmp_path / name
        metadata = folder / f"{name}-2.1.dist-info"
        metadata.mkdir(parents=True)
        (folder / f"{name}.py").write_text(SOURCE, encoding="utf-8")
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.1\n", encoding="utf-8")
        lines = ["[hf_dataselect.selectors]", *(f"{point} = {value}" for point, value in points.items())]
        (metadata / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
        monkeypatch.syspath_prepend(str(folder))
        warn_of_clash.cache_clear()
        return folder

    yield installed
    warn_of_clash.cache_clear()
    for name in ("tiny_picks", "other_picks"):
        sys.modules.pop(name, None)


def test_a_selector_of_an_installed_package_selects_by_its_name(install, tmp_path, capsys):
    install("tiny_picks", shortest="tiny_picks:Shortest")
    load_selector("length")
    assert "tiny_picks" not in sys.modules  # imported when it is asked for
    args = DataSelectingConfig(
        str(tmp_path / "run"), selection_method="shortest", selection_kwargs={"scale": "2"}, use_cpu=True, bf16=False
    )
    assert args.selector.scale == 2.0 and type(args.selector) is sys.modules["tiny_picks"].Shortest
    rows = alpaca(12)
    kept, selection = select_dataset(rows, "shortest", budget=3, cache_dir=None)
    lengths = np.array([len(answer) for answer in rows["output"]])
    assert sorted(lengths[selection.indices]) == sorted(lengths)[:3] and len(kept) == 3
    repeated = load_selector(selection.method)  # as a recipe of the run names it
    assert type(repeated) is type(args.selector)
    main(["methods"])
    assert "- `shortest`: `tiny_picks:Shortest` of tiny_picks 2.1" in capsys.readouterr().out
    main(["methods", "shortest"])
    assert "scale = 1.0" in capsys.readouterr().out
    with pytest.raises(ValueError, match="`selection_method='shortst'` does not exist.*shortest"):
        load_selector("shortst")


def test_a_name_of_two_packages_is_refused_and_both_are_named(install):
    install("tiny_picks", shortest="tiny_picks:Shortest")
    install("other_picks", shortest="other_picks:Shortest")
    with pytest.raises(ValueError, match="`other_picks:Shortest` of other_picks 2.1, `tiny_picks:Shortest` of tiny"):
        load_selector("shortest")
    assert type(load_selector("other_picks:Shortest")).__module__ == "other_picks"


def test_no_package_takes_the_name_of_a_method(install, caplog):
    install("tiny_picks", length="tiny_picks:Shortest")
    with caplog.at_level(logging.WARNING, "hf_dataselect.plugins"):
        assert type(load_selector("length")).__module__ == type(load_selector("length")).__module__
        assert type(load_selector("length")).__module__ == "hf_dataselect.selectors.length"
    with pytest.raises(ValueError, match="Known: ") as refused:
        load_selector("lenth")
    assert re.findall(r"[\w-]+", str(refused.value).partition("Known: ")[2]).count("length") == 1
    assert len(caplog.records) == 1 and "`tiny_picks:Shortest` of tiny_picks 2.1" in caplog.text


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("no_such_module:Shortest", "can't be imported: No module named 'no_such_module'"),
        ("tiny_picks:Longest", "can't be imported: .*Longest"),
        ("tiny_picks:NoSelector", "is not a `Selector`"),
        ("tiny_picks", "can't be imported"),
    ],
)
def test_a_broken_package_is_refused_by_its_name(install, value, why):
    install("tiny_picks", shortest=value)
    with pytest.raises(ValueError, match=f"`selection_method='shortest'`, .* of tiny_picks 2.1, {why}"):
        load_selector("shortest")
