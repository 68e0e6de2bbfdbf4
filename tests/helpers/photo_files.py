"""Image files of awkward kinds, and a web server that serves them."""

import contextlib
import functools
import http.server
import io
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, features


def make_photo(width: int = 50, height: int = 40, seed: int = 0) -> Image.Image:
    """Return a photo of a bright disc on a dark, noisy background."""
    rows, columns = np.mgrid[:height, :width]
    disc = np.hypot(rows - height / 2, columns - width / 3) < min(height, width) / 4
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3))
    return Image.fromarray((noise + disc[..., None] * np.array([180, 120, 40])).astype(np.uint8))


def write_awkward_photos(folder: Path) -> dict[str, tuple[int, int]]:
    """Write one file of each kind and return their upright sizes (width, height)."""
    folder.mkdir(parents=True, exist_ok=True)
    photo = make_photo()
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn
    photo.save(folder / "rotated.jpg", exif=exif)
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257).save(folder / "deep.png")
    photo.convert("P").save(folder / "palette.gif")
    photo.convert("RGBA").save(folder / "transparent.webp")
    photo.save(folder / "profile.png", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    return {path.name: (40, 50) if path.name == "rotated.jpg" else (50, 40) for path in sorted(folder.iterdir())}


def write_truncated(path: Path) -> None:
    """Write an image file whose end is missing."""
    make_photo(200, 200).save(path)
    path.write_bytes(path.read_bytes()[:2000])


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Handler that serves files, some of them slowly, and logs nothing."""

    def do_GET(self) -> None:
        """Serve a file."""
        if "slow" in self.path:
            time.sleep(2)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            super().do_GET()

    def log_message(self, *args: object) -> None:
        """Print nothing."""


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve the files of a folder on the loopback device and yield the address; names with "slow" take 2 seconds."""
    handler = functools.partial(_Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def make_png(bit_depth: int, color_type: int, rows: list[bytes], width: int, transparent: bytes = b"") -> bytes:
    """Return a PNG of a kind that PIL does not write; `rows` are packed samples, `transparent` is the tRNS chunk."""

    def pack(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, len(rows), bit_depth, color_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    middle = pack(b"tRNS", transparent) if transparent else b""
    return b"\x89PNG\r\n\x1a\n" + pack(b"IHDR", header) + middle + pack(b"IDAT", pixels) + pack(b"IEND", b"")


def encode_transparent(colors: np.ndarray, opacity: np.ndarray) -> dict[str, bytes]:
    """Return an image with transparency as a file of each kind that has any; the first ones keep colors exactly.

    Args:
        colors: uint8 of shape `(height, width, 3)`, gray levels and at most 100 of them.
        opacity: uint8 of shape `(height, width)`; those of a palette, a GIF and a tRNS color are 0 or 255.
    """
    rgba = Image.fromarray(np.dstack([colors, opacity]))
    binary = np.where(opacity < 128, 0, 255).astype(np.uint8)
    gray = np.where(binary == 0, 1, np.maximum(colors[..., 0], 2)).astype(np.uint8)
    palette = Image.fromarray(gray).convert("P")
    marked = np.where(binary[..., None] == 0, (1, 2, 3), np.maximum(colors, 4)).astype(np.uint8)
    deep = np.where(binary == 0, 1, gray.astype(np.uint16) * 257).astype(np.uint16)
    kinds = {
        "rgba.png": (rgba, "PNG", {}),
        "la.png": (rgba.convert("LA"), "PNG", {}),
        "lossless.webp": (rgba, "WEBP", {"lossless": True, "exact": True}),
        "rgba.tif": (rgba, "TIFF", {}),
        "animation.png": (rgba, "PNG", {"save_all": True, "append_images": [Image.new("RGBA", rgba.size, "red")]}),
        "palette.png": (palette, "PNG", {"transparency": 1}),
        "palette_alphas.png": (palette, "PNG", {"transparency": b"\xff\x00"}),
        "palette.gif": (palette, "GIF", {"transparency": 1}),
        "gray_color.png": (Image.fromarray(gray), "PNG", {"transparency": 1}),
        "color.png": (Image.fromarray(marked), "PNG", {"transparency": (1, 2, 3)}),
        "deep_color.png": (Image.fromarray(deep), "PNG", {"transparency": 1}),
        "lossy.webp": (rgba, "WEBP", {"quality": 95}),
    }
    if features.check("avif"):
        kinds["lossy.avif"] = (rgba, "AVIF", {"quality": 95})
    files = {}
    for name, (image, file_format, options) in kinds.items():
        buffer = io.BytesIO()
        image.save(buffer, file_format, **options)
        files[name] = buffer.getvalue()
    return files
