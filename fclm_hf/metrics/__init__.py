"""Measures of the field, one file per family: a function for an image, an accumulator for a data set."""

from .accumulator import MetricAccumulator
from .connectivity import connectivity_error
from .dichotomous import DichotomousMetrics, dichotomous_measures
from .gradient import gradient_error
from .instances import InstanceMattingQuality
from .masks import MaskMetrics, mask_iou
from .matting import MattingMetrics, mad, mse, sad


__all__ = [
    "DichotomousMetrics",
    "InstanceMattingQuality",
    "MaskMetrics",
    "MattingMetrics",
    "MetricAccumulator",
    "connectivity_error",
    "dichotomous_measures",
    "gradient_error",
    "mad",
    "mask_iou",
    "mse",
    "sad",
]
