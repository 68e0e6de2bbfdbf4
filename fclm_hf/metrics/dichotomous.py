"""The six metrics of DIS5K ("Highly Accurate Dichotomous Image Segmentation", Qin et al., ECCV 2022)."""

from importlib import import_module
from typing import Any

import numpy as np

from .accumulator import MetricAccumulator, mean
from .inputs import load_pair


def dichotomous_metrics(pred: Any, target: Any) -> dict[str, Any]:
    """Compute the metrics of dichotomous image segmentation for one image, with pysodmetrics.

    Both mattes are first rounded to 8 bits, as files hold them; a pixel of `target` is foreground if its value is above
    128. All metrics but the human correction efforts see `pred` stretched to span [0, 1]; those binarize it above 128,
    as the official tool does. Protocol of "Highly Accurate Dichotomous Image Segmentation" (Qin et al., ECCV 2022).

    Args:
        pred: Predicted matte or mask of shape `(height, width)`, float in [0, 1], a numpy array or a torch tensor.
        target: True mask of the same shape.

    Returns:
        The metrics by name:

        - `weighted_f`: weighted F-measure with beta^2 = 1 (Margolin et al., CVPR 2014), in [0, 1], higher is better.
        - `mae`: mean absolute error, in [0, 1], lower is better.
        - `s_measure`: structure measure with alpha = 0.5 (Fan et al., ICCV 2017), in [0, 1], higher is better.
        - `hce`: human correction efforts with gamma = 5 and epsilon = 2 (Qin et al., ECCV 2022), a number of clicks,
          lower is better.
        - `f_curve`: F-measures with beta^2 = 0.3 at the thresholds 255, 254, ..., 0, a list of 256 floats.
        - `e_curve`: enhanced-alignment measures (Fan et al., IJCAI 2018) at the same thresholds, a list of 256 floats.

    Raises:
        ImportError: If pysodmetrics is not installed (extra `eval`).
        TypeError: If an argument is not a float array or tensor.
        ValueError: If shapes differ, values are outside [0, 1], or the image has fewer than two pixels.

    Example:
        >>> import numpy as np
        >>> from fclm_hf.metrics import dichotomous_metrics
        >>> target = np.zeros((64, 64))
        >>> target[16:48, 16:48] = 1
        >>> metrics = dichotomous_metrics(np.roll(target, 4, axis=1), target)
        >>> {name: round(value, 3) for name, value in metrics.items() if not name.endswith("curve")}
        {'weighted_f': 0.874, 'mae': 0.062, 's_measure': 0.852, 'hce': 0.0}
        >>> round(max(metrics["f_curve"]), 3)
        0.875
    """
    tool = _import_pysodmetrics()
    pred, target = (np.rint(matte * 255).astype(np.uint8) for matte in load_pair(pred, target))
    if pred.size < 2:
        raise ValueError(f"pred and target must have at least two pixels, got {pred.size}.")
    f_measure = tool.FmeasureV2({"f": tool.FmeasureHandler(with_adaptive=False, with_dynamic=True, beta=0.3)})
    e_measure, weighted_f, mae, s_measure = tool.Emeasure(), tool.WeightedFmeasure(), tool.MAE(), tool.Smeasure()
    compare = s_measure.ssim
    # if the centroid is in the last row or column, quadrants without pixels have a mean of NaN and a weight of 0
    s_measure.ssim = lambda *parts: compare(*parts) if parts[0].size else 0.0
    for metric in (f_measure, e_measure, weighted_f, mae, s_measure):
        metric.step(pred, target)
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
    """The six metrics of DIS5K over a data set.

    `compute` returns the keys `max_f` (maximum of the mean F curve), `mean_e` (mean of the mean E curve), and the means
    over images of `weighted_f`, `mae`, `s_measure` and `hce`. `hce` is a number of clicks, the others are in [0, 1];
    higher is better except for `mae` and `hce`. See [`dichotomous_metrics`].

    Args:
        rows: Rows of earlier accumulators.

    Raises:
        ImportError: If pysodmetrics is not installed (`pip install "fclm-hf[eval]"`).

    Example:
        >>> import numpy as np
        >>> from fclm_hf.metrics import DichotomousMetrics
        >>> target = np.zeros((64, 64))
        >>> target[16:48, 16:48] = 1
        >>> metrics = DichotomousMetrics()
        >>> metrics.update(target, target)
        >>> metrics.update(np.roll(target, 4, axis=1), target)
        >>> {name: round(value, 3) for name, value in metrics.compute().items()}
        {'max_f': 0.938, 'weighted_f': 0.937, 'mae': 0.031, 's_measure': 0.926, 'hce': 0.0, 'mean_e': 0.967}
    """

    def __init__(self, rows: Any = ()) -> None:
        _import_pysodmetrics()
        super().__init__(rows)

    def update(self, pred: Any, target: Any) -> None:
        """Measure one image.

        Args:
            pred: Predicted matte or mask of shape `(height, width)`, float in [0, 1], a numpy array or a torch tensor.
            target: True mask of the same shape.

        Raises:
            TypeError: If an argument is not a float array or tensor.
            ValueError: If shapes differ, values are outside [0, 1], or the image has fewer than two pixels.
        """
        self.rows.append(dichotomous_metrics(pred, target))

    def _reduce(self) -> dict[str, float]:
        f_curve, e_curve = (
            [mean(values) for values in zip(*(row[name] for row in self.rows), strict=True)]
            for name in ("f_curve", "e_curve")
        )
        means = {name: mean(row[name] for row in self.rows) for name in ("weighted_f", "mae", "s_measure", "hce")}
        return {"max_f": max(f_curve), **means, "mean_e": mean(e_curve)}


def _import_pysodmetrics() -> Any:
    """Import pysodmetrics, or raise an ImportError that names the extra."""
    try:
        return import_module("py_sod_metrics")
    except ImportError as error:
        raise ImportError('The metrics of DIS5K need pysodmetrics: pip install "fclm-hf[eval]".') from error
