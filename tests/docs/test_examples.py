"""The scripts of examples/ run with a tiny model, and do what they say."""

import ast
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from peft import PeftConfig

from hf_dataselect import load_selector
from hf_dataselect.cli.main import main
from hf_dataselect.testing import check_selector
from hf_dataselect.training.prompt_sampler import STATE, PromptSampler
from tests.docs.home import CPU, MODEL, ROOT, ROWS, run_script
from tests.tiny import tiny_model, tiny_tokenizer


OPTIONS = ["--model_name_or_path", MODEL, "--max_steps", "2", "--report_to", "none"]
OPTIONS += ["--save_strategy", "no", "--per_device_train_batch_size", "2", "--disable_tqdm", "true", *CPU]


pytestmark = pytest.mark.usefixtures("at_home")


def commanded(name: str) -> list[str]:
    """The arguments of the command in a script's docstring."""
    said = ast.get_docstring(ast.parse((ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")))
    return said.partition("python examples/")[2].partition("\n\n")[0].replace("\\\n", " ").split()[1:]


def run(name: str) -> dict:
    run_script(ROOT / "examples" / f"{name}.py", *commanded(name), *OPTIONS)
    folder = Path(commanded(name)[commanded(name).index("--output_dir") + 1])
    selection = json.loads((folder / "selection.json").read_text())
    evaluation = folder / "eval.json"
    return selection | ({"eval": json.loads(evaluation.read_text())} if evaluation.is_file() else {})


def test_lora_on_the_rows_kept(capsys):
    found = run("sft_lora")
    assert found["method"] == "perplexity" and len(found["indices"]) == round(57 * 0.1)
    assert PeftConfig.from_pretrained("runs/lora").r == 16 and "perplexity: kept" in capsys.readouterr().out
    assert found["eval"]["settings"]["answer_loss"]["score"] > 0


def test_a_selector_of_ones_own(monkeypatch):
    found = run("own_selector")
    rows = load_dataset(ROWS, split="train")
    asking = ["?" in f"{row['instruction']}{row['input']}" for row in rows]
    assert len(found["indices"]) == 6 < sum(asking) < len(rows) and found["options"] == {"most": 2}
    assert all(asking[row] for row in found["indices"])
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    check_selector(load_selector("own_selector:Questions"))


def test_a_benchmark_of_ones_own():
    found = run("own_benchmark")["eval"]
    setting = found["settings"]["stops/share"]
    assert setting["higher_is_better"] and len(setting["examples"]) == 4 and set(setting["examples"]) <= {0.0, 1.0}
    assert setting["score"] == np.mean(setting["examples"])
    assert found["protocol"]["stops"]["max_new_tokens"] == 32
    recipe = Path("runs/stops/recipe.yaml").read_text()
    assert "own_benchmark:Stops" in recipe, "the recipe of the run repeats it"


def test_dpo_on_the_pairs_kept(at_home):
    policy = at_home / "runs" / "dpo-all"
    tiny_model(tiny_tokenizer(), seed=1).save_pretrained(policy)
    tiny_tokenizer().save_pretrained(policy)
    found = run("dpo_pairs")
    assert found["method"] == "reward_gap" and len(found["indices"]) == 2
    assert Path("runs/dpo/model.safetensors").is_file()


def test_grpo_draws_the_same_prompts_after_a_kill(at_home, monkeypatch):
    options = [*commanded("grpo_prompts"), *OPTIONS, "--num_generations", "2", "--max_completion_length", "6"]
    options += ["--per_device_train_batch_size", "4", "--rollouts", "4", "--max_steps", "6"]
    options += ["--save_strategy", "steps", "--save_steps", "1"]
    script = ROOT / "examples" / "grpo_prompts.py"
    served: list[list] = []
    update = PromptSampler.update
    monkeypatch.setattr(
        PromptSampler, "update", lambda self, rows, *given: served.append([*rows]) or update(self, rows, *given)
    )
    run_script(script, *options)
    whole = [*served]
    checkpoints = Path("runs/grpo")
    last = json.loads((checkpoints / "checkpoint-6" / STATE).read_text())
    assert np.sum(last["alpha"]) > len(last["alpha"]), "some rollouts succeed"
    batches = len(last["alpha"]) // 2
    assert batches == 5
    for step in (2, batches):  # within the epoch, and at its end
        del served[:]
        run_script(script, *options, "--resume_from_checkpoint", str(checkpoints / f"checkpoint-{step}"))
        assert served == whole[step:]
        assert json.loads((checkpoints / "checkpoint-6" / STATE).read_text()) == last
    (checkpoints / "checkpoint-1" / STATE).unlink()
    with pytest.raises(ValueError, match=f"{STATE} is missing"):
        run_script(script, *options, "--resume_from_checkpoint", str(checkpoints / "checkpoint-1"))


def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    places = {name: str(Path(place).resolve()) for name, place in (("MODEL", MODEL), ("ROWS", ROWS))}
    for name, value in {**places, "CANDIDATES": "40", "HELD_OUT": "12"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "examples" / "first_steps.ipynb").read_text(encoding="utf-8"))
    cells, names = notebook["cells"], {}
    assert notebook["nbformat"] == 4 and len({cell["id"] for cell in cells}) == len(cells)
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        assert not cell["outputs"] and cell["execution_count"] is None
        code = "".join(cell["source"])
        if code.startswith("!hf-dataselect "):
            main(shlex.split(code)[1:])
        elif "picture" in cell["metadata"].get("tags", ()):
            assert Path(re.search('Image\\("(.*?)"\\)', code)[1]).is_file()
        elif not code.startswith("%pip install"):
            exec(compile(code, "first_steps.ipynb", "exec"), names)
    shown = capsys.readouterr().out
    assert "perplexity: kept 4 of 40 rows" in shown and all(f"| {name} " in shown for name in names["METHODS"])
