"""Folders of images on disk: listing, matching by name, and the JSON files beside them."""

import json
from pathlib import Path
from typing import Any

from ...image_utils_fclm import IMAGE_SUFFIXES


def list_images(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the images in a folder, sorted; none if there is no such folder."""
    return sorted(
        path
        for path in folder.glob(pattern)
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def index_images(folder: Path, pattern: str = "*") -> dict[str, Path]:
    """Return the images in a folder by their relative paths without suffix.

    Raises:
        ValueError: If two images have the same name.
    """
    images: dict[str, Path] = {}
    for path in list_images(folder, pattern):
        name = path.relative_to(folder).as_posix().removesuffix(path.suffix)
        if name in images:
            raise ValueError(f"{folder} must have one image per name, got both {images[name].name} and {path.name}.")
        images[name] = path
    return images


def find_image(folder: Path, stem: str, images: dict[str, Path]) -> Path:
    """Return the image with this name, or raise a ValueError."""
    if stem not in images:
        raise ValueError(f"data: {folder} has no image named {stem}.")
    return images[stem]


def read_json(path: Path) -> Any:
    """Read a JSON file, or raise a ValueError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"data: {path} cannot be read as JSON: {error}") from error


def get_value(entry: Any, key: str, path: Path) -> Any:
    """Return the value of a key that an entry of a JSON file must have."""
    if not isinstance(entry, dict) or key not in entry:
        raise ValueError(f"data: {path}: {json.dumps(entry)[:120]} lacks {key!r}.")
    return entry[key]
