"""Folders that appear whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_new_folder(folder: str | os.PathLike) -> None:
    """Raises:
    ValueError: `folder` is a file, or a folder that holds something.
    """
    path = Path(folder)
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists() or path.is_symlink():
        raise ValueError(f"folder {path} exists already and is not an empty folder: choose another.")


@contextmanager
def write_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """A temporary folder beside `folder` to write into. It takes the place of `folder` when all is on the disk; after an
    error it is gone.

    Raises:
        ValueError: see [`check_new_folder`].
    """
    check_new_folder(folder)
    target = Path(folder).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        inside = Path(temporary) / target.name  # with the usual permissions, which `temporary` has not
        inside.mkdir()
        yield inside
        for path in (*inside.rglob("*"), inside):
            flush_to_disk(path)
        if target.is_dir():
            target.rmdir()
        os.replace(inside, target)


def flush_to_disk(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # there a folder cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
