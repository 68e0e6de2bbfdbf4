"""What is measured: images and the true mattes of their objects, read when they are needed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..image_processing_base_fclm import load_segmentation_maps
from ..image_utils_fclm import load_image, open_image


@dataclass(frozen=True)
class Target:
    """An object of an image.

    Attributes:
        name: where its matte lies in a folder of predictions, without suffix: "GT01", or "photo/00" for an instance.
        alpha: the true matte: path, bytes, PIL image, or a cell {"bytes", "path"} of `datasets`.
        text: an expression of the data set, used as it is.
        cls: a class name, for a template.
        box: (x0, y0, x1, y1) in pixels, x1 and y1 exclusive; derived from the matte if None.
        point: (x, y) in pixels; derived if None.
        trimap: like `alpha`, of 0, 128 and 255.
    """

    name: str
    alpha: Any
    text: str | None = None
    cls: str | None = None
    box: tuple[float, ...] | None = None
    point: tuple[float, ...] | None = None
    trimap: Any = None


@dataclass(frozen=True)
class Sample:
    """An image (path, bytes, PIL image or cell of `datasets`) and its objects, at least one."""

    name: str
    image: Any
    targets: tuple[Target, ...]


def read_image(source: Any, name: str) -> Image.Image:
    """Upright RGB. Raises ValueError with `name` when it cannot be read."""
    return load_image(_open_cell(source, name), name)


def read_matte(source: Any, name: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """A matte or trimap of any image format as uint8 (H, W).

    Args:
        source: path, bytes, PIL image or cell of `datasets`: 8-bit, 16-bit or float in 0..1; of colours the luminance.
        name: how errors call it.
        size: (height, width) that it must have.

    Raises:
        ValueError: it cannot be read, has another size, or has transparent pixels, whose matte could be either channel.
    """
    image = open_image(_open_cell(source, name), name)
    if not isinstance(image, Image.Image):
        image = Image.fromarray(np.asarray(image))
    if size is not None and (image.height, image.width) != tuple(size):
        raise ValueError(f"{name} is {image.width} x {image.height}, but its photo {size[1]} x {size[0]} pixels.")
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
        raise ValueError(f"{name} has transparent pixels: a matte must be a grey image.")
    matte = load_segmentation_maps([[image]], [(image.height, image.width)])[0][0]
    return np.rint(matte.numpy() * 255).astype(np.uint8)


def join_targets(sample: Sample, mattes: list[np.ndarray]) -> tuple[Target, np.ndarray]:
    """All objects of an image as one, for matting without a prompt: the pixelwise maximum of their mattes."""
    if len(mattes) == 1:
        return sample.targets[0], mattes[0]
    return Target(sample.name, None), np.maximum.reduce(mattes)


def _open_cell(source: Any, name: str) -> Any:
    if not isinstance(source, Mapping):
        return source
    from datasets import Image as ImageFeature

    try:
        return ImageFeature().decode_example(dict(source))
    except Exception as error:
        raise ValueError(f"{name} cannot be read: {error}") from error
