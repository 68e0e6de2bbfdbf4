"""Timing helpers that benchmark.py and its sections share."""

import sys
import time
from collections.abc import Callable
from functools import cache
from statistics import median
from typing import Any

import torch


Run = Callable[[], Any]


def fit_side(side: int, multiple: int) -> int:
    """Return the largest multiple that is no longer than `side`."""
    return side // multiple * multiple


class Bench:
    """Builds each model once, times runs and collects the results.

    Args:
        side: Height and width of the images, in pixels.
        repeats: Number of rounds in which the compared runs alternate.
        dtype: Data type of models and images.

    Attributes:
        rows: The results, one per documented bound.
        fclm: Cached version of [`build_fclm`].
    """

    def __init__(self, side: int, repeats: int, dtype: torch.dtype) -> None:
        self.side, self.repeats, self.dtype = side, repeats, dtype
        self.rows: list[dict[str, Any]] = []
        self.fclm = cache(self.build_fclm)

    def build_fclm(self, preset: str, **overrides: Any) -> torch.nn.Module:
        """Return a model of a preset with random weights."""
        from fclm_hf import FCLMConfig, FCLMForImageMatting

        torch.manual_seed(0)
        return FCLMForImageMatting(FCLMConfig.from_preset(preset, **overrides)).to(self.dtype).eval()

    def image(self, side: int, channels: int = 3) -> torch.Tensor:
        """Return noise of shape (1, channels, side, side) in [-1, 1]."""
        return torch.rand(1, channels, side, side).to(self.dtype) * 2 - 1

    def boxes(self, side: int, objects: int = 1) -> torch.Tensor:
        """Return boxes of shape (1, objects, 4), each shifted a little to the lower right."""
        corners = torch.tensor([0.2, 0.25, 0.75, 0.8]) * side
        shifts = torch.arange(objects)[:, None] * side * 0.02
        return (corners + shifts)[None]

    def time_rounds(self, runs: dict[str, Run]) -> dict[str, list[float]]:
        """Return the seconds of each run in every round, after one warm-up; every other round runs in reverse order."""
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for name, run in runs.items():
            print(f"  warming up {name}", file=sys.stderr)
            run()
        for index in range(self.repeats):
            names = list(runs) if index % 2 == 0 else list(runs)[::-1]
            for name in names:
                start = time.perf_counter()
                runs[name]()
                seconds[name].append(time.perf_counter() - start)
        return seconds

    def record(
        self,
        section: str,
        label: str,
        value: float | None,
        bound: float | None,
        unit: str,
        note: str,
        at_most: bool = True,
    ) -> None:
        """Add a result.

        Args:
            section: Section of benchmark.py.
            label: Description of the measurement.
            value: The result; None if the measurement failed.
            bound: The documented bound; None for a figure that stands beside others.
            unit: Unit of the result and the bound.
            note: Details.
            at_most: Whether the bound is an upper one.
        """
        holds = None
        if bound is not None:
            holds = value is not None and (value <= bound if at_most else value >= bound)
        self.rows.append(
            {
                "section": section,
                "label": label,
                "value": value,
                "unit": unit,
                "bound": bound,
                "at_most": at_most,
                "pass": holds,
                "note": note,
            }
        )


def divide(above: list[float], below: list[float]) -> float:
    """Return the median of the ratios within each round."""
    return median(a / b for a, b in zip(above, below, strict=True))


def describe_seconds(**seconds: list[float]) -> str:
    """Return the median of each run in milliseconds."""
    return ", ".join(f"{name} {median(values) * 1000:.0f} ms" for name, values in seconds.items())
