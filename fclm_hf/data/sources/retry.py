"""Connections that drop: which errors mean that, and trying again with growing pauses."""

import asyncio
import errno
import http.client
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import datasets
from huggingface_hub.utils import httpx

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
    """A connection stayed down through all tries."""


def is_temporary(error: BaseException) -> bool:
    """Whether an error comes from the connection or a busy server, so that the same request may succeed later."""
    aiohttp = sys.modules.get("aiohttp")  # what fsspec uses for http:// where it is installed
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
    """Lets `datasets` hand on the error of a read that fails instead of repeating it on the same open file.

    A streamed file of huggingface_hub whose connection failed twice reads as if it were at its end: repeating the read
    would lose the rest of the file's rows without a word. Who catches the error opens the file anew.
    """
    before = {name: getattr(datasets.config, name) for name in _SINGLE_READS}
    try:
        for name, value in _SINGLE_READS.items():
            setattr(datasets.config, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(datasets.config, name, value)


@dataclass
class Backoff:
    """Pauses of `first`, `2 first`, `4 first`, ... seconds, at most `longest`, between `retries` further tries."""

    retries: int = 8
    first: float = 1.0
    longest: float = 60.0
    sleep: Callable[[float], None] = time.sleep

    def run(self, attempt: Callable[[], Value], what: str) -> Value:
        """`attempt()`, repeated while it fails temporarily.

        Raises:
            LostConnectionError: it failed `retries + 1` times; `what` says what was tried. Other errors pass through.
        """
        tried = 0
        while True:
            try:
                return attempt()
            except Exception as error:
                if not is_temporary(error):
                    raise
                if tried >= self.retries:
                    raise LostConnectionError(
                        f"{what} failed {tried + 1} times, the last time with {type(error).__name__}: {error}"
                    ) from error
            self.sleep(min(self.first * 2**tried, self.longest))
            tried += 1
