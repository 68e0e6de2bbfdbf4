"""Metrics for image matting and segmentation: a function per metric for one image, accumulators for a data set.

All of them compare float mattes in [0, 1], numpy arrays or torch tensors, and give the values of the reference
implementations of the respective benchmarks.
"""

from ..utils.renaming import make_getattr
from .accumulator import MetricAccumulator
from .connectivity import connectivity_error
from .dichotomous import DichotomousMetrics, dichotomous_metrics
from .gradient import gradient_error
from .instances import InstanceMattingQuality
from .masks import MaskMetrics, mask_iou
from .matting import MattingMetrics, mad, mse, sad
from .solidity import solidity


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
    "solidity",
]

__getattr__ = make_getattr(__name__, {"dichotomous_measures": dichotomous_metrics})
