"""What engines keep of rows: computed once, and anew where anything that decides it changes."""

import ast
import logging
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

import hf_dataselect
from hf_dataselect.engines.forward.likelihood import likelihood
from hf_dataselect.engines.runtime.runtime import Runtime
from hf_dataselect.engines.runtime.token_rows import TokenRows
from hf_dataselect.engines.store import row_store as cache
from hf_dataselect.engines.store.files import check_writable
from hf_dataselect.engines.store.row_store import RowStore
from tests.engines.store.test_row_store import NAMESPACE, child
from tests.tiny import tiny_model, tiny_tokenizer


@pytest.mark.parametrize("place", ["a file", "below a file", "below /proc"])
def test_a_folder_that_cannot_be_written_is_refused_by_the_name_of_the_option(tmp_path, place):
    (tmp_path / "file").write_text("")
    folder = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "x", "below /proc": Path("/proc/x/y")}
    with pytest.raises(ValueError, match="`selection_cache_dir=.*can't be written.*or 'none'"):
        RowStore(folder[place], NAMESPACE, 3)
    with pytest.raises(ValueError, match="selection_cache_dir"):
        likelihood(tiny(), some_rows(2), Runtime(cache_dir=folder[place]))


def test_the_probe_of_a_folder_leaves_nothing_behind(tmp_path):
    assert check_writable(tmp_path / "new" / "folder") == tmp_path / "new" / "folder"
    assert list((tmp_path / "new" / "folder").iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_a_warning_and_the_run_goes_on(tmp_path, monkeypatch, caplog):
    expected = likelihood(tiny(), some_rows(), Runtime(dtype="float32", batch_tokens=20))
    full = lambda *_, **options: open("/dev/full", "ab", **options)  # noqa: E731, SIM115
    monkeypatch.setattr(cache, "open", full, raising=False)
    with caplog.at_level(logging.WARNING, logger="hf_dataselect"):
        found = likelihood(tiny(), some_rows(), Runtime(dtype="float32", batch_tokens=20, cache_dir=tmp_path))
    np.testing.assert_array_equal(found.loss, expected.loss)
    assert [record.message for record in caplog.records] == [
        message for message in caplog.messages if "can't be saved" in message and "No space left" in message
    ]
    assert len(caplog.records) == 1, "one warning, not one a batch"


def tiny(seed=0, **options):
    return tiny_model(tiny_tokenizer(), seed=seed, **{"hidden": 32, **options})


def with_lora(seed=0, **options):
    torch.manual_seed(seed)
    options = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **options}
    model = get_peft_model(tiny(), LoraConfig(**options))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def one_ulp(model, name="model.layers.1.mlp.up_proj.weight", place=(3, 5)):
    weight = model.get_parameter(name)
    weight[place] = torch.nextafter(weight[place], torch.tensor(torch.inf))


def some_rows(n=12):
    return TokenRows.from_lists([list(range(3 + i, 13 + 2 * i)) for i in range(n)], [[(4, 9)]] * n)


def counted(model, rows, cache_dir, **options):
    """`likelihood`, how many rows went through the model (the probe of the engine is one row), and what was booked."""
    seen = []
    embedding = model.get_input_embeddings()
    handle = embedding.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    runtime = Runtime(cache_dir=cache_dir, **{"dtype": "float32", "batch_tokens": 60, **options})
    found = likelihood(model, rows, runtime)
    handle.remove()
    return found, max(0, sum(seen) - 2), runtime.account.passes


@pytest.mark.parametrize("build", [tiny, with_lora])
def test_a_second_call_computes_nothing_and_gives_the_same(tmp_path, build):
    first, computed, passes = counted(build(), some_rows(), tmp_path)
    assert computed == passes["forward_rows"] == 12 and passes["cached_rows"] == 0
    second, computed, passes = counted(build(), some_rows(), tmp_path)
    assert computed == passes["forward_rows"] == 0 and passes["cached_rows"] == 12
    np.testing.assert_array_equal(np.stack(second[:3]), np.stack(first[:3]))


def test_a_changed_row_is_computed_and_no_other(tmp_path):
    counted(tiny(), some_rows(), tmp_path)
    ids = [list(range(3 + i, 13 + 2 * i)) for i in range(12)]
    spans = [[(4, 9)]] * 12
    for changed_ids, changed_spans in (
        (ids[:5] + [[*ids[5][:-1], 3]] + ids[6:], spans),
        (ids, spans[:5] + [[(4, 8)]] + spans[6:]),
    ):
        _, computed, passes = counted(tiny(), TokenRows.from_lists(changed_ids, changed_spans), tmp_path)
        assert computed == 1 and passes["cached_rows"] == 11
    _, computed, _ = counted(tiny(), TokenRows.from_lists(ids[::-1], spans[::-1]), tmp_path)
    assert computed == 0, "another order is no change"


def test_a_changed_model_computes_all(tmp_path):
    counted(tiny(), some_rows(), tmp_path)
    model = tiny()
    with torch.no_grad():
        one_ulp(model)
    for other in (model, with_lora(), tiny(seed=1)):
        _, computed, passes = counted(other, some_rows(), tmp_path)
        assert computed == 12 and passes["cached_rows"] == 0


def test_a_changed_formula_or_dtype_computes_all_and_another_release_nothing(tmp_path, monkeypatch):
    counted(tiny(), some_rows(), tmp_path)
    assert counted(tiny(), some_rows(), tmp_path, dtype="bfloat16")[1] == 12
    assert counted(tiny(), some_rows(), tmp_path)[1] == 0
    for module in (hf_dataselect, sys.modules[likelihood.__module__]):
        monkeypatch.setattr(module, "__version__", "9.9", raising=False)
        monkeypatch.setattr(module, "__doc__", "Edited.")
    assert counted(tiny(), some_rows(), tmp_path)[1] == 0
    monkeypatch.setattr(f"{likelihood.__module__}.VERSION", 10**6)
    assert counted(tiny(), some_rows(), tmp_path)[1] == 12


def test_every_engine_names_the_version_of_its_formula_and_no_key_depends_on_source_or_release():
    folder, engines = Path(hf_dataselect.__file__).parent, []
    for path in folder.rglob("*.py"):
        source = path.read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Dict):
                names = [key.value for key in node.keys if isinstance(key, ast.Constant)]
                if "engine" in names:
                    engines.append(path.stem)
                    # The one of tuned losses is beside it, in `described`.
                    assert "version" in names or path.stem == "tuned_loss" and '"version": ' in source, path
        if path.parent.parent.name == "engines":
            assert "getsource" not in source and "__version__" not in source, path
    assert {"likelihood", "one_shot", "seq2seq", "cached_vectors", "collect", "neighbours"} <= {*engines}


def test_a_row_that_did_not_fit_in_memory_is_tried_again(tmp_path):
    model = tiny()

    def refuse(module, args):
        if args[0].shape[1] > 20:
            raise MemoryError

    handle = model.model.embed_tokens.register_forward_pre_hook(refuse)
    first, _, _ = counted(model, some_rows(), tmp_path)
    handle.remove()
    second, computed, _ = counted(model, some_rows(), tmp_path)
    assert 0 < np.isnan(first.loss).sum() == computed
    assert not np.isnan(second.loss).any()


SLOW = """
import sys, time
import torch
from tests.engines.store.test_kept_results import Runtime, likelihood, some_rows, with_lora

model = with_lora()
def slow(module, args):
    print(len(args[0]), flush=True)
    time.sleep(0.2)
model.get_input_embeddings().register_forward_pre_hook(slow)
likelihood(model, some_rows(), Runtime(cache_dir=sys.argv[1], dtype="float32", batch_tokens=60))
"""


def test_a_killed_run_goes_on_where_it_stopped_and_ends_with_the_same_numbers(tmp_path):
    process = child(SLOW, tmp_path, PYTHONHASHSEED="1")
    begun = 0
    while begun < 5:  # two forwards of the probe, then batches
        line = process.stdout.readline()
        assert line, "the run ended before it could be killed"
        begun += 1
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    whole, _, _ = counted(with_lora(), some_rows(), None)
    found, computed, passes = counted(with_lora(), some_rows(), tmp_path)
    assert 0 < passes["cached_rows"] < 12 and computed == 12 - passes["cached_rows"]
    np.testing.assert_allclose(found.loss, whole.loss, rtol=1e-6)
    np.testing.assert_array_equal(np.stack(found[1:3]), np.stack(whole[1:3]))
    again, computed, _ = counted(with_lora(), some_rows(), tmp_path)
    assert computed == 0
    np.testing.assert_array_equal(again.loss, found.loss)
