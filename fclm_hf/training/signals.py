"""Ctrl-C and SIGTERM ask a run to stop at the next step; processes agree on what happens."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from accelerate import Accelerator


class Interruption(BaseException):
    """A signal came while nothing would be lost by stopping at once."""


class StopSignals:
    """Catches SIGINT and SIGTERM inside a `with` statement. The second one does what it always does.

    Attributes:
        received: number of the signal, 0 for none.
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
        self.received = number
        signal.signal(number, self._before[number])
        if self._is_waiting:
            raise Interruption

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """What is done inside may be given up when a signal comes."""
        self._is_waiting = True
        try:
            yield
        except Interruption:
            pass
        finally:
            self._is_waiting = False


def agree(accelerator: Accelerator, code: int) -> int:
    """The largest code of all processes, so that all do the same."""
    if accelerator.num_processes == 1:
        return code
    return int(accelerator.gather(torch.tensor([code], device=accelerator.device)).max())


__all__ = ["Interruption", "StopSignals", "agree"]
