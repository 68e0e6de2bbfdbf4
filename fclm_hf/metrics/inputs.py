"""What the metrics accept: float mattes in [0, 1] and uint8 trimaps, as numpy arrays or torch tensors."""

from typing import Any

import numpy as np
import torch


TRIMAP_VALUES = (0, 128, 255)
SHAPES = {2: "(height, width)", 3: "(objects, height, width)"}
CHUNK = 1 << 15  # elements that a core's cache holds through several passes


def check_variant(variant: str, accepted: tuple[str, ...]) -> None:
    """Raises ValueError unless `variant` is accepted."""
    if variant not in accepted:
        raise ValueError(f"variant must be one of {', '.join(accepted)}, got {variant!r}.")


def load_pair(pred: Any, target: Any, ndim: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Both mattes as float32 or float64 arrays of `ndim` axes and one size; see [`load_mattes`] for the errors."""
    pred, target = load_mattes(pred, "pred", ndim), load_mattes(target, "target", ndim)
    if pred.shape[-2:] != target.shape[-2:]:
        raise ValueError(f"pred and target must have one size, got {pred.shape[-2:]} and {target.shape[-2:]}.")
    return pred, target


def load_mattes(values: Any, name: str, ndim: int = 2) -> np.ndarray:
    """A contiguous float32 or float64 array of `ndim` axes with values in [0, 1].

    Raises:
        TypeError: `values` is no array, or not of floats.
        ValueError: another number of axes, no pixels, or values that are NaN or outside [0, 1].
    """
    array = _to_array(values, name)
    if array.dtype.kind != "f":
        hint = "; divide 8-bit values by 255 first" if array.dtype == np.uint8 else ""
        raise TypeError(f"{name} must hold floats in [0, 1], got {array.dtype}{hint}.")
    if array.ndim != ndim or 0 in array.shape[-2:]:
        raise ValueError(f"{name} must be of shape {SHAPES[ndim]} with at least one pixel, got {array.shape}.")
    # also of another byte order, which OpenCV takes for the machine's own
    array = np.ascontiguousarray(array, np.float32 if array.dtype.itemsize <= 4 else np.float64)
    _check_range(array, name)
    return array


def load_trimap(trimap: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A uint8 array of `shape` with values 0 (background), 128 (unknown) and 255 (foreground).

    Raises:
        TypeError: `trimap` is no array, or not uint8.
        ValueError: another shape, other values, or no unknown pixel, which leaves nothing to measure.
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
        raise ValueError("trimap has no unknown pixel (128): there is nothing to measure.")
    return array


def overwrite_known(pred: np.ndarray, trimap: np.ndarray) -> np.ndarray:
    """A copy of `pred` that is 0 and 1 where the trimap says so."""
    return np.where(trimap == 128, pred, (trimap == 255).astype(pred.dtype))


def _to_array(values: Any, name: str) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        narrow = values.is_floating_point() and values.dtype.itemsize < 4  # numpy lacks bfloat16 and 8-bit floats
        try:
            values = (values.float() if narrow else values).numpy(force=True)
        except (TypeError, RuntimeError) as error:
            raise TypeError(f"{name} must be a dense tensor with data: {error}") from error
    if not isinstance(values, np.ndarray):
        raise TypeError(f"{name} must be a numpy array or a torch tensor, got {type(values).__name__}.")
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"{name} must not be a masked array: measures count all pixels, or those of a trimap.")
    return np.asarray(values)


def _check_range(array: np.ndarray, name: str) -> None:
    flat = array.ravel()
    for start in range(0, flat.size, CHUNK):
        chunk = flat[start : start + CHUNK]
        low, high = chunk.min(), chunk.max()
        if not (low >= 0 and high <= 1):  # also true of NaN
            what = "NaN" if np.isnan(low + high) else repr(float(low if low < 0 else high))
            raise ValueError(f"{name} must be in [0, 1], got {what}.")
