"""Layouts: data sets in the folders that their authors distribute, as rows for training and for testing."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .image_folders import find_image, get_value, index_images, list_images, read_json


DIS_TEST_SPLITS = ("DIS-TE1", "DIS-TE2", "DIS-TE3", "DIS-TE4")
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Split:
    """Where a split lies in the folder of its data set.

    Attributes:
        folders: Subfolders in which it may be; the first is where the authors' archive has it.
        needs: Files and folders in that subfolder.
        read: Function that takes the subfolder and returns the rows.
    """

    folders: tuple[str, ...]
    needs: tuple[str, ...]
    read: Callable[[Path], Rows]

    def find(self, root: Path) -> Path:
        """Return the first subfolder that has all that is needed, or else the usual one."""
        homes = [root / folder for folder in self.folders]
        return next((home for home in homes if not self.list_missing(home)), homes[0])

    def list_missing(self, home: Path) -> list[Path]:
        """Return the files and folders that a subfolder lacks."""
        return [path for path in map(home.joinpath, self.needs) if not path.exists()]


@dataclass(frozen=True)
class SourceLayout:
    """Layout of a data set on disk.

    Attributes:
        kind: Kind of a source with its rows, see [`~fclm_hf.data.SourceConfig`].
        splits: Its splits by name; a tuple of names stands for all of these splits together.
    """

    kind: str
    splits: dict[str, Split | tuple[str, ...]]

    def list_parts(self, name: str) -> list[Split]:
        """Return the splits that make up a split.

        Raises:
            ValueError: If there is no split of this name.
        """
        if name not in self.splits:
            raise ValueError(f"split must be one of {', '.join(self.splits)} for this layout, got {name!r}.")
        split = self.splits[name]
        return [split] if isinstance(split, Split) else [part for each in split for part in self.list_parts(each)]


def find_missing(layout: str, root: Path, split: str) -> list[Path]:
    """Return the files and folders of a split that a data set lacks.

    Args:
        layout: One of SOURCE_LAYOUTS.
        root: Folder of the data set.
        split: Name of the split.

    Raises:
        ValueError: If the layout has no such split.
    """
    parts = SOURCE_LAYOUTS[layout].list_parts(split)
    return [path for part in parts for path in part.list_missing(part.find(root))]


def read_layout(layout: str, root: Path, split: str) -> Rows:
    """Return the rows of a split, with the absolute paths of images and mattes as text, and roles as columns.

    Args:
        layout: One of SOURCE_LAYOUTS.
        root: Folder of the data set.
        split: Name of the split.

    Raises:
        ValueError: If the layout has no such split, or the folder lacks a part of it, an image of a matte, or all rows.
    """
    if missing := find_missing(layout, root, split):
        raise ValueError(f"{root} does not match layout {layout}, it lacks {', '.join(map(str, missing))}.")
    rows = [row for part in SOURCE_LAYOUTS[layout].list_parts(split) for row in part.read(part.find(root).absolute())]
    if not rows:
        raise ValueError(f"{root} matches layout {layout}, but has no image in split {split}.")
    return rows


def read_dis_class(stem: str) -> str | None:
    """Return the class name in a file name: "traffic sign" for "12#Graphics#4#TrafficSign#8245751856_821be14f86_o"."""
    fields = stem.split("#")
    if len(fields) < 5:
        return None
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[_\-]+", " ", fields[3]).lower()


def read_dis(home: Path) -> Rows:
    """Read photos with one mask each, named by the class in the file name."""
    return _read_pairs(home, "im", "gt", read_dis_class)


def _read_pairs(home: Path, images: str, mattes: str, name: Callable[[str], str | None]) -> Rows:
    """Read photos with one matte of the same name each."""
    photos = index_images(home / images)
    return [
        {
            "image": str(find_image(home / images, matte.stem, photos)),
            "alpha": str(matte),
            "name": name(matte.stem),
            "id": matte.stem,
        }
        for matte in list_images(home / mattes)
    ]


def _make_portraits(images: str) -> Callable[[Path], Rows]:
    """Return a function that reads portraits from the subfolder `images` and their mattes from mask/."""
    return lambda home: _read_pairs(home, images, "mask", lambda stem: "person")


def _read_backgrounds(home: Path) -> Rows:
    """Read photos without objects of interest."""
    return [{"image": str(path), "id": path.stem} for path in list_images(home)]


def _make_instances(split: str) -> Callable[[Path], Rows]:
    """Return a function that reads the photos of a split of HIM2K, with a folder of instances each."""

    def read(home: Path) -> Rows:
        folder = home / "images" / split
        photos = index_images(folder)
        instances: dict[str, list[str]] = {}
        for matte in index_images(home / "alphas" / split, "*/*").values():
            instances.setdefault(matte.parent.name, []).append(str(matte))
        return [
            {
                "image": str(find_image(folder, photo, photos)),
                "alphas": mattes,
                "names": ["person"] * len(mattes),
                "unique": [len(mattes) == 1] * len(mattes),
                "id": photo,
            }
            for photo, mattes in instances.items()
        ]

    return read


def _read_refmatte(home: Path) -> Rows:
    """Read composites with one matte and several expressions for each object."""
    path = home / "refmatte_train_label.json"
    labels, photos = read_json(path), index_images(home / "img")
    objects: dict[str, list[tuple[str, list[str]]]] = {}
    for matte in list_images(home / "mask"):
        label = labels.get(matte.stem)
        photo, texts = str(get_value(label, "image_name", path)), get_value(label, "expressions", path)
        texts = list(texts.values()) if isinstance(texts, dict) else texts
        objects.setdefault(photo, []).append((str(matte), texts))
    return [
        {
            "image": str(find_image(home / "img", photo, photos)),
            "alphas": [matte for matte, _ in found],
            "texts": [texts for _, texts in found],
            "id": photo,
        }
        for photo, found in objects.items()
    ]


SOURCE_LAYOUTS = {
    "p3m-10k": SourceLayout(
        "image_alpha",
        {
            "train": Split(("train",), ("blurred_image", "mask"), _make_portraits("blurred_image")),
            "P3M-500-P": Split(
                ("validation/P3M-500-P", "P3M-500-P"), ("blurred_image", "mask"), _make_portraits("blurred_image")
            ),
            "P3M-500-NP": Split(
                ("validation/P3M-500-NP", "P3M-500-NP"), ("original_image", "mask"), _make_portraits("original_image")
            ),
        },
    ),
    "bg-20k": SourceLayout(
        "background", {name: Split((name,), ("",), _read_backgrounds) for name in ("train", "testval")}
    ),
    "refmatte": SourceLayout(
        "text",
        {"train": Split(("RefMatte/train", "train"), ("img", "mask", "refmatte_train_label.json"), _read_refmatte)},
    ),
    "him2k": SourceLayout(
        "instances",
        {
            name: Split(("",), (f"images/{name}", f"alphas/{name}"), _make_instances(name))
            for name in ("natural", "comp")
        },
    ),
    "dis5k": SourceLayout(
        "image_alpha",
        {
            **{name: Split((name,), ("im", "gt"), read_dis) for name in ("DIS-TR", "DIS-VD", *DIS_TEST_SPLITS)},
            "DIS-TE": DIS_TEST_SPLITS,
        },
    ),
}
