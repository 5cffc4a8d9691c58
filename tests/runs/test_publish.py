"""The subset as a dataset on the Hub, with a card that repeats it, and what the Hub refuses."""

import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import DatasetCard

from hf_dataselect import select_dataset
from hf_dataselect.cli.main import main
from hf_dataselect.errors import HubError
from hf_dataselect.runs.folder import read_selection
from hf_dataselect.runs.hub import make_repo
from hf_dataselect.runs.publish import selection_card
from tests.local_hub import local_hub
from tests.rows import alpaca
from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_training import tiny_trainer, write_recipe


TOKEN = "hf_S3CRET"


def repeat(card: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    """Do what a card says: save its recipe, and run its command in that folder."""
    (folder / "recipe.yaml").write_text(card.split("```yaml")[1].split("```")[0])
    command = card.split("```bash")[1].split("```")[0].split()
    assert command[0] == "hf-dataselect"
    monkeypatch.chdir(folder)
    main([*command[1:], "--output_dir", "again", *more])


def test_the_subset_is_pushed_with_a_card_that_repeats_it(tmp_path, monkeypatch):
    trainer = tiny_trainer(tmp_path, "column", {"name": "rating"}, selection_budget=5, hub_token=TOKEN)
    with pytest.raises(AttributeError, match="nothing is selected yet"):
        _ = trainer.selection
    with local_hub(monkeypatch) as hub:
        trainer.push_selected_dataset("me/subset")
        trainer.push_selected_dataset("me/subset")  # keeps what the card says of the files
        repo = hub.repos["me/subset"]
    assert repo["kind"] == "dataset" and repo["private"] is True
    assert repo["rows"]["selection_row"] == trainer.selection.indices.tolist()
    card = DatasetCard(repo["files"]["README.md"].decode())
    assert card.data.tags == ["hf_dataselect"] and TOKEN not in str(card)
    # In a Python run the rows are the script's: the card says how to save them.
    saved = re.search(r"`candidates\.(to_parquet\(.*?\))`", card.text)[1]
    monkeypatch.chdir(tmp_path)
    eval(f"rows.{saved}", {"rows": trainer.records.dataset})
    trainer.processing_class.save_pretrained("model")
    trainer.model.save_pretrained("model")
    assert "--dataset_name candidates.parquet" in card.text and "--model_name_or_path MODEL" in card.text
    repeat(card.text.replace("MODEL", "model"), tmp_path, monkeypatch)
    again = read_selection(tmp_path / "again")
    assert again.indices.tolist() == trainer.selection.indices.tolist()
    assert again.facts["dataset"] == trainer.selection.facts["dataset"]


def test_the_card_of_rows_for_a_target_repeats_them(tmp_path, monkeypatch):
    rows, target, folder = alpaca(16), alpaca(4, seed=3), tmp_path / "run"
    _, selection = select_dataset(rows, "bm25", budget=4, target=target, cache_dir=None, output_dir=folder)
    card = selection_card(selection, yaml.safe_load((folder / "recipe.yaml").read_text()))
    rows.to_parquet(tmp_path / "candidates.parquet")
    target.to_parquet(tmp_path / "target.parquet")
    assert card.count(".to_parquet(") == 2
    tokenizer = tiny_tokenizer()
    tiny_model(tokenizer).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    card = card.replace("MODEL", "model")
    repeat(card, tmp_path, monkeypatch, "--use_cpu", "true", "--bf16", "false")
    assert read_selection(tmp_path / "again").indices.tolist() == selection.indices.tolist()


def test_the_command_pushes_what_it_selects_by_an_option(tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path, selection_method="length", selection_kwargs={}, hub_subset_id="me/rows")
    with local_hub(monkeypatch) as hub:
        main(["select", "--config", str(recipe)])
        assert set(hub.repos) == {"me/rows"} and "README.md" in hub.repos["me/rows"]["files"]
        hub.refuses = True
        with pytest.raises(SystemExit):
            main(
                ["select", "--config", str(recipe), "--output_dir", str(tmp_path / "other"), "--hub_subset_id", "me/b"]
            )
    assert not (tmp_path / "other" / "selection.json").exists()
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("hf-dataselect: error: `hub_subset_id='me/b'` can't be pushed to: ") and "401" in said


@pytest.mark.parametrize(
    ("command", "options", "option"),
    [
        ("train", {"push_to_hub": True, "hub_model_id": "me/x"}, "hub_model_id='me/x'"),
        ("train", {"hub_subset_id": "me/x"}, "hub_subset_id='me/x'"),
        ("select", {"push_to_hub": True}, "hub_model_id='run'"),
    ],
)
def test_offline_every_push_is_refused_at_once_in_one_line(tmp_path, capsys, command, options, option):
    (tmp_path / "recipe.yaml").write_text(
        yaml.safe_dump({"dataset_name": "none.jsonl", "model_name_or_path": "none", "use_cpu": True, "bf16": False})
    )
    given = [item for name, value in options.items() for item in (f"--{name}", str(value))]
    with pytest.raises(SystemExit) as ended:
        main([command, "--config", str(tmp_path / "recipe.yaml"), "--output_dir", str(tmp_path / "run"), *given])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert ended.value.code == 2 and line.startswith(f"hf-dataselect: error: `{option}` can't be pushed to: ")
    assert "offline" in line.lower() and not (tmp_path / "run" / "selection.json").exists()


def test_a_hub_that_does_not_answer_is_one_line(monkeypatch):
    with local_hub(monkeypatch):
        pass  # and it is gone
    with pytest.raises(HubError, match="`hub_report_id='me/x'` can't be pushed to: .*[Cc]onnect.*Check the network"):
        make_repo("hub_report_id", "me/x", "space")
    with pytest.raises(HubError, match="`hub_report_id='a/b/c'` can't be pushed to: Repo id must"):
        make_repo("hub_report_id", "a/b/c", "space")
