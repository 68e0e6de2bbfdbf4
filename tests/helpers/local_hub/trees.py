"""Listings of files and folders."""

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from .messages import API, HubError, Request, Response, Route, make_json
from .storage import DATE, Commit, File


if TYPE_CHECKING:
    from .server import LocalHub


def list_tree(hub: "LocalHub", request: Request, kind: str, name: str, revision: str, path: str = "") -> Response:
    """Return a page of the entries of a folder, with the next page in the header `Link`."""
    commit = hub.storage.find_repository(kind, name, request.user).find_commit(revision)
    query = request.query
    recursive, expand = is_true(query.get("recursive")), is_true(query.get("expand"))
    entries = list(walk(commit, path, recursive))
    if path and not entries:
        raise HubError(404, "EntryNotFound", f"{path} does not exist on {revision}")
    start = int(query.get("cursor", 0))
    end = start + hub.page_size
    headers = {}
    if end < len(entries):
        following = f"{hub.url}{request.path}?{urlencode({**query, 'cursor': end})}"
        headers["Link"] = f'<{following}>; rel="next"'
    return make_json([describe(commit, each, expand) for each in entries[start:end]], headers=headers)


def list_paths(hub: "LocalHub", request: Request, kind: str, name: str, revision: str) -> Response:
    """Return the entries of those requested paths that exist."""
    commit = hub.storage.find_repository(kind, name, request.user).find_commit(revision)
    form = request.form
    asked = [path.strip("/") for path in form.get("paths", [])]
    folders = set(find_folders(commit))
    known = [path for path in asked if path in commit.files or path in folders]
    return make_json([describe(commit, path, is_true(form.get("expand", ["false"])[-1])) for path in known])


def walk(commit: Commit, folder: str, recursive: bool) -> Iterator[str]:
    """Yield the paths below a folder, including folders, sorted."""
    prefix = f"{folder}/" if folder else ""
    for path in sorted([*commit.files, *find_folders(commit)]):
        if path.startswith(prefix) and (recursive or "/" not in path[len(prefix) :]):
            yield path


def find_folders(commit: Commit) -> Iterator[str]:
    """Yield the folders of a commit, sorted."""
    yield from sorted({path[:end] for path in commit.files for end, each in enumerate(path) if each == "/"})


def describe(commit: Commit, path: str, expand: bool) -> dict[str, Any]:
    """Return the entry of a file or folder."""
    file = commit.files.get(path)
    if file is None:
        entry = {"type": "directory", "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0, "path": path}
    else:
        entry = {"type": "file", "oid": file.oid, "size": file.size, "path": path, **describe_lfs(file)}
    if expand:
        entry["lastCommit"] = {"id": commit.oid, "title": commit.title, "date": DATE}
    return entry


def describe_lfs(file: File) -> dict[str, Any]:
    """Return the LFS part of an entry; empty for other files."""
    return {"lfs": {"oid": file.sha256, "size": file.size, "pointerSize": 134}} if file.lfs else {}


def is_true(text: str | None) -> bool:
    """Return whether a parameter of a query is true."""
    return (text or "").lower() in ("1", "true")


ROUTES: list[Route] = [
    ("GET", rf"{API}/tree/(?P<revision>[^/]+)(/(?P<path>.+))?", list_tree),
    ("POST", rf"{API}/paths-info/(?P<revision>[^/]+)", list_paths),
]
