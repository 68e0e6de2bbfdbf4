"""Folders of named RGBA foregrounds and of background photos."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


IMAGE_SUFFIXES = {".png", ".webp", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".avif"}


@dataclass
class Foreground:
    """A cut-out object: `colours` (H, W, 3) uint8, `alpha` (H, W) float32 in [0, 1], and what it may be called.

    `cut_sides` says for left, top, right and bottom whether the object was already cut off there in its source. `texts`
    are expressions for it that are used as they are.
    """

    colours: np.ndarray
    alpha: np.ndarray
    names: tuple[str, ...]
    cut_sides: tuple[bool, bool, bool, bool] = (False, False, False, False)
    texts: tuple[str, ...] = ()


def _read_index(folder: Path, name: str, keys: tuple[str, ...]) -> list[dict]:
    index = folder / name
    if index.is_file():
        entries = json.loads(index.read_text())
        for number, entry in enumerate(entries):
            if lacking := [key for key in keys if not entry.get(key)]:
                raise ValueError(f"{index}: entry {number} lacks {' and '.join(lacking)}: {entry}.")
        return entries
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise ValueError(f"{folder} holds neither {name} nor images ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    return [{"file": str(path.relative_to(folder)), "name": path.stem.replace("_", " ")} for path in files]


class Foregrounds:
    """RGBA images of `folder`, listed in its `foregrounds.json` or, without one, all images below it.

    Args:
        folder: where the images are.
        general_names: from an entry's name or `cls` to names that also fit it ("poodle": ["dog"]).
        weights: from an entry's `source`, `kind` or `cls` to a factor on how often it is drawn.

    Raises:
        ValueError: no images, or an entry without file or name; on reading, an image that is transparent everywhere.
    """

    def __init__(
        self,
        folder: str | Path,
        general_names: Mapping[str, Sequence[str]] | None = None,
        weights: dict[str, float] | None = None,
    ):
        self.folder = Path(folder)
        self.entries = _read_index(self.folder, "foregrounds.json", ("file", "name"))
        self.general_names = general_names or {}
        weights = weights or {}
        factors = [
            float(np.prod([weights.get(entry.get(key), 1.0) for key in ("source", "kind", "cls")]))
            for entry in self.entries
        ]
        self.probabilities = np.asarray(factors) / np.sum(factors)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Foreground:
        entry = self.entries[index]
        with Image.open(self.folder / entry["file"]) as image:
            pixels = np.asarray(image.convert("RGBA"))
        if not pixels[..., 3].any():
            raise ValueError(f"{self.folder / entry['file']} is transparent everywhere: it shows no object.")
        cut_sides = tuple(entry.get("truncated_LTRB", (False,) * 4))
        names = self.list_names(entry)
        return Foreground(pixels[..., :3], pixels[..., 3].astype(np.float32) / 255, names, cut_sides)

    def list_names(self, entry: Mapping[str, Any]) -> tuple[str, ...]:
        """The entry's own name and the general ones, each once."""
        name = entry["name"]
        general = (each for key in (name, entry.get("cls")) for each in self.general_names.get(key, ()))
        return tuple(dict.fromkeys((name, *general)))

    def sample(self, rng: np.random.Generator) -> Foreground:
        """One of them, by the weights."""
        return self[int(rng.choice(len(self), p=self.probabilities))]


class Backgrounds:
    """Photos of `folder`, listed in its `backgrounds.json` or, without one, all images below it."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.entries = _read_index(self.folder, "backgrounds.json", ("file",))

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        with Image.open(self.folder / self.entries[index]["file"]) as image:
            return np.asarray(image.convert("RGB"))

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """One of them: (H, W, 3) uint8."""
        return self[int(rng.integers(len(self)))]
