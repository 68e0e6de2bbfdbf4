"""SAD, MSE and MAD of one matte, and the accumulator of the whole family of matting metrics."""

from typing import Any

import numpy as np

from .accumulator import MetricAccumulator
from .connectivity import connectivity_error
from .gradient import gradient_error
from .inputs import load_pair, load_trimap


def sad(pred: Any, target: Any, trimap: Any = None) -> float:
    """Compute the sum of absolute differences (SAD) between two mattes, in thousands of pixels.

        SAD = sum(|pred - target|) / 1000

    The sum grows with the size of the image: a value of 1 corresponds to 1000 pixels that are entirely wrong. Defined
    by "A Perceptually Motivated Online Benchmark for Image Matting" (Rhemann et al., CVPR 2009); the division by 1000
    is the convention of published tables.

    Args:
        pred: Predicted matte of shape `(height, width)`, float in [0, 1], a numpy array or a torch tensor.
        target: True matte of the same shape.
        trimap: Trimap of the same shape, uint8 of 0 (background), 128 (unknown) and 255 (foreground). If given, only
            unknown pixels count.

    Returns:
        The SAD in [0, height * width / 1000]; lower is better.

    Raises:
        TypeError: If a matte is not a float array or tensor, or the trimap is not uint8.
        ValueError: If shapes differ, a matte has values outside [0, 1], or the trimap has other values or no unknown
            pixel.

    Example:
        >>> import numpy as np
        >>> from fclm_hf.metrics import sad
        >>> pred, target = np.full((100, 200), 0.75), np.full((100, 200), 0.5)
        >>> sad(pred, target)
        5.0
        >>> trimap = np.full((100, 200), 128, dtype=np.uint8)
        >>> trimap[:50] = 255  # the upper half is known to be foreground
        >>> sad(pred, target, trimap)
        2.5
    """
    return float(np.abs(_subtract(pred, target, trimap)).sum()) / 1000


def mse(pred: Any, target: Any, trimap: Any = None) -> float:
    """Compute the mean squared error (MSE) between two mattes.

        MSE = mean((pred - target)^2)

    Defined by "A Perceptually Motivated Online Benchmark for Image Matting" (Rhemann et al., CVPR 2009). The value is
    not scaled; tables that print it in thousandths multiply it by 1000.

    Args:
        pred: Predicted matte of shape `(height, width)`, float in [0, 1], a numpy array or a torch tensor.
        target: True matte of the same shape.
        trimap: Trimap of the same shape, uint8 of 0 (background), 128 (unknown) and 255 (foreground). If given, the
            mean is over unknown pixels only.

    Returns:
        The MSE in [0, 1]; lower is better.

    Raises:
        TypeError: If a matte is not a float array or tensor, or the trimap is not uint8.
        ValueError: If shapes differ, a matte has values outside [0, 1], or the trimap has other values or no unknown
            pixel.

    Example:
        >>> import numpy as np
        >>> from fclm_hf.metrics import mse
        >>> mse(np.full((100, 200), 0.75), np.full((100, 200), 0.5))
        0.0625
    """
    return float(np.square(_subtract(pred, target, trimap)).mean())


def mad(pred: Any, target: Any, trimap: Any = None) -> float:
    """Compute the mean absolute difference (MAD) between two mattes.

        MAD = mean(|pred - target|)

    This is the SAD per pixel, without the division by 1000, so that images of different sizes compare. Segmentation
    benchmarks call it MAE or M. The value is not scaled; tables that print it in thousandths multiply it by 1000.

    Args:
        pred: Predicted matte of shape `(height, width)`, float in [0, 1], a numpy array or a torch tensor.
        target: True matte of the same shape.
        trimap: Trimap of the same shape, uint8 of 0 (background), 128 (unknown) and 255 (foreground). If given, the
            mean is over unknown pixels only.

    Returns:
        The MAD in [0, 1]; lower is better.

    Raises:
        TypeError: If a matte is not a float array or tensor, or the trimap is not uint8.
        ValueError: If shapes differ, a matte has values outside [0, 1], or the trimap has other values or no unknown
            pixel.

    Example:
        >>> import torch
        >>> from fclm_hf.metrics import mad
        >>> mad(torch.full((100, 200), 0.75), torch.full((100, 200), 0.5))
        0.25
    """
    return float(np.abs(_subtract(pred, target, trimap)).mean())


def _subtract(pred: Any, target: Any, trimap: Any) -> np.ndarray:
    """Return the differences, float64 of shape `(height, width)`, or `(N,)` for the N unknown pixels of a trimap."""
    pred, target = load_pair(pred, target)
    difference = np.subtract(pred, target, dtype=np.float64)
    return difference if trimap is None else difference[load_trimap(trimap, pred.shape) == 128]


class MattingMetrics(MetricAccumulator):
    """Mean SAD, MSE, MAD, Grad and Conn over the mattes of a data set.

    `compute` returns the keys `sad` and `connectivity` (in thousands of pixels), `mse` and `mad` (in [0, 1]) and
    `gradient` (a sum divided by 1000); lower is better for all of them. See [`sad`], [`mse`], [`mad`],
    [`gradient_error`] and [`connectivity_error`].

    Args:
        gca: Whether to also compute `connectivity_gca`, the variant behind published tables in which Conn is far below
            SAD.
        rows: Rows of earlier accumulators with the same options.

    Example:
        >>> import numpy as np
        >>> from fclm_hf.metrics import MattingMetrics
        >>> target = np.zeros((100, 100))
        >>> target[20:80, 20:80] = 1
        >>> metrics = MattingMetrics()
        >>> metrics.update(np.roll(target, 2, axis=1), target)  # two pixels to the right
        >>> metrics.update(target, target)
        >>> {name: round(value, 4) for name, value in metrics.compute().items()}
        {'sad': 0.12, 'mse': 0.012, 'mad': 0.012, 'gradient': 0.9529, 'connectivity': 0.12}
    """

    def __init__(self, gca: bool = False, rows: Any = ()) -> None:
        super().__init__(rows)
        self.gca = gca

    def update(self, pred: Any, target: Any, trimap: Any = None) -> None:
        """Measure one matte.

        Args:
            pred: Predicted matte of shape `(height, width)`, float in [0, 1], a numpy array or a torch tensor.
            target: True matte of the same shape.
            trimap: Trimap of the same shape, uint8 of 0, 128 and 255. If given, only unknown pixels (128) count.

        Raises:
            TypeError: If a matte is not a float array or tensor, or the trimap is not uint8.
            ValueError: If shapes differ, a matte has values outside [0, 1], or the trimap has other values or no
                unknown pixel.
        """
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
