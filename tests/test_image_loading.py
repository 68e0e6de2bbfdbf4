"""Where images come from: files wherever they stand, downloads, formats, and the limits on all of them."""

import base64
import contextlib
import io
import os
import sys
import tempfile
import threading
import time
import warnings
import zlib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from photo_files import make_photo, make_png
from PIL import Image, features

from fclm_hf import image_loading_fclm
from fclm_hf.image_loading_fclm import IMAGE_FORMATS, MAX_BYTES, MAX_PIXELS, download, open_image


@pytest.fixture
def photo() -> Image.Image:
    return make_photo()


def encode(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def test_open_files_are_read_from_wherever_they_stand(photo: Image.Image, tmp_path: Path) -> None:
    expected = np.asarray(photo)
    path = tmp_path / "photo.png"
    path.write_bytes(encode(photo))
    written = io.BytesIO()
    photo.save(written, "PNG")  # stands at its end
    spooled = tempfile.SpooledTemporaryFile()  # noqa: SIM115
    spooled.write(encode(photo))
    with path.open("rb") as file, path.open("rb", buffering=0) as raw:
        file.read()
        raw.seek(7)
        for source in (written, written, spooled, file, file, raw):
            assert np.array_equal(open_image(source), expected)
    spooled.close()


def test_a_pipe_is_read_from_where_it_stands(photo: Image.Image) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as file:
        file.write(encode(photo))
    with os.fdopen(reader, "rb") as file:
        assert np.array_equal(open_image(file), np.asarray(photo))
        with pytest.raises(ValueError, match=r"image 2 is not an image .*: it is empty"):
            open_image(file, "image 2")  # nothing is left


class Upload:
    """An upload of Starlette or FastAPI."""

    filename = "cat.png"

    def __init__(self, data: bytes) -> None:
        self.file = io.BytesIO(data)

    async def read(self, size: int = -1) -> bytes:
        return self.file.read(size)

    async def seek(self, offset: int) -> None:
        self.file.seek(offset)


class Wrapped:
    """An asynchronous file whose `read` is no coroutine function but returns a coroutine."""

    def __init__(self, upload: Upload) -> None:
        self.upload = upload

    def read(self, size: int = -1) -> Any:
        return self.upload.read(size)


@pytest.mark.filterwarnings("error")  # a coroutine that was never awaited
@pytest.mark.parametrize("before", [0, 200])
def test_a_file_that_does_not_wait_for_its_data(photo: Image.Image, before: int) -> None:
    """Half a file must not be taken for the whole one."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.write(writer, encode(photo)[:before])
    with os.fdopen(reader, "rb", buffering=0) as file, pytest.raises(ValueError, match="non-blocking file that has no"):
        open_image(file)
    os.close(writer)


def test_asynchronous_uploads(photo: Image.Image) -> None:
    upload = Upload(encode(photo))
    with pytest.raises(TypeError, match=r"cat\.png is read asynchronously.*await file\.read\(\).*upload\.file"):
        open_image(upload)
    with pytest.raises(TypeError, match=r"image 4 is read asynchronously"):
        open_image(Wrapped(upload), "image 4")
    assert np.array_equal(open_image(upload.file), np.asarray(photo))


def test_files_that_cannot_be_read(photo: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(encode(photo))
    with path.open("rb") as file:
        pass
    with pytest.raises(ValueError, match=r"photo\.png cannot be read: .*closed file"):
        open_image(file)
    with pytest.raises(ValueError, match="binary mode"):
        open_image(io.StringIO("text"))
    with path.open() as file, pytest.raises(ValueError, match=r"photo\.png is not an image: .* in binary mode, 'rb'"):
        open_image(file)
    with (
        path.open("ab") as file,
        pytest.raises(ValueError, match=r"photo\.png cannot be read: it is not open for read"),
    ):
        open_image(file)
    with pytest.raises(ValueError, match=r'image must have "bytes" or a "path" that is a str, got Image for the path'):
        open_image({"path": photo})
    with Image.open(path) as image:
        pass
    closed = Image.open(path)
    closed.close()
    for each in (image, closed):
        with pytest.raises(ValueError, match=r"photo\.png cannot be decoded: its file has been closed"):
            open_image(each)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no FIFOs")
def test_a_named_pipe(photo: Image.Image, tmp_path: Path) -> None:
    """What a shell gives for `<(command)`, and /dev/stdin behind a pipe."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(encode(photo),))
    writer.start()
    assert np.array_equal(open_image(path), np.asarray(photo))
    writer.join()


@pytest.mark.parametrize("file_format", IMAGE_FORMATS)
def test_formats(file_format: str, photo: Image.Image) -> None:
    if file_format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    opened = open_image(encode(photo, file_format))
    assert opened.format == file_format
    assert np.abs(np.asarray(opened.convert("RGB")).astype(int) - np.asarray(photo)).mean() < 25


@pytest.mark.parametrize("file_format", ["EPS", "PCX", "TGA", "ICO", "SGI", "DDS"])
def test_other_formats_need_pil(file_format: str, photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening EPS would run Ghostscript; whoever wants it opens it."""
    data = encode(photo, file_format)
    monkeypatch.setattr("subprocess.check_call", lambda *args, **kwargs: pytest.fail("a program was run"))
    with pytest.raises(ValueError, match=r"a\.img is not an image that PIL can read") as caught:
        open_image(io.BytesIO(data), "a.img")
    assert any(cause in str(caught.value) for cause in ("as none of AVIF, BMP", "PostScript"))
    if file_format != "EPS":
        assert open_image(Image.open(io.BytesIO(data))).size[0] > 0


def test_errors_name_the_cause(tmp_path: Path) -> None:
    for content, cause in {
        b"": "it is empty",
        b"<!DOCTYPE html><html></html>": "it is an HTML page",
        b"\n <svg xmlns='...'/>": "it is an SVG drawing",
        b"%PDF-1.7": "it is a PDF",
        b"version https://git-lfs.github.com/spec/v1\n": "it is a Git LFS pointer",
        b"\x89PNG\r\n\x1a\nabc": "PNG: ",
        b"RIFFxxxxWEBPVP8 ": "WEBP: ",
        b"just text": "its 9 bytes start with b'just text', as none of",
    }.items():
        path = tmp_path / "what.png"
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"what\.png is not an image that PIL can read, or is truncated: "
        ) as caught:
            open_image(path)
        assert cause in str(caught.value)


def test_limits_on_pixels(photo: Image.Image, tmp_path: Path) -> None:
    data = encode(photo)
    (tmp_path / "a.png").write_bytes(data)
    for source in (data, tmp_path / "a.png", io.BytesIO(data), Image.open(io.BytesIO(data)), photo):
        assert open_image(source, max_pixels=2000).size == (50, 40)
        with pytest.raises(ValueError, match="too many pixels: 50 x 40 exceeds the limit of 1999"):
            open_image(source, max_pixels=1999)


def declare_png(width: int, height: int) -> io.BytesIO:
    """Return a PNG that declares a size, without its pixels."""
    data = bytearray(make_png(8, 2, [b"\0" * 3], 1))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return io.BytesIO(data)


def test_the_default_limits_pass_200_megapixels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_PIXELS > 200e6
    assert MAX_BYTES > 200e6 * 4
    limit_of_pil = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nor does PIL warn
        image = image_loading_fclm._identify(
            declare_png(20000, 10000), "large.png", image_loading_fclm.find_pixel_limit()
        )
        assert image.size == (20000, 10000)
        for size in ((20000, 20000), (2**31 - 1, 2**31 - 1)):
            with pytest.raises(ValueError, match=r"large\.png has too many pixels.*max_pixels"):
                open_image(declare_png(*size), "large.png")
    assert limit_of_pil == Image.MAX_IMAGE_PIXELS
    for limit, size in ((1000, (41, 50)), (None, None)):  # who has set PIL's limit means it
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        if size:
            with pytest.raises(ValueError, match=r"41 x 50 exceeds the limit of 2000"):
                open_image(declare_png(*size))
        else:
            assert image_loading_fclm.find_pixel_limit() == float("inf")


def test_limits_on_bytes(photo: Image.Image, tmp_path: Path) -> None:
    data = encode(photo)
    (tmp_path / "a.png").write_bytes(data)
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as file:
        file.write(data)
    with os.fdopen(reader, "rb") as pipe:
        for source in (
            data,
            memoryview(data),
            tmp_path / "a.png",
            io.BytesIO(data),
            base64.b64encode(data).decode(),
            pipe,
        ):
            with pytest.raises(ValueError, match="is too large: it has more than max_bytes=1000 bytes"):
                open_image(source, max_bytes=1000)
    assert open_image(data, max_bytes=len(data)).size == photo.size


class Server:
    """A web server whose answer is a function of the request handler."""

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler], None]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with contextlib.suppress(OSError):  # the client is gone
                    answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self) -> str:
        self.thread.start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *args: object) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


def test_why_a_download_fails_is_one_line(photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        found = request.path == "/a.png"
        request.send_response(200 if found else 404)
        request.end_headers()
        request.wfile.write(encode(photo) if found else b"")

    with Server(answer) as url:
        assert open_image(f"{url}/a.png\n").size == photo.size  # a line of a file
        with pytest.raises(ValueError, match=r"/b\.png cannot be downloaded: 404 Not Found\.$"):
            open_image(f"{url}/b.png")
        monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file")
        with pytest.raises(ValueError, match=r"/a\.png cannot be downloaded: .*No such file"):
            open_image(f"{url}/a.png")


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("file:///etc/passwd", "no http or https address"),
        ("ftp://127.0.0.1/a.png", "no http or https address"),
        ("data:image/png;base64,AAAA", "no http or https address"),
        ("/again", "more than 5 redirects"),
        ("", "more than 5 redirects"),
    ],
)
def test_redirects_are_checked(location: str, reason: str) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", location)
        handler.end_headers()

    with Server(answer) as address, pytest.raises(ValueError, match=reason) as caught:
        open_image(f"{address}/start.png")
    assert f"The image at {address}/start.png cannot be downloaded" in str(caught.value)


def test_where_redirects_may_lead(monkeypatch: pytest.MonkeyPatch) -> None:
    follow = image_loading_fclm._follow
    addresses = {"example.com": "93.184.216.34", "cdn.example.com": "93.184.216.35", "inside.example.com": "10.0.0.7"}
    monkeypatch.setattr(
        "socket.getaddrinfo", lambda host, port: [(0, 0, 0, "", (addresses.get(host, host.strip("[]")), 0))]
    )
    assert follow("https://example.com/a", "https://cdn.example.com/b") == "https://cdn.example.com/b"
    assert follow("http://example.com/a", "https://example.com/a") == "https://example.com/a"
    assert follow("http://10.0.0.7/a", "http://10.0.0.8/b") == "http://10.0.0.8/b"
    with pytest.raises(ValueError, match="from https to http"):
        follow("https://example.com/a", "http://example.com/a")
    for private in ("inside.example.com", "127.0.0.1", "169.254.169.254", "[::1]", "192.168.1.1"):
        with pytest.raises(ValueError, match="private network"):
            follow("http://example.com/a", f"http://{private}/a")


def test_downloads_are_limited(photo: Image.Image) -> None:
    data = encode(photo)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        if "declared" in handler.path:
            handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        if "slow" in handler.path:
            for byte in data[:100]:
                handler.wfile.write(bytes([byte]))
                time.sleep(0.05)
        elif "endless" in handler.path:
            while True:
                handler.wfile.write(data)
        handler.wfile.write(data)

    with Server(answer) as address:
        assert download(f"{address}/declared.png") == data
        for name in ("declared", "undeclared", "endless"):
            with pytest.raises(ValueError, match="max_bytes=1000"):
                open_image(f"{address}/{name}.png", max_bytes=1000)
        start = time.monotonic()
        with pytest.raises(
            ValueError, match=r"slow\.png cannot be downloaded: it takes longer than timeout=0\.3 seconds"
        ):
            open_image(f"{address}/slow.png", timeout=0.3)
        assert time.monotonic() - start < 3


def test_heic(photo: Image.Image, tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    large = photo.resize((128, 96))
    path = tmp_path / "photo.heic"
    pillow_heif.from_pillow(large).save(path, quality=95)
    for source in (path, str(path), path.read_bytes()):
        opened = open_image(source)
        assert (opened.mode, opened.size) == ("RGB", (128, 96))
        assert np.abs(np.asarray(opened).astype(int) - np.asarray(large)).mean() < 12
    with pytest.raises(ValueError, match=r"photo\.heic has too many pixels"):
        open_image(path, max_pixels=5000)
    exif = Image.Exif()
    exif[274] = 6
    large.info["exif"] = exif.tobytes()
    pillow_heif.from_pillow(large).save(tmp_path / "turned.heic")
    turned = pillow_heif.HeifImageFile(tmp_path / "turned.heic")  # the container says how to turn it, EXIF only repeats
    assert turned.info["original_orientation"] == 6
    assert np.array_equal(open_image(tmp_path / "turned.heic"), turned)
    large.putalpha(Image.new("L", large.size, 100))
    pillow_heif.from_pillow(large).save(tmp_path / "clear.heic")
    assert open_image(tmp_path / "clear.heic").mode == "RGBA"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"photo\.heic is not an image"):
        open_image(path)
    assert "HEIF" not in Image.OPEN  # nothing is registered for the whole process


def test_heic_without_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "photo.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ValueError, match=r"photo\.heic is a HEIC image, which needs the extra heif: .*pillow-heif"):
        open_image(path)


def test_spellings_of_urls_and_base64(photo: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "a photo é.png"
    photo.save(path)
    data = path.read_bytes()
    text = base64.b64encode(data).decode()
    assert {"+", "/"} & set(text)  # so that the two alphabets differ
    for image in (
        path.as_uri(),
        f"file://localhost{path}",
        f"DATA:image/png;BASE64,{text}",
        f"data:image/png;name=a.png;base64,{text}",
        base64.urlsafe_b64encode(data).decode(),
        base64.encodebytes(data).decode(),
        text.rstrip("="),
        f"data:image/png; base64,{text}",
        f"data:image/png;base64,{quote(text, safe='')}",
    ):
        assert open_image(image).tobytes() == photo.tobytes()
    with pytest.raises(ValueError, match=r"must be that of a local file, file:///..., got 'file://host/a.png'"):
        open_image("file://host/a.png")
    with pytest.raises(ValueError, match=r"The image file '/no/such.png' does not exist"):
        open_image("file:///no/such.png")
    with pytest.raises(ValueError, match=r"it is base64 text, which must be given as a str"):
        open_image(text.encode())
    with pytest.raises(ValueError, match=r"it is base64 text, which must be given as a str"):
        open_image(f"data:image/png;base64,{text}".encode())
    with pytest.raises(ValueError, match=r"The image at HTTP://127.0.0.1:1/x cannot be downloaded"):
        open_image("HTTP://127.0.0.1:1/x")
