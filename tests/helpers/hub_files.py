"""The files of a repository on the local Hub."""

from local_hub import LocalHub


def read_files(hub: LocalHub, name: str = "tester/cats", branch: str = "main", kind: str = "model") -> dict[str, bytes]:
    """Return the contents of the files on a branch, by path."""
    files = hub.storage.repositories[kind, name].branches[branch].files
    return {path: hub.storage.find_object(file.sha256).read_bytes() for path, file in files.items()}
