"""Repositories, their branches and their metadata."""

from typing import TYPE_CHECKING

import yaml
from huggingface_hub import ModelCard

from .accounts import require_owner, require_user
from .messages import API, HubError, Request, Response, Route, make_json
from .storage import DATE, KINDS, MAIN, Commit, Repository


if TYPE_CHECKING:
    from .server import LocalHub


def create(hub: "LocalHub", request: Request) -> Response:
    """Create a repository; one that exists already is a 409 error."""
    asked = request.json
    kind, owner = asked.get("type") or "model", asked.get("organization") or require_user(request)
    if kind not in KINDS:
        raise HubError(400, None, f"The local Hub has no repositories of type {kind}")
    require_owner(request, owner)
    name = f"{owner}/{asked['name']}"
    answer = {"url": f"{hub.url}/{'datasets/' if kind == 'dataset' else ''}{name}", "name": name, "id": name}
    with hub.storage.lock:
        if (kind, name) in hub.storage.repositories:
            return make_json({**answer, "error": f"You already created this {kind} repo"}, 409)
        hub.storage.create_repository(kind, name, private=asked.get("visibility") == "private")
    return make_json(answer)


def delete(hub: "LocalHub", request: Request) -> Response:
    """Delete a repository."""
    asked = request.json
    kind, owner = asked.get("type") or "model", asked.get("organization") or require_user(request)
    require_owner(request, owner)
    repository = hub.storage.find_repository(kind, f"{owner}/{asked['name']}", request.user)
    del hub.storage.repositories[kind, repository.name]
    return make_json({})


def describe(hub: "LocalHub", request: Request, kind: str, name: str, revision: str = "") -> Response:
    """Return the metadata of a repository at a revision."""
    repository = hub.storage.find_repository(kind, name, request.user)
    commit = repository.find_commit(revision or MAIN)
    card = read_card(hub, commit)
    siblings = []
    for path, file in sorted(commit.files.items()):
        sibling = {"rfilename": path}
        if "blobs" in request.query:
            sibling |= {"size": file.size, "blobId": file.oid}
            if file.lfs:
                sibling["lfs"] = {"size": file.size, "sha256": file.sha256, "pointerSize": 134}
        siblings.append(sibling)
    return make_json(
        {
            "id": name,
            "author": repository.owner,
            "sha": commit.oid,
            "createdAt": DATE,
            "lastModified": DATE,
            "private": repository.private,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": card.get("tags", []),
            "cardData": card,
            "siblings": siblings,
            **{key: card[key] for key in ("library_name", "pipeline_tag") if key in card},
        }
    )


def read_card(hub: "LocalHub", commit: Commit) -> dict:
    """Return the header of the model card of a commit; empty if there is no card."""
    file = commit.files.get("README.md")
    if file is None:
        return {}
    text = hub.storage.find_object(file.sha256).read_text(encoding="utf-8")
    return ModelCard(text, ignore_metadata_errors=True).data.to_dict()


def check_card(hub: "LocalHub", request: Request) -> Response:
    """Return the header of the model card, as the real Hub parses its YAML."""
    _, *rest = request.json["content"].split("---\n", 2)
    problem = {"message": "empty or missing yaml metadata in repo card"}
    if len(rest) < 2:
        return make_json({"errors": [], "warnings": [problem]})
    try:
        header = yaml.safe_load(rest[0])
    except yaml.YAMLError as error:
        return make_json({"errors": [{"message": str(error)}], "warnings": []}, 400)
    if header is not None and not isinstance(header, dict):
        return make_json({"errors": [{"message": "metadata must be a mapping"}], "warnings": []}, 400)
    return make_json({"errors": [], "warnings": [] if header else [problem]})


def list_references(hub: "LocalHub", request: Request, kind: str, name: str) -> Response:
    """Return the branches and tags of a repository."""
    repository = hub.storage.find_repository(kind, name, request.user)
    answer = {"converts": [], "pullRequests": []}
    for key, folder, commits in (("branches", "heads", repository.branches), ("tags", "tags", repository.tags)):
        answer[key] = [
            {"name": each, "ref": f"refs/{folder}/{each}", "targetCommit": commit.oid}
            for each, commit in commits.items()
        ]
    return make_json(answer)


def list_commits(hub: "LocalHub", request: Request, kind: str, name: str, revision: str) -> Response:
    """Return the commits of a branch, the latest first."""
    commit = hub.storage.find_repository(kind, name, request.user).find_commit(revision)
    answer = []
    while commit is not None:
        authors = [{"user": name.split("/")[0]}]
        answer.append({"id": commit.oid, "title": commit.title, "message": "", "date": DATE, "authors": authors})
        commit = commit.parent
    return make_json(answer)


def create_branch(hub: "LocalHub", request: Request, kind: str, name: str, branch: str) -> Response:
    """Create a branch; one that exists already is a 409 error."""
    repository = find_writable(hub, request, kind, name)
    with hub.storage.lock:
        if branch in repository.branches:
            raise HubError(409, None, f"Reference already exists: {branch}")
        start = request.json.get("startingPoint") if request.body else None
        repository.branches[branch] = repository.find_commit(start or MAIN)
    return make_json({})


def create_tag(hub: "LocalHub", request: Request, kind: str, name: str, revision: str) -> Response:
    """Create a tag; one that exists already is a 409 error."""
    repository, tag = find_writable(hub, request, kind, name), request.json["tag"]
    with hub.storage.lock:
        if tag in repository.tags:
            raise HubError(409, None, f"Tag already exists: {tag}")
        repository.tags[tag] = repository.find_commit(revision)
    return make_json({})


def find_writable(hub: "LocalHub", request: Request, kind: str, name: str) -> Repository:
    """Return a repository that the user owns, or raise an error."""
    repository = hub.storage.find_repository(kind, name, request.user)
    require_owner(request, repository.owner)
    return repository


ROUTES: list[Route] = [
    ("POST", "/api/repos/create", create),
    ("DELETE", "/api/repos/delete", delete),
    ("POST", "/api/validate-yaml", check_card),
    ("GET", API, describe),
    ("GET", rf"{API}/revision/(?P<revision>[^/]+)", describe),
    ("GET", rf"{API}/refs", list_references),
    ("GET", rf"{API}/commits/(?P<revision>[^/]+)", list_commits),
    ("POST", rf"{API}/branch/(?P<branch>[^/]+)", create_branch),
    ("POST", rf"{API}/tag/(?P<revision>[^/]+)", create_tag),
]
