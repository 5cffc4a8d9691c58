"""Rows that are chosen from small blocks of what lies on the disk are those that are chosen in memory."""

import numpy as np
import pytest

from hf_dataselect.data.records import Records
from hf_dataselect.engines.store import scratch, vector_store
from hf_dataselect.features import generated_answers
from hf_dataselect.pipeline import select
from hf_dataselect.registry import load_selector
from hf_dataselect.selectors import t_shirt
from hf_dataselect.selectors.t_shirt import selective_ifd
from tests.engines.llm.test_local import reward_model
from tests.rows import alpaca
from tests.selectors.small import in_folders
from tests.tiny import context_of, tiny_model, tiny_tokenizer


RATED = {"quality": "column", "quality_kwargs": {"name": "rating"}, "encoder": "model"}
MODS = {"reward_model": "REWARD", "quality_threshold": -1e9, "encoder": "model", "warmup": "none"}
CASES = {
    "bm25": ("bm25", {}),
    "bm25, round robin": ("bm25", {"rule": "round_robin"}),
    "car": ("car", RATED),
    "k_center": ("k_center", {}),
    "k_center, rows kept before": ("k_center", {}),
    "mods": ("mods", {**MODS, "necessity_threshold": 1e9, "max_new_tokens": 3, "seed_rows": 3}),
    "qdit": ("qdit", RATED),
    "tsds": ("tsds", {"neighbours": 30, "density_neighbours": 6}),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    tokenizer, folder = tiny_tokenizer(), str(tmp_path_factory.mktemp("reward"))
    for part in (reward_model(tokenizer), tokenizer):
        part.save_pretrained(folder)
    return {"REWARD": folder}


@pytest.mark.parametrize("case", CASES)
def test_a_method_chooses_the_same_rows_from_blocks(case, folders, tmp_path, monkeypatch):
    method, options = CASES[case]
    rows, tokenizer = alpaca(40), tiny_tokenizer()
    given = {"max_length": 128, "dtype": "float32", "target": Records(alpaca(4, seed=9), name="selection_target")}
    if "kept" in case:
        given["kept"] = Records(alpaca(6, seed=5))
    whole, parts = (
        context_of(tokenizer, tiny_model(tokenizer, hidden=32), cache_dir=folder, **given)
        for folder in (None, tmp_path)
    )
    selector = load_selector(method, in_folders(options, folders))
    expected = select(rows, selector, 9, whole)
    monkeypatch.setattr(vector_store, "READ", 7 * 32)
    monkeypatch.setattr(generated_answers, "BLOCK", 11)
    monkeypatch.setattr(scratch, "HELD", 1000)
    found = select(rows, selector, 9, parts)
    assert found.indices.tolist() == expected.indices.tolist()
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
    assert found.unscorable == expected.unscorable and found.dropped == expected.dropped
    assert not [*tmp_path.glob("tmp*")], "what is not kept is gone"


def test_token_losses_are_read_in_blocks(monkeypatch):
    draw = np.random.default_rng(0)
    deltas = [draw.normal(size=(2, size)).astype(np.float32) for size in (4, 1, 9, 2)] + [np.zeros((0, 1), np.float32)]
    whole = selective_ifd(deltas, 0.4)
    monkeypatch.setattr(t_shirt, "AT_A_TIME", 2)
    parts = selective_ifd(deltas, 0.4)
    sizes = np.abs(np.concatenate([values[:, 1:].ravel() for values in deltas]))
    counted = np.abs(deltas[2][:, 1:]) > np.percentile(sizes, 60)
    expected = np.exp((deltas[2][:, 1:] * counted).sum(1, dtype=np.float64) / counted.sum(1))
    assert whole["sifd_mean"][2] == pytest.approx(expected.mean()) and np.isnan(whole["sifd_mean"][4])
    for name, values in whole.items():
        np.testing.assert_array_equal(parts[name], values)
