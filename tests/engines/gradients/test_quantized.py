"""Vectors of few bits: against the numbers of QLESS's own code, and what becomes of odd ones."""

import numpy as np
import pytest

from hf_dataselect.engines.gradients.quantized import Codes, rank_correlation
from tests.shared_data import golden, golden_arrays


def unpacked(codes, bits, width):
    """Integers of encoded vectors."""
    if bits == 8:
        return codes[:, 1:].view(np.int8)
    if bits == 4:
        return np.stack([codes[:, 1:] >> 4, codes[:, 1:] & 15], 2).reshape(len(codes), -1)[:, :width].astype(int) - 8
    return np.unpackbits(codes[:, 1:], 1, count=width).astype(int) * 2 - 1


def test_codes_and_scores_are_those_of_the_authors_code():
    known, arrays = golden("qless"), golden_arrays("qless_vectors")
    rows, targets = ([arrays[f"{side}_{k}"] for k in (105, 211)] for side in ("train_a", "val"))
    largest = max(np.abs(arrays[f"train_{file}_{k}"]).max() for file in "ab" for k in (105, 211))
    # A last number as large as the largest of all rows gives each row their scale.
    scaled = np.column_stack([rows[0][:2], np.full(2, largest)])
    for bits in (8, 4, 1):
        found = unpacked(Codes(129, bits).encode(scaled), bits, 129)[:, :-1]
        np.testing.assert_array_equal(found, known["first_codes"][str(bits)])
    weights = known["conventions"]["checkpoint_weights"]
    exact = np.array(known["score_unquantised"]["a"])
    least = {8: 0.9995, 4: 0.98, 1: 0.75}
    for bits in (8, 4, 1):
        codes, score = Codes(128, bits), 0
        for weight, x, y in zip(weights, rows, targets, strict=True):
            score = score + weight * (codes.decode(codes.encode(x)) @ codes.decode(codes.encode(y)).T)
        score = score.reshape(len(score), 9, 2).mean(2).mean(1)
        assert rank_correlation(score, exact) > least[bits]
        if bits == 1:  # without a scale, the authors' scores
            case = next(case for case in known["cases"] if case["bits"] == 1 and case["sim"] == "cosine")
            np.testing.assert_allclose(
                score / score.std(), np.array(case["score"]["a"]) / np.std(case["score"]["a"]), atol=1e-4
            )


@pytest.mark.parametrize("bits", [8, 4, 1])
@pytest.mark.parametrize("width", [1, 2, 7, 512])
def test_unit_vectors_come_back_with_an_error_of_a_step_at_most(bits, width):
    vectors = np.random.default_rng(0).normal(size=(5, width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[2], vectors[3] = np.nan, -np.abs(vectors[3])
    codes = Codes(width, bits)
    packed = codes.encode(vectors)
    assert packed.shape == (5, codes.size) and packed.dtype == np.uint8 and codes.size == 1 + -(-width * bits // 8)
    found = codes.decode(packed)
    assert np.isnan(found[2]).all() and np.isfinite(found[[0, 1, 3, 4]]).all()
    known = [0, 1, 3, 4]
    np.testing.assert_allclose(np.linalg.norm(found[known], axis=1), 1, rtol=1e-5)
    if bits == 1:
        np.testing.assert_array_equal(found[known] > 0, vectors[known] > 0)
    else:
        away = np.abs(found / np.abs(found).max(1, keepdims=True) - vectors / np.abs(vectors).max(1, keepdims=True))
        assert away[known].max() <= 0.501 / (2 ** (bits - 1) - 1)


def test_no_rows_and_records_that_are_unknown():
    for bits in (8, 4, 1):
        codes = Codes(5, bits)
        assert codes.decode(codes.encode(np.zeros((0, 5)))).shape == (0, 5)
        assert np.isnan(codes.decode(np.zeros((2, codes.size), np.uint8))).all()
