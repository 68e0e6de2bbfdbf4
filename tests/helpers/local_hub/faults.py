"""Faults of the network, reproducible by a seed."""

import hashlib
import re
import threading
from collections import Counter
from dataclasses import dataclass, field

from .messages import Request


COMMIT_ID = re.compile(r"\b[0-9a-f]{40}\b")


@dataclass
class Faults:
    """Which requests fail, and how.

    The n-th request for the same thing (method, target and range) has the same fate in every run, no matter what other
    threads do. Commit ids in a target are ignored because they differ between runs.

    Args:
        drop: Share of requests whose connection is closed: after half of the body of a download, otherwise without an
            answer.
        stall: Share of requests that get half an answer and then nothing for `stall_seconds`, before the connection is
            closed.
        error: Share of requests that are answered with `status`.
        status: Status of errors.
        stall_seconds: Seconds for which connections stall.
        seed: Seed of the fates.
        only: Regular expression that "METHOD /target" must match.
        times: How often the same target may fail; `None` for any number of times.
    """

    drop: float = 0.0
    stall: float = 0.0
    error: float = 0.0
    status: int = 503
    stall_seconds: float = 30.0
    seed: int = 0
    only: str = ""
    times: int | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _asked: Counter = field(default_factory=Counter, repr=False)
    _failed: Counter = field(default_factory=Counter, repr=False)

    def pick(self, request: Request) -> str | None:
        """Return the fate of a request: "drop", "stall", "error" or `None`."""
        if not re.search(self.only, f"{request.method} {request.target}"):
            return None
        target = f"{request.method} {request.target}"
        thing = f"{target} {request.headers.get('Range', '')}"
        with self._lock:
            turn = self._asked[thing] = self._asked[thing] + 1
            if self.times is not None and self._failed[target] >= self.times:
                return None
            lasting = COMMIT_ID.sub("", thing)
            digest = hashlib.sha256(f"{self.seed} {turn} {lasting}".encode()).digest()
            luck = int.from_bytes(digest[:8], "big") / 2**64
            for kind, share in (("drop", self.drop), ("stall", self.stall), ("error", self.error)):
                if luck < share:
                    self._failed[target] += 1
                    return kind
                luck -= share
        return None
