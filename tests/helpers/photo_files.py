"""Image files of awkward kinds, and a web server that serves them."""

import contextlib
import functools
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms


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
