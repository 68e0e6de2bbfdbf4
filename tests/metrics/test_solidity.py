"""Solidity: pixels deep inside an object, counted by hand."""

import numpy as np
import pytest

from fclm_hf.metrics import MaskMetrics, solidity


def make_square() -> np.ndarray:
    target = np.zeros((50, 60))
    target[10:30, 20:40] = 1  # 20 x 20 pixels, of which 12 x 12 are 5 or more from the nearest pixel outside
    return target


def test_only_opaque_pixels_deep_inside_count():
    target, pred = make_square(), np.zeros((50, 60))
    pred[14:26, 24:36] = 1
    assert solidity(pred, target) == 1
    pred[14:26, 24:27] = 0.9  # a quarter is not above 0.9
    assert solidity(pred, target) == 0.75
    assert solidity(np.zeros_like(pred), target) == 0


def test_the_border_of_the_image_is_no_edge():
    target = np.zeros((50, 60))
    target[:, :20] = 1
    pred = target.copy()
    pred[:, 16:] = 0
    assert solidity(pred, target) == 1
    pred[:, 15:] = 0
    assert solidity(pred, target) == pytest.approx(15 / 16)


def test_objects_without_deep_pixels():
    target = np.zeros((20, 20))
    target[4:10, 4:10] = 1
    assert solidity(0 * target, target) == 1
    metrics = MaskMetrics()
    metrics.update(target, target)
    assert metrics.compute() == {"iou": 1}
    metrics.update(0.95 * make_square(), make_square())
    assert metrics.compute() == {"iou": 1, "solidity": 1}


def test_a_data_set_pools_pixels():
    large = np.zeros((100, 100))
    large[10:90, 10:90] = 1
    metrics = MaskMetrics([{"iou": 0.5}])  # a row of an earlier release
    metrics.update(large, large)
    metrics.update(0 * make_square(), make_square())
    assert metrics.compute() == {"iou": 0.5, "solidity": pytest.approx(72**2 / (72**2 + 12**2))}
