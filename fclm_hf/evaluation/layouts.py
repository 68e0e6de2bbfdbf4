"""Layouts: benchmarks in the folders that their authors distribute."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..image_utils_fclm import IMAGE_SUFFIXES
from ..utils.files import join_inside
from .samples import EvaluationSample, Target


DIS_TEST_SPLITS = ("DIS-TE1", "DIS-TE2", "DIS-TE3", "DIS-TE4")


@dataclass(frozen=True)
class Benchmark:
    """A data set that was opened.

    Attributes:
        layout: Name of its layout.
        protocol: Name of the protocol that measures it.
        samples: Its samples in a fixed order; can be iterated several times.
        length: Number of samples, if known.
    """

    layout: str
    protocol: str
    samples: Iterable[EvaluationSample]
    length: int | None = None


@dataclass(frozen=True)
class Layout:
    """Layout of a benchmark on disk.

    Attributes:
        protocol: Name of the protocol that measures it.
        find_splits: Function that lists the splits in a folder; none if the folder has another layout.
        read: Function that reads the samples of a split in a folder.
        requirements: Files and folders that the layout requires, for errors.
    """

    protocol: str
    find_splits: Callable[[Path], list[str]]
    read: Callable[[Path, str], list[EvaluationSample]]
    requirements: str


def open_folder(folder: Path, layout: str = "auto", split: str | None = None) -> Benchmark | None:
    """Open the benchmark in a folder.

    Args:
        folder: The folder.
        layout: One of LAYOUTS, or "auto" for the first one that matches.
        split: Split of the benchmark; may be omitted if the folder has only one.

    Returns:
        The benchmark; None if `layout` is "auto" and no layout matches.

    Raises:
        ValueError: If the folder does not match the layout, or the split is missing, unknown or ambiguous.
    """
    names = list(LAYOUTS) if layout == "auto" else [layout]
    for name in names:
        found = LAYOUTS[name].find_splits(folder)
        if found:
            samples = LAYOUTS[name].read(folder, _choose_split(name, found, split))
            if not samples:
                raise ValueError(f"data: {folder} matches layout {name}, but has no image with a matte.")
            return Benchmark(name, LAYOUTS[name].protocol, samples, len(samples))
    if layout != "auto":
        raise ValueError(f"data: {folder} does not match layout {layout}, which needs {LAYOUTS[layout].requirements}.")
    return None


def _choose_split(layout: str, found: list[str], split: str | None) -> str:
    """Return the requested split, or the only one."""
    if split is None and len(found) == 1:
        return found[0]
    if split not in found:
        raise ValueError(f"split must be one of {', '.join(found)} for this {layout} folder, got {split!r}.")
    return split


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


def _match(folder: Path, stem: str, images: dict[str, Path]) -> Path:
    """Return the image with this name, or raise a ValueError."""
    if stem not in images:
        raise ValueError(f"data: {folder} has no image named {stem}.")
    return images[stem]


def _read_json(path: Path) -> Any:
    """Read a JSON file, or raise a ValueError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"data: {path} cannot be read as JSON: {error}") from error


def _get(entry: Any, key: str, path: Path) -> Any:
    """Return the value of a key that an entry of a JSON file must have."""
    if not isinstance(entry, dict) or key not in entry:
        raise ValueError(f"data: {path}: {json.dumps(entry)[:120]} lacks {key!r}.")
    return entry[key]


def _find_refmatte(folder: Path) -> list[str]:
    """Return the only split of RefMatte-RW100."""
    return ["RW100"] if (folder / "refmatte_rw100_label.json").is_file() and (folder / "mask").is_dir() else []


def _read_refmatte(folder: Path, split: str) -> list[EvaluationSample]:
    """Join the copies of a photo, of which image_all/ holds one per matte, by their image_name."""
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
        EvaluationSample(photo, _match(folder / "image_all", targets[0].name, images), tuple(targets))
        for photo, targets in photos.items()
    ]


def _find_him2k(folder: Path) -> list[str]:
    """Return the splits of HIM2K."""
    return [
        name for name in ("natural", "comp") if (folder / "images" / name).is_dir() and (folder / "alphas").is_dir()
    ]


def _read_him2k(folder: Path, split: str) -> list[EvaluationSample]:
    """Read photos with a folder of instances each."""
    root = folder / "images" / split
    images = index_images(root)
    photos: dict[str, list[Target]] = {}
    for name, matte in index_images(folder / "alphas" / split, "*/*").items():
        photos.setdefault(matte.parent.name, []).append(Target(name, matte, cls="person"))
    return [EvaluationSample(photo, _match(root, photo, images), tuple(targets)) for photo, targets in photos.items()]


def _find_dis5k(folder: Path) -> list[str]:
    """Return the splits of DIS5K, with DIS-TE for all four test splits."""
    if (folder / "im").is_dir() and (folder / "gt").is_dir():
        return [folder.name]
    found = [name for name in ("DIS-VD", *DIS_TEST_SPLITS, "DIS-TR") if (folder / name / "im").is_dir()]
    return [*found, "DIS-TE"] if set(DIS_TEST_SPLITS) <= set(found) else found


def _read_dis5k(folder: Path, split: str) -> list[EvaluationSample]:
    """Read photos with one mask each, named by the class in the file name."""
    if split == "DIS-TE":
        return [sample for part in DIS_TEST_SPLITS for sample in _read_dis5k(folder, part)]
    root = folder if (folder / "im").is_dir() else folder / split
    images = index_images(root / "im")
    samples = []
    for matte in list_images(root / "gt"):
        target = Target(matte.stem, matte, cls=_read_dis_class(matte.stem))
        samples.append(EvaluationSample(matte.stem, _match(root / "im", matte.stem, images), (target,)))
    return samples


def _read_dis_class(stem: str) -> str | None:
    """Return the class name in a file name: "traffic sign" for "12#Graphics#4#TrafficSign#8245751856_821be14f86_o"."""
    fields = stem.split("#")
    if len(fields) < 5:
        return None
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[_\-]+", " ", fields[3]).lower()


def _find_alphamatting(folder: Path) -> list[str]:
    """Return the resolutions of alphamatting.com."""
    return [name for name in ("lowres", "highres") if (folder / f"gt_training_{name}").is_dir()]


def _read_alphamatting(folder: Path, split: str) -> list[EvaluationSample]:
    """Read photos with one matte and trimap each."""
    images = index_images(folder / f"input_training_{split}")
    trimaps = index_images(folder / f"trimap_training_{split}" / "Trimap1")
    samples = []
    for matte in list_images(folder / f"gt_training_{split}"):
        target = Target(matte.stem, matte, trimap=trimaps.get(matte.stem))
        samples.append(
            EvaluationSample(matte.stem, _match(folder / f"input_training_{split}", matte.stem, images), (target,))
        )
    return samples


def _find_indexed(*keys: str) -> Callable[[Path], list[str]]:
    """Return a function that finds folders of development photos: an index.json whose entries have these keys."""

    def find(folder: Path) -> list[str]:
        path = folder / "index.json"
        entries = _read_json(path) if path.is_file() else None
        fits = isinstance(entries, list) and entries and isinstance(entries[0], dict) and entries[0].keys() >= set(keys)
        return [folder.name] if fits else []

    return find


def _read_dev_coco(folder: Path, split: str) -> list[EvaluationSample]:
    """Read photos with masks; only an object that is the only one of its class in the photo gets a class name."""
    path = folder / "index.json"
    samples = []
    for entry in _read_json(path):
        targets = tuple(
            Target(
                Path(_get(item, "mask", path)).stem,
                join_inside(folder, item["mask"], f"data: {path}: mask"),
                cls=_get(item, "cls", path) if _get(item, "unique", path) else None,
                box=tuple(_get(item, "box", path)),
                point=tuple(_get(item, "point", path)),
            )
            for item in _get(entry, "objects", path)
        )
        if targets:
            image = join_inside(folder, _get(entry, "image", path), f"data: {path}: image")
            samples.append(EvaluationSample(image.stem, image, targets))
    return samples


def _read_dev_alphamatting(folder: Path, split: str) -> list[EvaluationSample]:
    """Read photos with one matte each and a noun for it."""
    path = folder / "index.json"
    samples = []
    for entry in _read_json(path):
        name = _get(entry, "id", path)
        matte, photo = (join_inside(folder / part, f"{name}.png", f"data: {path}: id") for part in ("alpha", "input"))
        box, point = tuple(_get(entry, "box", path)), tuple(_get(entry, "point", path))
        target = Target(name, matte, cls=_get(entry, "noun", path), box=box, point=point)
        samples.append(EvaluationSample(name, photo, (target,)))
    return samples


def iterate_limited(samples: Iterable[EvaluationSample], limit: int | None) -> Iterator[EvaluationSample]:
    """Yield at most `limit` samples, without reading the next one."""
    for index, sample in enumerate(samples):
        if index == limit:
            return
        yield sample


LAYOUTS = {
    "refmatte-rw100": Layout(
        "matting", _find_refmatte, _read_refmatte, "image_all/, mask/ and refmatte_rw100_label.json"
    ),
    "him2k": Layout("instances", _find_him2k, _read_him2k, "images/natural/ and alphas/natural/<photo>/"),
    "dis5k": Layout("dichotomous", _find_dis5k, _read_dis5k, "DIS-VD/im/ and DIS-VD/gt/, or im/ and gt/"),
    "alphamatting": Layout(
        "matting", _find_alphamatting, _read_alphamatting, "input_training_lowres/ and gt_training_lowres/"
    ),
    "dev-coco": Layout(
        "masks", _find_indexed("image", "objects"), _read_dev_coco, "an index.json with image and objects"
    ),
    "dev-alphamatting": Layout(
        "matting", _find_indexed("id", "noun"), _read_dev_alphamatting, "an index.json with id and noun"
    ),
}
