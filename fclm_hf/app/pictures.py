"""Pictures that the app shows and hands out: previews, overlays, composites, and zip archives of them."""

import base64
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageColor

from ..foreground_fclm import FOREGROUND_METHODS
from ..masks_fclm import resize_maps
from ..pipeline_results_fclm import MattingResults
from ..utils.pictures import place_on_background


PREVIEW_SIDE = 1024
# of the objects in turn: told apart also with red-green color blindness (near Okabe and Ito)
OBJECT_COLORS = ((37, 99, 235), (230, 97, 20), (0, 158, 115), (204, 121, 167), (240, 200, 40), (86, 180, 233))
OUTPUTS = ("Transparent", "Color", "Picture", "Matte")
_OVERLAY_OPACITY = 0.5


def shrink(size: tuple[int, int], side: int = PREVIEW_SIDE) -> tuple[int, int]:
    """Return a width and height of at most `side` pixels with the same aspect ratio."""
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def encode_url(image: Image.Image, image_format: str = "WEBP", **options: Any) -> str:
    """Return a picture as a data URL.

    Args:
        image: The picture.
        image_format: Format for PIL.
        options: Options of `PIL.Image.Image.save`.
    """
    data = BytesIO()
    image.save(data, image_format, **options)
    return f"data:image/{image_format.lower()};base64,{base64.b64encode(data.getvalue()).decode()}"


def make_preview(image: Image.Image) -> Image.Image:
    """Return a photo of at most `PREVIEW_SIDE` pixels a side, RGB or RGBA."""
    return image.resize(shrink(image.size), Image.Resampling.LANCZOS, reducing_gap=2.0)


def shrink_results(results: MattingResults) -> MattingResults:
    """Return the same mattes over a preview of the photo, so that cutouts of them take little time."""
    alphas = resize_maps(results.alphas[0], shrink(results.image.size)[::-1])[None]
    return MattingResults(make_preview(results.image), alphas, results.foreground)


def unite(results: MattingResults) -> MattingResults:
    """Return a single matte of all objects: the largest alpha of each pixel."""
    alphas = results.alphas.amax(1, keepdim=True) if results.alphas.shape[1] else results.alphas
    return MattingResults(results.image, alphas, results.foreground)


def select(results: MattingResults, index: int) -> MattingResults:
    """Return the matte of one object alone."""
    return MattingResults(results.image, results.alphas[:, index : index + 1], results.foreground)


def draw_overlay(alphas: Any, numbers: Sequence[int]) -> Image.Image:
    """Return mattes in the colors of their objects, RGBA, to lay over the photo.

    Args:
        alphas: Tensor of shape `(num_objects, height, width)` in [0, 1].
        numbers: Number of each object, which decides its color.
    """
    height, width = alphas.shape[-2:]
    colors, covered = np.zeros((height, width, 3), np.float32), np.zeros((height, width, 1), np.float32)
    for alpha, number in zip(alphas.numpy(), numbers, strict=True):
        weight = alpha[..., None]
        colors = colors * (1 - weight) + weight * np.array(OBJECT_COLORS[number % len(OBJECT_COLORS)], np.float32)
        covered = np.maximum(covered, weight)
    opaque = colors / np.maximum(covered, 1e-3)
    pixels = np.concatenate([opaque.clip(0, 255), covered * (255 * _OVERLAY_OPACITY)], axis=2)
    return Image.fromarray(pixels.round().astype(np.uint8))


@dataclass(frozen=True)
class Style:
    """What a visitor wants of a matte.

    Attributes:
        output: One of `OUTPUTS`.
        color: Color behind the object, for "Color".
        backdrop: Picture behind the object, for "Picture".

    Raises:
        ValueError: If the output is unknown, the color is not one, or there is no picture.

    Example:
        >>> from PIL import Image
        >>> from fclm_hf.app.pictures import Style
        >>> result = {"cutout": Image.new("RGBA", (4, 3), (255, 0, 0, 0)), "alpha": Image.new("L", (4, 3))}
        >>> Style("Color", "#000080").render(result).getpixel((0, 0))
        (0, 0, 128)
    """

    output: str = "Transparent"
    color: str | None = None
    backdrop: Image.Image | None = None

    def __post_init__(self) -> None:
        if self.output not in OUTPUTS:
            raise ValueError(f"output must be one of {', '.join(OUTPUTS)}, got {self.output!r}.")
        if self.output == "Color":
            parse_color(self.color or "white")
        if self.output == "Picture" and self.backdrop is None:
            raise ValueError("Choose a picture to put behind the object.")

    @property
    def foreground(self) -> str | None:
        """How to estimate the colors of cutouts: not at all for mattes."""
        return None if self.output == "Matte" else FOREGROUND_METHODS[0]

    def render(self, result: Mapping[str, Any]) -> Image.Image:
        """Return the picture to show or to hand out of a result of the pipeline."""
        if self.output == "Matte":
            return result["alpha"]
        if self.output == "Transparent":
            return result["cutout"]
        backdrop = self.backdrop
        if self.output == "Color":
            backdrop = Image.new("RGB", (1, 1), parse_color(self.color or "white"))
        return place_on_background(result["cutout"], backdrop)

    def name_file(self, photo: str | Path, number: int | None = None) -> str:
        """Return the name of a file for a result, such as cat_cutout.png."""
        kind = {"Transparent": "cutout", "Matte": "matte"}.get(self.output, "composite")
        return f"{Path(photo).stem[:100]}_{kind}{'' if number is None else f'_{number}'}.png"


def parse_color(color: str) -> tuple[int, int, int]:
    """Return the red, green and blue of a color: a name, `#rrggbb`, `rgb(r, g, b)`, or `rgba(...)` as browsers give it.

    Raises:
        ValueError: If it is none of these.
    """
    if match := re.fullmatch(r"rgba?\(([\d.]+), *([\d.]+), *([\d.]+)(?:, *[\d.]+)?\)", color.strip()):
        return tuple(min(255, round(float(each))) for each in match.groups())
    try:
        return ImageColor.getrgb(color.strip())[:3]
    except ValueError as error:
        raise ValueError(f"color must be a name, or a code such as #4a90d9, got {color[:40]!r}.") from error


def save_png(image: Image.Image, file: Path | IO[bytes]) -> None:
    """Write a picture with its color profile as PNG."""
    image.save(file, "PNG", icc_profile=image.info.get("icc_profile"))


def write_zip(path: Path, pictures: Iterable[tuple[str, Image.Image]]) -> None:
    """Write pictures as PNG files into a zip archive, one at a time.

    Args:
        path: The archive.
        pictures: Names of the files and pictures.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:  # a PNG is compressed already
        for name, picture in pictures:
            with archive.open(name, "w") as file:
                save_png(picture, file)


class ResultFolder:
    """Folder of results to download; old ones are removed, and all of them when the program ends.

    Args:
        parent: Folder to create it in.
        max_age: Seconds after which a result is removed.
    """

    def __init__(self, parent: str | Path, max_age: float) -> None:
        Path(parent).mkdir(parents=True, exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(dir=parent, prefix="fclm-results-")
        self.max_age = max_age

    def make_path(self, name: str) -> Path:
        """Return a path for a new result, in a folder that nobody can guess."""
        self.remove_old()
        return Path(tempfile.mkdtemp(dir=self._folder.name)) / name

    def close(self) -> None:
        """Remove all results."""
        self._folder.cleanup()

    def remove_old(self) -> None:
        """Remove results older than `max_age` seconds."""
        oldest = time.time() - self.max_age
        for folder in Path(self._folder.name).iterdir():
            if folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)
