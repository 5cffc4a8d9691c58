"""Rows near the cut, by hand."""

import numpy as np
import pytest

from hf_dataselect.engines.subset.target_similarity import error_of_scores, highest, near_the_cut


SIMILARITY = np.array([[0.9, 0.0], [0.0, 0.8], [0.7, 0.1], [0.5, 0.45], [0.0, 0.49], [np.nan, 0.2], [np.nan] * 2])
SCORES = highest(SIMILARITY)  # 0.9 0.8 0.7 0.5 0.49 0.2, none


@pytest.mark.parametrize(
    ("k", "rule", "error", "expected"),
    [
        (3, "max", [0.05, 0.05], []),  # 0.7 and 0.5 are 0.1 from 0.6
        (3, "max", [0.11, 0.11], [2, 3]),
        (3, "max", [0.11, 0.12], [2, 3, 4]),  # 0.49 is of the second group
        (4, "max", [0.006, 0.001], [3]),  # the middle of 0.5 and 0.49
        (6, "max", [9, 9], []),  # all that have a score are kept
        (9, "max", [9, 9], []),
        (0, "max", [9, 9], []),
        (2, "round_robin", [0.11, 0.01], [0, 2]),  # columns are cut at 0.8 and 0.645
        (2, "round_robin", [0.01, 0.17], [1, 4]),
        (3, "round_robin", [0.11, 0.01], [2, 3]),  # two of each: 0.6 and 0.47
        (3, "round_robin", [0.01, 0.03], [3, 4]),
        (3, "max", [np.nan, np.nan], []),
        (1, "copies", [0.05, 0.05], []),
        (1, "copies", [0.2, 0.25], [1, 2]),  # 0.8 and 0.7, from 0.9
    ],
)
def test_rows_that_an_error_could_move_across_the_cut(k, rule, error, expected):
    similarity, scores = SIMILARITY, SCORES
    if rule == "copies":
        rule, similarity = "max", np.concatenate([SIMILARITY, SIMILARITY[:1]])
        scores = highest(similarity)
    near = near_the_cut(similarity, scores, k, rule, np.array(error))
    assert np.flatnonzero(near).tolist() == expected


def test_rows_that_may_not_be_kept_are_not_near():
    scores = SCORES.copy()
    scores[2] = np.nan  # the cut is between 0.8 and 0.5
    assert np.flatnonzero(near_the_cut(SIMILARITY, scores, 2, "max", np.array([0.155, 0.155]))).tolist() == [1, 3]


def test_the_error_of_a_score_is_that_of_the_group_that_gives_it():
    assert error_of_scores(SIMILARITY, np.array([1.0, 2.0]))[:6].tolist() == [1, 2, 1, 1, 2, 2]
