"""What a policy and a schedule can't be used with, refused by name."""

import pytest
from datasets import Dataset
from peft import PromptTuningConfig
from PIL import Image

from hf_dataselect.compat.trl import weighing
from hf_dataselect.data.records import Records
from hf_dataselect.training.config import DataSelectingConfig
from hf_dataselect.training.online.refusals import check_policy_rows
from tests.online import sources
from tests.tiny_training import tiny_trainer


UNSEEN = {"selection_policy": None, "method": "perplexity", "selection_schedule": {"every": 2, "exclude_seen": True}}
ONE = {"version": 1}  # of FSDP
GROWING = UNSEEN | {"selection_schedule": {"every": 2, "grow": 1}}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"selection_policy": "tail_dorp"}, "did you mean 'tail_drop'"),
        ({"selection_policy_kwargs": {"fracton": 1}}, "did you mean 'fraction'"),
        ({"selection_policy_kwargs": {"fraction": 1.5}}, r"fraction=1.5 must be in \[0, 1\)"),
        ({"selection_policy": None, "selection_policy_kwargs": {"fraction": 0.5}}, "give `selection_policy`"),
        ({"selection_schedule": {"every": 2}}, "can't be used together with `selection_schedule`"),
        ({"selection_policy": None, "selection_schedule": {"every": 2}}, "`full` keeps every row each time"),
        ({"selection_policy": None, "selection_schedule": "often"}, "must be 'once' or a mapping"),
        ({"selection_policy": None, "selection_schedule": {"evry": 2}}, "needs `every`"),
        ({"selection_policy": None, "selection_schedule": {"every": 0}}, "every=0.0 must be"),
        ({**UNSEEN, "selection_budget_by": "source"}, "`selection_budget_by='source'`: a group may have no rows left"),
        ({**UNSEEN, "selection_schedule": {"every": 2, "exclude_seen": True, "grow": 1}}, "remove grow"),
        ({**UNSEEN, "selection_schedule": {"every": 2, "grow": 1}, "selection_budget_by": "source"}, "groups alike"),
        ({**GROWING, "selection_budget": "score >= 2"}, "'score >= 2'`: grow adds so many rows, whatever their score"),
        ({**GROWING, "method": "instag"}, "`selection_method='instag'`, which keeps rows apart from one another"),
        ({**GROWING, "selection_diversity": {"encoder": "model"}}, "with `selection_diversity`, which keeps rows"),
        (
            {**GROWING, "method": "cascade", "kwargs": {"method": "s2l"}},
            "`selection_method='cascade'`, which keeps rows apart",
        ),
        ({**UNSEEN, "selection_budget": "score >= 2"}, "`selection_budget='score >= 2"),
        ({**UNSEEN, "selection_budget": "2k tokens"}, "keeps as many rows each time"),
        ({"loss_type": "dft"}, "`loss_type=dft`"),
        ({"label_smoothing_factor": 0.1}, "`label_smoothing_factor=0.1`"),
        ({"fsdp": True, "fsdp_config": ONE}, "`selection_policy='tail_drop'` has not been run under FSDP1"),
        ({**UNSEEN, "fsdp": True, "fsdp_config": ONE}, "`selection_schedule=.*` has not been run under FSDP1"),
        ({"selection_policy": "greats", "fsdp": True}, "gradients of a step, which FSDP2 has summed over ranks"),
        ({"auto_find_batch_size": True}, "`auto_find_batch_size=True`"),
        ({"use_liger_kernel": True}, "`use_liger_kernel=True`"),
        ({"train_sampling_strategy": "group_by_length"}, "`train_sampling_strategy=group_by_length`"),
        ({"ignore_data_skip": True}, "`ignore_data_skip=True`"),
        ({"dataset_kwargs": {"skip_prepare_dataset": True}}, "skip_prepare_dataset"),
        ({"train_dataset": Dataset.from_dict({"input_ids": [[5, 6, 7]] * 4})}, "give them untokenized"),
        ({"peft_config": PromptTuningConfig(task_type="CAUSAL_LM")}, "learns a prompt"),
        ({"selection_policy": "domains", "selection_policy_kwargs": {"column": "sauce"}}, "did you mean 'source'"),
        ({"selection_policy": "domains", "selection_policy_kwargs": {"prefer": {"z": 2}}}, "prefer names 'z'"),
        (
            {"selection_policy": "domains", "selection_policy_kwargs": {"prefer": {"a": -1}}},
            "must be a positive number",
        ),
    ],
)
def test_what_a_policy_can_t_be_used_with_is_refused_by_name(tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        tiny_trainer(tmp_path, **{"selection_policy": "tail_drop", "train_dataset": sources(), **options})


def test_a_trl_that_does_not_tell_the_losses_of_tokens_is_refused(tmp_path, monkeypatch):
    monkeypatch.delattr("trl.trainer.utils.FusedCausalLMOutput")
    with pytest.raises(ImportError, match="does not have `trl.trainer.utils.FusedCausalLMOutput`"):
        DataSelectingConfig(str(tmp_path), selection_policy="self_paced", use_cpu=True, bf16=False)
    with pytest.raises(ImportError, match="does not have `object.log_probs`"):
        weighing(lambda: object(), None)()


def test_rows_with_images_are_refused(tmp_path):
    picture = Image.new("RGB", (8, 8))
    records = Records(Dataset.from_list([row | {"image": picture} for row in sources()]))
    args = DataSelectingConfig(str(tmp_path), selection_policy="self_paced", use_cpu=True, bf16=False)
    with pytest.raises(ValueError, match="rows with images"):
        check_policy_rows(args, records, None, {})
