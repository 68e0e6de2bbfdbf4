"""Invalid mattes raise clear errors; degenerate ones have defined values."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

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
VALID = np.full((4, 5), 0.5)
INVALID: list[tuple[Any, type[Exception], str]] = [
    (np.full((4, 5), 128, np.uint8), TypeError, "uint8.*255"),
    (torch.full((4, 5), 128, dtype=torch.uint8), TypeError, "uint8.*255"),
    (VALID > 0, TypeError, "bool"),
    (VALID.tolist(), TypeError, "numpy array or a torch tensor, got list"),
    (None, TypeError, "NoneType"),
    (VALID * 255, ValueError, r"\[0, 1\], got 127.5"),
    (VALID - 1, ValueError, r"\[0, 1\], got -0.5"),
    (np.where(np.eye(4, 5), np.nan, VALID), ValueError, "NaN"),
    (np.where(np.eye(4, 5), np.inf, VALID), ValueError, "inf"),
    (VALID[None], ValueError, r"\(height, width\)"),
    (VALID[0], ValueError, r"\(height, width\)"),
    (np.zeros((0, 5)), ValueError, "at least one pixel"),
    (VALID + 0.50001, ValueError, "got 1.00001"),
    (np.ma.masked_array(VALID, VALID > 0), TypeError, "masked"),
    (VALID.astype(complex), TypeError, "complex128"),
    (VALID.astype(object), TypeError, "object"),
    (torch.zeros(4, 5, device="meta"), TypeError, "dense tensor with data"),
    (torch.tensor(VALID).to_sparse(), TypeError, "dense tensor with data"),
    (Image.new("L", (5, 4)), TypeError, "numpy array or a torch tensor, got Image"),
]


@pytest.mark.parametrize(("invalid", "error", "message"), INVALID)
def test_invalid_mattes(invalid: Any, error: type[Exception], message: str) -> None:
    for function in FUNCTIONS:
        with pytest.raises(error, match=f"pred.*{message}"):
            function(invalid, VALID)
        with pytest.raises(error, match=f"target.*{message}"):
            function(VALID, invalid)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_sizes_must_agree(function: Callable[..., float]) -> None:
    with pytest.raises(ValueError, match=r"pred and target.*\(4, 5\) and \(5, 4\)"):
        function(VALID, VALID.T)


@pytest.mark.parametrize("function", FUNCTIONS[:5])
@pytest.mark.parametrize(
    ("trimap", "error", "message"),
    [
        (np.full((4, 5), 128), TypeError, "uint8"),
        (np.full((5, 4), 128, np.uint8), ValueError, "shape of pred"),
        (np.full((4, 5), 127, np.uint8), ValueError, r"0, 128 and 255, got \[127\]"),
        (np.full((4, 5), 255, np.uint8), ValueError, r"unknown pixel \(128\), got none"),
        ([[128]], TypeError, "numpy array"),
    ],
)
def test_invalid_trimaps(function: Callable[..., float], trimap: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"trimap.*{message}"):
        function(VALID, VALID, trimap)


@pytest.mark.parametrize("function", [connectivity_error, gradient_error])
def test_unknown_variant(function: Callable[..., float]) -> None:
    with pytest.raises(ValueError, match=r"variant.*official, gca.*'other'"):
        function(VALID, VALID, variant="other")


def test_invalid_instances() -> None:
    quality = InstanceMattingQuality()
    with pytest.raises(ValueError, match=r"pred.*objects, height, width"):
        quality.update(VALID, VALID[None])
    with pytest.raises(TypeError, match=r"target.*uint8"):
        quality.update(VALID[None], np.ones((1, 4, 5), np.uint8))
    with pytest.raises(ValueError, match="same size"):
        quality.update(np.zeros((0, 5, 4)), VALID[None])
    with pytest.raises(ValueError, match="must be updated before compute"):
        quality.compute()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (20, 30)])
def test_degenerate_mattes_have_defined_values(shape: tuple[int, int]) -> None:
    pixels = shape[0] * shape[1]
    empty, full = np.zeros(shape), np.ones(shape)
    for matte in (empty, full, full / 2):
        metrics = MattingMetrics()
        metrics.update(matte, matte)
        assert all(value == 0 for value in metrics.compute().values())
        assert gradient_error(matte, empty) == 0
    assert sad(empty, full) == connectivity_error(empty, full) == pytest.approx(pixels / 1000)
    assert mse(full, full / 2) == pytest.approx(0.25)
    assert connectivity_error(full, full / 2) == pytest.approx(0.5 * pixels / 1000)


def test_half_precision_and_gradients_are_accepted() -> None:
    half = torch.full((4, 5), 0.5, dtype=torch.bfloat16, requires_grad=True)
    assert mad(half, torch.zeros(4, 5, dtype=torch.float16)) == 0.5


def test_layout_in_memory_does_not_matter() -> None:
    """Above all the byte order of scientific file formats, which OpenCV does not know."""
    generator = np.random.default_rng(0)
    pred, target = (np.rint(255 * generator.random((12, 15))) / 255 for _ in range(2))
    for function in FUNCTIONS:
        expected = function(pred, target)
        for dtype in (">f4", ">f8", np.longdouble):
            assert function(pred.astype(dtype), target) == pytest.approx(expected, rel=1e-6)
        views = np.asfortranarray(pred), pred[::-1, ::-1].copy()[::-1, ::-1], np.repeat(pred, 2, 1)[:, ::2]
        assert all(function(view, target) == expected for view in views)
        assert type(expected) is float
    stacks = pred[None], target[None]
    first, second = InstanceMattingQuality(), InstanceMattingQuality()
    first.update(*stacks)
    second.update(stacks[0].astype(">f8"), stacks[1].astype(">f8"))
    assert first.compute() == second.compute()
