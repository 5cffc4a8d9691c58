"""PIR: the right direction, and nothing compared that can't be."""

import math

import pytest

from hf_dataselect.evaluation.benchmarks import Setting, as_json, from_json
from hf_dataselect.evaluation.pir import benchmark_pir


def settings(**scores) -> dict[str, Setting]:
    return {name: Setting(score, higher_is_better=name != "loss") for name, score in scores.items()}


def test_above_one_is_better_in_both_directions():
    pir = benchmark_pir(settings(loss=1.0, accuracy=0.6), settings(loss=2.0, accuracy=0.5))
    assert pir.settings == {"accuracy": pytest.approx(1.2), "loss": 2.0} and pir.value == pytest.approx(1.6)
    assert pir.kind == "benchmark ratio" and pir.left_out == {}


def test_a_model_against_itself_is_one():
    same = settings(loss=1.7, accuracy=0.3)
    assert benchmark_pir(same, same).value == 1


def test_a_collapsed_model_is_not_flattered():
    pir = benchmark_pir(settings(accuracy=0.0, loss=2.0), settings(accuracy=0.4, loss=2.0))
    assert pir.settings == {"accuracy": 0.0, "loss": 1.0} and pir.value == 0.5


@pytest.mark.parametrize(
    ("model", "baseline"),
    [
        (settings(accuracy=0.1), settings(accuracy=0.0)),
        (settings(loss=0.0), settings(loss=1.0)),
        (settings(accuracy=math.nan), settings(accuracy=0.5)),
        (settings(accuracy=0.5), settings(accuracy=math.inf)),
        (settings(accuracy=-0.5), settings(accuracy=0.5)),
        (settings(accuracy=0.5), {}),
        ({"accuracy": Setting(0.5, False)}, settings(accuracy=0.5)),
    ],
)
def test_what_cannot_be_compared_is_left_out_and_named(model, baseline):
    pir = benchmark_pir(model, baseline)
    assert math.isnan(pir.value) and not pir.settings and len(pir.left_out) == 1
    assert all(pir.left_out.values())


def test_settings_survive_json():
    before = {"loss": Setting(1.5, False, [1.0, math.nan, 2.0]), "bleu": Setting(math.nan, True, None)}
    from hf_dataselect.run_folder import plain

    after = from_json(plain(as_json(before)))
    assert after["loss"].examples[0] == 1.0 and math.isnan(after["loss"].examples[1])
    assert math.isnan(after["bleu"].score) and after["bleu"].examples is None
