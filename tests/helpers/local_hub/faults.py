"""Bad luck on the network, the same for the same seed."""

import hashlib
import re
import threading
from collections import Counter
from dataclasses import dataclass, field

from .messages import Request


COMMIT_ID = re.compile(r"\b[0-9a-f]{40}\b")


@dataclass
class Faults:
    """
    Shares of the requests that go wrong.

    The n-th request for the same thing (method, target and range) has the same fate in every run, whatever other
    threads do meanwhile. Commit ids in a target do not count: they are others in every run.

    Args:
        drop: share whose connection is closed: after half of a body that is downloaded, else without an answer.
        stall: share that get half an answer and then nothing for `stall_seconds`, before the connection is closed.
        error: share that is answered with `status`.
        only: pattern that "METHOD /target" must contain.
        times: how often the same target may fail, `None` for without end.
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
        """The fate of a request: "drop", "stall", "error" or `None`."""
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
