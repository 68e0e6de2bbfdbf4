"""Atomic writing of files and folders: readers see the old or the new content, never a part of it."""

import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any


UNFINISHED = ".unfinished-"
_LONGEST_NAME = 255  # bytes, on common file systems


def join_inside(folder: str | os.PathLike, name: Any, argument: str = "name") -> Path:
    """Return the path of a file or folder below `folder` whose name is not trusted, as that from a data set.

    What would lead out of the folder on any system is refused on all of them.

    Args:
        folder: The folder.
        name: Relative path.
        argument: What errors call the name.

    Raises:
        ValueError: If the name is not a string, is absolute, holds `..`, a drive, a null character or a part that is
            too long for a file name.

    Example:
        >>> join_inside("results", "photos/cat.png").as_posix()
        'results/photos/cat.png'
        >>> join_inside("results", "../cat.png")
        Traceback (most recent call last):
        ValueError: name must be a relative path without '..', got '../cat.png'.
    """
    shown = repr(name) if len(repr(name)) <= 80 else f"{repr(name)[:77]}..."
    if not isinstance(name, str):
        raise ValueError(f"{argument} must be a relative path, got {shown}.")
    path = PureWindowsPath(name)  # splits at slashes of both kinds
    if not path.parts or path.drive or path.root or ".." in path.parts or "\0" in name:
        raise ValueError(f"{argument} must be a relative path without '..', got {shown}.")
    if any(len(os.fsencode(part)) > _LONGEST_NAME for part in Path(name).parts):
        raise ValueError(f"{argument} must have parts of at most {_LONGEST_NAME} bytes, got {shown}.")
    return Path(folder) / name


@contextmanager
def write_atomically(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; once the block ends, the temporary file replaces `path`.

    The data is flushed to disk first, so that neither a killed process nor a power failure leaves half a file. After an
    exception the temporary file is removed and `path` is as before. The temporary name keeps the suffix of `path`.

    Args:
        path: The file to write. Its folder is created if needed.

    Yields:
        The path to write to.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "notes.txt"
        >>> with write_atomically(target) as path:
        ...     _ = path.write_text("done")
        >>> target.read_text()
        'done'
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{UNFINISHED}{secrets.token_hex(4)}-{_shorten(target.name)}")
    try:
        yield temporary
        flush_to_disk(temporary)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)  # on a full disk it would take up the space of the next file
        raise
    flush_to_disk(target.parent)


def _shorten(name: str) -> str:
    """Return a name to which a prefix can be added, with the same suffix; a long one is replaced with its hash."""
    data = os.fsencode(name)
    if len(data) <= _LONGEST_NAME - 2 * len(UNFINISHED):
        return name
    suffix = Path(name).suffix
    return hashlib.sha256(data).hexdigest()[:32] + (suffix if len(os.fsencode(suffix)) <= 32 else "")


def write_bytes(path: str | os.PathLike, data: bytes | memoryview) -> None:
    """Write `data` to `path` atomically, see [`write_atomically`]."""
    with write_atomically(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write `value` to `path` as JSON, atomically. NaN and infinity raise a `ValueError`, as JSON has neither."""
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


@contextmanager
def edit_json(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the content of a JSON file; the changes made to it are written back in the format of transformers."""
    content = json.loads(path.read_text(encoding="utf-8"))
    yield content
    write_bytes(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def check_new_folder(folder: str | os.PathLike) -> None:
    """Check that `folder` can be created or is empty.

    Raises:
        ValueError: If `folder` is a file or a folder that is not empty.
    """
    path = Path(folder)
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists() or path.is_symlink():
        raise ValueError(f"folder must be new or empty, got {path}, which exists already.")


@contextmanager
def write_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary folder to fill; once the block ends, it becomes `folder`. After an exception it is removed.

    Args:
        folder: The folder to write, new or empty.

    Yields:
        The folder to write to.

    Raises:
        ValueError: See [`check_new_folder`].
    """
    check_new_folder(folder)
    target = Path(folder).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{UNFINISHED}{_shorten(target.name)}-") as temporary:
        inside = Path(temporary) / target.name  # unlike `temporary`, it gets the usual permissions
        inside.mkdir()
        yield inside
        for path in (*inside.rglob("*"), inside):
            flush_to_disk(path)
        if target.is_dir():
            target.rmdir()
        inside.replace(target)


def remove_unfinished(folder: str | os.PathLike) -> None:
    """Remove the temporary files and folders that killed processes left anywhere below `folder`."""
    for path in list(Path(folder).rglob(f"{UNFINISHED}*")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def remove_unfinished_files(paths: Iterable[Path]) -> None:
    """Remove what killed processes left while they wrote these very files; others may be at work beside them."""
    names: dict[Path, set[str]] = {}
    for path in paths:
        names.setdefault(path.parent, set()).add(_shorten(path.name))
    for folder, wanted in names.items():
        for path in folder.glob(f"{UNFINISHED}*"):
            if path.name.removeprefix(UNFINISHED).partition("-")[2] in wanted:
                path.unlink(missing_ok=True)


def number_names(names: list[Path]) -> list[Path]:
    """Return names of which no two are the same, also where case does not count: a, a, b become a, a-2, b."""
    taken = {str(name).casefold() for name in names}
    used: set[str] = set()
    numbered = []
    for name in names:
        key, number = name, 1
        while str(key).casefold() in (used if number == 1 else taken):
            number += 1
            key = name.with_name(f"{name.name}-{number}")
        used.add(str(key).casefold())
        taken.add(str(key).casefold())
        numbered.append(key)
    return numbered


def flush_to_disk(path: Path) -> None:
    """Flush a file or folder to disk (fsync)."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open folders
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
