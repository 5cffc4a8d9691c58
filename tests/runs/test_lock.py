"""Two runs in one folder at once: the second is refused, and a killed one blocks nobody."""

import os
import subprocess
import sys

import pytest

from hf_dataselect.cli.main import main
from hf_dataselect.runs import lock
from hf_dataselect.runs.lock import LOCK, locked
from tests.processes import run_ranks


HOLD = "import sys, filelock; l = filelock.FileLock(sys.argv[1]); l.acquire(); print('held', flush=True); input()"


@pytest.fixture
def other(tmp_path):
    """Another process that holds the folder `run`."""
    (tmp_path / "run").mkdir()
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run" / LOCK)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_folder_in_use_is_refused_until_its_process_ends(other, tmp_path):
    with pytest.raises(ValueError, match="`output_dir='.*run'` is in use: another process"), locked(tmp_path / "run"):
        pass
    other.kill()
    other.wait()
    assert (tmp_path / "run" / LOCK).exists()
    with locked(tmp_path / "run"), locked(str(tmp_path / "run")):  # the trainer's, within the command's
        assert (tmp_path / "run" / LOCK).exists()
    assert os.listdir(tmp_path / "run") == [], "a folder of the user's stays"
    with locked(tmp_path / "new"), locked(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists(), "nothing is left of a run that wrote nothing"


@pytest.mark.parametrize("command", ["train", "select", "compare", "fit-rule", "train-scorer"])
def test_every_command_that_writes_a_run_is_refused_at_once(command, other, tmp_path, capsys):
    given = {"model_name_or_path": "none", "dataset_name": "none", "output_dir": tmp_path / "run", "use_cpu": True}
    if command == "train-scorer":
        given["judge"] = "model:none"
    with pytest.raises(SystemExit):
        main([command, *(str(part) for name, value in given.items() for part in (f"--{name}", value))])
    assert capsys.readouterr().err.count("is in use: another process selects or trains there") == 1


def test_a_refusal_reaches_all_ranks(other, tmp_path):
    command = ["select", "--model_name_or_path", "none", "--dataset_name", "none", "--use_cpu", "true"]
    ranks = run_ranks([*command, "--output_dir", str(tmp_path / "run")], ranks=2, folder=tmp_path)
    assert [rank.exitcode for rank in ranks] == [2, 2]
    assert all("is in use: another process" in rank.log for rank in ranks)


@pytest.mark.parametrize("error", [NotImplementedError("no flock"), PermissionError(13, "another user's")])
def test_a_folder_that_cannot_be_locked_is_warned_of_once(tmp_path, monkeypatch, caplog, error):
    def acquire(self):
        raise error

    monkeypatch.setattr(lock.FileLock, "acquire", acquire)
    with locked(tmp_path / "run"), locked(tmp_path / "run"):
        (tmp_path / "run" / "a").write_text("")
    assert caplog.text.count(f"can't be locked ({error}): keep other runs out of it") == 1


def test_a_folder_that_cannot_be_made_is_left_to_the_check_of_writing(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with locked(tmp_path / "file" / "run"), locked(tmp_path / "file"):
        pass
    assert not caplog.records and os.listdir(tmp_path) == ["file"]
