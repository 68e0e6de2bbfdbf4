"""Metrics for image matting and segmentation: a function per metric for one image, accumulators for a data set.

All of them compare float mattes in [0, 1], numpy arrays or torch tensors, and give the values of the reference
implementations of the respective benchmarks.
"""

import warnings
from typing import Any

from .accumulator import MetricAccumulator
from .connectivity import connectivity_error
from .dichotomous import DichotomousMetrics, dichotomous_metrics
from .gradient import gradient_error
from .instances import InstanceMattingQuality
from .masks import MaskMetrics, mask_iou
from .matting import MattingMetrics, mad, mse, sad


_RENAMED = {"dichotomous_measures": dichotomous_metrics}


def __getattr__(name: str) -> Any:
    """Return what a name of release 0.1 stands for now, with a warning that names it."""
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = _RENAMED[name]
    warnings.warn(
        f"fclm_hf.metrics.{name} is deprecated and will be removed in the next release: use"
        f" fclm_hf.metrics.{value.__name__}.",
        FutureWarning,
        stacklevel=2,
    )
    return value


__all__ = [
    "DichotomousMetrics",
    "InstanceMattingQuality",
    "MaskMetrics",
    "MattingMetrics",
    "MetricAccumulator",
    "connectivity_error",
    "dichotomous_metrics",
    "gradient_error",
    "mad",
    "mask_iou",
    "mse",
    "sad",
]
