"""The six metrics of DIS5K: what the official protocol fixes beside pysodmetrics' own code."""

import pickle
import sys

import numpy as np
import pytest
from metric_inputs import disc

from fclm_hf import metrics
from fclm_hf.metrics import DichotomousMetrics, dichotomous_metrics


KEYS = {"max_f", "weighted_f", "mae", "s_measure", "mean_e", "hce"}


@pytest.fixture
def pysodmetrics() -> None:
    pytest.importorskip("py_sod_metrics", reason="pysodmetrics is not installed (extra eval)")


def measure(pred: np.ndarray, target: np.ndarray) -> dict[str, float]:
    metrics = DichotomousMetrics()
    metrics.update(pred, target)
    return metrics.compute()


@pytest.mark.usefixtures("pysodmetrics")
def test_perfect_and_opposite() -> None:
    target = (disc((80, 100), (50, 40), 25) > 0.5).astype(np.float32)
    perfect = measure(target, target)
    assert set(perfect) == KEYS
    assert perfect["max_f"] == perfect["weighted_f"] == pytest.approx(1)
    assert perfect["mae"] == perfect["hce"] == 0
    opposite = measure(1 - target, target)
    assert opposite["mae"] == 1
    assert opposite["hce"] > 0


@pytest.mark.usefixtures("pysodmetrics")
def test_effort_binarizes_the_raw_matte_and_the_rest_stretches_it() -> None:
    """At half its contrast an object is the same when stretched, but no pixel of it is above 128."""
    target = (disc((80, 100), (50, 40), 25) > 0.5).astype(np.float64)
    soft = disc((80, 100), (50, 40), 25)
    full, half = measure(soft, target), measure(soft * 0.5, target)
    assert half["mae"] == pytest.approx(full["mae"], rel=0.01)
    assert full["hce"] == 0 < half["hce"]


@pytest.mark.usefixtures("pysodmetrics")
def test_precision_of_an_8_bit_matte_does_not_matter() -> None:
    target = (disc((60, 60), (30, 30), 15) > 0.5).astype(np.float64)
    pred = disc((60, 60), (33, 28), 16, soft=20)
    pred[:2] = 128 / 255  # not above 128, though its float32 copy is above 128 / 255
    assert measure(pred.astype(np.float32), target.astype(np.float32)) == measure(pred, target)


@pytest.mark.usefixtures("pysodmetrics")
def test_data_set_curves_are_averaged_before_the_maximum() -> None:
    target = (disc((60, 60), (30, 30), 15) > 0.5).astype(np.float64)
    pairs = [(disc((60, 60), (30 + d, 30), 15, soft=4 * d + 1), target) for d in range(4)]
    pairs.append((1 - 0.5 * target, target))
    metrics, first, second = (DichotomousMetrics() for _ in range(3))
    for index, pair in enumerate(pairs):
        metrics.update(*pair)
        (first, second)[index % 2].update(*pair)
    result = metrics.compute()
    assert pickle.loads(pickle.dumps(second)).merge(first).compute() == result
    curves = np.array([dichotomous_metrics(*pair)["f_curve"] for pair in pairs])
    assert result["max_f"] == pytest.approx(curves.mean(0).max())
    assert result["max_f"] < curves.max(1).mean()


@pytest.mark.usefixtures("pysodmetrics")
@pytest.mark.filterwarnings("error")
def test_degenerate_images_have_finite_values() -> None:
    kinds = [np.zeros((20, 30)), np.ones((20, 30)), np.full((20, 30), 0.5), np.zeros((20, 30)), np.zeros((20, 30))]
    kinds[3][-1] = 1  # leaves S without lower quadrants
    kinds[4][:, -1] = 1
    for pred in kinds:
        for target in kinds:
            values = measure(pred, target)
            assert all(np.isfinite(value) for value in values.values())
            assert all(-1e-9 <= value <= 1.01 for name, value in values.items() if name != "hce")
    assert measure(kinds[3], kinds[3])["s_measure"] == pytest.approx(1)
    with pytest.raises(ValueError, match="two pixels"):
        measure(np.ones((1, 1)), np.ones((1, 1)))


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py_sod_metrics", None)
    with pytest.raises(ImportError, match=r"pysodmetrics.*fclm-hf\[eval\]"):
        DichotomousMetrics()


@pytest.mark.usefixtures("pysodmetrics")
def test_the_old_name_still_works_with_a_warning() -> None:
    told = r"fclm_hf\.metrics\.dichotomous_measures is deprecated .* in 0\.3\.0: use dichotomous_metrics\."
    with pytest.warns(FutureWarning, match=told):
        assert metrics.dichotomous_measures is dichotomous_metrics
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = metrics.nothing
