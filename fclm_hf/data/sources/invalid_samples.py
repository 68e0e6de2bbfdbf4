"""Samples that cannot be used: why, how many, and when there are too many to go on."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import Enum


class FaultReason(str, Enum):
    """Why a sample is skipped; the value is how reports call it."""

    MISSING = "missing image"
    EMPTY_FILE = "file of zero bytes"
    NOT_AN_IMAGE = "not an image"
    BROKEN = "broken or truncated image"
    TOO_LARGE = "too many pixels"
    ZERO_SIZE = "size of zero"
    EMPTY_ALPHA = "alpha is 0 everywhere"
    OPAQUE = "no transparency"
    SIZE_MISMATCH = "image and alpha of different shapes"
    COUNT_MISMATCH = "names or texts do not match the alphas"
    TOO_SMALL = "nothing left at the training size"


class FaultySampleError(ValueError):
    """One sample cannot be used, for a `reason`; the others can."""

    def __init__(self, reason: FaultReason, detail: str = ""):
        super().__init__(f"{reason.value}{': ' if detail else ''}{detail}")
        self.reason = reason


class StreamError(RuntimeError):
    """The training data cannot be had at all: too many faults, a connection that stays down, a source without rows."""


class TooManyFaultsError(StreamError):
    """More than the accepted share of the samples is faulty."""


@dataclass
class FaultCounter:
    """How many samples were used and how many skipped, by reason. Counters of workers and processes add up.

    Attributes:
        used: samples that could be used.
        reasons: value of a [`FaultReason`] to the number of samples skipped for it.
        examples: value of a [`FaultReason`] to the first sample skipped for it.
    """

    used: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def skipped(self) -> int:
        return sum(self.reasons.values())

    @property
    def share(self) -> float:
        """Skipped samples as a share of all, in [0, 1]."""
        return self.skipped / max(self.used + self.skipped, 1)

    def count_use(self) -> None:
        self.used += 1

    def count_fault(self, error: FaultySampleError, sample: str, was_used: bool = False) -> None:
        """Counts `sample` as skipped; `was_used`: it has been counted as used before."""
        self.used -= was_used
        reason = error.reason.value
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        self.examples.setdefault(reason, f"{sample} ({error})")

    def check(self, max_share: float, min_count: int) -> None:
        """Raises [`TooManyFaultsError`] when at least `min_count` samples were seen and over `max_share` skipped."""
        if self.used + self.skipped >= min_count and self.share > max_share:
            raise TooManyFaultsError(
                f"{self}. That is a share of {self.share:.1%}, accepted are {max_share:.1%}: mend the data, or raise"
                " max_fault_share."
            )

    def state_dict(self) -> dict[str, object]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.used, self.reasons, self.examples = state["used"], dict(state["reasons"]), dict(state["examples"])

    @classmethod
    def from_state_dict(cls, state: dict[str, object]) -> "FaultCounter":
        counter = cls()
        counter.load_state_dict(state)
        return counter

    @classmethod
    def merge(cls, counters: Iterable["FaultCounter"]) -> "FaultCounter":
        total = cls()
        for counter in counters:
            total.used += counter.used
            for reason, count in counter.reasons.items():
                total.reasons[reason] = total.reasons.get(reason, 0) + count
                total.examples.setdefault(reason, counter.examples[reason])
        return total

    def __str__(self) -> str:
        text = f"{self.skipped} of {self.used + self.skipped} samples skipped"
        for reason, count in sorted(self.reasons.items(), key=lambda item: -item[1]):
            text += f"; {count} x {reason}, such as {self.examples[reason]}"
        return text
