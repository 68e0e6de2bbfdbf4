"""What is no matte gives one clear error, what is a dull one a defined value."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fclm_hf.metrics import (
    InstanceMattingQuality,
    MattingMetrics,
    connectivity_error,
    gradient_error,
    mad,
    mask_iou,
    mse,
    sad,
)


FUNCTIONS = [sad, mse, mad, gradient_error, connectivity_error, mask_iou]
GOOD = np.full((4, 5), 0.5)
BAD: list[tuple[Any, type[Exception], str]] = [
    (np.full((4, 5), 128, np.uint8), TypeError, "uint8.*255"),
    (torch.full((4, 5), 128, dtype=torch.uint8), TypeError, "uint8.*255"),
    (GOOD > 0, TypeError, "bool"),
    (GOOD.tolist(), TypeError, "numpy array or a torch tensor, got list"),
    (None, TypeError, "NoneType"),
    (GOOD * 255, ValueError, r"\[0, 1\], got 127.5"),
    (GOOD - 1, ValueError, r"\[0, 1\], got -0.5"),
    (np.where(np.eye(4, 5), np.nan, GOOD), ValueError, "NaN"),
    (np.where(np.eye(4, 5), np.inf, GOOD), ValueError, "inf"),
    (GOOD[None], ValueError, r"\(height, width\)"),
    (GOOD[0], ValueError, r"\(height, width\)"),
    (np.zeros((0, 5)), ValueError, "at least one pixel"),
]


@pytest.mark.parametrize(("bad", "error", "message"), BAD)
def test_bad_mattes(bad: Any, error: type[Exception], message: str) -> None:
    for function in FUNCTIONS:
        with pytest.raises(error, match=f"pred.*{message}"):
            function(bad, GOOD)
        with pytest.raises(error, match=f"target.*{message}"):
            function(GOOD, bad)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_sizes_must_agree(function: Callable[..., float]) -> None:
    with pytest.raises(ValueError, match=r"pred and target.*\(4, 5\) and \(5, 4\)"):
        function(GOOD, GOOD.T)


@pytest.mark.parametrize("function", FUNCTIONS[:5])
@pytest.mark.parametrize(
    ("trimap", "error", "message"),
    [
        (np.full((4, 5), 128), TypeError, "uint8"),
        (np.full((5, 4), 128, np.uint8), ValueError, "shape of pred"),
        (np.full((4, 5), 127, np.uint8), ValueError, r"0, 128 and 255, got \[127\]"),
        (np.full((4, 5), 255, np.uint8), ValueError, "no unknown pixel"),
        ([[128]], TypeError, "numpy array"),
    ],
)
def test_bad_trimaps(function: Callable[..., float], trimap: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"trimap.*{message}"):
        function(GOOD, GOOD, trimap)


def test_unknown_variant() -> None:
    with pytest.raises(ValueError, match="variant.*official, gca.*'other'"):
        connectivity_error(GOOD, GOOD, variant="other")


def test_bad_instances() -> None:
    quality = InstanceMattingQuality()
    with pytest.raises(ValueError, match="pred.*objects, height, width"):
        quality.update(GOOD, GOOD[None])
    with pytest.raises(TypeError, match="target.*uint8"):
        quality.update(GOOD[None], np.ones((1, 4, 5), np.uint8))
    with pytest.raises(ValueError, match="one size"):
        quality.update(np.zeros((0, 5, 4)), GOOD[None])
    with pytest.raises(ValueError, match="never called"):
        quality.compute()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (20, 30)])
def test_dull_mattes_have_defined_values(shape: tuple[int, int]) -> None:
    pixels = shape[0] * shape[1]
    empty, full = np.zeros(shape), np.ones(shape)
    for dull in (empty, full, full / 2):
        metrics = MattingMetrics()
        metrics.update(dull, dull)
        assert all(value == 0 for value in metrics.compute().values())
        assert gradient_error(dull, empty) == 0
    assert sad(empty, full) == connectivity_error(empty, full) == pytest.approx(pixels / 1000)
    assert mse(full, full / 2) == pytest.approx(0.25)
    assert connectivity_error(full, full / 2) == pytest.approx(0.5 * pixels / 1000)


def test_half_precision_and_gradients_are_accepted() -> None:
    half = torch.full((4, 5), 0.5, dtype=torch.bfloat16, requires_grad=True)
    assert mad(half, torch.zeros(4, 5, dtype=torch.float16)) == 0.5
