"""Private names of other libraries: each exists where `compat` looks for it, and no other file touches one."""

import ast
import importlib
import importlib.util
import inspect
import json
import os
import warnings
from pathlib import Path
from types import SimpleNamespace

import accelerate
import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, LlamaConfig, StaticCache, Trainer
from trl import SFTConfig, SFTTrainer, TrlParser

import hf_dataselect
from hf_dataselect.compat import accelerate as of_accelerate
from hf_dataselect.compat import bitsandbytes as of_bitsandbytes
from hf_dataselect.compat import datasets as of_datasets
from hf_dataselect.compat import deepspeed as of_deepspeed
from hf_dataselect.compat import lm_eval as of_lm_eval
from hf_dataselect.compat import peft as of_peft
from hf_dataselect.compat import sharding as of_sharding
from hf_dataselect.compat import torch as of_torch
from hf_dataselect.compat import transformers as of_transformers
from hf_dataselect.compat import trl as of_trl
from hf_dataselect.compat.installed import SEEN, attribute, check_hook, imported
from tests.tiny import tiny_model, tiny_tokenizer


PACKAGE = Path(hf_dataselect.__file__).parent
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if "compat" not in path.relative_to(PACKAGE).parts]


# Each touch on the installed versions


def source(*of) -> str:
    return "\n".join(inspect.getsource(item) for item in of)


def test_versions_are_those_of_the_constraints():
    lines = (PACKAGE.parent / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    assert {name: pinned[name] for name in SEEN} == SEEN, "look at each name in `compat` again, then raise `SEEN`"


def test_a_name_that_has_moved_is_named_with_its_library():
    for call in (
        lambda: imported("trl", "trl.import_utils", "is_gone"),
        lambda: imported("trl", "trl.no_such_module", "is_gone"),
        lambda: attribute("trl", SFTTrainer, "is_gone"),
        lambda: check_hook("trl", SFTTrainer, "_prepare_dataset", ("rows", "is_gone")),
    ):
        with pytest.raises(ImportError, match=rf"trl [\d.]+ does not have `.*is_gone.*Install trl {SEEN['trl']}"):
            call()


def test_trl():
    of_trl.check_sft_trainer(SFTTrainer)
    of_trl.check_parser(TrlParser)
    assert of_trl.tag_names(SFTTrainer, ["x"])[-2:] == [SFTTrainer._tag_names[-1], "x"]
    assert {"dataset_kwargs", "x"} <= {*of_trl.dict_fields(SFTConfig, ["x"])}
    assert isinstance(of_trl.is_vllm_available(), bool)
    written = source(SFTTrainer)
    for name in ("_skip_prepare_dataset", "_formatting_func", "_total_train_tokens"):
        assert f"self.{name} =" in written, f"SFTTrainer keeps no `{name}`"
    for call in ("self._prepare_dataset(", "self._tag_names", "create_model_from_path(model, **model_init_kwargs)"):
        assert call in written, f"SFTTrainer no longer calls `{call}`, which DataSelectingTrainer overrides"
    imported("trl", "trl.trainer.utils", "create_model_from_path")
    parsing = inspect.getsource(TrlParser.parse_args_and_config)
    assert "self.set_defaults_with_config(" in parsing, "TrlParser reads a recipe otherwise"
    kind = imported("trl", "trl.trainer.sft_trainer", "DataCollatorForVisionLanguageModeling")
    assert {"processor", "max_length", "completion_only_loss"} <= {*inspect.signature(kind).parameters}
    engine = imported("trl", "trl.generation.vllm_generation", "VLLMGeneration")
    options = {"gpu_memory_utilization", "max_model_length", "enable_sleep_mode", "temperature", "logprobs"}
    assert options <= {*inspect.signature(engine).parameters}
    assert [*inspect.signature(engine.generate).parameters][1:4] == ["prompts", "images", "num_generations"]
    for name in ("max_completion_length", "generation_kwargs", "model", "max_model_length"):
        assert f"self.{name} =" in source(engine), f"VLLMGeneration keeps no `{name}`"


def test_transformers():
    from transformers import ImageProcessingMixin, modeling_utils
    from transformers.utils import output_capturing

    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    assert model.config._attn_implementation and of_transformers.attention_implementation(model)
    assert of_transformers.is_causal_lm(model.config) and not of_transformers.is_causal_lm(
        AutoConfig.for_model("clip")
    )
    assert type(model.config) in AutoModelForCausalLM._model_mapping
    assert hasattr(of_transformers.base_class(AutoConfig.for_model("clip")), "get_image_features")
    assert of_transformers.base_class(SimpleNamespace()) is None
    assert {"truncation", "padding", "model"} <= json.loads(of_transformers.vocabulary(tokenizer)).keys()
    assert "self.callback_handler.add_callback(" in source(Trainer.add_callback)
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    found = {name for module in model.modules() for name in vars(module)}
    assert {*of_transformers.CHECKPOINTING_FLAGS} <= found, "gradient checkpointing is noted elsewhere"
    for name in of_transformers.INPUT_GRADIENT_HOOKS:
        assert f"self.{name} = " in source(modeling_utils), f"transformers keeps no `{name}`"
    assert of_transformers.CAPTURING_FLAG in source(output_capturing)
    assert "load_image(" in source(ImageProcessingMixin.fetch_images), "processors read texts of images otherwise"
    imported("transformers", "transformers.image_utils", "load_image")


def test_a_cache_of_one_row_serves_several():
    config = LlamaConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
    )
    past = DynamicCache(config=config)
    pair = torch.randn(2, 1, 2, 3, 4)
    for layer in range(2):
        past.update(*pair, layer)
    assert of_transformers.growing_cache(past) is past
    assert of_transformers.growing_cache(None) is of_transformers.growing_cache(object()) is None
    assert of_transformers.growing_cache(StaticCache(config=config, max_cache_len=8)) is None
    shared = of_transformers.cache_for_rows(past, 5)
    keys, values = shared.update(torch.zeros(5, 2, 1, 4), torch.ones(5, 2, 1, 4), 1)
    assert keys.shape == values.shape == (5, 2, 4, 4) and torch.equal(keys[3, :, :3], pair[0, 0])
    assert past.get_seq_length() == 3 and past.layers[1].keys.shape == (1, 2, 3, 4), "the first is as it was"


def test_callbacks_of_a_trainer():
    trainer = SimpleNamespace(callback_handler=SimpleNamespace(callbacks=["a"]))
    of_transformers.put_first(trainer, ["b", "c"])
    assert trainer.callback_handler.callbacks == ["b", "c", "a"]
    from transformers import DefaultFlowCallback, PrinterCallback

    flow = DefaultFlowCallback()
    trainer.callback_handler.callbacks = [PrinterCallback(), flow, "tracker"]
    of_transformers.keep_to(trainer, ["b"])
    assert trainer.callback_handler.callbacks == [flow, "b"]
    assert "self.callbacks = " in source(importlib.import_module("transformers.trainer_callback").CallbackHandler)


def test_accelerate(monkeypatch):
    from accelerate import Accelerator
    from accelerate.utils.operations import convert_outputs_to_fp32

    accelerator = Accelerator(cpu=True)
    assert accelerator.state._shared_state in of_accelerate.shared_states() and all(of_accelerate.shared_states())
    assert not of_accelerate.several_processes()
    written = source(accelerate.accelerator)
    for name in of_accelerate.PREPARED:
        assert f".{name} = " in written, f"accelerate sets no `{name}` on a module that it prepares"
    assert of_accelerate.out_of_memory(MemoryError()) and not of_accelerate.out_of_memory(ValueError("CUDA"))
    assert of_accelerate.out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried"))

    def forward(x):
        return x

    assert of_accelerate.without_autocast(forward) is forward and of_accelerate.without_autocast(None) is None
    cast = torch.autocast("cpu", torch.bfloat16)
    twice = convert_outputs_to_fp32(cast(convert_outputs_to_fp32(cast(forward))))
    assert of_accelerate.without_autocast(twice) is forward, "autocast is put around `forward` otherwise"
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    prepared = accelerator.prepare(optimizer)
    assert prepared is not optimizer and of_accelerate.own_optimizer(prepared) is optimizer
    assert of_accelerate.own_optimizer(optimizer) is optimizer


def test_sharding(monkeypatch, tmp_path):
    from accelerate.utils.deepspeed import HfDeepSpeedConfig
    from transformers.integrations.deepspeed import (
        is_deepspeed_zero3_enabled,
        set_hf_deepspeed_config,
        unset_hf_deepspeed_config,
    )

    launching, args = (
        source(importlib.import_module("accelerate.utils.launch")),
        SimpleNamespace(fsdp=None, deepspeed=None),
    )
    zero3 = tmp_path / "zero3.json"
    zero3.write_text('{"zero_optimization": {"stage": 3}}')
    said = {
        "FSDP1": {"ACCELERATE_USE_FSDP": "true"},
        "FSDP2": {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"},
        "ZeRO-2": {"ACCELERATE_USE_DEEPSPEED": "true"},
        "ZeRO-1": {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"},
        "ZeRO-3": {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(zero3)},
    }
    for sharding, variables in said.items():
        with monkeypatch.context() as environment:
            for name, value in variables.items():
                assert f'"{name}"' in launching or name == "FSDP_VERSION", f"`accelerate launch` sets no {name}"
                environment.setenv(name, value)
            assert of_sharding.sharding_by_args(args) == sharding
            assert of_sharding.left_in_environment() is (sharding == "FSDP1")
            kept = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}})
            set_hf_deepspeed_config(kept)
            with of_sharding.not_launched_sharded():
                assert of_sharding.sharding_by_args(args) is None and not is_deepspeed_zero3_enabled()
            assert is_deepspeed_zero3_enabled()
            unset_hf_deepspeed_config()
            assert os.environ.items() >= variables.items()
    assert of_sharding.sharding_by_args(args) is None
    args.deepspeed = {"zero_optimization": {"stage": 2}}
    assert of_sharding.sharding_by_args(args) == "ZeRO-2"
    args.fsdp, args.fsdp_config = True, {"version": 1}
    assert of_sharding.sharding_by_args(args) == "FSDP1"
    assert of_sharding.sharding_by_accelerator(accelerate.Accelerator()) is None
    assert 'os.environ["ACCELERATE_USE_FSDP"] = "true"' in source(accelerate.Accelerator), "it is not left there"


def test_deepspeed():
    weight, layer, called = nn.Parameter(torch.zeros(2, 3)), nn.Linear(3, 2), []
    assert of_deepspeed.is_gathered(weight) and of_deepspeed.own_part(weight) is weight
    weight.ds_shape, weight.ds_tensor = torch.Size([4, 3]), torch.zeros(6)
    assert not of_deepspeed.is_gathered(weight) and of_deepspeed.own_part(weight) is weight.ds_tensor

    def hook(name: str, module: str = "ours") -> None:
        def note(*_) -> None:
            called.append(name)

        note.__module__ = module
        layer.register_forward_hook(note)

    hook("engine", "deepspeed.runtime.zero.parameter_offload")
    hook("own")
    with of_deepspeed.engine_at_rest(layer):
        hook("added")
        layer(torch.zeros(3))
        assert called == ["own", "added"]
    layer(torch.zeros(3))
    assert called[2:] == ["engine", "own", "added"]
    if (found := importlib.util.find_spec("deepspeed")) is None:
        return
    folder = Path(found.origin).parent / "runtime" / "zero"
    written = (folder / "partition_parameters.py").read_text()
    for name in (
        "param.ds_id = ",
        "param.ds_shape = ",
        "param.ds_tensor = ",
        ".linear_bk = torch.nn.functional.linear",
    ):
        assert name in written, f"DeepSpeed has no `{name}`"
    assert "def zero3_linear_wrap(" in (folder / "linear.py").read_text()
    assert ".register_forward_pre_hook(" in (folder / "parameter_offload.py").read_text()


def test_peft():
    from peft import LoraConfig, get_peft_model

    plain = tiny_model(tiny_tokenizer())
    with pytest.raises(ValueError) as caught:
        get_peft_model(plain, LoraConfig(target_modules=["is_gone"]))
    assert of_peft.is_target_error(caught.value), "PEFT says otherwise that no module fits"
    assert of_peft.active_adapters(SimpleNamespace(active_adapters=lambda: ["x"])) == ["x"]
    for dora in (False, True):
        model = get_peft_model(tiny_model(tiny_tokenizer()), LoraConfig(target_modules=["q_proj"], use_dora=dora))
        assert of_peft.active_adapters(model) == ["default"]
        layers = dict(of_peft.lora_modules(model))
        assert layers and all(name.endswith("q_proj") for name in layers)
        layer = next(iter(layers.values()))
        assert bool(of_peft.lora_variant(layer, "default")) is dora
        assert isinstance(of_peft.lora_factor(layer, "lora_A", "default"), nn.Linear)
        assert (of_peft.plain_lora(layer) is None) is dora
        assert of_peft.lora_factor(layer, "lora_B", "another") is None


def test_peft_refuses_some_layers_of_mamba_only():
    from transformers import MambaConfig, MambaForCausalLM

    model = MambaForCausalLM(MambaConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, state_size=2))
    assert of_peft.refused_targets(model) == ["conv1d", "out_proj"]
    assert of_peft.refused_targets(tiny_model(tiny_tokenizer())) == []


def test_adapters_that_act_in_layers_only():
    import peft

    options = {"task_type": "CAUSAL_LM"}
    layers = {"target_modules": ["q_proj"], **options}
    kinds = [
        (peft.LoraConfig(**layers), True),
        (peft.IA3Config(feedforward_modules=[], **layers), True),
        (peft.LoraConfig(alora_invocation_tokens=[5], **layers), False),
        (peft.AdaLoraConfig(total_step=9, **layers), False),
        (peft.PromptTuningConfig(num_virtual_tokens=2, **options), False),
        (peft.PrefixTuningConfig(num_virtual_tokens=2, **options), False),
    ]
    for config, expected in kinds:
        model = peft.get_peft_model(tiny_model(tiny_tokenizer()), config)
        assert of_peft.adapts_layers_only(model) is expected, config


def test_datasets():
    rows = Dataset.from_dict({"a": [1, None, 3]})
    assert of_datasets.fingerprint(rows) == Dataset.from_dict({"a": [1, None, 3]})._fingerprint
    assert of_datasets.fingerprint(rows) != of_datasets.fingerprint(rows.select([0, 2]))
    assert of_datasets.stored_column(rows.select([0, 2]), "a").to_pylist() == [1, None, 3]


def test_bitsandbytes():
    import bitsandbytes
    from bitsandbytes.functional import quantize_blockwise

    layer = bitsandbytes.nn.Linear4bit(4, 4)
    assert of_bitsandbytes.REPACKS_FOR_CPU in vars(layer), "4-bit layers decide otherwise to repack their weights"
    assert '"packing_format_for_cpu"' in source(bitsandbytes.nn.modules)
    layer.weight.quant_state = SimpleNamespace(packing_format_for_cpu=True)
    with of_bitsandbytes.quantized_as_they_are(layer):
        assert not layer.weight.quant_state.packing_format_for_cpu
    assert layer.weight.quant_state.packing_format_for_cpu
    assert of_bitsandbytes.quantized_storage(layer) == set()
    layer = bitsandbytes.nn.Linear4bit(64, 64, quant_storage=torch.bfloat16).to("cpu")
    whole, layer.weight = layer.state_dict(), nn.Parameter(layer.weight.data, requires_grad=False)  # as FSDP2 does
    with of_bitsandbytes.quantized_as_they_are(layer):
        assert layer.state_dict().keys() == whole.keys() != {"weight", "bias"}
    assert layer.state_dict().keys() == {"weight", "bias"}
    numbers = torch.linspace(-1, 1, 512)
    value, state = quantize_blockwise(numbers, blocksize=256)
    found = of_bitsandbytes.dequantized_moment(value, {"absmax1": state.absmax, "qmap1": state.code}, "1")
    assert torch.allclose(found, numbers, atol=0.02)
    kept = source(bitsandbytes.optim.optimizer)
    for name in ("state1", "absmax1", "qmap1", "state2", "absmax2", "qmap2"):
        assert f'"{name}"' in kept, f"8-bit optimizers of bitsandbytes keep no `{name}`"


def test_torch():
    assert {*of_torch.HOOKS} <= {*vars(nn.Linear(1, 1))}
    assert hasattr(torch.cpu, "_is_avx512_bf16_supported") and hasattr(torch.cpu, "_is_amx_tile_supported")
    assert isinstance(of_torch.cpu_has_bfloat16(), bool)
    weight, steps = nn.Parameter(torch.zeros(1)), []
    before = of_torch.tensor_version(weight)
    with torch.no_grad():
        weight.add_(1)
    assert of_torch.tensor_version(weight) > before
    handle = of_torch.after_optimizer_steps(lambda *_: steps.append(1))
    weight.grad = torch.ones(1)
    torch.optim.SGD([weight]).step()
    handle.remove()
    torch.optim.SGD([weight]).step()
    assert steps == [1]
    assert of_torch.process_group() is None
    name = "torch.distributed.distributed_c10d"
    for private in ("_get_default_group", "_get_default_store", "_set_pg_timeout"):
        imported("torch", name, private)
    assert callable(torch.distributed.PrefixStore.clone) and callable(torch.distributed.TCPStore.clone)
    assert of_torch.collective_failed(
        RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:1")
    )
    assert of_torch.collective_failed(torch.distributed.DistBackendError("x"))
    assert not of_torch.collective_failed(RuntimeError("CUDA out of memory"))
    model = nn.Sequential(nn.Sequential(nn.Linear(1, 1)), nn.Linear(1, 1))
    assert not of_torch.is_checkpointed(model)
    wrapper = imported("torch", "torch.distributed.algorithms._checkpoint.checkpoint_wrapper", "checkpoint_wrapper")
    model[0] = wrapper(model[0])
    names, plain = [name for name, _ in model.named_parameters()], list(model.state_dict())
    assert of_torch.is_checkpointed(model) and [of_torch.unwrapped(name) for name in names] == plain != names


def test_lm_eval():
    pytest.importorskip("lm_eval")
    assert "self._rank = " in source(importlib.import_module("lm_eval.models.huggingface"))
    lm = SimpleNamespace(_rank=0, _world_size=1)
    accelerator = SimpleNamespace(process_index=1, num_processes=2)
    of_lm_eval.share_ranks(lm, accelerator)
    assert vars(lm) == {"_rank": 1, "_world_size": 2, "accelerator": accelerator}
    with pytest.raises(ImportError, match="lm_eval"):
        of_lm_eval.share_ranks(SimpleNamespace(), accelerator)


# No other file touches a private name

#: Modules that the libraries document, below their first level.
DOCUMENTED = {
    "accelerate.utils",
    "huggingface_hub.errors",
    "lm_eval.evaluator",
    "lm_eval.models.huggingface",
    "lm_eval.tasks",
    "sentence_transformers.util",
    "torch.distributed",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "torch.nn.functional",
    "torch.nn.parallel",
    "torch.utils.checkpoint",
    "torch.utils.data",
    "transformers.trainer_utils",
}
LIBRARIES = {"datasets", "evaluate", "bitsandbytes", "peft", "tokenizers", "trl", "vllm"}
LIBRARIES |= {name.partition(".")[0] for name in DOCUMENTED}
#: Private names of a library that classes of this package define anew, and why that has to be.
OVERRIDES = {
    "_VALID_DICT_FIELDS": "transformers reads JSON into the fields of a config named there; see `dict_fields`",
    "_prepare_dataset": "TRL calls it while the trainer is built; see `check_sft_trainer`",
    "_tag_names": "TRL puts them on the model card; see `tag_names`",
}
#: Private names in texts, which are no touch.
TEXTS = {"_name_or_path": "an entry of a saved config, left out of the hash of a model"}
#: Names of the standard library that it documents.
STANDARD = {"_asdict", "_replace", "_fields", "_exit"}


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def own_names() -> tuple[set[str], set[str]]:
    """Private names of the package's classes and objects, and of its modules."""
    members, globals_ = set(STANDARD), set()
    for path in FILES:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                for item in node.body:
                    if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
                        members.add(item.name)
                    targets = getattr(item, "targets", [getattr(item, "target", None)])
                    members |= {target.id for target in targets if isinstance(target, ast.Name)}
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and isinstance(node.value, ast.Name)
            ):
                members |= {node.attr} if node.value.id in ("self", "cls") else set()
        globals_ |= {item.name for item in tree.body if isinstance(item, (ast.FunctionDef, ast.ClassDef))}
        globals_ |= {t.id for item in tree.body if isinstance(item, ast.Assign) for t in item.targets
                     if isinstance(t, ast.Name)}  # fmt: skip
    return members - {*OVERRIDES}, globals_


MEMBERS, GLOBALS = own_names()


def touches(path: Path) -> list[str]:
    tree, found = ast.parse(path.read_text()), []
    modules = {alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) and node.level
               for alias in node.names}  # fmt: skip
    ends = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
            or isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("endswith", "removesuffix"))
            for part in ast.iter_child_nodes(node)}  # fmt: skip
    for node in ast.walk(tree):
        said = None
        if isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in MEMBERS:
            of_module = isinstance(node.value, ast.Name) and node.value.id in modules and node.attr in GLOBALS
            of_parent = isinstance(node.value, ast.Call) and ast.unparse(node.value) == "super()"
            if not of_module and not (of_parent and node.attr in OVERRIDES):
                said = ast.unparse(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            if private(node.value) and node not in ends and node.value not in {*MEMBERS, *GLOBALS, *TEXTS}:
                said = repr(node.value)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            parts = node.module.split(".")
            if (
                parts[0] in LIBRARIES
                and len(parts) > 1
                and node.module not in DOCUMENTED
                or any(private(part) for part in (*parts, *(alias.name for alias in node.names)))
            ):
                said = f"from {node.module}"
        elif isinstance(node, ast.Import):
            wrong = [alias.name for alias in node.names if any(map(private, alias.name.split(".")))]
            said = f"import {wrong[0]}" if wrong else None
        if said:
            found.append(f"line {node.lineno}: {said}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_private_names_of_libraries_are_touched_in_compat_only(path):
    assert not touches(path), "put these into `hf_dataselect/compat`, with the version they were seen on"


@pytest.mark.parametrize(
    "line",
    [
        "dataset._fingerprint",
        "getattr(model.config, '_attn_implementation', None)",
        "from accelerate.utils.memory import should_reduce_batch_size",
        "from transformers import _LazyModule",
        "super()._skip_prepare_dataset",
        "import torch._dynamo",
    ],
)
def test_the_test_sees_a_touch(tmp_path, line):
    path = tmp_path / "file.py"
    path.write_text(line)
    assert len(touches(path)) == 1


def test_overrides_of_private_names_are_known():
    found = set()
    for path in FILES:
        if "ClassDef" not in ast.dump(ast.parse(path.read_text())) or path.name == "__main__.py":
            continue
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for kind in vars(importlib.import_module(name)).values():
            if not isinstance(kind, type) or kind.__module__ != name:
                continue
            foreign = [base for base in kind.__mro__ if base.__module__.partition(".")[0] in LIBRARIES]
            written = {attr for attr in vars(kind) if private(attr) and attr in inspect.getsource(kind)}
            found |= {attr for attr in written if any(attr in vars(base) for base in foreign)}
    assert found == {*OVERRIDES}


def test_a_deprecated_call_of_our_own_is_an_error():
    for kind in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        with pytest.raises(kind):
            warnings.warn("as a library warns of the file that calls it", kind, stacklevel=1)
        with pytest.raises(kind):
            warnings.warn_explicit("x", kind, "context.py", 1, module="hf_dataselect.context")
        warnings.warn_explicit("theirs to mend", kind, "trainer.py", 1, module="transformers.trainer")
