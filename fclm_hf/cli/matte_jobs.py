"""Which images `fclm matte` reads and which files it writes: settled before any work."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import typer


INPUT_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".jfif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
TRANSPARENT_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".webp": ("WEBP", {"lossless": True}),
}
OPAQUE_FORMATS = {**TRANSPARENT_FORMATS, ".jpg": ("JPEG", {"quality": 95}), ".jpeg": ("JPEG", {"quality": 95})}


@dataclass(frozen=True)
class Job:
    """An image, and the files that its objects are written to."""

    source: str | Path
    targets: list[Path]


def plan_jobs(images: list[str], out: str, objects: int, formats: dict[str, Any]) -> list[Job]:
    """What is read and written: checked before any work, so that no input and no other output gets overwritten."""
    images = [path for image in images for path in expand_pattern(image)]
    target, suffix = Path(out), Path(out).suffix.lower()
    alone = len(images) == 1 and not Path(images[0]).is_dir()
    if suffix in INPUT_SUFFIXES | formats.keys() and not target.is_dir() and not out.endswith(("/", os.sep)):
        if not alone:
            raise typer.BadParameter(f"-o {out} is a file, but several images need a folder.")
        if suffix not in formats:
            raise typer.BadParameter(f"-o {out}: accepted for this output are {', '.join(formats)}.")
        found = [(source, target) for source, _ in find_images(images[0], target)]
    else:
        found = list(find_outputs(images, target))
    jobs = [Job(source, number_objects(path, objects)) for source, path in found]
    if not jobs:
        raise typer.BadParameter(f"No image in {', '.join(images)}.")
    sources = {job.source.resolve() for job in jobs if isinstance(job.source, Path)}
    writers: dict[Path, str | Path] = {}
    for job in jobs:
        for path in job.targets:
            if path.resolve() in sources:
                raise typer.BadParameter(f"{path} is one of the inputs and would be overwritten: choose another -o.")
            if path in writers:
                raise typer.BadParameter(f"{writers[path]} and {job.source} would both be written to {path}.")
            writers[path] = job.source
    check_folders(writers)
    return jobs


def expand_pattern(image: str) -> list[str]:
    """What matches `image` where it is a pattern that no shell has expanded, else `image` itself."""
    if image.startswith(("http://", "https://")) or not glob.has_magic(image) or Path(image).exists():
        return [image]
    return sorted(glob.glob(image, recursive=True)) or [image]


def check_folders(paths: Iterable[Path]) -> None:
    """Folders that cannot be made or written to are found before the model is loaded, not after each image."""
    for folder in {path.parent for path in paths}:
        existing = next(each for each in (folder, *folder.parents) if each.exists())
        if not existing.is_dir():
            raise typer.BadParameter(f"-o: {existing} is a file, not a folder.")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise typer.BadParameter(f"-o: {existing} cannot be written to.")


def find_outputs(images: list[str], folder: Path) -> Iterator[tuple[str | Path, Path]]:
    """Each image with its place in the output folder; a.jpg beside a.png gives a.jpg.png and a.png.png."""
    several_folders = sum(Path(image).is_dir() for image in images) > 1
    found = []
    for image in images:
        prefix = Path(Path(image).resolve().name) if several_folders and Path(image).is_dir() else Path()
        found += [(source, prefix / relative) for source, relative in find_images(image, folder)]
    stems = Counter(relative.with_suffix("") for _, relative in found)
    for source, relative in found:
        name = relative.name if stems[relative.with_suffix("")] > 1 else relative.stem
        yield source, folder / relative.parent / f"{name}.png"


def find_images(image: str, out: Path) -> Iterator[tuple[str | Path, Path]]:
    """Images behind an argument, with their paths relative to it. Hidden files and earlier outputs are left out."""
    if image.startswith(("http://", "https://")):
        yield image, Path(Path(unquote(urlsplit(image).path)).name or "image")
    elif not (root := Path(image)).is_dir():
        yield root, Path(root.name)
    else:
        inside = root.resolve() in out.resolve().parents
        for path in sorted(root.rglob("*")):
            relative = path.relative_to(root)
            hidden = any(part.startswith(".") for part in relative.parts)
            earlier = inside and out.resolve() in path.resolve().parents
            if path.suffix.lower() in INPUT_SUFFIXES and path.is_file() and not hidden and not earlier:
                yield path, relative


def number_objects(path: Path, objects: int) -> list[Path]:
    """A file for each object: out.png, or out_1.png, out_2.png, ..."""
    if objects == 1:
        return [path]
    return [path.with_name(f"{path.stem}_{number}{path.suffix}") for number in range(1, objects + 1)]
