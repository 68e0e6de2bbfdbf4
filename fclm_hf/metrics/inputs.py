"""Validation of the inputs of metrics: float mattes in [0, 1] and uint8 trimaps, numpy arrays or torch tensors."""

from typing import Any

import numpy as np
import torch


TRIMAP_VALUES = (0, 128, 255)
SHAPES = {2: "(height, width)", 3: "(objects, height, width)"}
CHUNK = 1 << 15  # elements that stay in a core's cache through several passes


def check_variant(variant: str, accepted: tuple[str, ...]) -> None:
    """Raise a ValueError unless `variant` is one of the accepted ones."""
    if variant not in accepted:
        raise ValueError(f"variant must be one of {', '.join(accepted)}, got {variant!r}.")


def load_pair(pred: Any, target: Any, ndim: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Convert predicted and true mattes with [`load_mattes`] and check that they have the same height and width."""
    pred, target = load_mattes(pred, "pred", ndim), load_mattes(target, "target", ndim)
    if pred.shape[-2:] != target.shape[-2:]:
        raise ValueError(f"pred and target must have the same size, got {pred.shape[-2:]} and {target.shape[-2:]}.")
    return pred, target


def load_mattes(values: Any, name: str, ndim: int = 2) -> np.ndarray:
    """Convert mattes to a contiguous float32 or float64 array with `ndim` axes and values in [0, 1].

    Raises:
        TypeError: If `values` is not a dense array or tensor of floats.
        ValueError: If it has another number of axes, no pixels, or values that are NaN or outside [0, 1].
    """
    array = _to_array(values, name)
    if array.dtype.kind != "f":
        hint = "; divide 8-bit values by 255 first" if array.dtype == np.uint8 else ""
        raise TypeError(f"{name} must hold floats in [0, 1], got {array.dtype}{hint}.")
    if array.ndim != ndim or 0 in array.shape[-2:]:
        raise ValueError(f"{name} must have shape {SHAPES[ndim]} with at least one pixel, got {array.shape}.")
    # converts other byte orders too, which OpenCV would take for the native one
    array = np.ascontiguousarray(array, np.float32 if array.dtype.itemsize <= 4 else np.float64)
    _check_range(array, name)
    return array


def load_trimap(trimap: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Convert a trimap to a uint8 array of values 0 (background), 128 (unknown) and 255 (foreground).

    Raises:
        TypeError: If `trimap` is not an array or tensor of uint8.
        ValueError: If it has another shape than `shape`, other values, or no unknown pixel.
    """
    array = _to_array(trimap, "trimap")
    if array.dtype != np.uint8:
        raise TypeError(f"trimap must be uint8, got {array.dtype}.")
    if array.shape != shape:
        raise ValueError(f"trimap must have the shape of pred, {shape}, got {array.shape}.")
    counts = np.bincount(array.ravel(), minlength=256)
    if counts.sum() != counts[list(TRIMAP_VALUES)].sum():
        found = [int(value) for value in np.flatnonzero(counts) if value not in TRIMAP_VALUES]
        raise ValueError(f"trimap must hold only 0, 128 and 255, got {found[:5]}.")
    if not counts[128]:
        raise ValueError("trimap must have at least one unknown pixel (128), got none.")
    return array


def overwrite_known(pred: np.ndarray, trimap: np.ndarray) -> np.ndarray:
    """Return a copy of `pred` that is 0 and 1 where the trimap is known to be background and foreground."""
    return np.where(trimap == 128, pred, (trimap == 255).astype(pred.dtype))


def _to_array(values: Any, name: str) -> np.ndarray:
    """Convert an array or tensor to a numpy array in memory, or raise a TypeError."""
    if isinstance(values, torch.Tensor):
        narrow = values.is_floating_point() and values.dtype.itemsize < 4  # numpy lacks bfloat16 and 8-bit floats
        try:
            values = (values.float() if narrow else values).numpy(force=True)
        except (TypeError, RuntimeError) as error:
            raise TypeError(f"{name} must be a dense tensor with data: {error}") from error
    if not isinstance(values, np.ndarray):
        raise TypeError(f"{name} must be a numpy array or a torch tensor, got {type(values).__name__}.")
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"{name} must not be a masked array: metrics count all pixels, or those of a trimap.")
    return np.asarray(values)


def _check_range(array: np.ndarray, name: str) -> None:
    """Raise a ValueError for values outside [0, 1], in chunks to spare the memory of a mask."""
    flat = array.ravel()
    for start in range(0, flat.size, CHUNK):
        chunk = flat[start : start + CHUNK]
        low, high = chunk.min(), chunk.max()
        if not (low >= 0 and high <= 1):  # also true of NaN
            what = "NaN" if np.isnan(low + high) else repr(float(low if low < 0 else high))
            raise ValueError(f"{name} must be in [0, 1], got {what}.")
