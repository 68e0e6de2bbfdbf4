"""SAD, MSE, MAD, Grad and Conn against plain implementations and against values worked out by hand."""

import json
import pickle

import numpy as np
import pytest
import torch
from metric_inputs import disc, load_oracles, random_pair
from scipy.ndimage import gaussian_filter

from fclm_hf.metrics import MaskMetrics, MattingMetrics, connectivity_error, gradient_error, mad, mask_iou, mse, sad


oracles = load_oracles()
THRESHOLDS = np.arange(0, 1.1, 0.1)
KINDS = ("noise", "smooth", "binary", "steps")


@pytest.mark.parametrize("kind", KINDS)
def test_connectivity_agrees_with_scikit_image(kind: str) -> None:
    generator = np.random.default_rng(0)
    for _ in range(100):
        pred, target = random_pair(generator, kind)
        for variant in ("official", "gca"):
            expected = oracles.connectivity_by_labels(pred, target, THRESHOLDS, gca=variant == "gca") / 1000
            assert connectivity_error(pred, target, variant=variant) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_agrees_with_scipy(kind: str) -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        pred, target = random_pair(generator, kind)
        expected = oracles.gradient_by_filters(pred, target) / 1000
        assert gradient_error(pred, target) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_variants_of_the_gradient(kind: str) -> None:
    generator = np.random.default_rng(0)
    for _ in range(25):
        pred, target = random_pair(generator, kind)
        pred = 0.25 + 0.5 * pred  # which the official variant stretches back
        magnitudes = [oracles.magnitude_by_filters(alpha) for alpha in (pred, target)]
        expected = np.square(magnitudes[0] - magnitudes[1]).sum() / 1000
        assert gradient_error(pred, target, variant="gca") == pytest.approx(expected, rel=1e-9, abs=1e-12)
        plain = [
            np.hypot(*(gaussian_filter(alpha, 1.4, order=order) for order in ((0, 1), (1, 0))))
            for alpha in (pred, target)
        ]
        expected = np.square(plain[0] - plain[1]).sum() / 10
        assert gradient_error(pred, target, variant="p3m") == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_large_objects_of_equal_rank() -> None:
    """No component has more than half of the pixels, and the first in reading order wins a tie."""
    target = np.maximum.reduce([disc((80, 260), (x, 40), 30) for x in (40, 130, 220)])
    pred = target * np.where(np.arange(260) < 85, 0.7, 1.0)
    expected = oracles.connectivity_by_labels(pred, target, THRESHOLDS) / 1000
    assert connectivity_error(pred, target) == pytest.approx(expected, abs=1e-12)
    assert connectivity_error(pred, target) != pytest.approx(connectivity_error(pred[:, ::-1], target), rel=1e-3)


def test_sums_and_means_by_hand() -> None:
    pred, target = np.full((20, 50), 0.75), np.full((20, 50), 0.25)
    assert sad(pred, target) == pytest.approx(0.5)
    assert mse(pred, target) == pytest.approx(0.25)
    assert mad(pred, target) == pytest.approx(0.5)
    trimap = np.full((20, 50), 128, np.uint8)
    trimap[:, :25], trimap[:5] = 0, 255
    assert sad(pred, target, trimap) == pytest.approx(0.5 * 15 * 25 / 1000)
    assert mad(pred, target, trimap) == pytest.approx(0.5)
    assert mse(pred, target, trimap) == pytest.approx(0.25)


def test_variants_of_connectivity_by_hand() -> None:
    """A whole false object of 100 pixels: its alpha is an error, but only where the background cannot be largest."""
    target = np.zeros((30, 30))
    pred = target.copy()
    pred[10:20, 10:20] = 1
    assert connectivity_error(pred, target) == pytest.approx(0.1)
    assert connectivity_error(pred, target, variant="gca") == 0
    target[:, :20], pred[:, :20] = 1, 1
    pred[5:10, 5:10] = 0  # a hole of 25 pixels
    assert connectivity_error(pred, target) == pytest.approx(0.025)


def test_known_pixels_are_overwritten_before_anything_is_measured() -> None:
    target = disc((60, 60), (30, 30), 18)
    trimap = np.where(target == 0, 0, np.where(target == 1, 255, 128)).astype(np.uint8)
    wrong = np.where(trimap == 128, target, 1 - target)
    for metric in (sad, mse, mad, gradient_error, connectivity_error):
        assert metric(wrong, target, trimap) == pytest.approx(0, abs=1e-12)
        assert metric(wrong, target) > 0
    shifted = disc((60, 60), (32, 30), 18)
    pasted = np.where(trimap == 128, shifted, trimap == 255)
    assert connectivity_error(shifted, target, trimap) == pytest.approx(connectivity_error(pasted, target))
    assert 0 < gradient_error(shifted, target, trimap) < gradient_error(pasted, target)


def test_single_precision_scores_like_double() -> None:
    """153 / 255 reaches the threshold of 0.6 in float32 only: that must not change the score of an 8-bit matte."""
    target = np.rint(255 * np.clip(disc((90, 90), (45, 45), 30, soft=30), 0, 1)) / 255
    pred = np.rint(255 * np.clip(disc((90, 90), (47, 44), 30, soft=20), 0, 1)) / 255
    pred[40:50, 40:50] = 153 / 255
    for metric in (sad, mse, mad, gradient_error, connectivity_error):
        expected = metric(pred, target)
        for first, second in ((np.float32, np.float32), (np.float32, np.float64), (np.float64, np.float32)):
            assert metric(pred.astype(first), target.astype(second)) == pytest.approx(expected, rel=1e-5)
        assert metric(torch.tensor(pred), torch.tensor(target)) == expected
    # a threshold of another value makes a difference that the tolerance above would show
    other = oracles.connectivity_by_labels(pred + 1e-9, target + 1e-9, THRESHOLDS)
    assert other != pytest.approx(1000 * connectivity_error(pred, target), rel=1e-3)


def test_accumulator_means_do_not_depend_on_order_or_process() -> None:
    generator = np.random.default_rng(1)
    pairs = [random_pair(generator, KINDS[index % 4]) for index in range(12)]
    whole = MattingMetrics(gca=True)
    for pair in pairs:
        whole.update(*pair)
    parts = [MattingMetrics(gca=True) for _ in range(3)]
    for index, pair in enumerate(pairs):
        parts[index % 3].update(*pair)
    parts = [pickle.loads(pickle.dumps(part)) for part in parts]
    merged = parts[2].merge(parts[0]).merge(parts[1])
    assert merged is parts[2]
    assert merged.compute() == whole.compute()
    assert MattingMetrics(gca=True, rows=json.loads(json.dumps(whole.rows))).compute() == whole.compute()
    assert whole.compute()["sad"] == pytest.approx(np.mean([sad(*pair) for pair in pairs]))
    assert set(whole.compute()) == {"sad", "mse", "mad", "gradient", "connectivity", "connectivity_gca"}


def test_a_metric_of_some_images_is_a_mean_over_those() -> None:
    rows = [{"sad": 1.0}, {"sad": 3.0, "sad_trimap": 2.0}, {"sad": 2.0, "sad_trimap": 1.0}]
    assert MattingMetrics(rows=rows).compute() == {"sad": 2.0, "sad_trimap": 1.5}


def test_reset_forgets() -> None:
    metrics = MattingMetrics()
    metrics.update(np.ones((4, 5)), np.zeros((4, 5)))
    metrics.reset()
    with pytest.raises(ValueError, match="must be updated before compute"):
        metrics.compute()
    metrics.update(np.ones((4, 5)), np.ones((4, 5)))
    assert metrics.compute()["sad"] == 0


def test_accumulators_of_different_options_do_not_merge() -> None:
    with pytest.raises(ValueError, match="same type and options"):
        MattingMetrics().merge(MattingMetrics(gca=True))
    with pytest.raises(ValueError, match="same type and options"):
        MattingMetrics().merge(MaskMetrics())
    with pytest.raises(ValueError, match="must be updated before compute"):
        MattingMetrics().compute()


def test_mask_iou_by_hand() -> None:
    pred, target = np.zeros((10, 10)), np.zeros((10, 10))
    assert mask_iou(pred, target) == 1
    pred[:, :6], target[:, 4:] = 0.6, 0.9
    assert mask_iou(pred, target) == pytest.approx(0.2)
    metrics = MaskMetrics()
    metrics.update(pred, target)
    metrics.update(pred, pred)
    assert metrics.compute() == {"iou": pytest.approx(0.6), "solidity": 0}
