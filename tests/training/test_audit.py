"""`audit`: on a pool whose good rows are known, resumed after a kill, and refused where it can't be."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import yaml
from datasets import Dataset

from hf_dataselect.cli.main import main
from hf_dataselect.data.records import Records
from hf_dataselect.engines.store.checked import read_lines
from hf_dataselect.engines.store.identity import model_identity
from hf_dataselect.features.image_loss import held_out_loss
from hf_dataselect.fitted import subset_losses
from hf_dataselect.registry import load_selector, method_names
from hf_dataselect.training.audit_arguments import AuditArguments
from hf_dataselect.training.audit_plan import plan_audit
from hf_dataselect.training.recipe import build_trainer, parse_recipe
from hf_dataselect.training.trained_losses import TrainedLosses
from tests.rows import WORDS
from tests.tiny_training import write_recipe


PLANTED = {"method": "column", "selection_kwargs": {"name": "planted"}, "name": "planted"}


def planted_rows(n: int, planted: int, seed: int = 0) -> list[dict]:
    """Rows that ask for a few words, of which some have the held-out rows' answer."""
    draw = random.Random(seed)
    rows = [
        {
            "instruction": f"Write about {' '.join(draw.choices(WORDS, k=3))}.",
            "output": "Blue fox, blue river." if i < planted else " ".join(draw.choices(WORDS, k=draw.randint(2, 8))),
            "planted": float(i < planted),
        }
        for i in range(n)
    ]
    draw.shuffle(rows)
    return rows


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    options = {"max_steps": 2, "learning_rate": 3e-3, "per_device_train_batch_size": 8, "max_length": 64}
    options |= {"gradient_checkpointing": False, "disable_tqdm": True, "selection_dtype": "float32"}
    path = write_recipe(folder, **options)
    given = yaml.safe_load(path.read_text())
    for name in ("selection_method", "selection_kwargs", "selection_budget"):
        del given[name]
    pool = planted_rows(40, 16)
    pool[3] |= {"output": "", "planted": 0.0}
    for name, rows in (("rows", pool), ("heldout", planted_rows(4, 4, 1)), ("target", planted_rows(2, 2, 2))):
        Dataset.from_list(rows).to_json(folder / f"{name}.jsonl")
    given |= {"subsets": 8, "subset_rows": 8, "selection_target": str(folder / "target.jsonl")}
    path.write_text(yaml.safe_dump(given | {"methods": [PLANTED]}))
    return path


@pytest.fixture(scope="module")
def audited(recipe) -> Path:
    """The run folder of an audit that was killed in the middle and went on."""
    folder, written = recipe.parent / "run", []

    class Killed(BaseException):
        pass

    def add(store, number, rows, *given, add=subset_losses.SubsetLosses._add):
        add(store, number, rows, *given)
        written.append(tuple(rows))
        if len(written) == 5:
            with open(store.path, "a") as file:
                file.write('{"settings": "torn')
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subset_losses.SubsetLosses, "_add", add)
        with pytest.raises(Killed):
            main(["audit", "--config", str(recipe)])
        assert not (folder / "audit.json").exists()
        main(["audit", "--config", str(recipe)])
    assert len(written) == len(set(written)) == 1 + 8 + 4
    return folder


def test_planted_rows_are_found(audited):
    found = json.loads((audited / "audit.json").read_text())
    by_name = {one["name"]: one for one in found["findings"]}
    assert set(by_name) == {"planted", "random", "length", "bm25"}
    assert (found["subsets"], found["subset_rows"], found["rows"], found["pool"]) == (8, 8, 4, 40)
    assert found["excluded"] == {"no answer": 1} and found["trained"] < found["untrained"]
    assert max(by_name, key=lambda name: by_name[name]["prediction"]["lds"]["value"]) == "planted"
    assert max(by_name, key=lambda name: by_name[name]["gain"]["value"]) == "planted"
    gain = by_name["planted"]["gain"]
    assert 0 < gain["low"] < gain["value"] < gain["high"]
    assert by_name["planted"]["about"]["method"] == "column" and by_name["length"]["seconds"] > 0
    assert all(one["str_ratio"] > 0 for one in found["findings"]) and not found["full_seconds_measured"]
    shown = (audited / "audit.md").read_text()
    assert "beyond chance: `planted`" in shown and "| planted " in shown and "random (control)" in shown
    selection = json.loads((audited / "selections" / "planted" / "selection.json").read_text())
    rows = [json.loads(line) for line in (audited.parent / "rows.jsonl").read_text().splitlines()]
    assert all(rows[row]["planted"] for row in selection["indices"])


def test_a_line_is_a_subset_and_says_what_was_measured(audited, recipe, tmp_path):
    untrained, *rest = sorted(read_lines(audited / "subsets.jsonl"), key=lambda line: len(line["rows"]))
    assert untrained["rows"] == [] and len(rest) == 12 and all(len(line["rows"]) == 8 for line in rest)
    assert not any(3 in line["rows"] for line in rest)  # it has no answer to train on
    assert all(len(line["losses"]) == 4 and line["seconds"] > 0 for line in rest)
    # The losses are those of the trainer, trained on these rows.
    first = rest[0]
    parsed = parse_recipe(["--config", str(recipe), "--output_dir", str(tmp_path)], "audit", AuditArguments)
    rows = Dataset.from_json(str(recipe.parent / "rows.jsonl")).select(first["rows"])
    trainer = build_trainer(parsed, load_selector("full"), rows=rows, evaluation=False)
    held_out = Records(Dataset.from_json(str(recipe.parent / "heldout.jsonl")))
    np.testing.assert_allclose(held_out_loss(held_out, trainer.context()).mean, untrained["losses"], rtol=1e-5)
    trainer.train()
    found = held_out_loss(held_out, trainer.context()).mean
    np.testing.assert_allclose(found, first["losses"], rtol=1e-5)


@pytest.mark.parametrize(
    "options", [["--use_peft", "true", "--lora_dropout", "0.2"], ["--packing", "true", "--max_length", "48"]]
)
def test_it_trains_as_the_trainer_does_and_puts_the_weights_back(recipe, tmp_path, options):
    argv = ["--config", str(recipe), "--output_dir", str(tmp_path), "--weight_decay", "0.1", *options]
    parsed = parse_recipe(argv, "audit", AuditArguments)
    found, rows = plan_audit(parsed), np.arange(4, 12)
    trainer = build_trainer(parsed, load_selector("random"), rows=found.records.dataset, evaluation=False)
    losses, before = TrainedLosses(trainer, found.held_out, found.folder, 7), model_identity(trainer.model)
    (measured,) = losses.measure([rows], "Subset")
    assert model_identity(trainer.model) == before
    assert (np.abs(measured.losses - losses.untrained().losses) > 1e-3).all()
    parsed.args.seed = 7
    alone = build_trainer(parsed, load_selector("full"), rows=found.records.dataset.select(rows), evaluation=False)
    alone.model.load_state_dict(trainer.model.state_dict())
    alone.train()
    np.testing.assert_allclose(measured.losses, held_out_loss(found.held_out, alone.context()).mean, rtol=1e-5)


def test_a_finished_audit_trains_and_scores_nothing_again(audited, recipe, capsys, monkeypatch):
    before = (audited / "audit.md").read_text()
    path = audited / "subsets.jsonl"
    monkeypatch.setattr("hf_dataselect.features.tuned_loss.warmed_up", None)
    monkeypatch.setattr("hf_dataselect.plan.select", None)
    main(["audit", "--config", str(recipe)])
    assert (audited / "audit.md").read_text() == before and before.strip() in capsys.readouterr().out
    held = path.read_text()
    path.write_text('"loss": 1'.join(held.rsplit('"loss": ', 1)))
    with pytest.raises(SystemExit):  # a line that was changed is measured again
        main(["audit", "--config", str(recipe)])
    assert "not callable" in capsys.readouterr().err
    path.write_text(held)
    with pytest.raises(SystemExit):
        main(["audit", "--config", str(recipe), "--learning_rate", "0.5"])
    assert "learning_rate was 0.003, is 0.5" in capsys.readouterr().err
    other = json.dumps(PLANTED | {"selection_kwargs": {"name": "planted", "higher_is_better": False}})
    with pytest.raises(SystemExit):
        main(["audit", "--config", str(recipe), "--methods", other])
    assert "'higher_is_better': True" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, said",
    [
        (["--subset_rows", "21"], "`subset_rows=21`: 40 rows can be trained on, and different subsets need twice"),
        (["--subset_rows", "1"], "`subset_rows=1` must be at least 2"),
        (["--subsets", "7"], "`subsets=7` must be at least 8"),
        (["--eval_dataset_name", ""], "`eval_dataset_name` is required"),
        (["--methods", "ifd,lenght"], "did you mean 'length'"),
        (["--methods", '{"method": "rds", "selection_kwargs": {"rul": 1}}'], "has no option 'rul'"),
        (["--methods", '{"method": "rds", "kwargs": {}}'], "'rds' has no key 'kwargs'"),
        (["--methods", '{"method": "rds", "name": "a/b"}'], "the name 'a/b' must have"),
        (["--methods", "{"], "is not JSON"),
        (["--methods", "rds,rds"], "two of them are called 'rds'"),
        (["--methods", "alpagasus"], "needs `judge`"),
        (["--methods", "full"], "`full` keeps every row"),
        (["--methods", "rds", "--selection_target", ""], "needs `selection_target`"),
        (["--fsdp", "full_shard"], "has not been run under FSDP2: launch it without sharding"),
        (["--selection_method", "ifd"], "`selection_method` is of a single run: an audit has `methods`"),
        (["--selection_budget", "5"], "an audit has `subset_rows`"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_made(recipe, tmp_path, capsys, options, said):
    with pytest.raises(SystemExit):
        main(["audit", "--config", str(recipe), "--output_dir", str(tmp_path / "run"), *options])
    assert said in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_by_default_all_that_can_score_are_audited_and_the_others_are_named(recipe, tmp_path):
    given = yaml.safe_load(recipe.read_text())
    del given["methods"]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(given | {"output_dir": str(tmp_path / "run")}))
    found = plan_audit(parse_recipe(["--config", str(tmp_path / "recipe.yaml")], "audit", AuditArguments))
    names = [entry.name for entry in found.entries]
    assert names[:3] == ["random", "length", "bm25"] and {"ifd", "perplexity", "rds", "less"} <= set(names)
    assert set(names) | set(found.left_out) == set(method_names()) and not found.required
    assert "judge" in found.left_out["alpagasus"] and "keeps every row" in found.left_out["full"]
    assert "no column 'score'" in found.left_out["column"] and "all trainings" in found.left_out["nuggets"]


def test_names_tell_options_apart():
    given = ["ifd,length", {"method": "rds", "selection_kwargs": {"rule": "max"}}, {"method": "rds", "name": "rds.rr"}]
    names = [entry.name for entry in AuditArguments(methods=given).entries]
    assert names == ["ifd", "length", "rds-max", "rds.rr"]
