"""What a method can't work with is refused before anything is scored, and named by its option."""

import pytest
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import BertConfig, LlamaConfig, PreTrainedTokenizerFast

from hf_dataselect.data.records import Records
from hf_dataselect.errors import SelectionError
from hf_dataselect.pipeline import select
from hf_dataselect.registry import load_selector
from hf_dataselect.selectors.blend import Blend
from hf_dataselect.selectors.column import Column
from hf_dataselect.selectors.grape import GRAPE
from hf_dataselect.selectors.ifd import IFD
from hf_dataselect.selectors.reward import Reward
from tests.engines.llm.test_local import reward_model
from tests.rows import alpaca
from tests.tiny import context_of, tiny_evaluator, tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """Configurations and tokenizers, without weights: nothing here may load any."""
    tokenizer, kept = tiny_tokenizer(), {}
    for name, config in (
        ("LLAMA", tiny_model(tokenizer).config),
        ("T5", tiny_evaluator(tokenizer).config),
        ("BERT", BertConfig(vocab_size=len(tokenizer))),
        ("REWARD", reward_model(tokenizer).config),
    ):
        kept[name] = str(tmp_path_factory.mktemp(name))
        for part in (config, tokenizer):
            part.save_pretrained(kept[name])
    kept["MUTE"] = str(tmp_path_factory.mktemp("MUTE"))
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0, "b": 1}, "a")))
    for part in (LlamaConfig(vocab_size=2), words):
        part.save_pretrained(kept["MUTE"])
    return kept


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        *(
            (name, {"model": model}, "model='.*' is a '.*: give a causal")
            for name in ("s2l", "t_shirt")
            for model in ("T5", "BERT")
        ),
        ("superfiltering", {"model": "BERT"}, "model='.*' is a 'bert'.*: give a causal language model"),
        ("reward_gap", {"policy": "BERT"}, "policy='.*' is a 'bert'.*: give a causal language model"),
        ("deita", {"complexity_scorer": "model", "quality_scorer": "T5"}, "quality_scorer='.*' is a 't5'"),
        ("deita", {"complexity_scorer": "LLAMA", "quality_scorer": "LLAMA", "encoder": "./none"}, "encoder='./none'"),
        (
            "deita",
            {"complexity_scorer": "LLAMA", "quality_scorer": "MUTE"},
            "quality_scorer='.*MUTE.*' can't rate: .* 6",
        ),
        ("superfiltering", {"model": "LLAMA", "diversity": True, "encoder": "./none"}, "encoder='./none'"),
        (
            "deita",
            {"complexity_scorer": "T5", "quality_scorer": "MUTE", "encoder": "./none"},
            "(?s)complexity_scorer='.*quality_scorer='.*encoder='./none'",
        ),
        (
            "superfiltering",
            {"model": "BERT", "diversity": True, "encoder": "./none"},
            "(?s)model='.*encoder='./none'",
        ),
        ("instag", {"encoder": "./none"}, "encoder='./none'"),
        ("mig", {"quality": "length", "tags": {"similarity": 0}, "encoder": "model"}, "encoder='model'"),
    ],
)
def test_models_that_can_not_score_or_embed_are_refused_by_name(method, options, said, folders):
    pytest.importorskip("sentence_transformers")
    rows = alpaca(4)
    rows = rows.add_column("rejected", rows["output"])
    selector = load_selector(method, {name: folders.get(str(value), value) for name, value in options.items()})
    with pytest.raises(ValueError, match=said):
        selector.check(Records(rows))


def test_an_encoder_that_is_not_used_is_not_asked_for(folders):
    load_selector("superfiltering", {"model": folders["LLAMA"], "encoder": "./none"}).check(Records(alpaca(2)))
    load_selector("instag", {"similarity": 0, "encoder": "./none"}).check(Records(alpaca(2)))
    own = load_selector("superfiltering", {"diversity": True, "encoder": "model"})
    assert "model" in own.needs() and not own.extras()


def test_a_model_without_weights_is_named_by_the_option_that_gives_it(folders):
    with pytest.raises(SelectionError, match="`selection_kwargs`: model='.*' can't be loaded"):
        select(alpaca(2), Reward(folders["REWARD"]), 1.0, context_of(tiny_tokenizer(), None))


@pytest.mark.parametrize("value", [True, "true", False, 2, "2", 7.5])
def test_a_truth_value_is_no_number_among_choices(value):
    with pytest.raises(ValueError, match=f"gradient_bits={value!r} must be one of 16, 8, 4, 1"):
        load_selector("less", {"gradient_bits": value})
    assert load_selector("less", {"gradient_bits": "8"}).gradient_bits == 8


def test_a_threshold_excludes_the_same_rows_in_a_blend():
    rows = Dataset.from_list(
        [{"prompt": f"{value}?", "completion": "so", "rating": value} for value in (4.0, 4.1, 4.2)]
    )
    options, context = {"name": "rating", "threshold": 4.1}, context_of(tiny_tokenizer(), None)
    column = {"method": "column", "kwargs": options}
    methods = Column(**options), Blend({"ratings": column}), Blend({"ratings": column}, where="ratings >= 4.1")
    for method in methods:
        assert sorted(select(rows, method, 1.0, context).indices) == [1, 2]


def test_rows_that_can_not_be_read_are_no_answers_to_one_prompt():
    rows = Dataset.from_list(
        [{"prompt": text, "completion": answer} for text, answer in (("a", "b"), ("c", None))] * 1
    )
    rows = Dataset.from_list([*rows.to_list(), {"prompt": None, "completion": "d"}])
    with pytest.raises(ValueError, match="every prompt here has one"):
        GRAPE().check(Records(rows))


def test_a_warm_up_without_rows_is_no_warm_up():
    tokenizer = tiny_tokenizer()
    method = IFD(warmup_clusters=1, warmup_rows_per_cluster=2)
    with pytest.raises(SelectionError, match="each of the 1 clusters has two rows"):
        select(alpaca(2), method, 1.0, context_of(tokenizer, tiny_model(tokenizer), max_length=128, dtype="float32"))


def test_forecasts_count_the_target_s_tasks_and_the_pass_that_chooses_others():
    nuggets, ifd = load_selector("nuggets", {"tasks": 5}), load_selector("ifd")
    assert nuggets.forecast(100, 0, 10) == {"forward_rows": 5 + 5 * 100 + 100}
    assert nuggets.forecast(100, 30, 10) == {"forward_rows": 30 + 30 * 100}
    assert ifd.forecast(100, 0, 10)["forward_rows"] == 3 * 100


@pytest.mark.parametrize("method", ["rds", "bm25", "nuggets", "token_drop"])
def test_target_rows_without_texts_are_refused_before_anything_loads(method):
    tokens = Records(Dataset.from_dict({"input_ids": [[1, 2]], "labels": [[1, 2]]}), name="selection_target")
    with pytest.raises(ValueError, match="`selection_target` holds token ids"):
        load_selector(method).check_target(tokens)


def test_a_task_without_an_answer_is_refused_before_anything_loads():
    rows = alpaca(3).to_list()
    rows[1]["output"] = ""
    with pytest.raises(ValueError, match="`selection_target`: row 1 can't be a task of `nuggets`: no answer. Remove"):
        load_selector("nuggets").check_target(Records(Dataset.from_list(rows)))
