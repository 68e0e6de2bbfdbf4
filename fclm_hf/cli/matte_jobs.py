"""Input and output files of `fclm matte`, planned before any work."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import typer


TRANSPARENT_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".webp": ("WEBP", {"lossless": True}),
}
OPAQUE_FORMATS = {**TRANSPARENT_FORMATS, ".jpg": ("JPEG", {"quality": 95}), ".jpeg": ("JPEG", {"quality": 95})}


@dataclass(frozen=True)
class Job:
    """An image and the files to write its objects to."""

    source: str | Path
    targets: list[Path]


def plan_jobs(images: list[str], out: str, objects: int, formats: dict[str, Any]) -> list[Job]:
    """Return the jobs of a command; no output overwrites an input or another output.

    Args:
        images: Files, folders, patterns and URLs.
        out: Output file or folder.
        objects: Number of objects in each image.
        formats: Suffixes that an output file may have.

    Raises:
        typer.BadParameter: If there is no image, or `out` is not suitable.
    """
    from ..image_utils_fclm import IMAGE_SUFFIXES

    images = [path for image in images for path in expand_pattern(image)]
    target, suffix = Path(out), Path(out).suffix.lower()
    alone = len(images) == 1 and not Path(images[0]).is_dir()
    if suffix in IMAGE_SUFFIXES | formats.keys() and not target.is_dir() and not out.endswith(("/", os.sep)):
        if not alone:
            raise typer.BadParameter(f"-o must be a folder for several images, got the file {out}.")
        if suffix not in formats:
            raise typer.BadParameter(f"-o must end in one of {', '.join(formats)} for this output, got {out}.")
        found = [(source, target) for source, _ in find_images(images[0], target)]
    else:
        found = list(find_outputs(images, target))
    jobs = [Job(source, number_objects(path, objects)) for source, path in found]
    if not jobs:
        raise typer.BadParameter(f"No image found in {', '.join(images)}.")
    sources = {job.source.resolve() for job in jobs if isinstance(job.source, Path)}
    writers: dict[Path, str | Path] = {}
    for job in jobs:
        for path in job.targets:
            if path.resolve() in sources:
                raise typer.BadParameter(f"{path} is an input and would be overwritten: choose another -o.")
            if path in writers:
                raise typer.BadParameter(f"{writers[path]} and {job.source} would both be written to {path}.")
            writers[path] = job.source
    check_folders(writers)
    return jobs


def expand_pattern(image: str) -> list[str]:
    """Return the matches of a pattern that no shell has expanded, or else `image` itself."""
    if image.startswith(("http://", "https://")) or not glob.has_magic(image) or Path(image).exists():
        return [image]
    return sorted(glob.glob(image, recursive=True)) or [image]  # noqa: PTH207 - Path.glob takes no absolute patterns


def check_folders(paths: Iterable[Path]) -> None:
    """Raise an error if an output folder cannot be created or written to, before the model is loaded."""
    for folder in {path.parent for path in paths}:
        existing = next(each for each in (folder, *folder.parents) if each.exists())
        if not existing.is_dir():
            raise typer.BadParameter(f"-o must be in a folder, but {existing} is a file.")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise typer.BadParameter(f"-o must be in a writable folder, but {existing} is read-only.")


def find_outputs(images: list[str], folder: Path) -> Iterator[tuple[str | Path, Path]]:
    """Yield each image with its output file; a.jpg beside a.png becomes a.jpg.png and a.png.png."""
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
    """Yield the images behind an argument with their paths relative to it, without hidden files and earlier outputs."""
    from ..image_utils_fclm import IMAGE_SUFFIXES

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
            if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and not hidden and not earlier:
                yield path, relative


def number_objects(path: Path, objects: int) -> list[Path]:
    """Return a file for each object: out.png, or out_1.png, out_2.png, ..."""
    if objects == 1:
        return [path]
    return [path.with_name(f"{path.stem}_{number}{path.suffix}") for number in range(1, objects + 1)]
