"""Which measures a benchmark is scored by, and from which 8-bit mattes."""

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
    """How predictions are scored. What is scored is always an 8-bit matte, as a file holds it: so mattes that were written
    get the same score when they are read again.

    Attributes:
        make: the accumulator, from rows.
        per_image: all objects of an image are matched and measured together.
        truncate: float mattes are cut off to 8 bits (InstMatt), else rounded.
        headline: the measure by which methods are compared, and whether more of it is better.
    """

    make: Callable[..., MetricAccumulator]
    per_image: bool = False
    truncate: bool = False
    headline: tuple[str, bool] = ("sad", False)

    def quantise(self, alpha: np.ndarray) -> np.ndarray:
        """A matte in [0, 1], or one that is uint8 already, as uint8."""
        if alpha.dtype == np.uint8:
            return alpha
        scaled = np.clip(alpha, 0, 1) * 255
        return (scaled if self.truncate else np.rint(scaled)).astype(np.uint8)

    def measure(
        self, preds: list[np.ndarray | None], targets: list[np.ndarray], trimaps: list[np.ndarray | None]
    ) -> Rows:
        """Rows of an image: one per object, or one for all.

        Args:
            preds: uint8 (H, W); None for a missing one, which counts as empty, or as none at all among instances.
            targets: uint8 (H, W); one per prediction, but any number of instances.
            trimaps: uint8 (H, W) or None, one per target; with them the measures are also taken on unknown pixels.
        """
        if self.per_image:
            accumulator = self.make()
            accumulator.update(_stack(preds, targets[0].shape), _stack(targets, targets[0].shape))
            return accumulator.rows
        return [self._measure_object(*each) for each in zip(preds, targets, trimaps, strict=True)]

    def summarise(self, rows: Rows) -> dict[str, float]:
        result = self.make(rows=rows).compute()
        if self.make is InstanceMattingQuality:
            strict = InstanceMattingQuality(0.75, rows).compute()
            result |= {f"{name}_75": value for name, value in strict.items()}
        return result

    def _measure_object(
        self, pred: np.ndarray | None, target: np.ndarray, trimap: np.ndarray | None
    ) -> dict[str, float]:
        floats = np.zeros(target.shape) if pred is None else pred / 255, target / 255
        accumulator = self.make()
        accumulator.update(*floats)
        row = accumulator.rows[0]
        if trimap is not None and self.make is _make_matting and (trimap == 128).any():
            accumulator.update(*floats, trimap)
            row |= {f"{name}_trimap": value for name, value in accumulator.rows[1].items()}
        return row


def _make_matting(rows: Rows | tuple = ()) -> MattingMetrics:
    return MattingMetrics(gca=True, rows=rows)


def _stack(mattes: list[np.ndarray | None], shape: tuple[int, int]) -> np.ndarray:
    present = [matte / 255 for matte in mattes if matte is not None]
    return np.stack(present) if present else np.zeros((0, *shape))


PROTOCOLS = {
    "matting": Protocol(_make_matting),
    "masks": Protocol(MaskMetrics, headline=("iou", True)),
    "dichotomous": Protocol(DichotomousMetrics, headline=("max_f", True)),
    "instances": Protocol(InstanceMattingQuality, per_image=True, truncate=True, headline=("imq_mad", True)),
}


def measure_sample(
    protocol: str, preds: list[np.ndarray | None], targets: list[np.ndarray], trimaps: list[np.ndarray | None]
) -> Rows:
    """[`Protocol.measure`] by name, for worker processes."""
    return PROTOCOLS[protocol].measure(preds, targets, trimaps)
