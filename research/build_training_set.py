"""Build a set of foregrounds with true alpha, and of backgrounds, for training on composites.

    python research/build_training_set.py --out DIR --tuxpaint --wesnoth --fluent --backgrounds PHOTOS
    python research/build_training_set.py --out DIR --foregrounds MY_RGBA_IMAGES --backgrounds PHOTOS

`--tuxpaint`, `--wesnoth` and `--fluent` fetch Debian's tuxpaint-stamps-default and wesnoth-1.16-data (`apt-get
download`) and npm's @lobehub/fluent-emoji-3d and unicode-emoji-json (`npm pack`). With a path each takes that .deb,
.tgz or folder (unpacked or installed, such as /usr/share/tuxpaint) instead. `--foregrounds` takes any folder of images
with an alpha channel: file name = name of the object, folder = its class.

DIR receives foregrounds.json, backgrounds.json and WebP files, all of it or nothing; a set that an earlier run wrote is
replaced. Every foreground is cropped to its alpha; images without a real one (all opaque, all empty), tiny ones and
copies are left out, and counted.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from fclm_hf.image_utils_fclm import IMAGE_SUFFIXES


MARGIN = 2  # transparent pixels kept around a crop, so that resampling it has something to fade into
RECORDED = ("source", "kind", "alpha", "licence", "origin")
SKIN_TONES = {"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"}
# one of a people, where it is not the folder's name without its s
PEOPLE = {"dwarves": "dwarf", "elves": "elf", "wolves": "wolf", "woses": "tree creature", "monsters": ""}


class TrainingSetError(RuntimeError):
    """A source is missing or unusable, or the output folder is not ours to replace."""


@dataclass
class Candidate:
    """An image that may become a foreground; `label` is its path as recorded."""

    path: Path
    label: str
    name: str
    cls: str


@dataclass
class Source:
    """Candidates of one origin with what is `RECORDED` of them all; `accepts` may refuse an RGBA image."""

    record: tuple[str, str, str, str, str]
    candidates: list[Candidate]
    accepts: Callable[[Image.Image], bool] | None = None


def run(command: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise TrainingSetError(
            f"{command[0]} is not installed; give the path of an unpacked folder instead."
        ) from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise TrainingSetError(f"`{' '.join(command)}` failed: {last}") from error
    return done.stdout


def obtain(package: str, given: str, work: Path, fetch: list[str]) -> tuple[Path, str]:
    """Folder with the package's files, and `package version` (the version where it is known).

    `given` is "" (fetch it), an archive (.deb, .tgz) or a folder.
    """
    path = Path(given).resolve() if given else None
    if path and path.is_dir():
        manifest = path / "package.json"
        return path, f"{package} {json.loads(manifest.read_text())['version'] if manifest.is_file() else ''}".strip()
    if path and not path.is_file():
        raise TrainingSetError(f"{given}: no such file or folder (for {package}).")
    root = Path(tempfile.mkdtemp(dir=work))
    if path is None:
        print(f"fetching {package}", file=sys.stderr)
        run([*fetch, package], root)
        path = next((file for file in root.iterdir() if file.suffix in (".deb", ".tgz")), None)
        if path is None:
            raise TrainingSetError(f"`{' '.join([*fetch, package])}` left no package behind.")
    files = root / "files"
    if path.suffix == ".deb":
        run(["dpkg-deb", "-x", str(path), str(files)], root)
        return files, f"{package} {run(['dpkg-deb', '-f', str(path), 'Version'], root).strip()}"
    try:
        with tarfile.open(path) as archive:
            archive.extractall(files, filter="data")
    except tarfile.TarError as error:
        raise TrainingSetError(f"{path} is neither a .deb nor a .tgz that can be unpacked: {error}") from error
    return obtain(package, str(files / "package"), work, fetch)


def find_folder(root: Path, name: str, package: str) -> Path:
    """The shallowest folder called `name`, or `root` itself if that is its name."""
    found = [root] if root.name == name else sorted(root.rglob(name), key=lambda path: len(path.parts))
    for path in found:
        if path.is_dir():
            return path
    raise TrainingSetError(f"{root} holds no folder {name!r}: is it {package}?")


def list_images(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def clean_name(text: str) -> str:
    """Lower-case words: no article, digits, punctuation."""
    words = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", text.lower().replace("’", "'"))
    while words and words[0] in ("a", "an", "the"):
        words = words[1:]
    return " ".join(words)


def is_photographic(image: Image.Image) -> bool:
    """Whether the opaque pixels show many different colours: drawings and icons repeat a few."""
    pixels = np.asarray(image)
    colours = pixels[pixels[..., 3] > 250][:, :3]
    return len(colours) > 0 and len(np.unique(colours, axis=0)) >= 0.07 * len(colours)


def read_tuxpaint(given: str, work: Path) -> Source:
    package = "tuxpaint-stamps-default"
    root, origin = obtain(package, given, work, ["apt-get", "download"])
    stamps = find_folder(root, "stamps", package)
    candidates = []
    for path in stamps.rglob("*.png"):
        label = path.relative_to(stamps)
        drawn = "cartoon" in label.parts or label.parts[0] == "symbols" or path.with_suffix(".svg").exists()
        # _mirror files show the same thing turned round, which training does by itself
        if drawn or path.stem.endswith("_mirror"):
            continue
        description = path.with_suffix(".txt")
        lines = description.read_text(encoding="utf-8", errors="replace").splitlines() if description.exists() else []
        name = clean_name(re.split(r"[.!?,;(]", lines[0])[0]) if lines else ""
        if not name or len(name.split()) > 5:
            name = clean_name(path.stem)
        candidates.append(Candidate(path, label.as_posix(), name, label.parent.as_posix()))
    record = ("tux", "photo", "true cut-out alpha", "GPL-2+", f"Debian {origin}")
    return Source(record, candidates, is_photographic)


def read_wesnoth(given: str, work: Path) -> Source:
    package = "wesnoth-1.16-data"
    root, origin = obtain(package, given, work, ["apt-get", "download"])
    candidates = []
    for portraits in sorted(path for path in [root, *root.rglob("portraits")] if path.name == "portraits"):
        for path in portraits.rglob("*.png"):
            label = path.relative_to(portraits)
            people = label.parts[0] if len(label.parts) > 1 else "humans"
            own = clean_name(path.stem.replace("female", "woman")).split()
            kin = PEOPLE.get(people, people.removesuffix("s")).split()
            name = " ".join([word for word in kin if word not in own] + own)
            candidates.append(Candidate(path, label.as_posix(), name, people))
    if not candidates:
        raise TrainingSetError(f"{root} holds no portraits: is it {package}?")
    licence = "GPL-2+ (some art also CC BY-SA 4.0)"
    return Source(("wesnoth", "painting", "true painted alpha", licence, f"Debian {origin}"), candidates)


def read_fluent(given: str, names: str, work: Path) -> Source:
    root, origin = obtain("@lobehub/fluent-emoji-3d", given, work, ["npm", "pack", "--silent"])
    assets = find_folder(root, "assets", "@lobehub/fluent-emoji-3d")
    names_root, names_origin = obtain("unicode-emoji-json", names, work, ["npm", "pack", "--silent"])
    table = names_root / "data-by-emoji.json"
    if not table.is_file():
        raise TrainingSetError(f"{names_root} holds no data-by-emoji.json: is it unicode-emoji-json?")
    emoji = json.loads(table.read_text(encoding="utf-8"))
    known = {"-".join(f"{ord(character):x}" for character in key): value for key, value in emoji.items()}
    candidates = []
    for path in assets.glob("*.webp"):
        entry = known.get(path.stem)
        # signs and flags are no objects; skin tones repeat a figure five times
        if entry is None or entry["group"] in ("Symbols", "Flags") or SKIN_TONES & set(path.stem.split("-")):
            continue
        name = clean_name(entry["name"]) or entry["name"]
        candidates.append(Candidate(path, path.stem, name, entry["group"]))
    origin = f"npm {origin}; names npm {names_origin}"
    return Source(("fluent", "3d-render", "true render alpha", "MIT", origin), candidates)


def read_folder(root: Path, key: str, kind: str, licence: str) -> Source:
    if not root.is_dir():
        raise TrainingSetError(f"{root} is not a folder.")
    candidates = []
    for path in list_images(root):
        label = path.relative_to(root)
        cls = label.parent.as_posix() if len(label.parts) > 1 else root.name
        candidates.append(Candidate(path, label.as_posix(), clean_name(path.stem.replace("_", " ")) or path.stem, cls))
    return Source((key, kind, "as found", licence, root.name), candidates)


def open_upright(path: Path, mode: str) -> Image.Image | None:
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert(mode)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def cap_side(image: Image.Image, longest: int) -> Image.Image:
    scale = longest / max(image.size)
    if scale >= 1:
        return image
    return image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)


def cut_foreground(image: Image.Image, min_side: int) -> tuple[Image.Image, list[bool]] | str:
    """Crop of an RGBA image and the borders (left, top, right, bottom) its object runs over; or why it is no use."""
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


def slug(text: str) -> str:
    return re.sub(r"[^\w]+", "-", text.lower()).strip("-")[:48] or "unnamed"


def write_foregrounds(source: Source, out: Path, args: argparse.Namespace, seen: set[str]) -> list[dict[str, Any]]:
    folder = f"fg_{source.record[0]}"
    (out / folder).mkdir(exist_ok=True)
    entries: list[dict[str, Any]] = []
    refused: Counter[str] = Counter()
    for candidate in sorted(source.candidates, key=lambda candidate: candidate.label):
        image = open_upright(candidate.path, "RGBA")
        if image is None:
            refused["unreadable"] += 1
            continue
        cut = cut_foreground(image, args.min_side)
        if isinstance(cut, str):
            refused[cut] += 1
            continue
        if source.accepts and not source.accepts(image):
            refused["not photographic"] += 1
            continue
        crop, truncated = cut
        pixels = np.asarray(crop)
        content = hashlib.sha256(repr(crop.size).encode() + (pixels * (pixels[..., 3:] > 0)).tobytes()).hexdigest()
        if content in seen:
            refused["copy"] += 1
            continue
        seen.add(content)
        crop = cap_side(crop, args.max_side)
        file = f"{folder}/{len(entries):04d}_{slug(candidate.name)}.webp"
        crop.save(out / file, quality=92, method=4)  # WebP keeps alpha lossless unless told otherwise
        alpha = np.asarray(crop)[..., 3]
        entries.append(
            {
                "file": file,
                "name": candidate.name,
                "cls": candidate.cls,
                **dict(zip(RECORDED, source.record, strict=True)),
                "path": candidate.label,
                "orig_size": list(image.size),
                "size": list(crop.size),
                "soft": round(float(((alpha > 5) & (alpha < 250)).mean()), 4),
                "truncated_LTRB": truncated,
            }
        )
    report(source.record[0], len(entries), refused)
    return entries


def write_backgrounds(folders: Iterable[Path], out: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    (out / "bg").mkdir(exist_ok=True)
    entries: list[dict[str, Any]] = []
    refused: Counter[str] = Counter()
    seen: set[str] = set()
    for root in folders:
        if not root.is_dir():
            raise TrainingSetError(f"{root} is not a folder.")
        for path in list_images(root):
            image = open_upright(path, "RGBA")
            if image is None or min(image.size) < args.min_background or image.getextrema()[3][0] < 255:
                refused["unreadable" if image is None else "tiny or transparent"] += 1
                continue
            content = hashlib.sha256(image.tobytes()).hexdigest()
            if content in seen:
                refused["copy"] += 1
                continue
            seen.add(content)
            image = cap_side(image.convert("RGB"), args.max_background)
            file = f"bg/{len(entries):04d}_{slug(path.stem)}.webp"
            image.save(out / file, quality=90, method=4)
            origin = f"{root.name}/{path.relative_to(root).as_posix()}"
            entries.append(
                {"file": file, "size": list(image.size), "origin": origin, "licence": args.backgrounds_licence}
            )
    report("backgrounds", len(entries), refused)
    return entries


def report(name: str, kept: int, refused: Counter[str]) -> None:
    reasons = ", ".join(f"{count} {reason}" for reason, count in refused.most_common())
    print(f"{name}: {kept} kept" + (f", left out: {reasons}" if reasons else ""))


def check_output(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()) and not (out / "foregrounds.json").is_file():
        raise TrainingSetError(f"{out} holds something else than a training set; choose a new or empty folder.")
    if out.exists() and not out.is_dir():
        raise TrainingSetError(f"{out} is not a folder.")


def replace_folder(new: Path, out: Path) -> None:
    """Put `new` in the place of `out`, which goes where `new` was."""
    if out.exists():
        out.replace(new.with_name("old"))
    new.replace(out)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder to write")
    for name in ("tuxpaint", "wesnoth", "fluent"):
        add(f"--{name}", nargs="?", const="", metavar="PATH", help="fetch it, or take this package or folder")
    add("--emoji-names", default="", metavar="PATH", help="unicode-emoji-json, for --fluent (default: fetch it)")
    add("--foregrounds", type=Path, nargs="+", default=[], metavar="DIR", help="folders of images with alpha")
    add("--foregrounds-kind", default="photo", help="recorded for --foregrounds (default: photo)")
    add("--foregrounds-licence", default="not stated", help="recorded for --foregrounds")
    add("--backgrounds", type=Path, nargs="+", default=[], metavar="DIR", help="folders of photos")
    add("--backgrounds-licence", default="not stated", help="recorded for --backgrounds")
    add("--max-side", type=int, default=512, help="longer side of a foreground, at most (default: 512)")
    add("--min-side", type=int, default=64, help="longer side of a foreground, at least (default: 64)")
    add("--max-background", type=int, default=768, help="longer side of a background, at most (default: 768)")
    add("--min-background", type=int, default=256, help="shorter side of a background, at least (default: 256)")
    return parser


def main(argv: list[str] | None = None) -> None:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.tuxpaint is None and args.wesnoth is None and args.fluent is None and not args.foregrounds:
        parser.error("no foregrounds: give at least one of --tuxpaint, --wesnoth, --fluent, --foregrounds")
    if not 1 <= args.min_side <= args.max_side or not 1 <= args.min_background <= args.max_background:
        parser.error("sizes must be at least 1, and the smallest no larger than the largest")
    out = args.out.resolve()
    try:
        check_output(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
            work, new = Path(temporary), Path(temporary) / "set"
            new.mkdir()
            sources = []
            if args.tuxpaint is not None:
                sources.append(read_tuxpaint(args.tuxpaint, work))
            if args.fluent is not None:
                sources.append(read_fluent(args.fluent, args.emoji_names, work))
            if args.wesnoth is not None:
                sources.append(read_wesnoth(args.wesnoth, work))
            for index, folder in enumerate(args.foregrounds):
                key = f"folder{index}" if len(args.foregrounds) > 1 else "folder"
                sources.append(read_folder(folder, key, args.foregrounds_kind, args.foregrounds_licence))
            seen: set[str] = set()
            foregrounds = [entry for source in sources for entry in write_foregrounds(source, new, args, seen)]
            if not foregrounds:
                raise TrainingSetError("no usable foreground was found: nothing was written.")
            backgrounds = write_backgrounds(args.backgrounds, new, args)
            for name, entries in (("foregrounds", foregrounds), ("backgrounds", backgrounds)):
                text = "[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries) + "\n]\n"
                (new / f"{name}.json").write_text(text, encoding="utf-8")
            replace_folder(new, out)
    except (TrainingSetError, OSError) as error:
        parser.exit(1, f"{error}\n")
    print(f"{len(foregrounds)} foregrounds, {len(backgrounds)} backgrounds in {args.out}")


if __name__ == "__main__":
    main()
