"""Uploads: how each file is uploaded, contents by Git LFS, and the commit that makes them visible."""

import base64
import hashlib
import json
import math
from typing import TYPE_CHECKING

from .accounts import require_owner
from .messages import API, REPOSITORY, HubError, Request, Response, Route, make_json
from .repositories import find_writable
from .storage import belongs_to_lfs


if TYPE_CHECKING:
    from .server import LocalHub


def sort_files(hub: "LocalHub", request: Request, kind: str, name: str, revision: str) -> Response:
    """Return which files the client must upload to LFS, and the ids of those that the branch already has."""
    repository = find_writable(hub, request, kind, name)
    known = repository.find_commit(revision).files
    answer = []
    for asked in request.json["files"]:
        lfs = belongs_to_lfs(asked["path"], asked["size"], hub.lfs_threshold)
        mode = {"path": asked["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
        if asked["path"] in known:
            mode["oid"] = known[asked["path"]].etag
        answer.append(mode)
    return make_json({"files": answer})


def plan_upload(hub: "LocalHub", request: Request, name: str, prefix: str = "") -> Response:
    """Answer the batch request of Git LFS, see https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md."""
    find_writable(hub, request, "dataset" if prefix else "model", name)
    objects = []
    for asked in request.json["objects"]:
        oid, size = asked["oid"], asked["size"]
        answer = {"oid": oid, "size": size}
        if not hub.storage.has_object(oid):
            upload = {"href": f"{hub.cdn_url}/lfs/{oid}", "header": {}}
            if hub.part_size is not None and size > hub.part_size:
                parts = range(1, math.ceil(size / hub.part_size) + 1)
                urls = {str(part): f"{hub.cdn_url}/lfs/{oid}/{part}" for part in parts}
                upload = {"href": f"{hub.url}/lfs/{oid}/complete", "header": {"chunk_size": str(hub.part_size), **urls}}
            answer["actions"] = {"upload": upload, "verify": {"href": f"{hub.url}/lfs/{name}/verify"}}
        objects.append(answer)
    return make_json({"transfer": "basic", "objects": objects})


def receive_object(hub: "LocalHub", request: Request, oid: str) -> Response:
    """Store an LFS object that is uploaded in one piece."""
    store_object(hub, request.body, oid)
    return Response()


def receive_part(hub: "LocalHub", request: Request, oid: str, part: str) -> Response:
    """Keep a part of an LFS object and return its ETag."""
    hub.parts[oid, int(part)] = request.body
    return Response(headers={"ETag": hashlib.md5(request.body).hexdigest()})


def join_parts(hub: "LocalHub", request: Request, oid: str) -> Response:
    """Store the LFS object that consists of the uploaded parts."""
    parts = [(part["etag"], hub.parts.pop((oid, part["partNumber"]))) for part in request.json["parts"]]
    if any(hashlib.md5(content).hexdigest() != etag for etag, content in parts):
        raise HubError(400, None, "The etag of a part is wrong")
    store_object(hub, b"".join(content for _, content in parts), oid)
    return make_json({})


def store_object(hub: "LocalHub", content: bytes, oid: str) -> None:
    """Store content after checking its SHA-256."""
    if hashlib.sha256(content).hexdigest() != oid:
        raise HubError(400, None, f"The content does not have the SHA-256 {oid}")
    hub.storage.write_object(content)


def verify_object(hub: "LocalHub", request: Request, name: str) -> Response:
    """Check the size of an uploaded LFS object."""
    require_owner(request, name.split("/")[0])
    if hub.storage.find_object(request.json["oid"]).stat().st_size != request.json["size"]:
        raise HubError(400, None, "The size of the object is wrong")
    return make_json({})


def commit(hub: "LocalHub", request: Request, kind: str, name: str, revision: str) -> Response:
    """Make a commit from lines of JSON: a header, then added and deleted files."""
    repository = find_writable(hub, request, kind, name)
    with hub.storage.lock:
        if revision not in repository.branches:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files, title = dict(repository.branches[revision].files), ""
        for line in map(json.loads, request.body.splitlines()):
            key, value = line["key"], line["value"]
            if key == "header":
                title = value["summary"]
            elif key == "file":
                files[value["path"]] = hub.storage.write_file(base64.b64decode(value["content"]))
            elif key == "lfsFile":
                files[value["path"]] = hub.storage.point_to_object(value["oid"])
            elif key == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise HubError(404, "EntryNotFound", f"A file with this name doesn't exist: {value['path']}")
            elif key == "deletedFolder":
                prefix = value["path"].rstrip("/") + "/"
                files = {path: file for path, file in files.items() if not path.startswith(prefix)}
            else:
                raise HubError(400, None, f"Unknown operation {key}")
        made = repository.add_commit(revision, title, files)
    prefix = "datasets/" if kind == "dataset" else ""
    url = f"{hub.url}/{prefix}{name}/commit/{made.oid}"
    return make_json({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})


ROUTES: list[Route] = [
    ("POST", rf"{API}/preupload/(?P<revision>[^/]+)", sort_files),
    ("POST", rf"{API}/commit/(?P<revision>[^/]+)", commit),
    ("POST", rf"/(?P<prefix>datasets/)?{REPOSITORY}\.git/info/lfs/objects/batch", plan_upload),
    ("PUT", r"/lfs/(?P<oid>\w{64})", receive_object),
    ("PUT", r"/lfs/(?P<oid>\w{64})/(?P<part>\d+)", receive_part),
    ("POST", r"/lfs/(?P<oid>\w{64})/complete", join_parts),
    ("POST", rf"/lfs/{REPOSITORY}/verify", verify_object),
]
