"""Layouts: benchmarks in the folders that their authors distribute."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.sources.image_folders import find_image, get_value, index_images, list_images, read_json
from ..data.sources.layouts import DIS_TEST_SPLITS, SOURCE_LAYOUTS, find_missing, read_dis, read_layout
from ..utils.files import join_inside
from .samples import EvaluationSample, Target


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


def _find_refmatte(folder: Path) -> list[str]:
    """Return the only split of RefMatte-RW100."""
    return ["RW100"] if (folder / "refmatte_rw100_label.json").is_file() and (folder / "mask").is_dir() else []


def _read_refmatte(folder: Path, split: str) -> list[EvaluationSample]:
    """Join the copies of a photo, of which image_all/ holds one per matte, by their image_name."""
    path = folder / "refmatte_rw100_label.json"
    labels = read_json(path)
    chosen_path = folder / "eval_index_expression.json"
    chosen = read_json(chosen_path) if chosen_path.is_file() else {}
    images = index_images(folder / "image_all") or index_images(folder / "image")
    photos: dict[str, list[Target]] = {}
    for matte in list_images(folder / "mask"):
        label = labels.get(matte.stem)
        photo = str(get_value(label, "image_name", path))
        expressions = get_value(label, "expressions", path)
        number = chosen.get(photo, 0)
        try:
            text = expressions[number] if isinstance(expressions, list) else expressions[str(number)]
        except (IndexError, KeyError, TypeError) as error:
            raise ValueError(f"data: {path}: {matte.stem} has no expression {number!r}.") from error
        photos.setdefault(photo, []).append(Target(matte.stem, matte, text=text))
    return [
        EvaluationSample(photo, find_image(folder / "image_all", targets[0].name, images), tuple(targets))
        for photo, targets in photos.items()
    ]


def _find_him2k(folder: Path) -> list[str]:
    """Return the splits of HIM2K."""
    return [
        name for name in ("natural", "comp") if (folder / "images" / name).is_dir() and (folder / "alphas").is_dir()
    ]


def _read_him2k(folder: Path, split: str) -> list[EvaluationSample]:
    """Read photos with a folder of instances each."""
    return [
        EvaluationSample(
            row["id"],
            Path(row["image"]),
            tuple(Target(f"{row['id']}/{Path(each).stem}", Path(each), cls="person") for each in row["alphas"]),
        )
        for row in read_layout("him2k", folder, split)
    ]


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
    return _make_samples(read_dis(folder if (folder / "im").is_dir() else folder / split))


def _find_p3m(folder: Path) -> list[str]:
    """Return the splits of P3M-10k."""
    return [split for split in SOURCE_LAYOUTS["p3m-10k"].splits if not find_missing("p3m-10k", folder, split)]


def _read_p3m(folder: Path, split: str) -> list[EvaluationSample]:
    """Read portraits with one matte each."""
    return _make_samples(read_layout("p3m-10k", folder, split))


def _make_samples(rows: list[dict[str, Any]]) -> list[EvaluationSample]:
    """Return the samples of rows with one matte each."""
    return [
        EvaluationSample(row["id"], Path(row["image"]), (Target(row["id"], Path(row["alpha"]), cls=row["name"]),))
        for row in rows
    ]


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
            EvaluationSample(matte.stem, find_image(folder / f"input_training_{split}", matte.stem, images), (target,))
        )
    return samples


def _find_indexed(*keys: str) -> Callable[[Path], list[str]]:
    """Return a function that finds folders of development photos: an index.json whose entries have these keys."""

    def find(folder: Path) -> list[str]:
        path = folder / "index.json"
        entries = read_json(path) if path.is_file() else None
        fits = isinstance(entries, list) and entries and isinstance(entries[0], dict) and entries[0].keys() >= set(keys)
        return [folder.name] if fits else []

    return find


def _read_dev_coco(folder: Path, split: str) -> list[EvaluationSample]:
    """Read photos with masks; only an object that is the only one of its class in the photo gets a class name."""
    path = folder / "index.json"
    samples = []
    for entry in read_json(path):
        targets = tuple(
            Target(
                Path(get_value(item, "mask", path)).stem,
                join_inside(folder, item["mask"], f"data: {path}: mask"),
                cls=get_value(item, "cls", path) if get_value(item, "unique", path) else None,
                box=tuple(get_value(item, "box", path)),
                point=tuple(get_value(item, "point", path)),
            )
            for item in get_value(entry, "objects", path)
        )
        if targets:
            image = join_inside(folder, get_value(entry, "image", path), f"data: {path}: image")
            samples.append(EvaluationSample(image.stem, image, targets))
    return samples


def _read_dev_alphamatting(folder: Path, split: str) -> list[EvaluationSample]:
    """Read photos with one matte each and a noun for it."""
    path = folder / "index.json"
    samples = []
    for entry in read_json(path):
        name = get_value(entry, "id", path)
        matte, photo = (join_inside(folder / part, f"{name}.png", f"data: {path}: id") for part in ("alpha", "input"))
        box, point = tuple(get_value(entry, "box", path)), tuple(get_value(entry, "point", path))
        target = Target(name, matte, cls=get_value(entry, "noun", path), box=box, point=point)
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
    "p3m-10k": Layout(
        "matting", _find_p3m, _read_p3m, "validation/P3M-500-P/blurred_image/ and validation/P3M-500-P/mask/"
    ),
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
