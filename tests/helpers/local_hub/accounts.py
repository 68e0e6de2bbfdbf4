"""Users and their permissions."""

from typing import TYPE_CHECKING

from .messages import HubError, Request, Response, Route, make_json


if TYPE_CHECKING:
    from .server import LocalHub


def require_user(request: Request) -> str:
    """Return the user of a request, or raise a 401 error."""
    if request.user is None:
        raise HubError(401, None, "Invalid username or password.")
    return request.user


def require_owner(request: Request, owner: str) -> None:
    """Raise an error unless the user of a request is `owner`: 401 without a user, 403 for another one."""
    if require_user(request) != owner:
        raise HubError(403, None, f'You don\'t have the rights to write under the namespace "{owner}".')


def who_am_i(hub: "LocalHub", request: Request) -> Response:
    """Return the user of a request."""
    user = require_user(request)
    token = {"displayName": "test", "role": "write"}
    return make_json({"type": "user", "name": user, "orgs": [], "auth": {"type": "access_token", "accessToken": token}})


ROUTES: list[Route] = [("GET", "/api/whoami-v2", who_am_i)]
