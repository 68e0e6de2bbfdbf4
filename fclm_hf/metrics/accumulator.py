"""What all accumulators share: one row of plain numbers per update, reduced when a result is asked for."""

import math
from collections.abc import Iterable
from typing import Any, TypeVar


Accumulator = TypeVar("Accumulator", bound="MetricAccumulator")


class MetricAccumulator:
    """Collects measurements image by image.

    `rows` holds what was measured, as dicts of numbers and lists that survive JSON unchanged. Rows of several processes
    can be joined with `merge`, or handed to a new accumulator. The order of the rows has no influence on the result,
    not even on its last digit, because sums are exact before they are rounded once. A measure that only some rows have
    is a mean over those.
    """

    def __init__(self, rows: Iterable[dict[str, Any]] = ()) -> None:
        self.rows = list(rows)

    def merge(self: Accumulator, other: Accumulator) -> Accumulator:
        """Adds the rows of `other`, an accumulator of the same kind and options, and returns itself."""
        if type(other) is not type(self) or other._options() != self._options():
            raise ValueError(f"merge: {other!r} does not measure what {self!r} does.")
        self.rows.extend(other.rows)
        return self

    def reset(self) -> None:
        self.rows.clear()

    def compute(self) -> dict[str, float]:
        """The measures over all rows. Raises ValueError when there are none."""
        if not self.rows:
            raise ValueError(f"{type(self).__name__}: nothing to compute, update() was never called.")
        return self._reduce()

    def _reduce(self) -> dict[str, float]:
        names = dict.fromkeys(name for row in self.rows for name in row)
        return {name: mean(row[name] for row in self.rows if name in row) for name in names}

    def _options(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "rows"}

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self._options().items())
        return f"{type(self).__name__}({options})"


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean that does not depend on the order of the values."""
    values = list(values)
    return math.fsum(values) / len(values)
