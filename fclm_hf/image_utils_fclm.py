"""Images of any kind, from anywhere, as upright 8-bit RGB: the part that both image processors share."""

import base64
import binascii
import os
import warnings
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.utils import httpx
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from transformers.image_utils import ChannelDimension


ACCEPTED_IMAGES = (
    "a URL, a path, bytes, an open file, a base64 string or data URL, a PIL image, a numpy array or a torch tensor "
    "(H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels"
)
# what a folder is searched for; PIL may read more
IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".jfif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
_TRANSPARENT_MODES = {"LA", "La", "PA", "RGBA", "RGBa"}
_ORIENTATION_TAG = 274
_FLOAT_TOLERANCE = 1 / 255  # resampling overshoots [0, 1] a little


def load_image(image: Any, name: str = "image", input_data_format: str | ChannelDimension | None = None) -> Image.Image:
    """Load any image as an upright 8-bit RGB PIL image.

    EXIF rotation is applied, transparency is composited over white, 16-bit, 32-bit and float images are scaled to 8
    bit, and the first frame of an animation is used.

    Args:
        image: A URL, a path (`str` or `os.PathLike`), bytes, a file opened in binary mode, a base64 string or data URL,
            a PIL image, or a numpy array or torch tensor of shape `(height, width)`, `(height, width, channels)` or
            `(channels, height, width)`: uint8 in [0, 255], uint16 in [0, 65535], float in [0, 1], or bool.
        name (`str`, defaults to `"image"`): Name in error messages of an image that has no file name or URL.
        input_data_format (`str`, *optional*): "channels_first" or "channels_last" for arrays whose shape is ambiguous.

    Returns:
        A PIL image of mode "RGB".

    Raises:
        ValueError: If the image cannot be read, is truncated, exceeds PIL's decompression bomb limit, or has values
            out of range.
        TypeError: If `image` is of none of these types.

    Example:
        >>> import numpy as np
        >>> from fclm_hf.image_utils_fclm import load_image
        >>> load_image(np.full((2, 3), 0.5)).getpixel((0, 0))
        (128, 128, 128)
    """
    tensor = convert_to_tensor(open_image(image, name), name=name, input_data_format=input_data_format)
    return convert_to_image(tensor)


def convert_to_image(tensor: torch.Tensor) -> Image.Image:
    """Convert a uint8 tensor `(3, height, width)` to a PIL image of mode "RGB"."""
    return Image.fromarray(tensor.permute(1, 2, 0).cpu().numpy())


def open_image(image: Any, name: str = "image", timeout: float = 30.0) -> Image.Image | np.ndarray | torch.Tensor:
    """Decode the image behind a URL, path, bytes, open file or base64 string and turn it upright, in its own mode.

    Args:
        image: See [`load_image`]. PIL images are decoded and turned upright, arrays and tensors are returned as is.
        name (`str`, defaults to `"image"`): Name in error messages of an image that has no file name or URL.
        timeout (`float`, defaults to 30): Longest wait for the server of a URL, in seconds.

    Raises:
        ValueError: If the image cannot be read, see [`load_image`].
        TypeError: If `image` is of none of these types.
    """
    if isinstance(image, (np.ndarray, torch.Tensor)):
        return image
    if isinstance(image, Image.Image):
        return _decode(lambda: image, getattr(image, "filename", "") or name)
    if is_undecoded(image):
        return _open_undecoded(image, name)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _decode(lambda: Image.open(BytesIO(image)), f"{name} ({len(image)} bytes)")
    if isinstance(image, os.PathLike):
        return _open_path(os.fspath(image))
    if is_open_file(image):
        return _decode(lambda: Image.open(BytesIO(image.read())), str(getattr(image, "name", name)))
    if isinstance(image, str):
        return _open_string(image, name, timeout)
    raise TypeError(f"{name} must be {ACCEPTED_IMAGES}, got {type(image).__name__}.")


def is_open_file(image: Any) -> bool:
    """Return whether `image` can be read like a file: an open file, `BytesIO`, an upload of a web framework."""
    return callable(getattr(image, "read", None))


def is_undecoded(image: Any) -> bool:
    """Return whether `image` is what `datasets.Image(decode=False)` gives, `{"bytes": ..., "path": ...}`."""
    return isinstance(image, Mapping) and bool(image) and image.keys() <= {"bytes", "path"}


def _open_undecoded(image: Mapping[str, Any], name: str) -> Image.Image:
    """Open what `datasets.Image(decode=False)` gives."""
    data, path = image.get("bytes"), image.get("path")
    if data is not None:
        return _decode(lambda: Image.open(BytesIO(data)), path or f"{name} ({len(data)} bytes)")
    if path is None:
        raise ValueError(f'{name} must have "bytes" or a "path", got None for both.')
    return open_image(path if isinstance(path, str) and path.startswith(("http://", "https://")) else Path(path), name)


def flatten_images(images: Any) -> list[Any]:
    """Flatten one image, a batch in a 4-dimensional array, a list of these, or a list of lists (one per sample).

    Returns:
        A flat list of images; None stands for an empty inner list, which is a sample without an image.

    Raises:
        ValueError: If there is no image at all, or a list is nested too deeply.
        TypeError: If an image is None.
    """
    flat = _flatten(images, depth=0)
    if all(image is None for image in flat):
        raise ValueError(f"images must not be empty: expected {ACCEPTED_IMAGES}, or a list of these.")
    return flat


def _flatten(images: Any, depth: int) -> list[Any]:
    """Return the images in lists of at most two levels, `depth` of which have been entered."""
    if isinstance(images, (list, tuple)):
        if depth == 2:
            raise ValueError("images is nested too deeply: expected an image, a list or a list of lists.")
        if depth == 1 and not images:
            return [None]
        return [leaf for image in images for leaf in _flatten(image, depth + 1)]
    if isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == 4:
        return list(images)
    if images is None:
        raise TypeError(f"An image must be {ACCEPTED_IMAGES}, got None.")
    return [images]


def find_image_size(
    image: Image.Image | np.ndarray | torch.Tensor,
    name: str = "image",
    input_data_format: str | ChannelDimension | None = None,
) -> tuple[int, int]:
    """Return the height and width in pixels of an image that [`open_image`] returned."""
    if isinstance(image, Image.Image):
        return image.height, image.width
    height, width = image.shape if image.ndim == 2 else _split_shape(image, name, input_data_format)[1:]
    if not height or not width:
        raise ValueError(f"{name} must have at least one pixel, got shape {tuple(image.shape)}.")
    return int(height), int(width)


def convert_to_tensor(
    image: Image.Image | np.ndarray | torch.Tensor,
    do_convert_rgb: bool = True,
    keep_float: bool = False,
    input_data_format: str | ChannelDimension | None = None,
    name: str = "image",
) -> torch.Tensor:
    """Convert a decoded image to a uint8 tensor of shape `(channels, height, width)` with values in [0, 255].

    Args:
        image: A PIL image of any mode, or an array or tensor of shape `(height, width)`, `(height, width, channels)`
            or `(channels, height, width)`; for its values see [`load_image`]. A contiguous uint8 tensor of shape
            `(3, height, width)` is returned as is.
        do_convert_rgb (`bool`, defaults to `True`): Whether to return three channels, with transparency composited over
            white, instead of the channels of the image.
        keep_float (`bool`, defaults to `False`): Whether to return float arrays as float32 with their own values
            instead of scaling [0, 1] to [0, 255].
        input_data_format (`str`, *optional*): "channels_first" or "channels_last" for arrays whose shape is ambiguous.
        name (`str`, defaults to `"image"`): Name of the image in error messages.

    Raises:
        ValueError: If the shape is invalid, or values are not finite or out of range.
    """
    if isinstance(image, Image.Image):
        pixels = np.asarray(_simplify_mode(image, do_convert_rgb, name))
        tensor = torch.from_numpy(pixels.copy())
        tensor = tensor[None] if tensor.ndim == 2 else tensor.permute(2, 0, 1)
    else:
        find_image_size(image, name, input_data_format)
        tensor = make_tensor(image, name)
        if tensor.ndim == 2:
            tensor = tensor[None]
        elif _split_shape(tensor, name, input_data_format)[0] == ChannelDimension.LAST:
            tensor = tensor.permute(2, 0, 1)
        tensor = _check_floats(tensor, name) if keep_float and tensor.is_floating_point() else _scale(tensor, name)
    if do_convert_rgb:
        if tensor.shape[0] not in (1, 3, 4):
            raise ValueError(f"{name} must have 1, 3 or 4 channels with do_convert_rgb=True, got {tensor.shape[0]}.")
        tensor = _composite(tensor)
        tensor = tensor.expand(3, -1, -1)
    return tensor.contiguous()


def _open_string(text: str, name: str, timeout: float) -> Image.Image:
    """Open a URL, path, base64 string or data URL."""
    if text.startswith(("http://", "https://")):
        data = download(text, timeout)
        return _decode(lambda: Image.open(BytesIO(data)), text)
    if os.path.exists(text):  # noqa: PTH110 - Path.exists raises for long names, as base64 strings are
        return _open_path(text)
    payload, shown = text, text if len(text) <= 80 else f"{text[:80]}..."
    if text.startswith("data:"):
        header, separator, payload = text.partition(",")
        if not separator or not header.endswith(";base64"):
            raise ValueError(f"{name}: a data URL must have the form 'data:image/...;base64,...', got {shown!r}.")
    try:
        data = base64.b64decode("".join(payload.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(
            f"{name} must be an existing file, a URL that starts with http:// or https://, or a base64 string,"
            f" got {shown!r}."
        ) from error
    return _decode(lambda: Image.open(BytesIO(data)), f"{name} (not a file, but base64 text: {shown!r})")


def _open_path(path: str | bytes) -> Image.Image:
    """Open a file."""
    path = os.fsdecode(path)
    try:
        if not Path(path).is_file():
            problem = "is not a file" if Path(path).exists() else "does not exist"
            raise ValueError(f"The image file {path!r} {problem}.")
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"The image file {path!r} cannot be read: {error}") from error
    return _decode(lambda: Image.open(BytesIO(data)), path)


def download(url: str, timeout: float = 30.0) -> bytes:
    """Return what a URL serves.

    Args:
        url: Address that starts with `http://` or `https://`.
        timeout: Longest wait for the server, in seconds.

    Raises:
        ValueError: The request fails.
    """
    try:
        response = httpx.get(url, timeout=timeout, follow_redirects=True, headers={"User-Agent": "fclm-hf"})
        response.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ValueError(f"The image at {url} cannot be downloaded: {error}.") from error
    return response.content


def _decode(opener: Callable[[], Image.Image], name: str) -> Image.Image:
    """Open and decode an image and turn it upright; any error of PIL's decoders on broken data becomes a ValueError."""
    try:
        image = opener()
        image.load()
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{name} has too many pixels: {error} Raise PIL.Image.MAX_IMAGE_PIXELS if you trust its source."
        ) from error
    except (MemoryError, Image.DecompressionBombWarning):  # the latter only if the user turned it into an error
        raise
    except UnidentifiedImageError as error:  # its message is the address of a buffer
        raise ValueError(f"{name} is not an image that PIL can read, or is truncated.") from error
    except Exception as error:
        raise ValueError(f"{name} is not an image that PIL can read, or is truncated: {error}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL warns about corrupt EXIF
            rotated = image.getexif().get(_ORIENTATION_TAG, 1) in range(2, 9)
            return ImageOps.exif_transpose(image) if rotated else image
    except Exception:  # a broken EXIF block has no rotation, but the pixels are fine
        return image


def _simplify_mode(image: Image.Image, do_convert_rgb: bool, name: str) -> Image.Image | np.ndarray:
    """Convert to 8-bit grayscale, RGB or RGBA; without `do_convert_rgb`, keep other 8-bit modes."""
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        return _scale_deep(image)
    if not do_convert_rgb:
        return image.convert("L") if mode == "1" else image
    try:
        if mode in ("La", "RGBa"):
            image = image.convert({"La": "LA", "RGBa": "RGBA"}[mode])
        palette = image.palette.mode if mode == "P" and image.palette is not None else ""
        if image.mode in _TRANSPARENT_MODES or "transparency" in image.info or palette.endswith("A"):
            return image.convert("RGBA")
        if mode == "LAB":
            profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
            return ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "LAB", "RGB"))
        return image if mode in ("L", "RGB") else image.convert("RGB")
    except (ValueError, OSError) as error:
        raise ValueError(f"{name} has mode {mode!r}, which PIL cannot convert to RGB: {error}") from error


def _scale_deep(image: Image.Image) -> np.ndarray:
    """Scale a grayscale image of more than 8 bit to 8 bit.

    White is 65535 in mode "I;16", but undefined in "I" and "F": there the largest value decides whether it is 1, 255 or
    65535, and other ranges are stretched.
    """
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        transparent = image.info.get("transparency")
        gray = _scale_16_bit(torch.from_numpy(values.astype(np.int32))).numpy()
        return np.where(values == transparent, 255, gray).astype(np.uint8) if isinstance(transparent, int) else gray
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 65535:
        values = (values - low) / max(high - low, np.finfo(np.float64).tiny) * 255
    elif high > 255:
        values = values / 257
    elif image.mode == "F" and high <= 1:
        values = values * 255
    return np.floor(values + 0.5).astype(np.uint8)


def make_tensor(image: np.ndarray | torch.Tensor, name: str) -> torch.Tensor:
    """Convert an array of real numbers to a tensor of the same dtype; raise ValueError for anything else."""
    if image.dtype.is_complex if isinstance(image, torch.Tensor) else image.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold real numbers, got dtype {image.dtype}.")
    if isinstance(image, torch.Tensor):
        return image.detach()
    if image.dtype.kind == "f" and image.dtype.itemsize not in (2, 4, 8):
        image = image.astype(np.float64)
    # torch knows native byte order and non-negative strides only
    return torch.from_numpy(np.array(image, dtype=image.dtype.newbyteorder("=")))


def _split_shape(
    image: np.ndarray | torch.Tensor, name: str, input_data_format: str | ChannelDimension | None
) -> tuple[ChannelDimension, int, int]:
    """Return where the channels of a 3-dimensional array are, its height and its width."""
    shape = tuple(image.shape)
    if len(shape) == 3:
        first, last = shape[0] in (1, 3, 4), shape[2] in (1, 3, 4)
        if input_data_format is not None:
            is_first = ChannelDimension(input_data_format) == ChannelDimension.FIRST
            first, last = is_first, not is_first
        if first:
            return ChannelDimension.FIRST, *shape[1:]
        if last:
            return ChannelDimension.LAST, *shape[:2]
    raise ValueError(
        f"{name} must have shape (H, W), (H, W, C) or (C, H, W) with C = 1, 3 or 4 (set input_data_format for other"
        f" numbers of channels), got {shape}."
    )


def _check_floats(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """Convert to float32; raise ValueError for values that are not finite."""
    tensor = tensor.float()
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} must have finite values, got NaN or infinity.")
    return tensor


def _scale(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """Scale values of any dtype to uint8 in [0, 255]."""
    if tensor.dtype == torch.uint8:
        return tensor
    if tensor.dtype == torch.bool:
        return tensor.to(torch.uint8) * 255
    if tensor.is_floating_point():
        tensor = _check_floats(tensor, name)
        low, high = tensor.min().item(), tensor.max().item()
        unit = high <= 1 + _FLOAT_TOLERANCE
        if low < -_FLOAT_TOLERANCE or not (unit or 2 <= high <= 255 + _FLOAT_TOLERANCE):
            raise ValueError(
                f"{name} must have float values in [0, 1] or [0, 255], got [{low:g}, {high:g}]"
                " (normalized images need do_rescale=False and do_normalize=False)."
            )
        return (tensor * 255 if unit else tensor).clamp(0, 255).add(0.5).to(torch.uint8)
    declared = tensor.dtype == torch.uint16
    tensor = tensor.to(torch.int64)
    low, high = tensor.min().item(), tensor.max().item()
    if low < 0 or high > 65535:
        raise ValueError(f"{name} must have integer values in [0, 255] or [0, 65535], got [{low}, {high}].")
    return _scale_16_bit(tensor) if declared or high > 255 else tensor.to(torch.uint8)


def _scale_16_bit(tensor: torch.Tensor) -> torch.Tensor:
    """Scale [0, 65535] to uint8 in [0, 255], rounding half up."""
    return torch.div(tensor + 128, 257, rounding_mode="floor").to(torch.uint8)


def _composite(tensor: torch.Tensor) -> torch.Tensor:
    """Composite a tensor `(4, height, width)` whose last channel is the opacity over white; return others as is."""
    if tensor.shape[0] != 4:
        return tensor
    if tensor.is_floating_point():
        return tensor[:3] * tensor[3:] + (1 - tensor[3:])
    color, alpha = tensor[:3].to(torch.int32), tensor[3:].to(torch.int32)
    return torch.div(color * alpha + 255 * (255 - alpha) + 127, 255, rounding_mode="floor").to(torch.uint8)
