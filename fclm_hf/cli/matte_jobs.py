"""Input and output files of `fclm matte`, planned before any work."""

import glob
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import typer

from ..utils.files import number_names


TRANSPARENT_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".webp": ("WEBP", {"lossless": True}),
}
OPAQUE_FORMATS = {**TRANSPARENT_FORMATS, ".jpg": ("JPEG", {"quality": 95}), ".jpeg": ("JPEG", {"quality": 95})}


STANDARD_STREAM = "-"
_STREAM_FILES = {"/dev/stdin": STANDARD_STREAM, "/dev/stdout": STANDARD_STREAM}


@dataclass(frozen=True)
class Job:
    """An image, the files to write its objects to (None is standard output), and what was read from standard input."""

    source: str | Path
    targets: list[Path | None]
    data: bytes | None = None

    @property
    def name(self) -> str:
        """What messages call the image."""
        if self.source == STANDARD_STREAM:
            return "standard input"
        return f"{self.source[:40]}..." if is_data_url(self.source) else str(self.source)

    def is_done(self) -> bool:
        """Return whether all files exist."""
        return all(target is not None and target.is_file() for target in self.targets)

    def is_stream(self) -> bool:
        """Return whether the image can be read once only."""
        return self.source == STANDARD_STREAM or (isinstance(self.source, Path) and self.source.is_fifo())


def plan_jobs(images: list[str], out: str, objects: int, formats: dict[str, Any]) -> list[Job]:
    """Return the jobs of a command; no output overwrites an input or another output.

    Args:
        images: Files, folders, patterns, URLs, and `-` for standard input.
        out: Output file or folder, or `-` for standard output.
        objects: Number of objects in each image.
        formats: Suffixes that an output file may have.

    Raises:
        typer.BadParameter: If there is no image, or `out` is not suitable.
    """
    if not out or not all(images):  # as of a shell variable that is not set; Path("") is the current folder
        raise typer.BadParameter(f"{'-o' if not out else 'IMAGE'} must not be empty.")
    images = [path for image in images for path in expand_pattern(_STREAM_FILES.get(image, image))]
    out = _STREAM_FILES.get(out, out)
    check_streams(images, out, objects)
    if out == STANDARD_STREAM or is_device(Path(out)):
        device = None if out == STANDARD_STREAM else Path(out)
        return [Job(source, [device]) for source, _ in find_images(images[0], Path())]
    target = Path(out)
    if is_file_name(out, formats):
        check_file_name(images, out, formats)
        found = [(source, target) for source, _ in find_images(images[0], target)]
    else:
        found = list(find_outputs(images, target))
    jobs = [Job(source, number_objects(path, objects)) for source, path in found]
    if not jobs:
        raise typer.BadParameter(f"No image found in {', '.join(images)}.")
    sources = {find_real_path(job.source) for job in jobs if isinstance(job.source, Path)}
    paths = [path for job in jobs for path in job.targets if path is not None]
    for path in paths:
        if find_real_path(path) in sources:
            raise typer.BadParameter(f"{path} is an input and would be overwritten: choose another -o.")
    check_folders(paths)
    return jobs


def find_real_path(path: Path) -> Path:
    """Return the absolute path without links; unlike `Path.resolve`, also for links that go in circles."""
    return Path(os.path.realpath(path))


def check_streams(images: list[str], out: str, objects: int) -> None:
    """Raise an error unless standard input is read once, and a single image goes to standard output."""
    if images.count(STANDARD_STREAM) > 1:
        raise typer.BadParameter("- (standard input) holds one image and can be given once.")
    if STANDARD_STREAM in images and sys.stdin is None:
        raise typer.BadParameter("- (standard input) is closed.")
    if out != STANDARD_STREAM and not is_device(Path(out)):
        return
    name = f"-o {out} (standard output)" if out == STANDARD_STREAM else f"-o {out}"
    if len(images) > 1 or Path(images[0]).is_dir():
        raise typer.BadParameter(f"{name} takes a single image; choose a folder for several.")
    if objects > 1:
        raise typer.BadParameter(f"{name} takes a single object, got prompts for {objects}.")
    if out == STANDARD_STREAM and sys.stdout is None:
        raise typer.BadParameter(f"{name} is closed.")
    if out == STANDARD_STREAM and sys.stdout.isatty():
        raise typer.BadParameter("-o - writes a PNG, which a terminal cannot show: send it to a file or a pipe.")


def is_device(path: Path) -> bool:
    """Return whether an output is neither a file nor a folder, as /dev/null and what a shell gives for `>(command)`."""
    return path.exists() and not path.is_file() and not path.is_dir()


def is_file_name(out: str, formats: Iterable[str]) -> bool:
    """Return whether an output that may not exist yet is a file rather than a folder."""
    from ..image_utils_fclm import IMAGE_SUFFIXES

    known = Path(out).suffix.lower() in IMAGE_SUFFIXES | OPAQUE_FORMATS.keys() | set(formats)
    return known and not Path(out).is_dir() and not out.endswith(("/", os.sep))


def check_file_name(images: list[str], out: str, formats: Iterable[str]) -> None:
    """Raise an error unless the output file has a format that can hold the output, and there is a single image."""
    if len(images) > 1 or Path(images[0]).is_dir():
        missing = [each for each in images if not is_url(each) and each != STANDARD_STREAM and not Path(each).exists()]
        hint = f" There is no file {missing[0]!r}; a --text of several words needs quotes." if missing else ""
        raise typer.BadParameter(f"-o must be a folder for several images, got the file {out}.{hint}")
    suffix = Path(out).suffix.lower()
    if suffix in formats:
        return
    if suffix in OPAQUE_FORMATS:
        raise typer.BadParameter(
            f"-o {out}: JPEG has no transparency. Add --background COLOR to fill it, or --alpha for the matte;"
            f" a cutout must end in one of {', '.join(formats)}."
        )
    raise typer.BadParameter(f"-o must end in one of {', '.join(formats)} for this output, got {out}.")


def make_file_name(url_path: str) -> str:
    """Return the last part of the path of a URL as a file name, without anything that leads out of a folder."""
    name = Path(unquote(url_path)).name
    name = re.sub(r'[\x00-\x1f/\\:*?"<>|]', "_", name)
    # file systems count bytes
    return name.encode(errors="replace")[-100:].decode(errors="ignore").lstrip(".") or "image"


def is_url(image: str) -> bool:
    """Return whether an image is a web address or a data URL."""
    return image[:8].lower().startswith(("http://", "https://")) or is_data_url(image)


def is_data_url(image: str | Path) -> bool:
    """Return whether an image is a data URL, which holds it."""
    return isinstance(image, str) and image[:5].lower() == "data:"


def expand_pattern(image: str) -> list[str]:
    """Return the matches of a pattern that no shell has expanded, the path of a file URL, or else `image` itself."""
    if image[:5].lower() == "file:" and not Path(image).exists():
        from ..image_loading_fclm import find_local_path

        try:
            return [find_local_path(image, "IMAGE")]
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    if is_url(image) or not glob.has_magic(image) or Path(image).exists():
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
    """Yield each image with its output file, which no two of them share.

    a.jpg beside a.png becomes a.jpg.png and a.png.png; a.jpg of another folder becomes a-2.png. An image that was given
    twice is done once. Names that differ in case only are the same file on some systems.
    """
    several_folders = sum(Path(image).is_dir() for image in images) > 1
    found: dict[str | Path, tuple[str | Path, Path]] = {}
    for image in images:
        prefix = Path(find_real_path(Path(image)).name) if several_folders and Path(image).is_dir() else Path()
        for source, relative in find_images(image, folder):
            # links keep their names
            key = find_real_path(source.parent) / source.name if isinstance(source, Path) else source
            found.setdefault(key, (source, prefix / relative))
    names: dict[str, set[str]] = {}
    for _, relative in found.values():
        names.setdefault(str(relative.with_suffix("")).casefold(), set()).add(relative.name.casefold())
    stems = [
        relative if len(names[str(relative.with_suffix("")).casefold()]) > 1 else relative.with_suffix("")
        for _, relative in found.values()
    ]
    for (source, _), stem in zip(found.values(), number_names(stems), strict=True):
        yield source, folder / stem.with_name(f"{stem.name}.png")


def find_images(image: str, out: Path) -> Iterator[tuple[str | Path, Path]]:
    """Yield the images behind an argument with their paths relative to it, without hidden files and earlier outputs."""
    from ..image_utils_fclm import IMAGE_SUFFIXES

    if image == STANDARD_STREAM:
        yield image, Path("stdin")
    elif is_url(image):
        yield image, Path("image" if is_data_url(image) else make_file_name(urlsplit(image).path))
    elif not (root := Path(image)).is_dir():
        yield root, Path(root.name)
    else:
        inside = find_real_path(root) in find_real_path(out).parents
        for path in sorted(root.rglob("*")):
            relative = path.relative_to(root)
            hidden = any(part.startswith(".") for part in relative.parts)
            earlier = inside and find_real_path(out) in find_real_path(path).parents
            if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and not hidden and not earlier:
                yield path, relative


def number_objects(path: Path, objects: int) -> list[Path | None]:
    """Return a file for each object: out.png, or out_1.png, out_2.png, ..."""
    if objects == 1:
        return [path]
    return [path.with_name(f"{path.stem}_{number}{path.suffix}") for number in range(1, objects + 1)]
