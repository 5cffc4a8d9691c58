"""Model cards with what a comparison found, and a report as a Space."""

import json

import pytest
import yaml
from huggingface_hub import ModelCard

from hf_dataselect.cli.main import main
from hf_dataselect.runs.folder import read_evaluation
from tests.local_hub import local_hub
from tests.rows import alpaca
from tests.tiny_training import tiny_trainer


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of a baseline, a control and a run, each with its model card."""
    folder = tmp_path_factory.mktemp("runs")
    options = {"eval_dataset": alpaca(12, seed=9), "selection_cache_dir": str(folder / "cache")}
    for name in ("full", "random", "length"):
        more = {} if name == "full" else {"selection_budget": 6, "baseline_dir": str(folder / "full" / "run")}
        trainer = tiny_trainer(folder / name, name, **options | more)
        trainer.train()
        trainer.create_model_card()
    return [folder / name / "run" for name in ("full", "random", "length")]


def results(folder) -> dict:
    """Metrics of the `model-index` of a card, as the Hub reads them."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    (entry,) = yaml.safe_load(text.split("---")[1])["model-index"]
    (of_rows,) = entry["results"]
    return {metric["type"]: metric for metric in of_rows["metrics"]}


def test_the_card_of_a_run_holds_pir_interval_and_verdict(runs):
    kept = read_evaluation(runs[2])
    found, pir = results(runs[2]), kept["pir"]
    assert found["pir"]["value"] == pir["value"] and found["sdf"]["value"] == kept["sdf"] == 0.25
    assert {name: found["pir"]["args"][name] for name in ("low", "high", "verdict", "interval")} == {
        name: pir[name] for name in ("low", "high", "verdict", "interval")
    }
    assert found["answer_loss"]["value"] == kept["settings"]["answer_loss"]["score"]
    assert found["str"]["value"] == kept["str"] and "pir_control" not in found
    text = ModelCard.load(runs[2] / "README.md").text
    assert f"PIR {pir['value']:.3f}" in text and "Not compared with a control" in text and "## Data selection" in text
    assert "pir" not in results(runs[0]) and "the baseline (BM)" in (runs[0] / "README.md").read_text()


def test_a_report_adds_the_control_to_the_cards_and_is_pushed_as_a_space(runs, tmp_path, monkeypatch, capsys):
    before = ModelCard.load(runs[2] / "README.md").text
    folder = tmp_path / "report"
    with local_hub(monkeypatch) as hub:
        options = ["--output_dir", str(folder), "--update_cards", "--hub_report_id", "me/report"]
        main(["report", *map(str, runs), *options])
    space = hub.repos["me/report"]
    assert (space["kind"], space["sdk"], space["private"]) == ("space", "static", True)
    assert set(space["files"]) == {"README.md", "index.html"} == {path.name for path in (folder / "space").iterdir()}
    assert space["files"]["index.html"] == (folder / "report.html").read_bytes()
    head, text = space["files"]["README.md"].decode().split("---\n")[1:]
    assert yaml.safe_load(head) | {"sdk": "static", "app_file": "index.html"} == yaml.safe_load(head)
    assert json.loads((folder / "report.json").read_text())["verdict"] in text
    assert "Pushed: http" in capsys.readouterr().out
    control = results(runs[2])["pir_control"]
    scores = [read_evaluation(run)["settings"]["answer_loss"]["score"] for run in runs[1:]]
    assert control["args"]["verdict"] in ("better", "worse", "no significant difference")
    assert (control["value"] > 1) == (scores[0] > scores[1]) and control["args"]["low"] < control["value"]
    assert "pir_control" not in results(runs[1])
    after = ModelCard.load(runs[2] / "README.md").text
    assert after.count("## What selecting changed") == 1 and "as many random rows (PIR" in after
    assert after.partition("## What selecting")[0] == before.partition("## What selecting")[0]
