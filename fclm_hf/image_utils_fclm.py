"""Images of any kind, from anywhere, as upright 8-bit RGB: the part that both image processors share."""

import contextlib
import warnings
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageCms
from transformers.image_utils import ChannelDimension

from .image_loading_fclm import ACCEPTED_IMAGES, IMAGE_SUFFIXES, download, is_open_file, open_image


WHITE = (255, 255, 255)

_AMBIGUOUS_LAYOUT = (
    "The channels of an array may be its first or its last dimension, as both have 1, 3 or 4 entries. They are taken to"
    ' be the last of uint8 arrays and the first of others; say which with input_data_format="channels_last" or'
    ' "channels_first".'
)
# backgrounds for transparent images in the order of preference
_BACKGROUNDS = (WHITE, (0, 0, 0), (128, 128, 128), (0, 177, 64), (0, 71, 187), (255, 0, 255))
_ENOUGH_CONTRAST = 96.0  # distance of colors in [0, 255] from which on more contrast does not help
_CLEARLY_MORE = 0.05  # of 2, the score of an image that stands out everywhere
_ROWS_PER_STRIP = 256
_MAX_SAMPLES = 512  # rows and columns that decide about the background
_TRANSPARENT_MODES = {"LA", "La", "PA", "RGBA", "RGBa"}
_MAX_DPI = 65535  # in JPEG
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


def convert_to_image(tensor: torch.Tensor, opacity: torch.Tensor | None = None) -> Image.Image:
    """Convert a uint8 tensor `(3, height, width)` to a PIL image of mode "RGB", or "RGBA" with an opacity."""
    if opacity is not None:
        tensor = torch.cat([tensor, opacity[None]])
    return Image.fromarray(tensor.permute(1, 2, 0).cpu().numpy())


def copy_metadata(source: Any, image: Image.Image) -> None:
    """Give an image the resolution in dots per inch, and the color profile if that is one of RGB colors, of another.

    Args:
        source: PIL image that `image` comes from; anything else has neither.
        image: Image of mode "RGB" or "RGBA", or an alpha, which has no profile.
    """
    info = source.info if isinstance(source, Image.Image) else {}
    profile = info.get("icc_profile")
    # its color space, which is another for a CMYK or grayscale original
    if profile and profile[16:20] == b"RGB " and image.mode != "L":
        image.info["icc_profile"] = profile
    resolution = info.get("dpi")
    with contextlib.suppress(TypeError, ValueError, ZeroDivisionError):  # of a broken file
        if all(1 <= float(each) <= _MAX_DPI for each in resolution):
            image.info["dpi"] = tuple(map(float, resolution))


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
    """Return the height and width in pixels of an image that [`open_image`] returned.

    Where the channels of an array could be first as well as last, they are last if it is uint8, else first, and a
    warning says so.
    """
    if isinstance(image, Image.Image):
        return image.height, image.width
    if input_data_format is None and image.ndim == 3 and image.shape[0] in (1, 3, 4) and image.shape[2] in (1, 3, 4):
        warnings.warn(_AMBIGUOUS_LAYOUT, stacklevel=2)  # the same text each time, so that Python shows it once
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
    background: tuple[int, int, int] | None = WHITE,
) -> torch.Tensor:
    """Convert a decoded image to a uint8 tensor of shape `(channels, height, width)` with values in [0, 255].

    Args:
        image: A PIL image of any mode, or an array or tensor of shape `(height, width)`, `(height, width, channels)`
            or `(channels, height, width)`; for its values see [`load_image`]. A contiguous uint8 tensor of shape
            `(3, height, width)` is returned as is.
        do_convert_rgb (`bool`, defaults to `True`): Whether to return three channels, with transparency composited over
            `background`, instead of the channels of the image.
        keep_float (`bool`, defaults to `False`): Whether to return float arrays as float32 with their own values
            instead of scaling [0, 1] to [0, 255].
        input_data_format (`str`, *optional*): "channels_first" or "channels_last" for arrays whose shape is ambiguous.
        name (`str`, defaults to `"image"`): Name of the image in error messages.
        background (`tuple[int, int, int]`, *optional*, defaults to white): Color in [0, 255] behind a transparent
            image; None chooses one that the image stands out from, see [`choose_background`].

    Raises:
        ValueError: If the shape is invalid, or values are not finite or out of range.
    """
    tensor = _read_channels(image, do_convert_rgb, keep_float, input_data_format, name)
    if do_convert_rgb:
        tensor = composite(*_split_channels(tensor, name), background)
    return tensor.contiguous()


def split_transparency(
    image: Image.Image | np.ndarray | torch.Tensor,
    input_data_format: str | ChannelDimension | None = None,
    name: str = "image",
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Convert a decoded image to its colors and its opacity.

    Args:
        image: See [`convert_to_tensor`].
        input_data_format (`str`, *optional*): "channels_first" or "channels_last" for arrays whose shape is ambiguous.
        name (`str`, defaults to `"image"`): Name of the image in error messages.

    Returns:
        Colors, uint8 of shape `(3, height, width)`, not multiplied by the opacity, and the opacity, uint8 of shape
        `(height, width)`, or None for an opaque image.

    Raises:
        ValueError: If the shape is invalid, or values are not finite or out of range.

    Example:
        >>> from PIL import Image
        >>> from fclm_hf.image_utils_fclm import split_transparency
        >>> colors, opacity = split_transparency(Image.new("LA", (3, 2), (200, 50)))
        >>> colors[:, 0, 0].tolist(), opacity[0, 0].item()
        ([200, 200, 200], 50)
    """
    colors, opacity = _split_channels(_read_channels(image, True, False, input_data_format, name), name)
    return colors.contiguous(), opacity


def composite(
    colors: torch.Tensor, opacity: torch.Tensor | None, background: tuple[int, int, int] | None = None
) -> torch.Tensor:
    """Composite colors `(3, height, width)` over a background.

    Args:
        colors: uint8 in [0, 255], or float in [0, 1].
        opacity: Of the same type, of shape `(height, width)`; with None, `colors` are returned as they are.
        background: Color in [0, 255]; None chooses one that the image stands out from, see [`choose_background`].
    """
    if opacity is None:
        return colors
    if background is None:
        background = choose_background(colors, opacity)
    behind = torch.tensor(background, dtype=torch.int32, device=colors.device)[:, None, None]
    if colors.is_floating_point():
        return colors * opacity + behind / 255 * (1 - opacity)
    image = torch.empty(colors.shape, dtype=torch.uint8, device=colors.device)
    for top in range(0, colors.shape[1], _ROWS_PER_STRIP):  # products of a whole photo would take 12 times its memory
        rows = slice(top, top + _ROWS_PER_STRIP)
        weight = opacity[rows].to(torch.int32)
        mixed = colors[:, rows].to(torch.int32) * weight + behind * (255 - weight)
        image[:, rows] = torch.div(mixed + 127, 255, rounding_mode="floor")
    return image


def choose_background(colors: torch.Tensor, opacity: torch.Tensor) -> tuple[int, int, int]:
    """Return a color that the visible part of an image stands out from, above all at its border.

    Among white, black, gray, green, blue and magenta, it is the one with the largest mean distance in RGB to the
    visible pixels, where distances beyond a clear contrast count equally; an earlier one unless a later one is clearly
    better.

    Args:
        colors: Colors of shape `(3, height, width)`, uint8 in [0, 255] or float in [0, 1].
        opacity: Opacity of the same type, of shape `(height, width)`.
    """
    step = max(1, -(-max(opacity.shape) // _MAX_SAMPLES))
    unit = 1 if colors.is_floating_point() else 255
    weight = opacity.float()[None, None]
    # the most opaque pixel of each cell, so that thin lines count, too
    pooled, places = torch.nn.functional.max_pool2d(weight, step, ceil_mode=True, return_indices=True)
    pooled = pooled[0, 0] / unit
    samples = colors.flatten(1)[:, places.flatten()].T.float() * (255 / unit)
    least = -torch.nn.functional.max_pool2d(-pooled[None, None], 5, 1, 2)[0, 0]
    border = (pooled * (least < 0.5)).flatten()
    best, color = -1.0, WHITE
    for candidate in _BACKGROUNDS:
        contrast = (samples - torch.tensor(candidate, dtype=torch.float32, device=samples.device)).norm(dim=1)
        contrast = (contrast / _ENOUGH_CONTRAST).clamp(max=1)
        means = [(contrast * each).sum() / each.sum().clamp(min=1e-6) for each in (pooled.flatten(), border)]
        score = float(sum(means))
        if score > best + _CLEARLY_MORE:
            best, color = score, candidate
    return color


def _read_channels(
    image: Image.Image | np.ndarray | torch.Tensor,
    do_convert_rgb: bool,
    keep_float: bool,
    input_data_format: str | ChannelDimension | None,
    name: str,
) -> torch.Tensor:
    """Return the channels of an image, transparency among them, `(channels, height, width)`."""
    if isinstance(image, Image.Image):
        pixels = np.asarray(_simplify_mode(image, do_convert_rgb, name))
        tensor = torch.from_numpy(pixels.copy())
        return tensor[None] if tensor.ndim == 2 else tensor.permute(2, 0, 1)
    find_image_size(image, name, input_data_format)
    tensor = make_tensor(image, name)
    if tensor.ndim == 2:
        tensor = tensor[None]
    elif _split_shape(tensor, name, input_data_format)[0] == ChannelDimension.LAST:
        tensor = tensor.permute(2, 0, 1)
    return _check_floats(tensor, name) if keep_float and tensor.is_floating_point() else _scale(tensor, name)


def _split_channels(tensor: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the colors `(3, height, width)` and the opacity `(height, width)`, which is None for an opaque image."""
    if tensor.shape[0] not in (1, 3, 4):
        raise ValueError(f"{name} must have 1, 3 or 4 channels with do_convert_rgb=True, got {tensor.shape[0]}.")
    if tensor.shape[0] < 4:
        return tensor.expand(3, -1, -1), None
    full = 1 if tensor.is_floating_point() else 255
    return tensor[:3], None if bool((tensor[3] >= full).all()) else tensor[3]


def _simplify_mode(image: Image.Image, do_convert_rgb: bool, name: str) -> Image.Image | np.ndarray:
    """Convert to 8-bit grayscale, RGB or RGBA; without `do_convert_rgb`, keep other 8-bit modes."""
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        return _scale_deep(image, keep_opacity=do_convert_rgb)
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
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"{name} has mode {mode!r}, which PIL cannot convert to RGB: {error}") from error


def _scale_deep(image: Image.Image, keep_opacity: bool) -> np.ndarray:
    """Scale a grayscale image of more than 8 bit to 8 bit; its transparent color becomes white or RGBA.

    White is 65535 in mode "I;16", but undefined in "I" and "F": there the largest value decides whether it is 1, 255 or
    65535, and other ranges are stretched.
    """
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        transparent = image.info.get("transparency")
        gray = _scale_16_bit(torch.from_numpy(values.astype(np.int32))).numpy()
        if not isinstance(transparent, int):
            return gray
        clear = values == transparent
        if keep_opacity:
            return np.dstack([gray, gray, gray, np.where(clear, 0, 255).astype(np.uint8)])
        return np.where(clear, 255, gray).astype(np.uint8)
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
        if image.is_meta or image.layout != torch.strided:
            raise ValueError(
                f"{name} must be a dense tensor with values, got one that is {image.layout} on device {image.device}."
            )
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
        elif first and last:
            first = image.dtype not in (torch.uint8, np.uint8)  # channels are last in what PIL gives
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


__all__ = [
    "ACCEPTED_IMAGES",
    "IMAGE_SUFFIXES",
    "WHITE",
    "choose_background",
    "composite",
    "convert_to_image",
    "convert_to_tensor",
    "copy_metadata",
    "download",
    "find_image_size",
    "flatten_images",
    "is_open_file",
    "load_image",
    "make_tensor",
    "open_image",
    "split_transparency",
]
