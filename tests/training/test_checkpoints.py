"""Resuming takes the last checkpoint that is whole and of the run, and goes on as it was trained."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraConfig
from safetensors.torch import save_file
from transformers import TrainerCallback

from hf_dataselect.errors import DamagedFile
from hf_dataselect.runs.files import run_id
from hf_dataselect.runs.folder import read_recipe
from hf_dataselect.training.checkpoints import RECORD, last_whole_checkpoint, record, seconds_at, why_torn
from tests.run_folders import as_earlier_version, flipped
from tests.tiny_training import tiny_trainer


OPTIONS = {"save_strategy": "steps", "save_steps": 1, "selection_budget": 8, "max_steps": 3}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run with three checkpoints, of an adapter."""
    folder = tmp_path_factory.mktemp("trained")
    trainer(folder).train()
    return folder


def trainer(folder: Path, method: str = "length", r: int = 2, **options):
    return tiny_trainer(folder, method, peft_config=LoraConfig(r=r, task_type="CAUSAL_LM"), **OPTIONS | options)


@pytest.fixture
def copied(trained, tmp_path) -> Path:
    shutil.copytree(trained / "run", tmp_path / "run")
    return tmp_path


NEEDED = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", RECORD)


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("name", NEEDED)
def test_a_torn_checkpoint_is_passed_over_and_named(copied, name, recorded, caplog):
    folder, last = copied / "run", copied / "run" / "checkpoint-3"
    path, run = last / name, run_id(folder)
    whole = path.read_bytes()
    assert last_whole_checkpoint(folder, run) == last
    if not recorded and name != RECORD:  # killed before the record was written
        (last / RECORD).unlink()
        assert last_whole_checkpoint(folder, run) == last
    torn = [whole[: len(whole) // 2], b""]
    if path.suffix in (".pt", ".pth"):  # in the pickle, not in the padding between parts
        torn.append(flipped(whole, whole.index(b"\x80\x02") + 1))
    elif recorded:  # else weights have no checksum
        torn.append(flipped(whole, len(whole) // 2))
    for broken in torn:
        path.write_bytes(broken)
        caplog.clear()
        assert last_whole_checkpoint(folder, run).name == "checkpoint-2", (name, len(broken))
        assert f"{last} can't be resumed from: " in caplog.text and name in caplog.text
    path.unlink()
    if recorded and name in ("adapter_model.safetensors", "trainer_state.json"):
        assert name in why_torn(last)
    elif recorded and name != RECORD:  # Trainer goes on without
        caplog.clear()
        assert why_torn(last) is None and f"{last} has no {name} any more" in caplog.text


def test_what_callbacks_write_into_a_checkpoint_is_theirs(copied):
    last = copied / "run" / "checkpoint-3"
    for name in ("my_metrics.bin", "notes.pt", "adapter_config.json", "tokenizer_config.json"):
        (last / name).write_bytes(b"{}")
    assert why_torn(last) is None


def test_what_torch_pickled_before_it_wrote_archives_is_taken(copied):
    last = copied / "run" / "checkpoint-3"
    torch.save(torch.load(last / "optimizer.pt"), last / "optimizer.pt", _use_new_zipfile_serialization=False)
    assert "optimizer.pt is not as it was written (restore it; or delete train_seconds.json" in why_torn(last)
    record(last, 1.0)
    assert why_torn(last) is None
    whole = (last / "optimizer.pt").read_bytes()
    (last / "optimizer.pt").write_bytes(flipped(whole, len(whole) // 2))
    assert "optimizer.pt is not as it was written" in why_torn(last)
    (last / RECORD).unlink()
    assert why_torn(last) is None


def test_large_weights_are_hashed_in_part(tmp_path):
    (tmp_path / "trainer_state.json").write_text('{"global_step": 3}')
    path = tmp_path / "model.safetensors"
    save_file({"w": torch.ones(33 * 2**20)}, path)  # 132 MiB
    record(tmp_path, 1.0)
    assert why_torn(tmp_path) is None
    with open(path, "r+b") as file:  # as a disk leaves what it has not written: whole pages of zeros
        file.seek(2**26)
        file.write(bytes(2**22))
    assert "model.safetensors is not as it was written" in why_torn(tmp_path)


def test_without_a_whole_checkpoint_the_error_says_so(copied):
    for path in (copied / "run").glob("checkpoint-*/trainer_state.json"):
        path.unlink()
    with pytest.raises(ValueError, match="can be resumed from: .*checkpoint-3.*missing.*checkpoint-1.*Train anew"):
        trainer(copied).train(resume_from_checkpoint=True)
    with pytest.raises(ValueError, match=r"checkpoint-2'`: .*trainer_state.json is missing"):
        trainer(copied).train(resume_from_checkpoint=str(copied / "run" / "checkpoint-2"))
    for path in (copied / "run").glob("checkpoint-*"):
        shutil.rmtree(path)
    with pytest.raises(ValueError, match="has no checkpoint. Train anew"):
        trainer(copied).train(resume_from_checkpoint=True)


def test_a_run_goes_on_from_the_whole_one_for_longer_and_its_recipe_says_so(copied, caplog):
    (copied / "run" / "checkpoint-3" / "optimizer.pt").write_bytes(b"torn")
    before, seconds = run_id(copied / "run"), seconds_at(copied / "run" / "checkpoint-2")
    free = {
        "activation_checkpointing": True,
        "do_train": True,
        "label_names": ["labels"],
        "remove_unused_columns": False,
    }
    free |= {"liger_kernel_config": {}, "lr_scheduler_kwargs": {}, "local_rank": 0, "logging_steps": 2}
    resumed = trainer(copied, max_steps=5, max_length=100, data_seed=42, dataloader_drop_last=True, **free)
    resumed.recipe["model_name_or_path"] = "moved"
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 5 and run_id(copied / "run") == before
    warned = next(line for line in caplog.messages if line.startswith("Resumed with other options than before: "))
    assert warned.count("(then") == 4 and "`max_length` (then 128, now 100)" in warned
    assert "`dataloader_drop_last` (then 'the default', now True)" in warned
    assert "now 'moved'" in warned and "`data_seed` (then 'the default', now 42)" in warned
    assert read_recipe(copied / "run")["max_steps"] == 5 and read_recipe(copied / "run")["max_length"] == 100
    assert seconds_at(copied / "run" / "checkpoint-5") > seconds
    assert last_whole_checkpoint(copied / "run", before).name == "checkpoint-5"


@pytest.mark.parametrize(
    "change, said",
    [
        (
            {"learning_rate": 0.5, "packing": True},
            r"`learning_rate` \(then 0.01, now 0.5\), `packing` \(then 'the",
        ),
        ({"weight_decay": 0.1}, r"`weight_decay` \(then 'the default', now 0.1\)"),
        ({"r": 4}, r"`peft_config` is another one: `r` \(then 2, now 4\)"),
    ],
)
def test_other_training_options_are_refused(copied, change, said):
    recipe = (copied / "run" / "recipe.yaml").read_text()
    with pytest.raises(ValueError, match=said):
        trainer(copied, **change).train(resume_from_checkpoint=True)
    assert (copied / "run" / "recipe.yaml").read_text() == recipe


def test_a_checkpoint_of_the_run_before_is_not_resumed(copied):
    """Another method in the same folder, killed before its first checkpoint."""
    trainer(copied, "random").select()
    for given in (True, str(copied / "run" / "checkpoint-3")):
        with pytest.raises(ValueError, match="is of another run than the one in"):
            trainer(copied, "random").train(resume_from_checkpoint=given)


def test_selecting_again_and_training_anew_by_mistake_keep_the_checkpoints(copied):
    folder, evaluation = copied / "run", (copied / "run" / "eval.json").read_bytes()
    trainer(copied).selected_dataset()
    assert (folder / "eval.json").read_bytes() == evaluation

    class Fails(TrainerCallback):
        def on_step_begin(self, *args, **kwargs):
            raise MemoryError

    with pytest.raises(MemoryError):
        trainer(copied, callbacks=[Fails()], max_steps=4).train()
    assert not (folder / "eval.json").exists()
    again = trainer(copied, max_steps=5)
    again.select()
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 5 and (folder / "eval.json").exists()


def test_a_run_of_an_earlier_version_goes_on_and_gets_an_id(copied, caplog):
    as_earlier_version(copied / "run")
    with caplog.at_level(logging.WARNING):
        trainer(copied).train(resume_from_checkpoint=str(copied / "run" / "checkpoint-2"))
    assert caplog.text.count("was written by an earlier version, without checksums") == 1
    run = run_id(copied / "run")
    assert run and why_torn(copied / "run" / "checkpoint-2", run) is None is why_torn(copied / "run/checkpoint-3", run)
    assert "another run" in why_torn(copied / "run" / "checkpoint-1", run)


def test_a_damaged_recipe_or_selection_is_named(copied):
    for name in ("recipe.yaml", "selection.json", "versions.json"):
        path = copied / "run" / name
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] + b"x" + whole[len(whole) // 2 :])
        with pytest.raises(DamagedFile, match=f"{name} is damaged"):
            trainer(copied).train(resume_from_checkpoint=True)
        path.write_bytes(whole)


def test_the_recipe_does_not_resume(tmp_path):
    given = tiny_trainer(tmp_path, resume_from_checkpoint="true").args.given
    assert "resume_from_checkpoint" not in given and yaml.safe_dump(json.loads(json.dumps(given)))
