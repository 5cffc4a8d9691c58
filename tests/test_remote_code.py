"""A model's own code runs where `trust_remote_code` asks for it, and nowhere else."""

import json
from pathlib import Path

import pytest

from hf_dataselect import DataSelectingConfig, DataSelectingTrainer, select_dataset
from hf_dataselect.cli.main import main
from hf_dataselect.engines.llm.load import load_judge
from hf_dataselect.fitted.scorers import train_scorer
from hf_dataselect.selectors.deita import DEITA
from hf_dataselect.selectors.mods import MoDS
from hf_dataselect.selectors.superfiltering import Superfiltering
from tests.engines.llm.test_local import reward_model
from tests.rows import alpaca
from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_training import write_recipe


CODE = """
import transformers

open({marker!r}, "w").close()


class Config(transformers.LlamaConfig):
    pass


class Model(transformers.LlamaForCausalLM):
    config_class = Config


class Tokenizer(transformers.PreTrainedTokenizerFast):
    pass
"""
OWN = {
    "config.json": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"},
    "tokenizer_config.json": {"AutoTokenizer": [None, "own.Tokenizer"]},
}


def trap(folder: Path, model) -> Path:
    """A folder of a model whose code, where it is run, writes a file."""
    for part in (model, tiny_tokenizer()):
        part.save_pretrained(folder)
    for name, classes in OWN.items():
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | {"auto_map": classes}))
    (folder / "own.py").write_text(CODE.format(marker=str(folder / "ran")))
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    return trap(tmp_path / "trap", tiny_model(tiny_tokenizer()))


def command(name: str, method: str):
    def run(folder: Path, trust: bool) -> None:
        recipe = write_recipe(folder.parent, selection_method=method, selection_kwargs=None, max_steps=1)
        trusting = ["--trust_remote_code", "true"] if trust else []
        main([name, "--config", str(recipe), "--model_name_or_path", str(folder), *trusting])

    return run


def dataset(method: str):
    def run(folder: Path, trust: bool) -> None:
        select_dataset(
            alpaca(4), method, str(folder), budget=2, model_kwargs={"trust_remote_code": True} if trust else {}
        )

    return run


def trainer(folder: Path, trust: bool) -> None:
    args = DataSelectingConfig(str(folder.parent / "run"), trust_remote_code=trust, use_cpu=True, bf16=False)
    DataSelectingTrainer(str(folder), args, train_dataset=alpaca(4))


def scorer(folder: Path, trust: bool) -> None:
    rows = [{"prompt": "p", "completion": "1", "row": row} for row in range(4)]
    alpaca(4).to_json(folder.parent / "rows.jsonl")
    given = {"model_name_or_path": folder, "dataset_name": folder.parent / "rows.jsonl", "judge": "model:some"}
    given |= {"output_dir": folder.parent / "run", "use_cpu": "true", "bf16": "false"}
    given |= {"trust_remote_code": "true"} if trust else {}
    with pytest.MonkeyPatch.context() as patch, pytest.raises(pytest.fail.Exception, match="its weights"):
        patch.setattr(train_scorer, "load_judge", lambda *given: None)
        patch.setattr(train_scorer, "evolved_rows", lambda *given: (rows, {}))
        patch.setattr(train_scorer, "SFTTrainer", lambda model, *given, **options: pytest.fail("with its weights"))
        main(["train-scorer", *(part for name, value in given.items() for part in (f"--{name}", str(value)))])


#: Where a user names the model to be fine-tuned, with the option.
TRUSTING = {
    "select": command("select", "length"),
    "select with the model": command("select", "perplexity"),
    "train": command("train", "random"),
    "trainer": trainer,
    "select_dataset": dataset("length"),
    "select_dataset with the model": dataset("perplexity"),
    "train-scorer": scorer,
}


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("way", TRUSTING)
def test_the_code_of_the_model_runs_only_where_it_is_trusted(way, trust, folder):
    TRUSTING[way](folder, trust)
    assert (folder / "ran").exists() == trust


#: Where another model is named, for which nobody is asked.
OTHERS = {
    "judge": lambda folder, rewards: load_judge(f"model:{folder}"),
    "reward": lambda folder, rewards: load_judge(f"reward:{rewards}"),
    "superfiltering": lambda folder, rewards: select_dataset(
        alpaca(24), Superfiltering(str(folder)), None, str(folder), 2
    ),
    "mods": lambda folder, rewards: MoDS(reward_model=str(rewards), encoder="model").check(None),
    "deita": lambda folder, rewards: DEITA(str(folder), str(folder)).check(None),
}


@pytest.mark.parametrize("way", OTHERS)
def test_the_code_of_other_models_never_runs(way, folder, tmp_path):
    rewards = trap(tmp_path / "rewards", reward_model(tiny_tokenizer()))
    OTHERS[way](folder, rewards)
    assert not (folder / "ran").exists() and not (rewards / "ran").exists()
