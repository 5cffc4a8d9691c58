"""The subset as a dataset on the hub, with a card that repeats it."""

import yaml
from datasets import Dataset
from huggingface_hub import DatasetCard

from hf_dataselect.runs.publish import push_selected
from tests.tiny_training import tiny_trainer


def test_the_subset_is_pushed_with_a_card_that_repeats_it(tmp_path, monkeypatch):
    pushed = {}

    def push_rows(self, repo, private):
        pushed["rows"], pushed["private"] = self, private

    def no_card(repo):
        raise OSError("no card")

    monkeypatch.setattr(Dataset, "push_to_hub", push_rows)
    monkeypatch.setattr(DatasetCard, "load", no_card)
    monkeypatch.setattr(DatasetCard, "push_to_hub", lambda self, repo, repo_type: pushed.update(card=str(self)))
    trainer = tiny_trainer(tmp_path, "column", {"name": "rating"}, selection_budget=5, hub_token="secret")
    selection = trainer.select()
    push_selected(trainer.records.dataset, selection, trainer.recipe | trainer.args.given, "user/subset")
    assert len(pushed["rows"]) == 5 and pushed["private"] is True
    assert pushed["rows"]["selection_row"] == selection.indices.tolist()
    recipe = yaml.safe_load(pushed["card"].split("```yaml")[1].split("```")[0])
    assert recipe["selection_method"] == "column" and recipe["selection_kwargs"] == {"name": "rating"}
    assert "secret" not in pushed["card"] and "hf_dataselect" in pushed["card"]
