"""Encoded images of training data as arrays. Whatever is wrong with one becomes a [`FaultySampleError`]."""

import os
import warnings
from io import BytesIO
from typing import Any

import fsspec
import numpy as np
from huggingface_hub.utils import httpx
from PIL import Image

from ...image_utils_fclm import convert_to_tensor, open_image
from .invalid_samples import FaultReason, FaultySampleError
from .retry import Backoff


COARSE_UNKNOWN = 128
_SIZE_FIELDS = {b"\x89PNG": (16, 4, "big"), b"GIF8": (6, 2, "little"), b"BM": (18, 4, "little")}


def read_bytes(value: Any, base: str, backoff: Backoff) -> bytes:
    """The encoded image in a cell of a data set.

    Args:
        value: `{"bytes": ..., "path": ...}` as `datasets` gives undecoded images, bytes, or a path or URL.
        base: folder or URL that relative paths start from.
        backoff: how to repeat reads that fail with the connection.

    Raises:
        FaultySampleError: there is no such image.
        LostConnectionError: the connection stays down.
    """
    if isinstance(value, dict):
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if value is None:
        raise FaultySampleError(FaultReason.MISSING, "the row holds none")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    path = os.fspath(value)
    if "://" not in path and not os.path.isabs(path):
        path = f"{base}/{path}" if base else path
    try:
        return backoff.run(lambda: _read_file(path), f"Reading {path}")
    except (OSError, httpx.HTTPStatusError) as error:
        raise FaultySampleError(FaultReason.MISSING, str(error)) from error


def _read_file(path: str) -> bytes:
    if path.startswith(("http://", "https://")):
        return httpx.get(path, timeout=30.0, follow_redirects=True).raise_for_status().content
    with fsspec.open(path, "rb") if "://" in path else open(path, "rb") as file:
        return file.read()


def decode_image(data: bytes) -> Image.Image:
    """The upright first frame, in its own mode."""
    if not data:
        raise FaultySampleError(FaultReason.EMPTY_FILE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # an error below
            width, height = Image.open(BytesIO(data)).size
    except Image.DecompressionBombError as error:
        raise FaultySampleError(FaultReason.TOO_LARGE, str(error)) from error
    except Image.UnidentifiedImageError as error:
        reason = FaultReason.ZERO_SIZE if _declares_no_pixels(data) else FaultReason.NOT_AN_IMAGE
        raise FaultySampleError(reason) from error
    except Exception as error:
        raise FaultySampleError(FaultReason.BROKEN, str(error)) from error
    if not width or not height:
        raise FaultySampleError(FaultReason.ZERO_SIZE, f"{width} x {height}")
    if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
        raise FaultySampleError(FaultReason.TOO_LARGE, f"{width} x {height}, see PIL.Image.MAX_IMAGE_PIXELS")
    try:
        return open_image(data)
    except ValueError as error:
        raise FaultySampleError(FaultReason.BROKEN, str(error)) from error


def _declares_no_pixels(data: bytes) -> bool:
    """PIL knows nothing of images without pixels: look for the width and height fields of common formats."""
    for magic, (start, length, order) in _SIZE_FIELDS.items():
        fields = data[start : start + 2 * length]
        if data.startswith(magic) and len(fields) == 2 * length:
            return not (int.from_bytes(fields[:length], order) and int.from_bytes(fields[length:], order))
    return False


def decode_photo(data: bytes) -> np.ndarray:
    """Colours (H, W, 3) uint8; transparency is composited over white."""
    image = decode_image(data)
    try:
        return convert_to_tensor(image).permute(1, 2, 0).numpy()
    except ValueError as error:
        raise FaultySampleError(FaultReason.BROKEN, str(error)) from error


def decode_cutout(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Colours (H, W, 3) uint8 and alpha (H, W) float32 in [0, 1] of an image with transparency."""
    image = decode_image(data)
    if not image.has_transparency_data:
        raise FaultySampleError(FaultReason.OPAQUE, f"mode {image.mode}")
    pixels = np.asarray(_convert(image, "RGBA"))
    alpha = pixels[..., 3]
    if alpha.min() == 255:
        raise FaultySampleError(FaultReason.OPAQUE)
    if not alpha.any():
        raise FaultySampleError(FaultReason.EMPTY_ALPHA)
    return pixels[..., :3], alpha.astype(np.float32) / 255


def decode_alpha(data: bytes, size: tuple[int, int], coarse: bool = False) -> np.ndarray:
    """Alpha (height, width) uint8 of the image of that `size`: the transparency where there is any, else the brightness.
    A mask of zeros and ones is scaled to 255. An alpha of the same shape in another size is resized; a coarse one, whose
    128 says unknown, without mixing its values.
    """
    image = decode_image(data)
    if image.mode.startswith(("I", "F")):
        alpha = convert_to_tensor(image, do_convert_rgb=False)[0].numpy()
    else:
        alpha = None
        if image.has_transparency_data:
            alpha = np.asarray(_convert(image, "RGBA"))[..., 3]
        if alpha is None or alpha.min() == 255:
            grey = image if image.mode == "L" else _convert(_convert(image, "RGB"), "L")
            alpha = np.asarray(grey)
    if not alpha.any():
        raise FaultySampleError(FaultReason.EMPTY_ALPHA)
    if alpha.max() == 1:
        alpha = alpha * np.uint8(255)
    if coarse and not (alpha > COARSE_UNKNOWN).any():
        raise FaultySampleError(FaultReason.EMPTY_ALPHA)
    height, width = size
    if alpha.shape != size:
        if abs(alpha.shape[1] * height - alpha.shape[0] * width) > max(*alpha.shape, *size):
            raise FaultySampleError(
                FaultReason.SIZE_MISMATCH, f"image {width} x {height}, alpha {alpha.shape[1]} x {alpha.shape[0]}"
            )
        resampling = Image.Resampling.NEAREST if coarse else Image.Resampling.BOX
        alpha = np.asarray(Image.fromarray(alpha).resize((width, height), resampling))
    return alpha


def _convert(image: Image.Image, mode: str) -> Image.Image:
    try:
        if image.mode in ("La", "RGBa", "PA"):  # each converts to few modes
            image = image.convert({"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}[image.mode])
        return image.convert(mode)
    except (ValueError, OSError) as error:
        raise FaultySampleError(FaultReason.BROKEN, f"mode {image.mode}: {error}") from error
