"""Evaluation samples: images and the true mattes of their objects, read when they are needed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..image_utils_fclm import load_image, open_image
from ..segmentation_maps_fclm import load_segmentation_maps


@dataclass(frozen=True)
class Target:
    """An object of an image.

    Attributes:
        name: Path of its matte in a folder of predictions, without suffix: "GT01", or "photo/00" for an instance.
        alpha: The true matte: a path, bytes, a PIL image, or a cell `{"bytes", "path"}` of `datasets`.
        text: An expression of the data set, used as a prompt without a template.
        cls: A class name, which a template turns into a prompt.
        box: (x0, y0, x1, y1) in pixels, x1 and y1 exclusive; derived from the matte if None.
        point: (x, y) in pixels; derived from the matte if None.
        trimap: A trimap with values 0, 128 and 255, of the same types as `alpha`.
    """

    name: str
    alpha: Any
    text: str | None = None
    cls: str | None = None
    box: tuple[float, ...] | None = None
    point: tuple[float, ...] | None = None
    trimap: Any = None


@dataclass(frozen=True)
class EvaluationSample:
    """An image and its objects.

    Attributes:
        name: Name of the image, unique in the data set.
        image: A path, bytes, a PIL image, or a cell `{"bytes", "path"}` of `datasets`.
        targets: The objects, at least one.
    """

    name: str
    image: Any
    targets: tuple[Target, ...]


def read_image(source: Any, name: str) -> Image.Image:
    """Read an image as upright 8-bit RGB.

    Args:
        source: A path, bytes, a PIL image, or a cell of `datasets`.
        name: Name of the image in errors.

    Raises:
        ValueError: If it cannot be read.
    """
    return load_image(_open_cell(source, name), name)


def read_matte(source: Any, name: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a matte or trimap of any image format.

    Args:
        source: A path, bytes, a PIL image, or a cell of `datasets`: 8-bit, 16-bit or float in [0, 1]. Color images are
            converted to their luminance.
        name: Name of the matte in errors.
        size: (height, width) that it must have.

    Returns:
        The matte, uint8 of shape `(height, width)`.

    Raises:
        ValueError: If it cannot be read, has another size, or has transparent pixels, so that it is unclear which
            channel is the matte.
    """
    image = open_image(_open_cell(source, name), name)
    if not isinstance(image, Image.Image):
        image = Image.fromarray(np.asarray(image))
    if size is not None and (image.height, image.width) != tuple(size):
        raise ValueError(
            f"{name} must have the size of its photo, {size[1]} x {size[0]}, got {image.width} x {image.height}."
        )
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
        raise ValueError(f"{name} must be a grayscale matte, got an image with transparent pixels.")
    matte = load_segmentation_maps([[image]], [(image.height, image.width)])[0][0]
    return np.rint(matte.numpy() * 255).astype(np.uint8)


def join_targets(sample: EvaluationSample, mattes: list[np.ndarray]) -> tuple[Target, np.ndarray]:
    """Join all objects of an image into one, for matting without a prompt.

    Args:
        sample: The image.
        mattes: True mattes of its objects, uint8 of shape `(height, width)`.

    Returns:
        The joint target, and the pixelwise maximum of the mattes.
    """
    if len(mattes) == 1:
        return sample.targets[0], mattes[0]
    return Target(sample.name, None), np.maximum.reduce(mattes)


def _open_cell(source: Any, name: str) -> Any:
    """Decode a cell of `datasets`; return any other source unchanged."""
    if not isinstance(source, Mapping):
        return source
    if source.get("bytes") is not None:
        return source["bytes"]
    from datasets import Image as ImageFeature

    try:
        return ImageFeature().decode_example(dict(source))
    except Exception as error:
        raise ValueError(f"{name} cannot be read: {error}") from error
