"""Retries after lost connections, and a reader that resumes at the next row."""

import asyncio
import errno
import http.client
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import datasets
from huggingface_hub.utils import httpx

from ...utils.renaming import accept_renamed
from .invalid_samples import StreamError


Value = TypeVar("Value")

_BROKEN_CONNECTIONS = (
    ConnectionError,
    TimeoutError,
    asyncio.TimeoutError,
    http.client.HTTPException,
    httpx.TransportError,
)
_TEMPORARY_STATUSES = {408, 425, 429, 500, 502, 503, 504}
_SINGLE_READS = {
    "STREAMING_READ_MAX_RETRIES": 1,
    "STREAMING_READ_RETRY_INTERVAL": 0,
    "STREAMING_READ_SERVER_UNAVAILABLE_RETRY_INTERVAL": 0,
    "STREAMING_READ_RATE_LIMIT_RETRY_INTERVAL": 0,
}
_NETWORK_ERRNOS = {errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH}


class LostConnectionError(StreamError):
    """Raised when a connection stays down through all retries.

    Example:
        >>> from fclm_hf.data import LostConnectionError, RetryPolicy
        >>> def fetch():
        ...     raise ConnectionError("reset by peer")
        >>> try:
        ...     RetryPolicy(max_retries=0).run(fetch, "Reading rows")
        ... except LostConnectionError as error:
        ...     print(error)
        Reading rows failed 1 times, the last time with ConnectionError: reset by peer
    """


def is_temporary(error: BaseException) -> bool:
    """Return whether an error comes from the connection or a busy server, so that the request may succeed later."""
    aiohttp = sys.modules.get("aiohttp")  # fsspec uses it for http:// if it is installed
    optional = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) if aiohttp else ()
    if isinstance(error, (*_BROKEN_CONNECTIONS, *optional)):
        return True
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None) or getattr(error, "status", None)
    if status in _TEMPORARY_STATUSES or (isinstance(error, OSError) and error.errno in _NETWORK_ERRNOS):
        return True
    # fsspec reports any failure to ask for a file's size as FileNotFoundError
    return error.__cause__ is not None and is_temporary(error.__cause__)


@contextmanager
def single_reads() -> Iterator[None]:
    """Make `datasets` raise the error of a failed read instead of repeating the read on the same open file.

    A streamed file of huggingface_hub whose connection failed twice reads as if it were at its end: repeating the read
    would silently lose the rest of the file's rows. Whoever catches the error has to reopen the file.
    """
    before = {name: getattr(datasets.config, name) for name in _SINGLE_READS}
    try:
        for name, value in _SINGLE_READS.items():
            setattr(datasets.config, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(datasets.config, name, value)


@accept_renamed
@dataclass
class RetryPolicy:
    """Policy of retrying requests after lost connections, with exponentially growing pauses.

    Args:
        max_retries: Number of further attempts after the first one, at least 0.
        initial_delay: Pause before the first retry, in seconds. Each further pause is twice as long.
        max_delay: Longest pause, in seconds.
        sleep: Function that waits for a number of seconds.

    Example:
        >>> from fclm_hf.data import RetryPolicy
        >>> answers = iter([ConnectionError("reset"), "rows"])
        >>> def fetch():
        ...     answer = next(answers)
        ...     if isinstance(answer, Exception):
        ...         raise answer
        ...     return answer
        >>> RetryPolicy(max_retries=3, sleep=lambda seconds: print(f"wait {seconds} s")).run(fetch, "Reading rows")
        wait 1.0 s
        'rows'
    """

    max_retries: int = 8
    initial_delay: float = 1.0
    max_delay: float = 60.0
    sleep: Callable[[float], None] = time.sleep

    RENAMED: ClassVar[dict[str, str]] = {"retries": "max_retries", "first": "initial_delay", "longest": "max_delay"}

    def run(self, attempt: Callable[[], Value], what: str) -> Value:
        """Call `attempt` until it succeeds or fails for good.

        Args:
            attempt: Function without arguments.
            what: Description of the attempt, for the error.

        Returns:
            The result of `attempt`.

        Raises:
            LostConnectionError: If all `max_retries + 1` attempts failed because of the connection. Other errors of
                `attempt` are passed through at once.
        """
        tried = 0
        while True:
            try:
                return attempt()
            except Exception as error:
                if not is_temporary(error):
                    raise
                if tried >= self.max_retries:
                    raise LostConnectionError(
                        f"{what} failed {tried + 1} times, the last time with {type(error).__name__}: {error}"
                    ) from error
            self.sleep(min(self.initial_delay * 2**tried, self.max_delay))
            tried += 1


def choose_retry_policy(policy: RetryPolicy | None = None) -> RetryPolicy:
    """Return `policy` or the default one; in offline mode, a policy without retries."""
    if datasets.config.HF_HUB_OFFLINE:
        return RetryPolicy(max_retries=0)
    return policy or RetryPolicy()


class ResumableReader:
    """Reads the rows of a streamed data set in order, and resumes at the next row after a lost connection.

    Args:
        dataset: The data set. Its own position changes with this reader's.
        label: Name of the data set in errors.
        retry: Policy for lost connections.
        position: Position to start from, as an earlier reader's `position`. None starts at the first row.

    Attributes:
        position: State of `dataset` after the last row that was read; None before the first one.
    """

    def __init__(
        self,
        dataset: datasets.IterableDataset,
        label: str,
        retry: RetryPolicy,
        position: dict[str, Any] | None = None,
    ):
        self._dataset, self._label, self._retry = dataset, label, retry
        self.position = position
        self._batches: Iterator[dict[str, list[Any]]] | None = None

    def read(self) -> dict[str, Any] | None:
        """Return the next row as column to value, or None at the end.

        Raises:
            LostConnectionError: If the connection stays down.
        """
        return self._retry.run(self._read_once, f"Reading {self._label}")

    def _read_once(self) -> dict[str, Any] | None:
        if self._batches is None:
            self._dataset.load_state_dict(self.position)
            # not iter(dataset), which would split the rows among the workers of a DataLoader
            self._batches = self._dataset.iter(batch_size=1)
        try:
            with single_reads():
                batch = next(self._batches, None)
        except BaseException as error:
            self._batches = None  # the next attempt reopens the files at the last known position
            if isinstance(error, FileNotFoundError) and "://" in str(error):
                # the file existed when the data set was opened; `datasets` also raises this if the server is down
                raise ConnectionError(str(error)) from error
            raise
        self.position = self._dataset.state_dict()
        return None if batch is None else {name: values[0] for name, values in batch.items()}
