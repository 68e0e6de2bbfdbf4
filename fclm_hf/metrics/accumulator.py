"""The base class of all accumulators: one row of plain numbers per update, reduced when a result is requested."""

import math
from collections.abc import Iterable
from typing import Any, TypeVar


Accumulator = TypeVar("Accumulator", bound="MetricAccumulator")


class MetricAccumulator:
    """Base class for metrics that are accumulated image by image and averaged over a data set.

    Subclasses implement `update`, which appends one row per image, and may override `_reduce`, which by default
    averages each column. A column that only some rows have is averaged over those rows.

    The result depends neither on the order of the rows nor on how they were split between processes, not even in the
    last digit: sums are computed exactly and rounded once.

    Args:
        rows: Rows of earlier accumulators with the same options: dicts of numbers and lists that survive a round trip
            through JSON.

    Attributes:
        rows: The rows measured so far, one per image.

    Example:
        >>> from fclm_hf.metrics import MetricAccumulator
        >>> first = MetricAccumulator([{"sad": 1.0}, {"sad": 3.0, "sad_trimap": 2.0}])
        >>> second = MetricAccumulator([{"sad": 2.0, "sad_trimap": 1.0}])
        >>> first.merge(second).compute()
        {'sad': 2.0, 'sad_trimap': 1.5}
    """

    def __init__(self, rows: Iterable[dict[str, Any]] = ()) -> None:
        self.rows = list(rows)

    def merge(self: Accumulator, other: Accumulator) -> Accumulator:
        """Append the rows of another accumulator, for example of another process.

        Args:
            other: An accumulator of the same class with the same options.

        Returns:
            This accumulator.

        Raises:
            ValueError: If `other` is of another class or has other options.
        """
        if type(other) is not type(self) or other._options() != self._options():
            raise ValueError(f"other must have the same type and options as {self!r} to be merged, got {other!r}.")
        self.rows.extend(other.rows)
        return self

    def reset(self) -> None:
        """Discard all rows."""
        self.rows.clear()

    def compute(self) -> dict[str, float]:
        """Return the metrics over all rows, by name.

        Raises:
            ValueError: If there are no rows.
        """
        if not self.rows:
            raise ValueError(f"{type(self).__name__} must be updated before compute() is called, got no rows.")
        return self._reduce()

    def _reduce(self) -> dict[str, float]:
        """Average each column over the rows that have it."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        return {name: mean(row[name] for row in self.rows if name in row) for name in names}

    def _options(self) -> dict[str, Any]:
        """Return the constructor's arguments other than `rows`."""
        return {name: value for name, value in vars(self).items() if name != "rows"}

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self._options().items())
        return f"{type(self).__name__}({options})"


def mean(values: Iterable[float]) -> float:
    """Return the arithmetic mean, computed so that the order of the values has no influence."""
    values = list(values)
    return math.fsum(values) / len(values)
