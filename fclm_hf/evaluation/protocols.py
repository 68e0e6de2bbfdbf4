"""Protocols: the metrics of a benchmark, and the conversion of float mattes to the 8-bit mattes that are scored."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..metrics import (
    DichotomousMetrics,
    InstanceMattingQuality,
    MaskMetrics,
    MattingMetrics,
    MetricAccumulator,
)


Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Protocol:
    """Protocol by which predictions are scored.

    Mattes are converted to 8 bits before they are scored, so that saved mattes have the same scores when they are read
    again.

    Attributes:
        make_metrics: Function that makes the accumulator, optionally from rows.
        per_image: Whether all objects of an image are matched and scored together.
        truncate: Whether float mattes are truncated to 8 bits (as in InstMatt) instead of rounded.
        headline: The metric by which methods are compared, and whether higher is better.
    """

    make_metrics: Callable[..., MetricAccumulator]
    per_image: bool = False
    truncate: bool = False
    headline: tuple[str, bool] = ("sad", False)

    def quantize(self, alpha: np.ndarray) -> np.ndarray:
        """Convert a float matte in [0, 1] to uint8; return a uint8 matte unchanged."""
        if alpha.dtype == np.uint8:
            return alpha
        scaled = np.clip(alpha, 0, 1) * 255
        return (scaled if self.truncate else np.rint(scaled)).astype(np.uint8)

    def measure(
        self, preds: list[np.ndarray | None], targets: list[np.ndarray], trimaps: list[np.ndarray | None]
    ) -> Rows:
        """Score the mattes of one image.

        Args:
            preds: Predicted mattes, uint8 of shape `(height, width)`. A missing one is None: it counts as empty, or, if
                the protocol scores whole images, as no prediction at all.
            targets: True mattes, one for each prediction, or any number if the protocol scores whole images.
            trimaps: A trimap or None for each target. With one, metrics are also computed over its unknown pixels.

        Returns:
            One row per object, or one for the whole image.
        """
        if self.per_image:
            metrics = self.make_metrics()
            metrics.update(_stack(preds, targets[0].shape), _stack(targets, targets[0].shape))
            return metrics.rows
        return [self._measure_object(*each) for each in zip(preds, targets, trimaps, strict=True)]

    def summarize(self, rows: Rows) -> dict[str, float]:
        """Return the metrics over the rows of a data set, by name."""
        values = self.make_metrics(rows=rows).compute()
        if self.make_metrics is InstanceMattingQuality:
            strict = InstanceMattingQuality(0.75, rows).compute()
            values |= {f"{name}_75": value for name, value in strict.items()}
        return values

    def _measure_object(
        self, pred: np.ndarray | None, target: np.ndarray, trimap: np.ndarray | None
    ) -> dict[str, float]:
        """Score one object, and again over the unknown pixels of its trimap."""
        pair = np.zeros(target.shape) if pred is None else pred / 255, target / 255
        metrics = self.make_metrics()
        metrics.update(*pair)
        row = metrics.rows[0]
        if trimap is not None and self.make_metrics is _make_matting_metrics and (trimap == 128).any():
            metrics.update(*pair, trimap)
            row |= {f"{name}_trimap": value for name, value in metrics.rows[1].items()}
        return row


def _make_matting_metrics(rows: Rows | tuple = ()) -> MattingMetrics:
    """Return the matting metrics with the variant of Conn that published tables use."""
    return MattingMetrics(gca=True, rows=rows)


def _stack(mattes: list[np.ndarray | None], shape: tuple[int, int]) -> np.ndarray:
    """Stack the mattes that are present as floats in [0, 1], of shape `(num_objects, height, width)`."""
    present = [matte / 255 for matte in mattes if matte is not None]
    return np.stack(present) if present else np.zeros((0, *shape))


PROTOCOLS = {
    "matting": Protocol(_make_matting_metrics),
    "masks": Protocol(MaskMetrics, headline=("iou", True)),
    "dichotomous": Protocol(DichotomousMetrics, headline=("max_f", True)),
    "instances": Protocol(InstanceMattingQuality, per_image=True, truncate=True, headline=("imq_mad", True)),
}


def measure_sample(
    protocol: str, preds: list[np.ndarray | None], targets: list[np.ndarray], trimaps: list[np.ndarray | None]
) -> Rows:
    """Call [`Protocol.measure`] of the protocol with this name; worker processes can unpickle this function."""
    return PROTOCOLS[protocol].measure(preds, targets, trimaps)
