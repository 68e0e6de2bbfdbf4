"""What of the cut-outs is never trained on: 12 persons and a fifth of the backgrounds, for measuring hair."""

from pathlib import Path

import cv2
import numpy as np


HELD_OUT_PERSON_COUNT = 12


def held_out_persons(index: list[dict]) -> set[str]:
    """Every sixth or seventh of the sorted numbers, 12 in all."""
    numbers = sorted({entry["file"].split("_")[1] for entry in index if entry["file"].startswith("people/")})
    return {numbers[round((i + 0.5) * len(numbers) / HELD_OUT_PERSON_COUNT)] for i in range(HELD_OUT_PERSON_COUNT)}


def held_out_backgrounds(index: list[dict]) -> set[str]:
    """Every fifth original of cutouts/bg, with its crops."""
    stems = sorted(
        {entry.get("crop_of") or Path(entry["file"]).stem for entry in index if entry["file"].startswith("bg/")}
    )
    return set(stems[::5])


def is_held_out(entry: dict, persons: set[str], backgrounds: set[str]) -> bool:
    """Return whether an entry of the index shows a held-out person or background."""
    if entry["file"].startswith("people/"):
        return entry["file"].split("_")[1] in persons
    return (entry.get("crop_of") or Path(entry["file"]).stem) in backgrounds


def read_rgba(path: Path) -> np.ndarray:
    """Read an image file as RGBA, `(height, width, 4)` uint8."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA if pixels.shape[-1] == 4 else cv2.COLOR_BGR2RGB)
