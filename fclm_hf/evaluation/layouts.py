"""Benchmarks as their authors lay them out on disk."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .samples import Sample, Target


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
DIS_TEST_SPLITS = ("DIS-TE1", "DIS-TE2", "DIS-TE3", "DIS-TE4")


@dataclass(frozen=True)
class Benchmark:
    """A data set that was found: its layout's name, the protocol that measures it, and its samples in a fixed order."""

    layout: str
    protocol: str
    samples: Iterable[Sample]
    length: int | None = None


@dataclass(frozen=True)
class Layout:
    """Attributes:
    protocol: name of the protocol that measures it.
    splits: folder to the splits in it; none for another layout.
    read: folder and split to samples.
    looks_like: for error messages.
    """

    protocol: str
    splits: Callable[[Path], list[str]]
    read: Callable[[Path, str], list[Sample]]
    looks_like: str


def open_folder(folder: Path, layout: str = "auto", split: str | None = None) -> Benchmark | None:
    """The benchmark in a folder, or None if no layout fits and `layout` is "auto".

    Raises:
        ValueError: the folder is not of the layout that was asked for, or the split is missing, unknown or ambiguous.
    """
    names = list(LAYOUTS) if layout == "auto" else [layout]
    for name in names:
        found = LAYOUTS[name].splits(folder)
        if found:
            samples = LAYOUTS[name].read(folder, _choose_split(name, found, split))
            if not samples:
                raise ValueError(f"data: {folder} has the layout {name}, but no image with a matte in it.")
            return Benchmark(name, LAYOUTS[name].protocol, samples, len(samples))
    if layout != "auto":
        raise ValueError(f"data: {folder} has not the layout {layout}: {LAYOUTS[layout].looks_like}.")
    return None


def _choose_split(layout: str, found: list[str], split: str | None) -> str:
    if split is None and len(found) == 1:
        return found[0]
    if split not in found:
        given = "is needed" if split is None else f"is {split!r}"
        raise ValueError(f"split {given}, accepted for this {layout} folder are {', '.join(map(repr, found))}.")
    return split


def list_images(folder: Path, pattern: str = "*") -> list[Path]:
    """Images in a folder, sorted; none where there is no such folder."""
    return sorted(
        path
        for path in folder.glob(pattern)
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def index_images(folder: Path, pattern: str = "*") -> dict[str, Path]:
    """Images by their paths in `folder`, without suffix.

    Raises ValueError when two have one name.
    """
    images: dict[str, Path] = {}
    for path in list_images(folder, pattern):
        name = path.relative_to(folder).as_posix().removesuffix(path.suffix)
        if name in images:
            raise ValueError(f"{folder} holds both {images[name].name} and {path.name}: which one counts is not clear.")
        images[name] = path
    return images


def _match(folder: Path, stem: str, images: dict[str, Path]) -> Path:
    if stem not in images:
        raise ValueError(f"data: {folder} has no image named {stem}.")
    return images[stem]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"data: {path} cannot be read as JSON: {error}") from error


def _get(entry: Any, key: str, path: Path) -> Any:
    if not isinstance(entry, dict) or key not in entry:
        raise ValueError(f"data: {path}: {json.dumps(entry)[:120]} lacks {key!r}.")
    return entry[key]


def _split_refmatte(folder: Path) -> list[str]:
    return ["RW100"] if (folder / "refmatte_rw100_label.json").is_file() and (folder / "mask").is_dir() else []


def _read_refmatte(folder: Path, split: str) -> list[Sample]:
    """One file in image_all/ per matte in mask/; photos that appear several times are joined by their image_name."""
    path = folder / "refmatte_rw100_label.json"
    labels = _read_json(path)
    chosen_path = folder / "eval_index_expression.json"
    chosen = _read_json(chosen_path) if chosen_path.is_file() else {}
    images = index_images(folder / "image_all") or index_images(folder / "image")
    photos: dict[str, list[Target]] = {}
    for matte in list_images(folder / "mask"):
        label = labels.get(matte.stem)
        photo = str(_get(label, "image_name", path))
        expressions = _get(label, "expressions", path)
        number = chosen.get(photo, 0)
        try:
            text = expressions[number] if isinstance(expressions, list) else expressions[str(number)]
        except (IndexError, KeyError, TypeError) as error:
            raise ValueError(f"data: {path}: {matte.stem} has no expression {number!r}.") from error
        photos.setdefault(photo, []).append(Target(matte.stem, matte, text=text))
    return [
        Sample(photo, _match(folder / "image_all", targets[0].name, images), tuple(targets))
        for photo, targets in photos.items()
    ]


def _split_him2k(folder: Path) -> list[str]:
    return [
        name for name in ("natural", "comp") if (folder / "images" / name).is_dir() and (folder / "alphas").is_dir()
    ]


def _read_him2k(folder: Path, split: str) -> list[Sample]:
    root = folder / "images" / split
    images = index_images(root)
    photos: dict[str, list[Target]] = {}
    for name, matte in index_images(folder / "alphas" / split, "*/*").items():
        photos.setdefault(matte.parent.name, []).append(Target(name, matte, cls="person"))
    return [Sample(photo, _match(root, photo, images), tuple(targets)) for photo, targets in photos.items()]


def _split_dis5k(folder: Path) -> list[str]:
    if (folder / "im").is_dir() and (folder / "gt").is_dir():
        return [folder.name]
    found = [name for name in ("DIS-VD", *DIS_TEST_SPLITS, "DIS-TR") if (folder / name / "im").is_dir()]
    return [*found, "DIS-TE"] if set(DIS_TEST_SPLITS) <= set(found) else found


def _read_dis5k(folder: Path, split: str) -> list[Sample]:
    if split == "DIS-TE":
        return [sample for part in DIS_TEST_SPLITS for sample in _read_dis5k(folder, part)]
    root = folder if (folder / "im").is_dir() else folder / split
    images = index_images(root / "im")
    samples = []
    for matte in list_images(root / "gt"):
        target = Target(matte.stem, matte, cls=_read_dis_class(matte.stem))
        samples.append(Sample(matte.stem, _match(root / "im", matte.stem, images), (target,)))
    return samples


def _read_dis_class(stem: str) -> str | None:
    """ "12#Graphics#4#TrafficSign#8245751856_821be14f86_o" holds "traffic sign"."""
    fields = stem.split("#")
    if len(fields) < 5:
        return None
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[_\-]+", " ", fields[3]).lower()


def _split_alphamatting(folder: Path) -> list[str]:
    return [name for name in ("lowres", "highres") if (folder / f"gt_training_{name}").is_dir()]


def _read_alphamatting(folder: Path, split: str) -> list[Sample]:
    images = index_images(folder / f"input_training_{split}")
    trimaps = index_images(folder / f"trimap_training_{split}" / "Trimap1")
    samples = []
    for matte in list_images(folder / f"gt_training_{split}"):
        target = Target(matte.stem, matte, trimap=trimaps.get(matte.stem))
        samples.append(Sample(matte.stem, _match(folder / f"input_training_{split}", matte.stem, images), (target,)))
    return samples


def _split_indexed(*keys: str) -> Callable[[Path], list[str]]:
    """Folders of the development photos: an index.json whose entries have certain keys."""

    def find(folder: Path) -> list[str]:
        path = folder / "index.json"
        entries = _read_json(path) if path.is_file() else None
        fits = isinstance(entries, list) and entries and isinstance(entries[0], dict) and entries[0].keys() >= set(keys)
        return [folder.name] if fits else []

    return find


def _read_dev_coco(folder: Path, split: str) -> list[Sample]:
    """A class name serves as a prompt only for an object that is alone of its class in the photo."""
    path = folder / "index.json"
    samples = []
    for entry in _read_json(path):
        targets = tuple(
            Target(
                Path(_get(item, "mask", path)).stem,
                folder / item["mask"],
                cls=_get(item, "cls", path) if _get(item, "unique", path) else None,
                box=tuple(_get(item, "box", path)),
                point=tuple(_get(item, "point", path)),
            )
            for item in _get(entry, "objects", path)
        )
        if targets:
            image = folder / _get(entry, "image", path)
            samples.append(Sample(image.stem, image, targets))
    return samples


def _read_dev_alphamatting(folder: Path, split: str) -> list[Sample]:
    path = folder / "index.json"
    samples = []
    for entry in _read_json(path):
        name = _get(entry, "id", path)
        box, point = tuple(_get(entry, "box", path)), tuple(_get(entry, "point", path))
        target = Target(name, folder / "alpha" / f"{name}.png", cls=_get(entry, "noun", path), box=box, point=point)
        samples.append(Sample(name, folder / "input" / f"{name}.png", (target,)))
    return samples


def iterate_limited(samples: Iterable[Sample], limit: int | None) -> Iterator[Sample]:
    for index, sample in enumerate(samples):
        if index == limit:
            return
        yield sample


LAYOUTS = {
    "refmatte-rw100": Layout(
        "matting", _split_refmatte, _read_refmatte, "it needs image_all/, mask/ and refmatte_rw100_label.json"
    ),
    "him2k": Layout("instances", _split_him2k, _read_him2k, "it needs images/natural/ and alphas/natural/<photo>/"),
    "dis5k": Layout("dichotomous", _split_dis5k, _read_dis5k, "it needs DIS-VD/im/ and DIS-VD/gt/, or im/ and gt/"),
    "alphamatting": Layout(
        "matting", _split_alphamatting, _read_alphamatting, "it needs input_training_lowres/ and gt_training_lowres/"
    ),
    "dev-coco": Layout(
        "masks", _split_indexed("image", "objects"), _read_dev_coco, "it needs an index.json with image and objects"
    ),
    "dev-alphamatting": Layout(
        "matting", _split_indexed("id", "noun"), _read_dev_alphamatting, "it needs an index.json with id and noun"
    ),
}
