"""Where the rows and the tokenizer of a recipe come from."""

from pathlib import Path

import pytest

from hf_dataselect.training import inputs
from hf_dataselect.training import recipe as recipe_module
from hf_dataselect.training.recipe import build_trainer, load_held_out, load_sources, parse_recipe, prepare_selection
from tests.rows import alpaca
from tests.tiny import tiny_tokenizer
from tests.tiny_training import write_recipe


def sources(folder: Path, **options) -> tuple:
    """Candidates and evaluation rows of a recipe with these options."""
    path = write_recipe(folder, selection_method="full", selection_kwargs={}, selection_budget=None, **options)
    return load_sources(parse_recipe(["--config", str(path)]))


def test_a_slice_of_a_file_is_taken_for_training_and_the_rest_for_evaluation(tmp_path):
    splits = {"dataset_train_split": "train[:75%]", "dataset_test_split": "train[75%:]"}
    found, held_out = sources(tmp_path, eval_dataset_name=None, eval_strategy="steps", eval_steps=1, **splits)
    everything = alpaca(24)["instruction"][:]
    assert found["instruction"][:] + held_out["instruction"][:] == everything and len(found) == 18


@pytest.mark.parametrize("split", ["validation", "test[:2]"])
def test_a_split_that_a_file_does_not_have_is_refused(tmp_path, split):
    with pytest.raises(ValueError, match="Unknown split"):
        sources(tmp_path, dataset_train_split=split)


def test_an_evaluation_file_is_the_split_test(tmp_path):
    assert len(sources(tmp_path)[1]) == 6
    assert len(sources(tmp_path, dataset_test_split="test[:50%]")[1]) == 3
    assert len(sources(tmp_path, dataset_test_split="train")[1]) == 6
    with pytest.raises(ValueError, match="Unknown split"):
        sources(tmp_path, dataset_test_split="validation")


@pytest.mark.parametrize("options", [{}, {"dataset_test_split": "train"}, {"eval_dataset_name": "rows.jsonl"}])
def test_the_candidates_are_not_evaluated_on(tmp_path, options):
    if "eval_dataset_name" in options:
        options = {"eval_dataset_name": str(tmp_path / "rows.jsonl")}
    given = {"eval_dataset_name": None, "eval_strategy": "steps", "eval_steps": 1} | options
    words = "set `eval_dataset_name`" if given["eval_dataset_name"] is None and len(options) == 0 else "candidates"
    with pytest.raises(ValueError, match=words):
        sources(tmp_path, **given)


def test_a_configuration_goes_to_the_dataset_that_has_it(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(recipe_module, "load_rows", lambda name, config, split, *_, **__: asked.append((name, config)))
    for options in ({"eval_dataset_name": "d"}, {"eval_dataset_name": "e"}, {"eval_dataset_config": "f"}):
        argv = {
            "dataset_name": "d",
            "dataset_config": "c",
            "eval_dataset_name": "e",
            "model_name_or_path": "m",
        } | options
        found = parse_recipe([item for key, value in argv.items() for item in (f"--{key}", value)] + ["--use_cpu"])
        load_held_out(found)
    assert asked == [("d", "c"), ("e", None), ("e", "f")]


TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% if loop.last %}</s>{% endif %}{% endfor %}"


#: Of TRL, about an option that it still takes.
DEPRECATED = pytest.mark.filterwarnings("ignore:`pad_token` is deprecated")


def tokenizers(folder: Path, **options) -> tuple:
    """The tokenizers by which `select` without a model, and `train`, read rows."""
    path = write_recipe(folder, selection_method="length", selection_kwargs={}, **options)
    given = ["--config", str(path)]
    _, plan, choose, _ = prepare_selection(parse_recipe(given, "select"))
    trainer = build_trainer(parse_recipe(given))
    assert choose().indices.tolist() == trainer.select().indices.tolist()
    return choose.args[0].tokenizer, trainer.context().tokenizer


@DEPRECATED
@pytest.mark.parametrize("how", ["none", "file", "folder"])
def test_select_and_train_read_rows_with_the_same_tokenizer(tmp_path, how):
    options = {"pad_token": "</s>", "eos_token": "<|assistant|>"}
    if how == "file":
        (tmp_path / "chat.jinja").write_text(TEMPLATE, encoding="utf-8")
        options["chat_template_path"] = str(tmp_path / "chat.jinja")
    elif how == "folder":
        source = tiny_tokenizer()
        source.chat_template = TEMPLATE
        source.add_tokens(["<new>"])
        source.save_pretrained(tmp_path / "source")
        options["chat_template_path"] = str(tmp_path / "source")
    mine, other = tokenizers(tmp_path, **options)
    for part in ("chat_template", "eos_token", "pad_token"):
        assert getattr(mine, part) == getattr(other, part), part
    assert mine.pad_token == "</s>" and (how == "none") == (mine.chat_template != TEMPLATE)
    assert ("<new>" in mine.get_vocab()) == ("<new>" in other.get_vocab()) == (how == "folder")


def test_revision_and_remote_code_count_for_both(tmp_path, monkeypatch):
    asked = []
    path = write_recipe(tmp_path, selection_method="length", selection_kwargs={})
    monkeypatch.setattr(inputs, "load_tokenizer_of", lambda name, **hub: asked.append(hub) or tiny_tokenizer())
    options = ["--model_init_kwargs", '{"revision": "v2"}', "--trust_remote_code", "true", "--model_revision", "v1"]
    for options_given in (options, options[2:]):
        given = ["--config", str(path), *options_given]
        prepare_selection(parse_recipe(given, "select"))
        build_trainer(parse_recipe(given))
    expected = [{"revision": revision, "trust_remote_code": True} for revision in ("v2", "v2", "v1", "v1")]
    assert asked == expected


@DEPRECATED
@pytest.mark.parametrize("command", [lambda found: prepare_selection(found), lambda found: build_trainer(found)])
@pytest.mark.parametrize(
    ("option", "value"),
    [("pad_token", "<none>"), ("eos_token", "<none>"), ("chat_template_path", "./none.jinja")],
)
def test_tokens_and_templates_that_are_not_there_are_refused(tmp_path, command, option, value):
    path = write_recipe(tmp_path, selection_method="length", selection_kwargs={}, **{option: value})
    with pytest.raises(ValueError, match=f"`{option}="):
        command(parse_recipe(["--config", str(path)]))
