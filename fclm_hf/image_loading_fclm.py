"""Images from anywhere, decoded and upright. Files, bytes and servers are not trusted: all that is read is limited."""

import base64
import binascii
import inspect
import io
import ipaddress
import os
import socket
import time
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import url2pathname

import numpy as np
import torch
from huggingface_hub.utils import httpx
from PIL import Image, ImageFile, ImageOps


ACCEPTED_IMAGES = (
    "a URL, a path, bytes, an open file, a base64 string or data URL, a PIL image, a numpy array or a torch tensor "
    "(H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels"
)
# those of photos and graphics: none that runs a program, as EPS does, and none without a signature, as TGA
IMAGE_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
# what a folder is searched for
IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff"}
    | {".webp"}
)
MAX_PIXELS = 256 * 1024 * 1024
MAX_BYTES = 1024 * 1024 * 1024
TIMEOUT = 60.0

_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2"}
_KNOWN_STARTS = {
    b"<!doctype html": "an HTML page",
    b"<html": "an HTML page",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML or SVG file",
    b"%pdf": "a PDF",
    b"%!ps": "a PostScript file",
    b"version https://git-lfs": "a Git LFS pointer instead of the file",
    # data URLs, and JPEG, PNG, GIF, and WebP in base64, in lower case
    **dict.fromkeys(
        (b"data:image/", b"/9j/", b"ivborw0kggo", b"r0lgod", b"uklgr"), "base64 text, which must be given as a str"
    ),
}
_PIL_MAX_PIXELS = 1024 * 1024 * 1024 // 4 // 3  # what PIL.Image.MAX_IMAGE_PIXELS is unless someone sets it
_ORIENTATION_TAG = 274
_CHUNK = 1024 * 1024
_LONGEST_PATH = 1024  # what is longer cannot be the name of a file that someone mistyped
_MAX_REDIRECTS = 5
_URL_SAFE = str.maketrans("-_", "+/")
_IS_TEXT = "is not an image: a file must be opened in binary mode, 'rb', got text."


def open_image(
    image: Any,
    name: str = "image",
    timeout: float | None = None,
    max_pixels: int | None = None,
    max_bytes: int | None = None,
) -> Image.Image | np.ndarray | torch.Tensor:
    """Decode the image behind a URL, path, bytes, open file or base64 string and turn it upright, in its own mode.

    Files of the formats AVIF, BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF and WebP are read, and HEIC with the extra
    `heif`. Others can be opened with PIL and given as a PIL image.

    Args:
        image: See [`~fclm_hf.image_utils_fclm.load_image`]. PIL images are decoded and turned upright, arrays and
            tensors are returned as is.
        name (`str`, defaults to `"image"`): Name in error messages of an image that has no file name or URL.
        timeout (`float`, *optional*): Longest time that a download may take, in seconds. Defaults to 60.
        max_pixels (`int`, *optional*): Largest number of pixels of an image. Defaults to 256 * 1024 * 1024, or to twice
            `PIL.Image.MAX_IMAGE_PIXELS`, as in PIL, where that has been changed. Arrays, and PIL images without this
            argument, are in the hands of the caller.
        max_bytes (`int`, *optional*): Largest number of bytes of a file or download. Defaults to 1024 ** 3.

    Raises:
        ValueError: If the image cannot be read or exceeds a limit; the message names the file and the cause.
        TypeError: If `image` is of none of these types, or a file that is read asynchronously.
    """
    if isinstance(image, (np.ndarray, torch.Tensor)):
        if getattr(image, "is_nested", False):  # it has no shape
            raise ValueError(f"{name} must be a dense tensor with values, got one that is nested.")
        return image
    if isinstance(image, Image.Image):
        name = str(getattr(image, "filename", "") or name)
        if max_pixels is not None:
            _check_size(image.size, max_pixels, name)
        return _decode(image, name)
    data, name = _read(image, name, TIMEOUT if timeout is None else timeout, max_bytes or MAX_BYTES)
    return _decode(_identify(data, name, find_pixel_limit() if max_pixels is None else max_pixels), name)


def is_open_file(image: Any) -> bool:
    """Return whether `image` can be read like a file: an open file, `BytesIO`, an upload of a web framework."""
    return callable(getattr(image, "read", None))


def is_undecoded(image: Any) -> bool:
    """Return whether `image` is what `datasets.Image(decode=False)` gives, `{"bytes": ..., "path": ...}`."""
    return isinstance(image, Mapping) and bool(image) and image.keys() <= {"bytes", "path"}


def find_pixel_limit() -> float:
    """Return the default of `max_pixels`: what `PIL.Image.MAX_IMAGE_PIXELS` says if someone has set it."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is None:
        return float("inf")
    return MAX_PIXELS if limit == _PIL_MAX_PIXELS else 2 * limit


def _read(image: Any, name: str, timeout: float, max_bytes: int) -> tuple[BytesIO, str]:
    """Return an encoded image, and what to call it in errors."""
    if isinstance(image, (bytes, bytearray, memoryview)):
        size = memoryview(image).nbytes
        _check_length(size, max_bytes, name)
        return BytesIO(image), f"{name} ({size} bytes)"
    if is_undecoded(image):
        return _read_undecoded(image, name, timeout, max_bytes)
    if isinstance(image, os.PathLike):
        return _read_path(os.fspath(image), max_bytes)
    if is_open_file(image):
        return _read_open_file(image, name, max_bytes)
    if isinstance(image, str):
        return _read_string(image, name, timeout, max_bytes)
    raise TypeError(f"{name} must be {ACCEPTED_IMAGES}, got {type(image).__name__}.")


def _read_undecoded(image: Mapping[str, Any], name: str, timeout: float, max_bytes: int) -> tuple[BytesIO, str]:
    """Read what `datasets.Image(decode=False)` gives."""
    data, path = image.get("bytes"), image.get("path")
    if data is not None:
        stream, shown = _read(data, name, timeout, max_bytes)
        return stream, path or shown
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(f'{name} must have "bytes" or a "path" that is a str, got {type(path).__name__} for the path.')
    return _read(path if _is_web_address(path) else Path(path), name, timeout, max_bytes)


def _read_path(path: str | bytes, max_bytes: int) -> tuple[BytesIO, str]:
    """Read a file."""
    path = os.fsdecode(path)
    try:
        if not (Path(path).is_file() or Path(path).is_fifo()):  # the latter is what a shell gives for <(command)
            problem = "is not a file" if Path(path).exists() else "does not exist"
            raise ValueError(f"The image file {path!r} {problem}.")
        _check_length(Path(path).stat().st_size, max_bytes, path)
        with Path(path).open("rb") as file:
            return _read_chunks(file, max_bytes, path), path
    except OSError as error:
        raise ValueError(f"The image file {path!r} cannot be read: {error}") from error


def _read_open_file(file: Any, name: str, max_bytes: int) -> tuple[BytesIO, str]:
    """Read an open file from its beginning, wherever it stands."""
    names = (getattr(file, "filename", None), getattr(file, "name", None))  # uploads have the former
    name = next((str(each) for each in names if isinstance(each, (str, os.PathLike)) and str(each)), name)
    if inspect.iscoroutinefunction(file.read):
        raise TypeError(_explain_asynchronous(file, name))
    if isinstance(file, io.TextIOBase):
        raise ValueError(f"{name} {_IS_TEXT}")
    try:
        _rewind(file)
    except (OSError, ValueError) as error:  # it is closed
        raise ValueError(f"{name} cannot be read: {error}") from error
    return _read_chunks(file, max_bytes, name), name


def _rewind(file: Any) -> None:
    """Move a file to its beginning if it can seek; those of older Pythons and of some frameworks do not say so."""
    seekable = getattr(file, "seekable", None)
    if seekable() if callable(seekable) else callable(getattr(file, "seek", None)):
        file.seek(0)


def _read_chunks(file: Any, max_bytes: int, name: str) -> BytesIO:
    """Read a file to its end; raise ValueError as soon as it exceeds the limit."""
    data = BytesIO()
    while True:
        try:
            chunk = file.read(_CHUNK)
        except io.UnsupportedOperation as error:
            raise ValueError(f"{name} cannot be read: it is not open for reading.") from error
        except (OSError, ValueError) as error:
            raise ValueError(f"{name} is not an image that PIL can read, or is truncated: {error}") from error
        if inspect.isawaitable(chunk):
            if callable(getattr(chunk, "close", None)):
                chunk.close()  # or Python warns that it was never awaited
            raise TypeError(_explain_asynchronous(file, name))
        if chunk is None:
            raise ValueError(f"{name} cannot be read: it is a non-blocking file that has no data yet.")
        if isinstance(chunk, str):
            raise ValueError(f"{name} {_IS_TEXT}")
        if not chunk:
            break
        data.write(chunk)
        _check_length(data.tell(), max_bytes, name)
    data.seek(0)
    return data


def _explain_asynchronous(file: Any, name: str) -> str:
    """Return the message for a file whose `read` must be awaited."""
    return (
        f"{name} is read asynchronously (read() of {type(file).__name__} is a coroutine): pass the bytes,"
        " `await file.read()`, or for an upload of Starlette or FastAPI its synchronous file, `upload.file`."
    )


def _is_web_address(path: Any) -> bool:
    """Return whether a path is a URL that can be downloaded."""
    return isinstance(path, str) and path[:8].lower().startswith(("http://", "https://"))


def _read_string(text: str, name: str, timeout: float, max_bytes: int) -> tuple[BytesIO, str]:
    """Read a URL, path, base64 string or data URL."""
    if _is_web_address(text):
        return BytesIO(download(text.strip(), timeout, max_bytes)), text.strip()  # a line of a file ends in \n
    if os.path.exists(text):  # noqa: PTH110 - Path.exists raises for long names, as base64 strings are
        return _read_path(text, max_bytes)
    scheme = text[:5].lower()
    if scheme == "file:":
        return _read_path(find_local_path(text, name), max_bytes)
    payload, shown = text, text if len(text) <= 80 else f"{text[:80]}..."
    if scheme == "data:":
        header, separator, payload = text.partition(",")
        if not separator or not header.lower().replace(" ", "").endswith(";base64"):
            raise ValueError(f"{name}: a data URL must have the form 'data:image/...;base64,...', got {shown!r}.")
        payload = unquote(payload)
    _check_length(len(payload) * 3 // 4, max_bytes, name)
    data = _decode_base64(payload)
    if data is None or (payload is text and len(text) <= _LONGEST_PATH and not _is_image_start(data[:32])):
        raise ValueError(
            f"{name}: there is no file {shown!r}, and it is neither a URL that starts with http:// or https:// nor the"
            " base64 text of an image."
        )
    return BytesIO(data), f"{name} (not a file, but base64 text: {shown!r})"


def find_local_path(url: str, name: str) -> str:
    """Return the path of a file:// URL; raise ValueError if it is on another machine."""
    parts = urlsplit(url)
    if parts.netloc.lower() not in ("", "localhost"):
        raise ValueError(f"{name}: a file URL must be that of a local file, file:///..., got {url!r}.")
    return url2pathname(parts.path)


def _decode_base64(text: str) -> bytes | None:
    """Decode base64 of the usual or the URL-safe alphabet, with or without line breaks and padding, or return None."""
    digits = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def download(url: str, timeout: float = TIMEOUT, max_bytes: int = MAX_BYTES) -> bytes:
    """Return what a URL serves.

    At most 5 redirects are followed: to http and https only, not from https to http, and not from a public host to one
    of a private network.

    Args:
        url: Address that starts with `http://` or `https://`.
        timeout: Longest time that the download may take, in seconds.
        max_bytes: Largest number of bytes.

    Raises:
        ValueError: The request fails, takes too long, or its answer is too large.
    """
    deadline = time.monotonic() + timeout
    address = url
    try:
        with httpx.Client(timeout=timeout, headers={"User-Agent": "fclm-hf", "Accept-Encoding": "identity"}) as client:
            for _ in range(_MAX_REDIRECTS + 1):
                with client.stream("GET", address) as response:
                    if not response.is_redirect:
                        response.raise_for_status()
                        return _receive(response, deadline, timeout, max_bytes)
                    address = _follow(address, response.headers.get("location", ""))
        raise ValueError(f"more than {_MAX_REDIRECTS} redirects.")
    except (httpx.HTTPError, httpx.InvalidURL, ImportError, OSError, ValueError) as error:
        # proxies and certificates that the environment names may need another package, or be missing
        answer = getattr(error, "response", None)
        reason = str(error) if answer is None else f"{answer.status_code} {answer.reason_phrase}"
        reason = reason.rstrip(". ") or type(error).__name__
        raise ValueError(f"The image at {url} cannot be downloaded: {reason}.") from error


def _receive(response: Any, deadline: float, timeout: float, max_bytes: int) -> bytes:
    """Return the body of a response; raise ValueError if it is too long or comes too slowly."""
    declared = response.headers.get("content-length", "")
    _check_length(int(declared) if declared.isdecimal() else 0, max_bytes, "the answer")
    data = BytesIO()
    for chunk in response.iter_bytes():
        data.write(chunk)
        _check_length(data.tell(), max_bytes, "the answer")
        if time.monotonic() > deadline:
            raise ValueError(f"it takes longer than timeout={timeout:g} seconds.")
    return data.getvalue()


def _follow(address: str, location: str) -> str:
    """Return where a redirect leads; raise ValueError where it must not."""
    target = urljoin(address, location)
    old, new = urlsplit(address), urlsplit(target)
    if new.scheme not in ("http", "https") or not new.hostname:
        raise ValueError(f"it redirects to {target!r}, which is no http or https address.")
    if (old.scheme, new.scheme) == ("https", "http"):
        raise ValueError(f"it redirects from https to http, {target!r}.")
    if new.hostname != old.hostname and _is_private(new.hostname) and not _is_private(str(old.hostname)):
        raise ValueError(f"it redirects from a public host to one of a private network, {target!r}.")
    return target


def _is_private(host: str) -> bool:
    """Return whether a host name stands for an address that the internet does not reach."""
    try:
        found = {ipaddress.ip_address(entry[4][0].partition("%")[0]) for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError, ValueError):
        return False  # the request fails, or a proxy resolves the name
    return any(not address.is_global for address in found)


def _identify(data: BytesIO, name: str, max_pixels: float) -> Image.Image:
    """Return an encoded image that is not decoded yet.

    `PIL.Image.open` cannot be given a limit on pixels other than the one that the whole process shares.
    """
    start = data.read(32)
    if _is_heif_start(start):
        data.seek(0)
        image = _open_heif(data, name)
        _check_size(image.size, max_pixels, name)
        return image
    Image.init()
    problems = []
    for file_format in IMAGE_FORMATS:
        factory, accepts = Image.OPEN.get(file_format, (None, None))
        if factory is None:  # this Pillow has been built without it
            continue
        verdict = accepts is None or accepts(start[:16])
        if isinstance(verdict, str):
            problems.append(verdict)
        elif verdict:
            data.seek(0)
            try:
                image = factory(data, "")
            except Image.DecompressionBombError as error:
                raise ValueError(_explain_bomb(name, error)) from error
            except MemoryError:
                raise
            except Exception as error:  # decoders raise anything on broken data
                problems.append(f"{file_format}: {error}")
                continue
            _check_size(image.size, max_pixels, name)
            return image
    cause = "; ".join(problems) or _describe(data, start)
    raise ValueError(f"{name} is not an image that PIL can read, or is truncated: {cause}.")


def _is_heif_start(start: bytes) -> bool:
    """Return whether a file starts as HEIC files do."""
    return start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS


def _is_image_start(start: bytes) -> bool:
    """Return whether a file starts as those of some known format do."""
    Image.init()
    accepting = (Image.OPEN.get(file_format, (None, None))[1] for file_format in IMAGE_FORMATS)
    return _is_heif_start(start) or any(accepts is not None and accepts(start[:16]) for accepts in accepting)


def _describe(data: BytesIO, start: bytes) -> str:
    """Describe data that is of no known format."""
    if not start:
        return "it is empty"
    plain = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    known = next((what for magic, what in _KNOWN_STARTS.items() if plain.startswith(magic)), None)
    if known:
        return f"it is {known}"
    return f"its {data.getbuffer().nbytes} bytes start with {start[:12]!r}, as none of {', '.join(IMAGE_FORMATS)} does"


def _open_heif(data: BytesIO, name: str) -> Image.Image:
    """Open a HEIC image without registering its format for the whole process."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise ValueError(
            f"{name} is a HEIC image, which needs the extra heif: pip install fclm-hf[heif], or pip install"
            " pillow-heif."
        ) from error
    try:
        return HeifImageFile(data, "")
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"{name} is not an image that pillow-heif can read, or is truncated: {error}") from error


def _decode(image: Image.Image, name: str) -> Image.Image:
    """Decode an image and turn it upright; any error of PIL's decoders on broken data becomes a ValueError."""
    try:
        raw_mode = _find_raw_mode(image)
        image.load()
    except Image.DecompressionBombError as error:
        raise ValueError(_explain_bomb(name, error)) from error
    except (MemoryError, Image.DecompressionBombWarning):  # the latter only if the user turned it into an error
        raise
    except Exception as error:
        if isinstance(image, ImageFile.ImageFile) and _is_closed(image):
            raise ValueError(f"{name} cannot be decoded: its file has been closed; call load() before.") from error
        reason = str(error) or type(error).__name__
        raise ValueError(f"{name} is not an image that PIL can read, or is truncated: {reason}") from error
    _scale_transparent_color(image, raw_mode)
    try:
        rotated = image.getexif().get(_ORIENTATION_TAG, 1) in range(2, 9)
        return ImageOps.exif_transpose(image) if rotated else image
    except Exception:  # a broken EXIF block has no rotation, but the pixels are fine
        return image


def _is_closed(image: ImageFile.ImageFile) -> bool:
    """Return whether the file of a PIL image has been closed; what PIL leaves in its place is not a file."""
    return getattr(image.fp, "closed", not callable(getattr(image.fp, "read", None)))


def _find_raw_mode(image: Image.Image) -> str:
    """Return how the pixels of an image that is not decoded yet are stored, "L;4" for 4-bit gray levels."""
    tiles = getattr(image, "tile", None) or [(None, None, None, "")]
    return str(tiles[0][3])


def _scale_transparent_color(image: Image.Image, raw_mode: str) -> None:
    """Scale the transparent color of a PNG to 8 bits, as PIL has scaled the pixels."""
    color = image.info.get("transparency")
    if raw_mode in ("L;2", "L;4") and isinstance(color, int):
        image.info["transparency"] = min(255, color * (85 if raw_mode == "L;2" else 17))
    elif raw_mode == "RGB;16B" and isinstance(color, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in color)


def _check_size(size: tuple[int, int], max_pixels: float, name: str) -> None:
    """Raise ValueError if an image has too many pixels, or none."""
    width, height = size
    if width * height > max_pixels:
        raise ValueError(
            f"{name} has too many pixels: {width} x {height} exceeds the limit of {max_pixels:.0f}. Raise max_pixels,"
            " or PIL.Image.MAX_IMAGE_PIXELS, if you trust its source."
        )
    if width < 1 or height < 1:
        raise ValueError(f"{name} is not an image that PIL can read: it has no pixels, {width} x {height}.")


def _explain_bomb(name: str, error: Exception) -> str:
    """Return the message for what PIL itself refuses to decode."""
    return f"{name} has too many pixels: {error} Raise PIL.Image.MAX_IMAGE_PIXELS if you trust its source."


def _check_length(length: int, max_bytes: int, name: str) -> None:
    """Raise ValueError if a file has too many bytes."""
    if length > max_bytes:
        raise ValueError(f"{name} is too large: it has more than max_bytes={max_bytes} bytes.")


__all__ = [
    "ACCEPTED_IMAGES",
    "IMAGE_FORMATS",
    "IMAGE_SUFFIXES",
    "MAX_BYTES",
    "MAX_PIXELS",
    "TIMEOUT",
    "download",
    "find_pixel_limit",
    "is_open_file",
    "is_undecoded",
    "open_image",
]
