"""Foreground sources of build_training_set.py: packages of Debian and npm, and folders of images with alpha.

Each `read_...` function returns the candidates of one source; packages that are not given as a path are downloaded.
"""

import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fclm_hf.image_utils_fclm import IMAGE_SUFFIXES


SKIN_TONES = {"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"}
# folder name -> irregular singular
PEOPLE = {"dwarves": "dwarf", "elves": "elf", "wolves": "wolf", "woses": "tree creature", "monsters": ""}


class TrainingSetError(RuntimeError):
    """Raised when a source is missing or unusable, or the output folder must not be replaced."""


@dataclass
class Candidate:
    """An image that may become a foreground.

    Attributes:
        path: The file.
        label: Its path in the index.
        name: Name of the object.
        cls: Class of the object.
    """

    path: Path
    label: str
    name: str
    cls: str


@dataclass
class Source:
    """Candidates of one origin.

    Attributes:
        record: Fields of the index that they share: source, kind, alpha, license and origin.
        candidates: The images.
        accepts: Function that tells whether an RGBA image may be used. Default: all may.
    """

    record: dict[str, str]
    candidates: list[Candidate]
    accepts: Callable[[Image.Image], bool] | None = None


def make_record(source: str, kind: str, alpha: str, license: str, origin: str) -> dict[str, str]:
    """Return the fields of the index that all images of a source share."""
    return {"source": source, "kind": kind, "alpha": alpha, "license": license, "origin": origin}


def run(command: list[str], folder: Path) -> str:
    """Run a command in a folder and return its output.

    Raises:
        TrainingSetError: If the program is missing or fails.
    """
    try:
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)  # noqa: S603 our own words
    except FileNotFoundError as error:
        raise TrainingSetError(
            f"{command[0]} is not installed; give the path of an unpacked folder instead."
        ) from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise TrainingSetError(f"`{' '.join(command)}` failed: {last}") from error
    return done.stdout


def find_package(package: str, given: str, work: Path, fetch: list[str]) -> tuple[Path, str]:
    """Return the folder with the files of a package, and its name and, where known, version.

    Args:
        package: Its name.
        given: An archive (.deb, .tgz) or folder, or "" to download it.
        work: Folder for downloaded and unpacked files.
        fetch: The command that downloads a package into the current folder, without the name.

    Raises:
        TrainingSetError: If there is no such package.
    """
    path = Path(given).resolve() if given else None
    if path and path.is_dir():
        manifest = path / "package.json"
        return path, f"{package} {json.loads(manifest.read_text())['version'] if manifest.is_file() else ''}".strip()
    if path and not path.is_file():
        raise TrainingSetError(f"{given} does not exist (for {package}).")
    root = Path(tempfile.mkdtemp(dir=work))
    if path is None:
        print(f"downloading {package}", file=sys.stderr)
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
    return find_package(package, str(files / "package"), work, fetch)


def find_folder(root: Path, name: str, package: str) -> Path:
    """Return the shallowest folder called `name`, or `root` itself if that is its name."""
    found = [root] if root.name == name else sorted(root.rglob(name), key=lambda path: len(path.parts))
    for path in found:
        if path.is_dir():
            return path
    raise TrainingSetError(f"{root} holds no folder {name!r}: is it {package}?")


def list_images(root: Path) -> list[Path]:
    """Return all images below a folder, sorted.

    Raises:
        TrainingSetError: If it is not a folder.
    """
    if not root.is_dir():
        raise TrainingSetError(f"{root} is not a folder.")
    return sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def clean_name(text: str) -> str:
    """Return the words in lower case, without article, digits and punctuation."""
    words = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    while words and words[0] in ("a", "an", "the"):
        words = words[1:]
    return " ".join(words)


def is_photographic(image: Image.Image) -> bool:
    """Return whether the opaque pixels show many different colors: drawings and icons repeat a few."""
    pixels = np.asarray(image)
    colors = pixels[pixels[..., 3] > 250][:, :3]
    return len(colors) > 0 and len(np.unique(colors, axis=0)) >= 0.07 * len(colors)


def read_tuxpaint(given: str, work: Path) -> Source:
    """Return the photographic stamps of Tux Paint, named by their descriptions."""
    package = "tuxpaint-stamps-default"
    root, origin = find_package(package, given, work, ["apt-get", "download"])
    stamps = find_folder(root, "stamps", package)
    candidates = []
    for path in stamps.rglob("*.png"):
        label = path.relative_to(stamps)
        drawn = "cartoon" in label.parts or label.parts[0] == "symbols" or path.with_suffix(".svg").exists()
        # _mirror files show the same thing mirrored, which training does by itself
        if drawn or path.stem.endswith("_mirror"):
            continue
        description = path.with_suffix(".txt")
        lines = description.read_text(encoding="utf-8", errors="replace").splitlines() if description.exists() else []
        name = clean_name(re.split(r"[.!?,;(]", lines[0])[0]) if lines else ""
        if not name or len(name.split()) > 5:
            name = clean_name(path.stem)
        candidates.append(Candidate(path, label.as_posix(), name, label.parent.as_posix()))
    record = make_record("tux", "photo", "true cut-out alpha", "GPL-2+", f"Debian {origin}")
    return Source(record, candidates, is_photographic)


def read_wesnoth(given: str, work: Path) -> Source:
    """Return the portraits of Battle for Wesnoth, named by their files and peoples."""
    package = "wesnoth-1.16-data"
    root, origin = find_package(package, given, work, ["apt-get", "download"])
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
    terms = "GPL-2+ (some art also CC BY-SA 4.0)"
    return Source(make_record("wesnoth", "painting", "true painted alpha", terms, f"Debian {origin}"), candidates)


def read_fluent(given: str, names: str, work: Path) -> Source:
    """Return Microsoft's 3D emoji of things and people, named as in Unicode (`names`: the package with the names)."""
    root, origin = find_package("@lobehub/fluent-emoji-3d", given, work, ["npm", "pack", "--silent"])
    assets = find_folder(root, "assets", "@lobehub/fluent-emoji-3d")
    names_root, names_origin = find_package("unicode-emoji-json", names, work, ["npm", "pack", "--silent"])
    table = names_root / "data-by-emoji.json"
    if not table.is_file():
        raise TrainingSetError(f"{names_root} holds no data-by-emoji.json: is it unicode-emoji-json?")
    emoji = json.loads(table.read_text(encoding="utf-8"))
    known = {"-".join(f"{ord(character):x}" for character in key): value for key, value in emoji.items()}
    candidates = []
    for path in assets.glob("*.webp"):
        entry = known.get(path.stem)
        # symbols and flags are not objects; skin tones repeat a figure five times
        if entry is None or entry["group"] in ("Symbols", "Flags") or SKIN_TONES & set(path.stem.split("-")):
            continue
        name = clean_name(entry["name"]) or entry["name"]
        candidates.append(Candidate(path, path.stem, name, entry["group"]))
    origin = f"npm {origin}; names npm {names_origin}"
    return Source(make_record("fluent", "3d-render", "true render alpha", "MIT", origin), candidates)


def read_folder(root: Path, key: str, kind: str, terms: str) -> Source:
    """Return the images of a folder, named after their files, with the folder they are in as the class."""
    candidates = []
    for path in list_images(root):
        label = path.relative_to(root)
        cls = label.parent.as_posix() if len(label.parts) > 1 else root.name
        candidates.append(Candidate(path, label.as_posix(), clean_name(path.stem.replace("_", " ")) or path.stem, cls))
    return Source(make_record(key, kind, "as found", terms, root.name), candidates)
