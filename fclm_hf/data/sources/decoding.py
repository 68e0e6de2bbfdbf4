"""Decoding of training images to arrays. Images that cannot be used raise [`InvalidSampleError`]."""

import os
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from PIL import Image

from ...image_loading_fclm import IMAGE_FORMATS
from ...image_utils_fclm import convert_to_tensor, download, open_image
from .invalid_samples import InvalidReason, InvalidSampleError
from .retry import RetryPolicy


COARSE_UNKNOWN = 128  # value of what is unknown in a coarse mask

# offset and number of bytes of the width, which the height follows, and their byte order
_SIZE_FIELDS = {b"\x89PNG": (16, 4, "big"), b"GIF8": (6, 2, "little"), b"BM": (18, 4, "little")}


def read_bytes(value: Any, base: str, retry: RetryPolicy) -> bytes:
    """Return the encoded image in a cell of a data set.

    Args:
        value: `{"bytes": ..., "path": ...}` as `datasets` returns undecoded images, bytes, or a path or URL.
        base: Folder or URL that relative paths start from.
        retry: Policy for lost connections.

    Raises:
        InvalidSampleError: If there is no such image.
        LostConnectionError: If the connection stays down.
    """
    if isinstance(value, dict):
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if value is None:
        raise InvalidSampleError(InvalidReason.MISSING, "the cell is empty")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    path = os.fspath(value)
    if "://" not in path and not Path(path).is_absolute():
        path = f"{base}/{path}" if base else path
    try:
        return retry.run(lambda: _read_file(path), f"Reading {path}")
    except (OSError, ValueError) as error:
        raise InvalidSampleError(InvalidReason.MISSING, str(error)) from error


def _read_file(path: str) -> bytes:
    """Return the content of a local file, or of one behind any URL that fsspec knows."""
    if path.startswith(("http://", "https://")):
        return download(path)
    with fsspec.open(path, "rb") if "://" in path else Path(path).open("rb") as file:
        return file.read()


def decode_image(data: bytes) -> Image.Image:
    """Return the upright first frame of an encoded image, in its own mode.

    Raises:
        InvalidSampleError: If it is not an image, is truncated, or has no or too many pixels.
    """
    if not data:
        raise InvalidSampleError(InvalidReason.EMPTY_FILE)
    width, height = _read_size(data)
    if not width or not height:
        raise InvalidSampleError(InvalidReason.ZERO_SIZE, f"{width} x {height}")
    if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
        raise InvalidSampleError(InvalidReason.TOO_LARGE, f"{width} x {height}, see PIL.Image.MAX_IMAGE_PIXELS")
    try:
        return open_image(data)
    except ValueError as error:
        raise InvalidSampleError(InvalidReason.BROKEN, str(error)) from error


def _read_size(data: bytes) -> tuple[int, int]:
    """Return the width and height that an encoded image declares, without decoding its pixels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # decode_image raises instead
            return Image.open(BytesIO(data), formats=IMAGE_FORMATS).size
    except Image.DecompressionBombError as error:
        raise InvalidSampleError(InvalidReason.TOO_LARGE, str(error)) from error
    except Image.UnidentifiedImageError as error:
        reason = InvalidReason.ZERO_SIZE if _declares_no_pixels(data) else InvalidReason.NOT_AN_IMAGE
        raise InvalidSampleError(reason) from error
    except Exception as error:
        raise InvalidSampleError(InvalidReason.BROKEN, str(error)) from error


def _declares_no_pixels(data: bytes) -> bool:
    """Return whether the header of an image declares that it has no pixels; PIL does not recognize such images."""
    for magic, (start, length, order) in _SIZE_FIELDS.items():
        fields = data[start : start + 2 * length]
        if data.startswith(magic) and len(fields) == 2 * length:
            return not (int.from_bytes(fields[:length], order) and int.from_bytes(fields[length:], order))
    return False


def decode_photo(data: bytes) -> np.ndarray:
    """Return RGB colors `(height, width, 3)` uint8 of an image; transparency is composited over white."""
    image = decode_image(data)
    try:
        return convert_to_tensor(image).permute(1, 2, 0).numpy()
    except ValueError as error:
        raise InvalidSampleError(InvalidReason.BROKEN, str(error)) from error


def decode_cutout(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return colors `(height, width, 3)` uint8 and alpha `(height, width)` float32 in [0, 1] of a transparent image."""
    image = decode_image(data)
    if not image.has_transparency_data:
        raise InvalidSampleError(InvalidReason.OPAQUE, f"mode {image.mode}")
    pixels = np.asarray(_convert(image, "RGBA"))
    alpha = pixels[..., 3]
    if alpha.min() == 255:
        raise InvalidSampleError(InvalidReason.OPAQUE)
    if not alpha.any():
        raise InvalidSampleError(InvalidReason.EMPTY_ALPHA)
    return pixels[..., :3], alpha.astype(np.float32) / 255


def decode_alpha(data: bytes, size: tuple[int, int], is_coarse: bool = False) -> np.ndarray:
    """Return the alpha `(height, width)` uint8 of an encoded image.

    It is the transparency of the image if there is any, else its brightness. A mask of zeros and ones is scaled to 255.

    Args:
        data: The encoded image.
        size: Height and width of the photo. An alpha of the same aspect ratio is resized to it.
        is_coarse: Whether it is a coarse mask, in which 128 is unknown. Resizing then does not mix its values.

    Raises:
        InvalidSampleError: If the image cannot be decoded, is 0 everywhere, or has another aspect ratio.
    """
    alpha = _extract_alpha(decode_image(data))
    if not alpha.any():
        raise InvalidSampleError(InvalidReason.EMPTY_ALPHA)
    if alpha.max() == 1:
        alpha = alpha * np.uint8(255)
    if is_coarse and alpha.max() <= COARSE_UNKNOWN:
        raise InvalidSampleError(InvalidReason.EMPTY_ALPHA, "no pixel is 255")
    height, width = size
    if alpha.shape != size:
        if abs(alpha.shape[1] * height - alpha.shape[0] * width) > max(*alpha.shape, *size):
            raise InvalidSampleError(
                InvalidReason.SIZE_MISMATCH, f"image {width} x {height}, alpha {alpha.shape[1]} x {alpha.shape[0]}"
            )
        resampling = Image.Resampling.NEAREST if is_coarse else Image.Resampling.BOX
        alpha = np.asarray(Image.fromarray(alpha).resize((width, height), resampling))
    return alpha


def _extract_alpha(image: Image.Image) -> np.ndarray:
    """Return the transparency of an image if there is any, else its brightness, as uint8."""
    if image.mode.startswith(("I", "F")):
        return convert_to_tensor(image, do_convert_rgb=False)[0].numpy()
    if image.has_transparency_data:
        alpha = np.asarray(_convert(image, "RGBA"))[..., 3]
        if alpha.min() < 255:
            return alpha
    return np.asarray(image if image.mode == "L" else _convert(_convert(image, "RGB"), "L"))


def _convert(image: Image.Image, mode: str) -> Image.Image:
    """Return an image in another mode."""
    try:
        if image.mode in ("La", "RGBa", "PA"):  # PIL converts each of them to few modes
            image = image.convert({"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}[image.mode])
        return image.convert(mode)
    except (ValueError, OSError) as error:
        raise InvalidSampleError(InvalidReason.BROKEN, f"mode {image.mode}: {error}") from error
