"""Downloads, complete or in ranges. The contents of LFS files come from another host, to which `resolve` redirects."""

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from .messages import REPOSITORY, HubError, Request, Response, Route


if TYPE_CHECKING:
    from .server import LocalHub

RESOLVE = rf"/(?P<prefix>datasets/)?{REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<path>.+)"
CDN = r"/cdn/(?P<sha256>\w{64})"


def resolve(hub: "LocalHub", request: Request, name: str, revision: str, path: str, prefix: str = "") -> Response:
    """Return the content of a small file, or a redirect to that of an LFS file."""
    repository = hub.storage.find_repository("dataset" if prefix else "model", name, request.user)
    commit = repository.find_commit(revision)
    headers = {"X-Repo-Commit": commit.oid}
    if path not in commit.files:
        raise HubError(404, "EntryNotFound", "Entry not found", headers)
    file = commit.files[path]
    if not file.lfs:
        return send_object(hub, request, file.sha256, {**headers, "ETag": f'"{file.etag}"'})
    headers |= {"X-Linked-Size": str(file.size), "X-Linked-ETag": f'"{file.etag}"'}
    return Response(302, headers={**headers, "Location": f"{hub.cdn_url}/cdn/{quote(file.sha256)}"})


def serve_object(hub: "LocalHub", request: Request, sha256: str) -> Response:
    """Return the content of an LFS file."""
    return send_object(hub, request, sha256, {"ETag": f'"{sha256}"'})


def send_object(hub: "LocalHub", request: Request, sha256: str, headers: dict[str, str]) -> Response:
    """Return a stored object, or the requested range of it."""
    content = hub.storage.find_object(sha256).read_bytes()
    headers |= {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    asked = request.headers.get("Range")
    if asked is None:
        return Response(200, content, headers)
    start, end = find_range(asked, len(content))
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
    return Response(206, content[start:end], headers)


def find_range(asked: str, size: int) -> tuple[int, int]:
    """Return the first byte of a range and the one after its last."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked)
    if not match or not any(match.groups()):
        raise HubError(400, None, f"Range not understood: {asked}")
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
    if start >= end:
        raise HubError(416, None, "Requested range not satisfiable", {"Content-Range": f"bytes */{size}"})
    return start, end


ROUTES: list[Route] = [(method, RESOLVE, resolve) for method in ("GET", "HEAD")]
ROUTES += [(method, CDN, serve_object) for method in ("GET", "HEAD")]
