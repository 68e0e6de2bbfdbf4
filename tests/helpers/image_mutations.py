"""Small image files of every format and what breaks them, for tests with hostile files."""

import io
import random
import struct
import zlib
from collections.abc import Iterable

import numpy as np
from photo_files import encode_transparent, make_photo, make_png
from PIL import Image, features

from fclm_hf.image_loading_fclm import open_image
from fclm_hf.image_utils_fclm import composite, split_transparency


MAX_PIXELS = 4 * 1024 * 1024
OPERATIONS = ("flip", "set", "extreme", "delete", "repeat", "insert", "cut", "swap")
_EXTREMES = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\0\0\0", b"\0\1\0\0")


def make_seeds() -> dict[str, bytes]:
    """Return a small file of every format and of the awkward kinds of each."""
    photo = make_photo(24, 20)
    exif = Image.Exif()
    exif[274] = 6
    kinds = {
        "rgb.png": (photo, "PNG", {"exif": exif}),
        "deep.png": (Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257), "PNG", {}),
        "rgb.jpg": (photo, "JPEG", {"exif": exif}),
        "progressive.jpg": (photo, "JPEG", {"progressive": True}),
        "cmyk.jpg": (photo.convert("CMYK"), "JPEG", {}),
        "pair.mpo": (photo, "MPO", {"save_all": True, "append_images": [photo]}),
        "rgb.bmp": (photo, "BMP", {}),
        "palette.bmp": (photo.convert("P"), "BMP", {}),
        "rgb.ppm": (photo, "PPM", {}),
        "bits.pbm": (photo.convert("1"), "PPM", {}),
        "raw.tif": (photo, "TIFF", {}),
        "lzw.tif": (photo, "TIFF", {"compression": "tiff_lzw"}),
        "jpeg.tif": (photo, "TIFF", {"compression": "jpeg"}),
        "fax.tif": (photo.convert("1"), "TIFF", {"compression": "group4"}),
        "float.tif": (photo.convert("F"), "TIFF", {}),
        "animation.gif": (photo, "GIF", {"save_all": True, "append_images": [photo.rotate(9)]}),
        "animation.webp": (photo, "WEBP", {"save_all": True, "append_images": [photo.rotate(9)]}),
    }
    if features.check("jpg_2000"):
        kinds["rgb.jp2"] = (photo, "JPEG2000", {})
    seeds = {"gray4.png": make_png(4, 0, [b"\x12\x34\x56"] * 5, 6, b"\0\2")}
    for name, (image, file_format, options) in kinds.items():
        buffer = io.BytesIO()
        image.save(buffer, file_format, **options)
        seeds[name] = buffer.getvalue()
    try:
        from pillow_heif import from_pillow
    except ImportError:
        pass
    else:
        buffer = io.BytesIO()
        from_pillow(make_photo(64, 64)).save(buffer)
        seeds["photo.heic"] = buffer.getvalue()
    opacity = np.where(np.arange(24) < 12, 0, 255).astype(np.uint8)[None].repeat(20, 0)
    return seeds | encode_transparent(np.full((20, 24, 3), 90, np.uint8), opacity)


def mutate(data: bytes, operations: Iterable[tuple[str, float, int]], repair: bool = True) -> bytes:
    """Break a file.

    Args:
        data: The file.
        operations: Name of the operation, place in [0, 1) and a number that it uses.
        repair: Whether to make the checksums of a PNG right again, so that its decoder gets further.
    """
    broken = bytearray(data)
    for operation, where, value in operations:
        place = int(where * len(broken))
        length = value % 16 + 1
        if operation == "flip" and broken:
            broken[place] ^= 1 << value % 8
        elif operation == "set" and broken:
            broken[place] = value % 256
        elif operation == "extreme":
            extreme = _EXTREMES[value % len(_EXTREMES)]
            broken[place : place + len(extreme)] = extreme
        elif operation == "delete":
            del broken[place : place + length]
        elif operation == "repeat":
            broken[place:place] = broken[place : place + length] * (value % 7 + 1)
        elif operation == "insert":
            broken[place:place] = random.Random(value).randbytes(length)
        elif operation == "cut":
            del broken[place:]
        elif operation == "swap":
            piece = bytes(broken[place : place + length])
            other = value % max(1, len(broken))
            broken[other : other + len(piece)] = piece
    return _repair_png(bytes(broken)) if repair else bytes(broken)


def _repair_png(data: bytes) -> bytes:
    """Make the checksums of a PNG right."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    repaired, place = bytearray(data), 8
    while place + 12 <= len(repaired):
        end = place + 8 + struct.unpack_from(">I", repaired, place)[0]
        if end + 4 > len(repaired):
            break
        struct.pack_into(">I", repaired, end, zlib.crc32(repaired[place + 4 : end]))
        place = end + 4
    return bytes(repaired)


def load_hostile_file(data: bytes, max_pixels: int = MAX_PIXELS) -> bool:
    """Return whether a file is an image; raise an error unless it is one or has the documented error."""
    try:
        colors, opacity = split_transparency(open_image(data, "hostile.img", max_pixels=max_pixels), name="hostile.img")
    except ValueError as error:
        if not str(error).startswith("hostile.img"):
            raise AssertionError(f"the error does not name the file: {error}") from error
        return False
    seen = composite(colors, opacity)
    if tuple(seen.shape) != tuple(colors.shape) or seen.shape[0] != 3 or seen[0].numel() > max_pixels:
        raise AssertionError(f"wrong shape {tuple(seen.shape)}")
    return True
