"""Builds the training set of the embedded checkpoint; takes minutes, apt-get and npm, and a folder of photos.

    python research/build_training_set.py --out DIR --tuxpaint --wesnoth --fluent --backgrounds PHOTOS
    python research/build_training_set.py --out DIR --foregrounds MY_RGBA_IMAGES --backgrounds PHOTOS

`--tuxpaint`, `--wesnoth` and `--fluent` download Debian's tuxpaint-stamps-default and wesnoth-1.16-data (`apt-get
download`) and npm's @lobehub/fluent-emoji-3d and unicode-emoji-json (`npm pack`). With a path, each takes that .deb,
.tgz or folder (unpacked or installed, such as /usr/share/tuxpaint) instead. `--foregrounds` takes any folder of images
with an alpha channel: file name = name of the object, folder = its class.

DIR receives foregrounds.json, backgrounds.json and WebP files, atomically; a set that an earlier run wrote is replaced.
Every foreground is cropped to its alpha. Images without a real one (all opaque, all empty), tiny ones and duplicates
are left out and counted.
"""

import argparse
import hashlib
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from foreground_sources import (
    Candidate,
    Source,
    TrainingSetError,
    list_images,
    read_fluent,
    read_folder,
    read_tuxpaint,
    read_wesnoth,
)
from PIL import Image

from fclm_hf.image_utils_fclm import open_image


MARGIN = 2  # transparent pixels kept around a crop, so that resampling it has something to fade into
Entry = dict[str, Any]
Item = TypeVar("Item")


def open_rgba(path: Path) -> Image.Image | None:
    """Return the upright image as RGBA; None if it cannot be read."""
    try:
        return open_image(path).convert("RGBA")
    except ValueError:
        return None


def limit_side(image: Image.Image, longest: int) -> Image.Image:
    """Return the image with a longer side of at most `longest` pixels."""
    scale = longest / max(image.size)
    if scale >= 1:
        return image
    return image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)


def cut_foreground(image: Image.Image, min_side: int) -> tuple[Image.Image, list[bool]] | str:
    """Crop an RGBA image to its object.

    Returns:
        The crop, and whether the object is cut off at the left, top, right and bottom border; or, as a string, the
        reason to reject the image.
    """
    alpha = np.asarray(image)[..., 3]
    if alpha.min() > 250:
        return "all opaque"
    if alpha.max() < 128:
        return "all empty"
    rows, columns = np.nonzero((alpha > 5).any(1))[0], np.nonzero((alpha > 5).any(0))[0]
    left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    if max(right - left, bottom - top) < min_side:
        return "tiny"
    if alpha[top:bottom, left:right].min() > 250:
        return "opaque rectangle"
    borders = (alpha[:, 0], alpha[0], alpha[:, -1], alpha[-1])
    truncated = [bool((border > 127).mean() > 0.02) for border in borders]
    crop = np.asarray(image)[max(0, top - MARGIN) : bottom + MARGIN, max(0, left - MARGIN) : right + MARGIN]
    return Image.fromarray(crop), truncated


def make_slug(text: str) -> str:
    """Return the text as part of a file name."""
    return re.sub(r"[^\w]+", "-", text.lower()).strip("-")[:48] or "unnamed"


class SetWriter:
    """Writes the images of a set into a new folder.

    Args:
        folder: An empty folder.
        args: The options of the command line.
    """

    def __init__(self, folder: Path, args: argparse.Namespace) -> None:
        self.folder, self.args = folder, args
        self.seen: dict[str, set[bytes]] = {"foregrounds": set(), "backgrounds": set()}

    def write_foregrounds(self, sources: Iterable[Source]) -> int:
        """Write `foregrounds.json` and its images; return their number.

        Raises:
            TrainingSetError: If no image is usable.
        """
        entries: list[Entry] = []
        for source in sources:
            candidates = sorted(source.candidates, key=lambda candidate: candidate.label)
            key = source.record["source"]
            entries += self._write_all(
                key,
                f"fg_{key}",
                candidates,
                lambda each, file, source=source: self._write_foreground(source, each, file),
            )
        if not entries:
            raise TrainingSetError("no usable foreground was found: nothing was written.")
        return self._write_index("foregrounds", entries)

    def write_backgrounds(self, folders: Iterable[Path]) -> int:
        """Write `backgrounds.json` and its images; return their number.

        Raises:
            TrainingSetError: If a folder does not exist.
        """
        photos = ((root, path) for root in folders for path in list_images(root))
        return self._write_index("backgrounds", self._write_all("backgrounds", "bg", photos, self._write_background))

    def _write_all(
        self, name: str, folder: str, items: Iterable[Item], write: Callable[[Item, str], Entry | str]
    ) -> list[Entry]:
        """Write items as numbered files and report what was left out; return the entries of the index."""
        (self.folder / folder).mkdir(exist_ok=True)
        entries: list[Entry] = []
        rejected: Counter[str] = Counter()
        for item in items:
            entry = write(item, f"{folder}/{len(entries):04d}")
            if isinstance(entry, str):
                rejected[entry] += 1
            else:
                entries.append(entry)
        reasons = ", ".join(f"{count} {reason}" for reason, count in rejected.most_common())
        print(f"{name}: {len(entries)} kept" + (f", left out: {reasons}" if reasons else ""))
        return entries

    def _write_foreground(self, source: Source, candidate: Candidate, file: str) -> Entry | str:
        """Write one image and return its entry, or the reason why it is left out."""
        image = open_rgba(candidate.path)
        cut = "unreadable" if image is None else cut_foreground(image, self.args.min_side)
        if isinstance(cut, str):
            return cut
        if source.accepts and not source.accepts(image):
            return "not photographic"
        crop, truncated = cut
        pixels = np.asarray(crop)
        if self._is_duplicate("foregrounds", repr(crop.size).encode() + (pixels * (pixels[..., 3:] > 0)).tobytes()):
            return "duplicate"
        crop = limit_side(crop, self.args.max_side)
        file = f"{file}_{make_slug(candidate.name)}.webp"
        crop.save(self.folder / file, quality=92, method=4)  # WebP keeps alpha lossless unless told otherwise
        alpha = np.asarray(crop)[..., 3]
        return {
            "file": file,
            "name": candidate.name,
            "cls": candidate.cls,
            **source.record,
            "path": candidate.label,
            "orig_size": list(image.size),
            "size": list(crop.size),
            "soft": round(float(((alpha > 5) & (alpha < 250)).mean()), 4),
            "truncated_LTRB": truncated,
        }

    def _write_background(self, photo: tuple[Path, Path], file: str) -> Entry | str:
        """Write one photo of a folder and return its entry, or the reason why it is left out."""
        root, path = photo
        image = open_rgba(path)
        if image is None:
            return "unreadable"
        if min(image.size) < self.args.min_background or image.getextrema()[3][0] < 255:
            return "tiny or transparent"
        if self._is_duplicate("backgrounds", image.tobytes()):
            return "duplicate"
        image = limit_side(image.convert("RGB"), self.args.max_background)
        file = f"{file}_{make_slug(path.stem)}.webp"
        image.save(self.folder / file, quality=90, method=4)
        origin = f"{root.name}/{path.relative_to(root).as_posix()}"
        return {"file": file, "size": list(image.size), "origin": origin, "license": self.args.backgrounds_license}

    def _is_duplicate(self, kind: str, content: bytes) -> bool:
        """Return whether the same content was seen before, and remember it."""
        digest = hashlib.sha256(content).digest()
        known = digest in self.seen[kind]
        self.seen[kind].add(digest)
        return known

    def _write_index(self, name: str, entries: list[Entry]) -> int:
        """Write the entries to `<name>.json`, one per line; return their number."""
        text = "[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries) + "\n]\n"
        (self.folder / f"{name}.json").write_text(text, encoding="utf-8")
        return len(entries)


def check_output(out: Path) -> None:
    """Raise a TrainingSetError if `out` is anything but a new or empty folder or a training set."""
    if out.is_dir() and any(out.iterdir()) and not (out / "foregrounds.json").is_file():
        raise TrainingSetError(f"--out must be a new or empty folder or a training set, got {out}.")
    if out.exists() and not out.is_dir():
        raise TrainingSetError(f"--out must be a folder, got the file {out}.")


def open_sources(args: argparse.Namespace, work: Path) -> Iterator[Source]:
    """Yield the requested sources; downloads go to the folder `work`."""
    if args.tuxpaint is not None:
        yield read_tuxpaint(args.tuxpaint, work)
    if args.fluent is not None:
        yield read_fluent(args.fluent, args.emoji_names, work)
    if args.wesnoth is not None:
        yield read_wesnoth(args.wesnoth, work)
    for index, folder in enumerate(args.foregrounds):
        key = f"folder{index}" if len(args.foregrounds) > 1 else "folder"
        yield read_folder(folder, key, args.foregrounds_kind, args.foregrounds_license)


def build(args: argparse.Namespace) -> tuple[int, int]:
    """Write the set to a temporary folder, which then replaces `args.out`, and return the numbers of images.

    Raises:
        TrainingSetError: If a source is missing or unusable, or `args.out` is neither empty nor a training set.
    """
    out = args.out.resolve()
    check_output(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        new = Path(temporary) / "set"
        new.mkdir()
        writer = SetWriter(new, args)
        foregrounds = writer.write_foregrounds(list(open_sources(args, Path(temporary))))
        backgrounds = writer.write_backgrounds(args.backgrounds)
        if out.exists():
            out.replace(Path(temporary) / "old")
        new.replace(out)
    return foregrounds, backgrounds


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder to write")
    for name in ("tuxpaint", "wesnoth", "fluent"):
        add(f"--{name}", nargs="?", const="", metavar="PATH", help="download it, or use this package or folder")
    add("--emoji-names", default="", metavar="PATH", help="unicode-emoji-json, for --fluent (default: download it)")
    add("--foregrounds", type=Path, nargs="+", default=[], metavar="DIR", help="folders of images with alpha")
    add("--foregrounds-kind", default="photo", help="recorded for --foregrounds (default: photo)")
    add("--foregrounds-license", "--foregrounds-licence", default="not stated", help="recorded for --foregrounds")
    add("--backgrounds", type=Path, nargs="+", default=[], metavar="DIR", help="folders of photos")
    add("--backgrounds-license", "--backgrounds-licence", default="not stated", help="recorded for --backgrounds")
    add("--max-side", type=int, default=512, help="maximum longer side of a foreground (default: 512)")
    add("--min-side", type=int, default=64, help="minimum longer side of a foreground (default: 64)")
    add("--max-background", type=int, default=768, help="maximum longer side of a background (default: 768)")
    add("--min-background", type=int, default=256, help="minimum shorter side of a background (default: 256)")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.tuxpaint is None and args.wesnoth is None and args.fluent is None and not args.foregrounds:
        parser.error("no foregrounds: give at least one of --tuxpaint, --wesnoth, --fluent, --foregrounds")
    if not 1 <= args.min_side <= args.max_side or not 1 <= args.min_background <= args.max_background:
        parser.error("sizes must be at least 1, and the smallest no larger than the largest")
    try:
        foregrounds, backgrounds = build(args)
    except (TrainingSetError, OSError) as error:
        parser.exit(1, f"{error}\n")
    print(f"{foregrounds} foregrounds, {backgrounds} backgrounds in {args.out}")


if __name__ == "__main__":
    main()
