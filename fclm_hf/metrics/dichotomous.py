"""The six measures of DIS5K ("Highly Accurate Dichotomous Image Segmentation", Qin et al., ECCV 2022)."""

from importlib import import_module
from typing import Any

import numpy as np

from .accumulator import MetricAccumulator, mean
from .inputs import load_pair


def dichotomous_measures(pred: Any, target: Any) -> dict[str, Any]:
    """Measures of one image by pysodmetrics, on mattes rounded to 8 bits, as files hold them.

    A pixel of `target` is foreground above 128. `pred` is stretched to span [0, 1] for all measures but "hce", which
    binarises it above 128 as the official tool does.

    Args:
        pred, target: float (H, W) in [0, 1], numpy or torch.

    Returns:
        "weighted_f" (beta^2 1), "mae", "s_measure" (alpha 0.5), "hce" (gamma 5, epsilon 2): floats; "f_curve" (beta^2
        0.3) and "e_curve": 256 floats, of thresholds 255 to 0.

    Raises:
        ImportError: pysodmetrics is not installed.
        TypeError, ValueError: see `load_mattes` in `inputs.py`.
    """
    tool = _import_pysodmetrics()
    pred, target = (np.rint(matte * 255).astype(np.uint8) for matte in load_pair(pred, target))
    if pred.size < 2:
        raise ValueError("pred and target must have at least two pixels: E divides by their number - 1.")
    f_measure = tool.FmeasureV2({"f": tool.FmeasureHandler(with_adaptive=False, with_dynamic=True, beta=0.3)})
    e_measure, weighted_f, mae, s_measure = tool.Emeasure(), tool.WeightedFmeasure(), tool.MAE(), tool.Smeasure()
    compare = s_measure.ssim
    # a centroid on the last row or column leaves quadrants without pixels, whose mean is NaN and whose weight is 0
    s_measure.ssim = lambda *parts: compare(*parts) if parts[0].size else 0.0
    for measure in (f_measure, e_measure, weighted_f, mae, s_measure):
        measure.step(pred, target)
    effort = tool.HumanCorrectionEffortMeasure()
    effort.step((pred > 128).astype(np.float64), target > 128, normalize=False)
    return {
        "f_curve": f_measure.get_results()["f"]["dynamic"].tolist(),
        "e_curve": e_measure.get_results()["em"]["curve"].tolist(),
        "weighted_f": float(weighted_f.get_results()["wfm"]),
        "mae": float(mae.get_results()["mae"]),
        "s_measure": float(s_measure.get_results()["sm"]),
        "hce": float(effort.get_results()["hce"]),
    }


class DichotomousMetrics(MetricAccumulator):
    """DIS5K's measures over a data set: keys max_f, weighted_f, mae, s_measure, mean_e, hce.

    max_f is the maximum of the mean F curve, mean_e the mean of the mean E curve, the others are means over images.
    Needs pysodmetrics (`pip install "fclm-hf[eval]"`): without it the constructor raises ImportError.
    """

    def __init__(self, rows: Any = ()) -> None:
        _import_pysodmetrics()
        super().__init__(rows)

    def update(self, pred: Any, target: Any) -> None:
        """Measures one image; arguments and errors as of [`dichotomous_measures`]."""
        self.rows.append(dichotomous_measures(pred, target))

    def _reduce(self) -> dict[str, float]:
        f_curve, e_curve = (
            [mean(values) for values in zip(*(row[name] for row in self.rows), strict=True)]
            for name in ("f_curve", "e_curve")
        )
        means = {name: mean(row[name] for row in self.rows) for name in ("weighted_f", "mae", "s_measure", "hce")}
        return {"max_f": max(f_curve), **means, "mean_e": mean(e_curve)}


def _import_pysodmetrics() -> Any:
    try:
        return import_module("py_sod_metrics")
    except ImportError as error:
        raise ImportError('DIS measures need pysodmetrics: pip install "fclm-hf[eval]".') from error
