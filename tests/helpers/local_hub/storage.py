"""Repositories of the local Hub: commits of files, whose contents are stored in a folder by their SHA-256."""

import fnmatch
import hashlib
import threading
from dataclasses import dataclass, field
from pathlib import Path

from .messages import HubError


KINDS = ("model", "dataset")
MAIN = "main"
ATTRIBUTES = ".gitattributes"
LFS_PATTERNS = ("*.bin", "*.parquet", "*.safetensors", "*.tar", "*.zip")
DATE = "2026-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class File:
    """A file of a commit. `oid` is the id of its Git blob, which is the content or the LFS pointer to it."""

    size: int
    sha256: str
    oid: str
    lfs: bool

    @property
    def etag(self) -> str:
        """The ETag by which the Hub identifies the content."""
        return self.sha256 if self.lfs else self.oid


@dataclass(frozen=True)
class Commit:
    """The files of a repository at one point of its history."""

    oid: str
    title: str
    files: dict[str, File]
    parent: "Commit | None" = None


@dataclass
class Repository:
    """A repository with its branches, tags and commits."""

    kind: str
    name: str
    private: bool
    branches: dict[str, Commit] = field(default_factory=dict)
    tags: dict[str, Commit] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        """Namespace of the repository."""
        return self.name.split("/")[0]

    def find_commit(self, revision: str) -> Commit:
        """Return the commit of a branch, tag or commit id."""
        for place in (self.branches, self.tags, self.commits):
            if revision in place:
                return place[revision]
        raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")

    def add_commit(self, branch: str, title: str, files: dict[str, File]) -> Commit:
        """Add a commit to a branch and return it; its id depends only on its content and history."""
        parent = self.branches.get(branch)
        listing = "".join(f"{path} {file.oid}\n" for path, file in sorted(files.items()))
        identity = f"{self.kind} {self.name} {parent and parent.oid} {title}\n{listing}"
        commit = Commit(hashlib.sha1(identity.encode()).hexdigest(), title, files, parent)
        self.branches[branch] = self.commits[commit.oid] = commit
        return commit


class Storage:
    """Everything that the Hub stores. Requests come from several threads: change repositories under `lock`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.repositories: dict[tuple[str, str], Repository] = {}

    def create_repository(self, kind: str, name: str, private: bool) -> Repository:
        """Create a repository with the first commit of a real one."""
        repository = Repository(kind, name, private)
        attributes = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS)
        repository.add_commit(MAIN, "initial commit", {ATTRIBUTES: self.write_file(attributes.encode())})
        self.repositories[kind, name] = repository
        return repository

    def find_repository(self, kind: str, name: str, user: str | None) -> Repository:
        """Return a repository that the user may see. To others, private and missing repositories look the same."""
        repository = self.repositories.get((kind, name))
        if repository is None or (repository.private and user != repository.owner):
            raise HubError(404 if user else 401, "RepoNotFound", "Repository not found")
        return repository

    def write_file(self, content: bytes) -> File:
        """Store the content of a file that is not in LFS."""
        sha256 = self.write_object(content)
        return File(len(content), sha256, hash_git_blob(content), lfs=False)

    def write_object(self, content: bytes) -> str:
        """Store content and return its SHA-256."""
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.folder / sha256
        if not path.exists():
            temporary = path.with_name(f"{sha256}.{threading.get_ident()}")
            temporary.write_bytes(content)
            temporary.replace(path)
        return sha256

    def point_to_object(self, sha256: str) -> File:
        """Return the file whose content was uploaded to LFS."""
        path = self.find_object(sha256)
        size = path.stat().st_size
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        return File(size, sha256, hash_git_blob(pointer.encode()), lfs=True)

    def has_object(self, sha256: str) -> bool:
        """Return whether content is stored."""
        return (self.folder / sha256).exists()

    def find_object(self, sha256: str) -> Path:
        """Return the path of stored content, or raise an error."""
        if not self.has_object(sha256):
            raise HubError(400, None, f"LFS pointer to an object that was not uploaded: {sha256}")
        return self.folder / sha256


def belongs_to_lfs(path: str, size: int, threshold: int) -> bool:
    """Return whether a file is stored in LFS because of its size or name."""
    return size >= threshold or any(fnmatch.fnmatch(path, pattern) for pattern in LFS_PATTERNS)


def hash_git_blob(content: bytes) -> str:
    """Return the id of a Git blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
