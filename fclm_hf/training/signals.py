"""SIGINT (Ctrl-C) and SIGTERM, which stop a run after the current step."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption(BaseException):
    """Raised by a signal that arrives inside of [`StopSignals.waiting`]."""


class StopSignals:
    """Context manager that records SIGINT and SIGTERM; a second signal has its usual effect.

    Attributes:
        received: Number of the signal that arrived, 0 if there was none.
    """

    def __init__(self) -> None:
        self.received = 0
        self._is_waiting = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        """Record a signal, restore its usual handler, and end a wait."""
        self.received = number
        signal.signal(number, self._before[number])
        if self._is_waiting:
            raise Interruption

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Abandon the work inside of the block as soon as a signal arrives."""
        self._is_waiting = True
        try:
            yield
        except Interruption:
            pass
        finally:
            self._is_waiting = False


__all__ = ["Interruption", "StopSignals"]
