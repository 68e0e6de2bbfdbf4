"""Requests, responses and routes, independent of sockets."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit


if TYPE_CHECKING:
    from .server import LocalHub

Route = tuple[str, str, Callable[..., "Response"]]  # method, pattern of the path, handler
REPOSITORY = r"(?P<name>[\w.-]+/[\w.-]+)"
API = rf"/api/(?P<kind>model|dataset)s/{REPOSITORY}"


class HubError(Exception):
    """An error that becomes an answer with this status and the headers by which clients distinguish errors."""

    def __init__(self, status: int, code: str | None, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, dict(headers or {})


@dataclass
class Request:
    """A request and, once it is known, its user."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""
    user: str | None = None

    @property
    def path(self) -> str:
        """The path, still quoted."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """The last value of each parameter of the query."""
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.target).query).items()}

    @property
    def json(self) -> Any:
        """The body, decoded from JSON."""
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, list[str]]:
        """The fields of a form in the body."""
        return parse_qs(self.body.decode())


@dataclass
class Response:
    """An answer to a request."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def make_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with a JSON body."""
    return Response(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


def make_error(error: HubError) -> Response:
    """Return the response for an error."""
    headers = {"X-Error-Message": str(error), **error.headers}
    if error.code:
        headers["X-Error-Code"] = error.code
    return make_json({"error": str(error)}, error.status, headers)


def find_answer(routes: list[Route], hub: "LocalHub", request: Request) -> Response:
    """Return what the handler of the matching route returns; named groups of its pattern are arguments, unquoted."""
    for method, pattern, handler in routes:
        match = re.fullmatch(pattern, request.path) if method == request.method else None
        if match:
            return handler(hub, request, **{name: unquote(text or "") for name, text in match.groupdict().items()})
    raise HubError(404, None, f"The local Hub has no {request.method} {request.path}")
