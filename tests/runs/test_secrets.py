"""Secrets among options reach no file."""

import copy
import pickle

import pytest
import torch

from hf_dataselect.data.load import load_rows
from hf_dataselect.runs.secrets import without_secrets
from hf_dataselect.training.config import DataSelectingConfig
from tests.tiny_training import tiny_trainer


GIVEN = {
    "hub_token": "hf_S3CRET",
    "model_init_kwargs": '{"token": "hf_S3CRET", "use_safetensors": true}',
    "dataset_kwargs": {"more": [{"api_key": "hf_S3CRET", "n": 1}]},
    "run_name": "https://me:hf_S3CRET@host/x?a=1&access_token=hf_S3CRET",
}


def test_secrets_are_dropped_at_any_depth_and_tokens_of_text_stay():
    kept = {
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "token_limit": "max_tokens",
        "max_new_tokens": 4,
        "key": "answer",
    }
    kept |= {"num_virtual_tokens": 3, "address": "https://host/a?b=1", "hub_private_repo": True, "text": "[not JSON"}
    secret = {"use_auth_token": "x", "HF_TOKEN": "x", "client-secret": "x", "password": "x", "Authorization": "x"}
    assert without_secrets(kept | secret | {"nested": [(secret, kept)]}) == kept | {"nested": [({}, kept)]}
    assert without_secrets(GIVEN) == {
        "model_init_kwargs": {"use_safetensors": True},
        "dataset_kwargs": {"more": [{"n": 1}]},
        "run_name": "https://host/x?a=1&",
    }


def test_tokens_of_text_are_told_from_keys_by_their_value():
    text = {
        "stop_token": "</x>",
        "answer_token": "Yes",
        "yes_token": "ja",
        "eos_token": "<|reserved_special_token_128|>",
    }
    assert without_secrets(text) == text
    assert without_secrets({"stop_token": "a1b2c3d4e5f6g7h8i9j0", "token": "x", "push_to_hub_token": "x"}) == {}


@pytest.mark.parametrize("name", ["pwd", "githubToken", "bearer", "cookie", "connection_string", "apiKey", "db-pwd"])
def test_other_names_of_secrets(name):
    assert without_secrets({name: "x", "n": 1}) == {"n": 1}


@pytest.mark.parametrize(
    "given, kept",
    [
        ("https://host/x?sig=abc&a=1", "https://host/x?a=1"),
        ("https://host/x?a=1&X-Amz-Signature=abc", "https://host/x?a=1&"),
        ("https://user:p@ss@host/x", "https://host/x"),
        ("hf_abcdefghijklmnopqrstuvwxyz", ""),
        ("run with sk-proj-abcdefghij0123456789", "run with "),
        ("Authorization: Bearer hf_abc", "Authorization: "),
        ("bearer of news", "bearer of news"),
        ("hf_alpaca_gpt4_selected_subset", "hf_alpaca_gpt4_selected_subset"),
        ("task-arithmetic-of-many-things and a@b.c", "task-arithmetic-of-many-things and a@b.c"),
    ],
)
def test_credentials_in_texts(given, kept):
    assert without_secrets({"text": given}) == {"text": kept}


def test_the_error_of_a_dataset_by_address_holds_no_credentials():
    with pytest.raises(ValueError, match="Can't load the dataset 'http://127.0.0.1:9/rows.jsonl?") as error:
        load_rows("http://127.0.0.1:9/rows.jsonl?sig=S3CRET&access_token=S3CRET")
    assert "S3CRET" not in str(error.value)


def test_arguments_keep_secrets_and_their_copies_on_disk_and_in_logs_do_not(tmp_path):
    args = DataSelectingConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none", **GIVEN)
    for copied in (args, copy.copy(args), copy.deepcopy(args)):
        assert copied.hub_token == "hf_S3CRET" and copied.model_init_kwargs["token"] == "hf_S3CRET"
    assert args.changed["hub_token"] == "hf_S3CRET"
    for shown in (args.given, args.to_dict(), args.to_json_string(), args.to_sanitized_dict(), pickle.dumps(args)):
        assert "S3CRET" not in str(shown) and b"S3CRET" not in pickle.dumps(shown)
    again = pickle.loads(pickle.dumps(args))
    assert again.hub_token is None and again.model_init_kwargs == {"use_safetensors": True}
    assert again.run_name == "https://host/x?a=1&" and again.learning_rate == args.learning_rate


def test_no_file_of_a_run_holds_a_secret(tmp_path):
    given = GIVEN | {"model_init_kwargs": None, "dataset_kwargs": None, "report_to": "tensorboard"}
    given["judge_kwargs"] = None
    trainer = tiny_trainer(
        tmp_path, "length", selection_budget=4, max_steps=1, save_strategy="steps", save_steps=1, **given
    )
    trainer.train()
    trainer.save_model()
    trainer.create_model_card()
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {"README.md", "training_args.bin", "recipe.yaml"} <= {path.name for path in files}
    assert [path for path in files if path.name.startswith("events.")]
    assert not [path for path in files if b"S3CRET" in path.read_bytes()]
    args = torch.load(tmp_path / "run" / "checkpoint-1" / "training_args.bin", weights_only=False)
    assert args.selection_method == "length" and args.hub_token is None
