"""Measures of one matte: SAD, MSE and MAD, and the accumulator of the whole family."""

from typing import Any

import numpy as np

from .accumulator import MetricAccumulator
from .connectivity import connectivity_error
from .gradient import gradient_error
from .inputs import load_pair, load_trimap


def sad(pred: Any, target: Any, trimap: Any = None) -> float:
    """Sum of |pred - target| / 1000.

    Args:
        pred, target: float (H, W) in [0, 1], numpy or torch.
        trimap: uint8 (H, W) of 0, 128, 255. With it, only unknown pixels count.

    Raises:
        TypeError, ValueError: see `load_mattes` and `load_trimap` in `inputs.py`.
    """
    return float(np.abs(_subtract(pred, target, trimap)).sum()) / 1000


def mse(pred: Any, target: Any, trimap: Any = None) -> float:
    """Mean of (pred - target)^2, over all pixels or the unknown ones. Arguments as of [`sad`]."""
    return float(np.square(_subtract(pred, target, trimap)).mean())


def mad(pred: Any, target: Any, trimap: Any = None) -> float:
    """Mean of |pred - target|, over all pixels or the unknown ones. Arguments as of [`sad`]."""
    return float(np.abs(_subtract(pred, target, trimap)).mean())


def _subtract(pred: Any, target: Any, trimap: Any) -> np.ndarray:
    """Differences, float64 (H, W), or (N,) of the N unknown pixels: known ones are overwritten and do not count."""
    pred, target = load_pair(pred, target)
    difference = np.subtract(pred, target, dtype=np.float64)
    return difference if trimap is None else difference[load_trimap(trimap, pred.shape) == 128]


class MattingMetrics(MetricAccumulator):
    """Means over images of SAD, MSE, MAD, Grad and Conn.

    Args:
        gca: also measure "connectivity_gca", the variant behind published tables whose Conn is far below their SAD.

    ```python
    >>> metrics = MattingMetrics()
    >>> metrics.update(pred, target)
    >>> metrics.compute()
    {"sad": ..., "mse": ..., "mad": ..., "gradient": ..., "connectivity": ...}
    ```
    """

    def __init__(self, gca: bool = False, rows: Any = ()) -> None:
        super().__init__(rows)
        self.gca = gca

    def update(self, pred: Any, target: Any, trimap: Any = None) -> None:
        """Measures one image; arguments and errors as of [`sad`]."""
        row = {
            "sad": sad(pred, target, trimap),
            "mse": mse(pred, target, trimap),
            "mad": mad(pred, target, trimap),
            "gradient": gradient_error(pred, target, trimap),
            "connectivity": connectivity_error(pred, target, trimap),
        }
        if self.gca:
            row["connectivity_gca"] = connectivity_error(pred, target, trimap, variant="gca")
        self.rows.append(row)
