"""The server itself: sockets, tokens, faults and the log."""

import contextlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import accounts, downloads, repositories, trees, uploads
from .faults import Faults
from .messages import HubError, Request, Response, find_answer, make_error
from .storage import Storage


ROUTES = [*accounts.ROUTES, *repositories.ROUTES, *trees.ROUTES, *uploads.ROUTES, *downloads.ROUTES]


@dataclass(frozen=True)
class LogEntry:
    """A request and its answer. `sent` counts the bytes of the body."""

    method: str
    target: str
    range: str | None
    authorized: bool
    status: int | None
    fault: str | None
    sent: int


class LocalHub:
    """The Hub. Use it in a `with` statement; it listens on a free port of the loopback device.

    Args:
        folder: Folder for the contents of files.
        tokens: User of each access token.
        page_size: Number of entries in a page of a tree, 1000 on the real Hub.
        lfs_threshold: Size in bytes from which files are stored in LFS, 10 MB on the real Hub.
        part_size: Size in bytes of the parts in which LFS files are uploaded; `None` for a single part.
    """

    def __init__(
        self,
        folder: Path,
        tokens: dict[str, str] | None = None,
        page_size: int = 1000,
        lfs_threshold: int = 10_000_000,
        part_size: int | None = None,
    ) -> None:
        self.tokens = {"hf_local": "tester"} if tokens is None else tokens
        self.page_size, self.lfs_threshold, self.part_size = page_size, lfs_threshold, part_size
        self.storage = Storage(folder)
        self.parts: dict[tuple[str, int], bytes] = {}
        self.faults = Faults()
        self.log: list[LogEntry] = []
        self.closing = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _make_handler(self))
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        """Address of the Hub."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def cdn_url(self) -> str:
        """Another host for the contents of LFS files, which must not see tokens, as on the real Hub."""
        return f"http://localhost:{self._server.server_port}"

    def __enter__(self) -> "LocalHub":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    @contextlib.contextmanager
    def failing(self, **faults: Any) -> Iterator[None]:
        """Apply these [`Faults`] within a `with` statement."""
        before, self.faults = self.faults, Faults(**faults)
        try:
            yield
        finally:
            self.faults = before

    def answer(self, request: Request) -> Response:
        """Return the response to a request."""
        try:
            request.user = self.find_user(request)
            return find_answer(ROUTES, self, request)
        except HubError as error:
            return make_error(error)

    def find_user(self, request: Request) -> str | None:
        """Return the user of the token in a request; None without a token."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if not scheme:
            return None
        if scheme != "Bearer" or token not in self.tokens:
            raise HubError(401, None, "Invalid credentials in Authorization header")
        return self.tokens[token]


class _Handler(http.server.BaseHTTPRequestHandler):
    """Handler of HTTP requests, with faults and a log."""

    protocol_version = "HTTP/1.1"
    hub: LocalHub

    def handle_request(self) -> None:
        """Answer a request, or let it fail, and log it."""
        request = Request(self.command, self.path, self.headers, self.read_body())
        fault = self.hub.faults.pick(request)
        if fault == "error":
            response = make_error(HubError(self.hub.faults.status, None, "Out of luck"))
        else:
            response = self.hub.answer(request)
        body = b"" if self.command == "HEAD" else response.body
        silent = False
        if fault in ("drop", "stall"):
            self.close_connection = True
            silent = self.command != "GET" or response.status not in (200, 206) or len(body) < 2
            body = b"" if silent else body[: len(body) // 2]
        self.hub.log.append(
            LogEntry(
                request.method,
                request.target,
                request.headers.get("Range"),
                "Authorization" in request.headers,
                None if silent else response.status,
                fault,
                len(body),
            )
        )
        if not silent:
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(response.body)))
            self.end_headers()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(body)
        if fault == "stall":
            self.hub.closing.wait(self.hub.faults.stall_seconds)

    # names that http.server requires
    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request  # noqa: N815

    def read_body(self) -> bytes:
        """Return the body of the request, which may be chunked."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def log_message(self, *args: object) -> None:
        """Print nothing."""


def _make_handler(hub: LocalHub) -> type[_Handler]:
    """Return a handler class of a Hub."""
    return type("Handler", (_Handler,), {"hub": hub})
