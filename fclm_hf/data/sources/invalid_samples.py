"""Invalid samples: reasons, counts, and the limit at which training stops."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import Enum

from ...utils.renaming import rename_arguments, warn_renamed


class InvalidReason(str, Enum):
    """Reasons to skip a sample; the value is what reports show.

    Example:
        >>> from fclm_hf.data import InvalidReason
        >>> InvalidReason.EMPTY_ALPHA.value
        'alpha is 0 everywhere'
    """

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


class InvalidSampleError(ValueError):
    """Raised when one sample cannot be used, while the others can.

    Args:
        reason: Why it cannot be used.
        detail: Details for the message.

    Example:
        >>> from fclm_hf.data import InvalidReason, InvalidSampleError
        >>> str(InvalidSampleError(InvalidReason.ZERO_SIZE, "0 x 24"))
        'size of zero: 0 x 24'
    """

    def __init__(self, reason: InvalidReason, detail: str = ""):
        super().__init__(f"{reason.value}{': ' if detail else ''}{detail}")
        self.reason = reason


class StreamError(RuntimeError):
    """Raised when the training data is unavailable as a whole.

    Too many samples are invalid, a connection stays down, or a source has no rows.

    Example:
        >>> from fclm_hf.data import LostConnectionError, StreamError, TooManyInvalidSamplesError
        >>> issubclass(LostConnectionError, StreamError), issubclass(TooManyInvalidSamplesError, StreamError)
        (True, True)
    """


class TooManyInvalidSamplesError(StreamError):
    """Raised when more than the accepted fraction of the samples is invalid.

    Example:
        >>> from fclm_hf.data import InvalidSampleCounter, TooManyInvalidSamplesError
        >>> counter = InvalidSampleCounter(used=1, reasons={"not an image": 1}, examples={"not an image": "set:7"})
        >>> try:
        ...     counter.check(max_fraction=0.05, min_count=2)
        ... except TooManyInvalidSamplesError as error:
        ...     print(error)
        1 of 2 samples skipped; 1 x not an image, such as set:7. ...
    """


@dataclass
class InvalidSampleCounter:
    """Number of samples used, and skipped by reason. Counters of workers and processes can be merged.

    Args:
        used: Number of samples that were used.
        reasons: Maps the value of an [`InvalidReason`] to the number of samples skipped for it.
        examples: Maps the value of an [`InvalidReason`] to the first sample skipped for it.

    Example:
        >>> from fclm_hf.data import InvalidReason, InvalidSampleCounter, InvalidSampleError
        >>> counter = InvalidSampleCounter()
        >>> counter.count_used()
        >>> counter.count_invalid(InvalidSampleError(InvalidReason.NOT_AN_IMAGE), "photos:3")
        >>> print(counter)
        1 of 2 samples skipped; 1 x not an image, such as photos:3 (not an image)
        >>> counter.fraction
        0.5
    """

    used: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def skipped(self) -> int:
        """Number of samples that were skipped."""
        return sum(self.reasons.values())

    @property
    def fraction(self) -> float:
        """Skipped samples as a fraction of all, in [0, 1]."""
        return self.skipped / max(self.used + self.skipped, 1)

    def count_used(self) -> None:
        """Count one sample as used."""
        self.used += 1

    def count_invalid(self, error: InvalidSampleError, sample: str, was_used: bool = False) -> None:
        """Count one sample as skipped.

        Args:
            error: Why it is skipped.
            sample: Key of the sample.
            was_used: Whether the sample has been counted as used before.
        """
        self.used -= was_used
        reason = error.reason.value
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        self.examples.setdefault(reason, f"{sample} ({error})")

    @rename_arguments({"max_share": "max_fraction"})
    def check(self, max_fraction: float, min_count: int) -> None:
        """Check that few enough samples are invalid.

        Args:
            max_fraction: Largest accepted fraction of skipped samples, in [0, 1].
            min_count: Number of samples, used or skipped, below which any fraction is accepted.

        Raises:
            TooManyInvalidSamplesError: If more than `max_fraction` of the samples were skipped.
        """
        if self.used + self.skipped >= min_count and self.fraction > max_fraction:
            raise TooManyInvalidSamplesError(
                f"{self}. The fraction of invalid samples must be at most {max_fraction:.1%}, got {self.fraction:.1%}:"
                " fix the data, or raise max_invalid_fraction."
            )

    def state_dict(self) -> dict[str, object]:
        """Return the counts as plain numbers, strings and dicts."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Replace the counts by those that [`state_dict`] returned."""
        self.used, self.reasons, self.examples = state["used"], dict(state["reasons"]), dict(state["examples"])

    @classmethod
    def from_state_dict(cls, state: dict[str, object]) -> "InvalidSampleCounter":
        """Return a counter with the counts that [`state_dict`] returned."""
        counter = cls()
        counter.load_state_dict(state)
        return counter

    @classmethod
    def merge(cls, counters: Iterable["InvalidSampleCounter"]) -> "InvalidSampleCounter":
        """Return a counter with the sums of all counts."""
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

    @property
    def share(self) -> float:
        """Deprecated name of `fraction`."""
        warn_renamed("InvalidSampleCounter.share", "fraction")
        return self.fraction

    def count_use(self) -> None:
        """Count one sample as used; deprecated name of `count_used`."""
        warn_renamed("InvalidSampleCounter.count_use", "count_used")
        self.count_used()

    def count_fault(self, error: InvalidSampleError, sample: str, was_used: bool = False) -> None:
        """Count one sample as skipped; deprecated name of `count_invalid`."""
        warn_renamed("InvalidSampleCounter.count_fault", "count_invalid")
        self.count_invalid(error, sample, was_used)
