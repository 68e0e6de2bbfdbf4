"""Connections that drop or answer that the server is busy: tried again, and the same bytes in the end."""

import http.server
import threading

import pytest

from fclm_hf.data import InvalidSampleError, LostConnectionError, RetryPolicy
from fclm_hf.data.sources.decoding import read_bytes
from fclm_hf.data.sources.retry import is_temporary


def test_pauses_grow_and_other_errors_pass():
    pauses = []
    failures = iter([ConnectionResetError("a"), TimeoutError("b"), ConnectionError("c"), None])

    def attempt() -> str:
        if error := next(failures):
            raise error
        return "done"

    assert RetryPolicy(max_retries=3, initial_delay=0.5, max_delay=1.5, sleep=pauses.append).run(attempt, "x") == "done"
    assert pauses == [0.5, 1.0, 1.5]

    def deny() -> None:
        raise PermissionError("no")

    with pytest.raises(PermissionError):
        RetryPolicy(sleep=pauses.append).run(deny, "x")
    assert len(pauses) == 3


def test_what_counts_as_a_lost_connection():
    class ServerError(Exception):
        def __init__(self, status: int):
            self.response = type("Response", (), {"status_code": status})()

    assert all(is_temporary(ServerError(status)) for status in (429, 500, 502, 503, 504))
    assert not any(is_temporary(ServerError(status)) for status in (400, 401, 403, 404, 416))
    assert is_temporary(OSError(101, "Network is unreachable"))
    assert not is_temporary(FileNotFoundError("x"))
    hidden = FileNotFoundError("x")
    hidden.__cause__ = ConnectionResetError()
    assert is_temporary(hidden)


class _UnsteadyHandler(http.server.BaseHTTPRequestHandler):
    """Of three requests one is answered 503, one breaks off in the middle and one goes well."""

    body = bytes(range(256)) * 40
    requests = 0

    def do_GET(self) -> None:
        if "missing" in self.path:
            self.send_error(404)
            return
        type(self).requests += 1
        if self.requests % 3 == 1 or "busy" in self.path:
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body[: len(self.body) // (2 if self.requests % 3 == 2 else 1)])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def address():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _UnsteadyHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_files_behind_an_unsteady_server_are_read_whole(address):
    pauses = []
    retry = RetryPolicy(max_retries=2, sleep=pauses.append)
    for name in ("a", "b"):
        assert read_bytes(name, address, retry) == _UnsteadyHandler.body
    assert pauses == [1.0, 2.0] * 2
    with pytest.raises(InvalidSampleError, match=r"missing image: .*404"):
        read_bytes("missing", address, retry)
    assert len(pauses) == 4
    with pytest.raises(LostConnectionError, match=f"Reading {address}/busy failed 3 times, the last time with .*503"):
        read_bytes(f"{address}/busy", "", retry)
