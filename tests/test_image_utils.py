"""Every image kind, from every source, becomes the same upright 8-bit RGB; broken ones one clear error."""

import base64
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from photo_files import encode_transparent, make_png
from PIL import Image

from fclm_hf.image_loading_fclm import open_image
from fclm_hf.image_utils_fclm import (
    choose_background,
    composite,
    convert_to_tensor,
    find_image_size,
    flatten_images,
    load_image,
    split_transparency,
)


HEIGHT, WIDTH = 12, 20


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def gray() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)


@pytest.fixture
def photo(tmp_path: Path, pixels: np.ndarray) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def server(photo: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/photo.png")
                self.end_headers()
            else:
                super().do_GET()

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (photo.parent / "page.html").write_text("<html>not an image</html>")
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(photo.parent)))
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def as_array(image: object, **kwargs: object) -> np.ndarray:
    loaded = load_image(image, **kwargs)
    assert loaded.mode == "RGB"
    return np.asarray(loaded)


def reopen(image: Image.Image, file_format: str, **options: object) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, file_format, **options)
    return Image.open(BytesIO(buffer.getvalue()))


def test_every_source_gives_the_same_pixels(photo: Path, pixels: np.ndarray) -> None:
    data = photo.read_bytes()
    text = base64.b64encode(data).decode()
    unit = pixels / 255
    sources = [
        *(str(photo), photo, data, bytearray(data), memoryview(data), text, f"data:image/png;base64,{text}"),
        *(base64.encodebytes(data).decode(), Image.open(photo), Image.fromarray(pixels)),
        *(pixels, pixels.transpose(2, 0, 1), pixels[:, ::-1][:, ::-1], pixels.astype(np.int64), pixels.astype(">u4")),
        *(unit, unit.astype(np.float32), unit.astype(np.longdouble), pixels.astype(np.float32)),
        *(torch.from_numpy(pixels), torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(unit)),
        *((pixels.astype(np.uint16) * 257), (pixels.astype(">u2") * 257).astype(">u2")),
        *(torch.from_numpy(pixels.astype(np.uint16) * 257), torch.from_numpy(unit).float().requires_grad_()),
    ]
    for index, source in enumerate(sources):
        assert np.array_equal(as_array(source), pixels), index
    alone = torch.from_numpy(unit).bfloat16()
    assert np.abs(as_array(alone).astype(int) - pixels).max() <= 1


def test_urls(server: str, pixels: np.ndarray) -> None:
    assert np.array_equal(as_array(f"{server}/photo.png"), pixels)
    assert np.array_equal(as_array(f"{server}/moved"), pixels)
    broken = {f"{server}/missing.png": "404", f"{server}/page.html": "not an image", "http://[": "cannot be downloaded"}
    for url, reason in broken.items():
        with pytest.raises(ValueError, match=reason) as caught:
            load_image(url)
        assert url in str(caught.value)


def test_a_server_that_is_down_is_one_clear_error(server: str) -> None:
    with pytest.raises(ValueError, match=r"http://127\.0\.0\.1:1/x\.png cannot be downloaded"):
        load_image("http://127.0.0.1:1/x.png")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_rotation(orientation: int, file_format: str) -> None:
    upright = np.zeros((16, 32, 3), dtype=np.uint8)
    upright[:8, :16] = (255, 0, 0)
    upright[:8, 16:] = (0, 255, 0)
    upright[8:, :16] = (0, 0, 255)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL's transpose that a camera held so would have applied
    stored = Image.fromarray(upright)
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if file_format == "WEBP" else {"quality": 95} if file_format == "JPEG" else {}
    loaded = as_array(reopen(stored, file_format, exif=exif, **options)).astype(int)
    assert loaded.shape == upright.shape
    assert np.abs(loaded - upright).mean() < (20 if file_format == "JPEG" else 0.01)


def test_broken_exif_does_not_hide_the_pixels(pixels: np.ndarray) -> None:
    image = reopen(Image.fromarray(pixels), "PNG")
    image.load()
    image.info["exif"] = b"Exif\x00\x00MM\x00*\xff\xff\xff\xff junk"
    assert np.array_equal(as_array(image), pixels)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I", "F"])
def test_opaque_modes(mode: str, pixels: np.ndarray) -> None:
    source = Image.fromarray(pixels)
    if mode == "LAB":
        lab = Image.new("LAB", (WIDTH, HEIGHT), (0, 128, 128))  # L* = 0
        assert as_array(lab).max() <= 1
        return
    image = source.convert(mode)
    reference = np.asarray(image.convert("L" if mode in ("I", "F") else mode).convert("RGB")).astype(int)
    assert np.abs(as_array(image) - reference).max() <= 1


@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBA", "RGBa"])
def test_transparency_is_composited_over_white(mode: str) -> None:
    rgba = np.full((HEIGHT, WIDTH, 4), 60, dtype=np.uint8)
    rgba[..., 3] = np.linspace(0, 255, WIDTH).astype(np.uint8)
    expected = 255 - (255 - 60) * (rgba[..., 3:] / 255) * np.ones(3)
    image = Image.fromarray(rgba).convert("LA" if mode == "La" else mode).convert(mode)
    assert image.mode == mode
    tolerance = 1 if "a" not in mode else 128  # premultiplied colors lose their last bits where they hardly show
    difference = np.abs(as_array(image) - expected)
    assert difference.max() <= tolerance
    assert difference[:, WIDTH // 2 :].max() <= 2
    assert np.abs(as_array(rgba) - expected).max() <= 1
    assert np.abs(as_array(torch.from_numpy(rgba / 255)) - expected).max() <= 1


def test_transparency_stored_beside_the_pixels(gray: np.ndarray) -> None:
    palette = Image.fromarray(gray // 128).convert("P")
    palette.putpalette([255, 0, 0, 0, 0, 255])
    marked = gray // 128 == 0
    opaque = np.where(marked[..., None], (255, 0, 0), (0, 0, 255))
    clear = np.where(marked[..., None], (255, 255, 255), (0, 0, 255))
    assert np.array_equal(as_array(reopen(palette, "PNG")), opaque)
    for file_format in ("PNG", "GIF"):
        assert np.array_equal(as_array(reopen(palette, file_format, transparency=0)), clear)
    assert np.array_equal(as_array(reopen(palette, "PNG", transparency=b"\x00\xff")), clear)
    rgb = Image.fromarray(opaque.astype(np.uint8))
    assert np.array_equal(as_array(reopen(rgb, "PNG", transparency=(255, 0, 0))), clear)
    one = as_array(reopen(Image.fromarray(np.where(marked, 7, 90).astype(np.uint8)), "PNG", transparency=7))
    assert np.array_equal(one, np.where(marked, 255, 90)[..., None].repeat(3, 2))
    deep = as_array(reopen(Image.fromarray(np.where(marked, 0, 25700).astype(np.uint16)), "PNG", transparency=0))
    assert np.array_equal(deep, np.where(marked, 255, 100)[..., None].repeat(3, 2))


def make_transparent() -> tuple[np.ndarray, np.ndarray]:
    """Return gray colors `(height, width, 3)` and an opacity that is 0 on the left, 255 on the right."""
    colors = np.full((16, 24, 3), 90, dtype=np.uint8)
    colors[8:] = 160
    opacity = np.zeros((16, 24), dtype=np.uint8)
    opacity[:, 12:] = 255
    return colors, opacity


@pytest.mark.parametrize("kind", encode_transparent(*make_transparent()))
def test_transparency_of_every_kind_of_file(kind: str) -> None:
    colors, opacity = make_transparent()
    image = open_image(encode_transparent(colors, opacity)[kind])
    found, alpha = split_transparency(image)
    assert alpha is not None
    visible = opacity > 0
    if kind.startswith("lossy"):
        assert np.abs(alpha.numpy().astype(int) - opacity)[:, [*range(10), *range(14, 24)]].max() <= 3
        assert np.abs(found.permute(1, 2, 0).numpy().astype(int) - colors)[:, 14:].mean() < 8
    else:
        assert np.array_equal(alpha, opacity)
        assert np.array_equal(found.permute(1, 2, 0)[visible], colors[visible])


@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBA", "RGBa"])
def test_transparency_of_every_mode(mode: str) -> None:
    colors, opacity = make_transparent()
    image = Image.fromarray(np.dstack([colors, opacity])).convert("LA" if mode == "La" else mode).convert(mode)
    found, alpha = split_transparency(image)
    assert np.array_equal(alpha, opacity)
    assert np.array_equal(found.permute(1, 2, 0)[opacity > 0], colors[opacity > 0])


def test_transparent_colors_of_png_depths() -> None:
    """The transparent color is stored with the depth of the pixels, which PIL scales to 8 bit."""
    four = make_png(4, 0, [bytes([0x12, 0xFF])] * 2, 4, b"\x00\x0f")
    colors, alpha = split_transparency(open_image(four))
    assert alpha.tolist() == [[255, 255, 0, 0]] * 2
    assert colors[0].tolist() == [[17, 34, 255, 255]] * 2
    two = make_png(2, 0, [bytes([0b00011011])], 4, b"\x00\x02")
    assert split_transparency(open_image(two))[1].tolist() == [[255, 255, 0, 255]]
    one = make_png(1, 0, [bytes([0b10100000])], 4, b"\x00\x01")
    assert split_transparency(open_image(one))[1].tolist() == [[0, 255, 0, 255]]
    red, gray = b"\xff\xff\x00\x00\x00\x00", b"\x80\x80" * 3
    deep = make_png(16, 2, [red + gray], 2, red)
    assert split_transparency(open_image(deep))[1].tolist() == [[0, 255]]


def test_a_transparent_color_that_does_not_fit_the_mode() -> None:
    image = Image.new("L", (3, 2), 7)
    image.info["transparency"] = b"\x00"  # of a palette that it had before
    with pytest.raises(ValueError, match="image has mode 'L', which PIL cannot convert to RGB"):
        split_transparency(image)


def test_opaque_images_have_no_transparency(pixels: np.ndarray) -> None:
    source = Image.fromarray(pixels)
    opaque = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    for image in (source, source.convert("RGBA"), source.convert("L"), source.convert("P"), opaque, opaque / 255):
        colors, alpha = split_transparency(image)
        assert alpha is None
        assert torch.equal(colors, convert_to_tensor(image, background=None))


def test_transparent_arrays() -> None:
    colors, opacity = make_transparent()
    rgba = np.dstack([colors, opacity])
    for array in (rgba, rgba.transpose(2, 0, 1), rgba / 255, torch.from_numpy(rgba), rgba.astype(np.uint16) * 257):
        found, alpha = split_transparency(array)
        assert np.array_equal(alpha, opacity)
        assert np.array_equal(found.permute(1, 2, 0), colors)


def paint(*shades: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a square of vertical stripes of some colors on transparency."""
    colors, opacity = torch.zeros(3, 60, 60, dtype=torch.uint8), torch.zeros(60, 60, dtype=torch.uint8)
    opacity[10:50, 10:50] = 255
    for index, color in enumerate(shades):
        colors[:, :, 10 + index * 40 // len(shades) :] = torch.tensor(color, dtype=torch.uint8)[:, None, None]
    return colors, opacity


WHITE, BLACK, GRAY = (255,) * 3, (0,) * 3, (128,) * 3


@pytest.mark.parametrize(
    "shades",
    [(WHITE,), (BLACK,), (GRAY,), (WHITE, BLACK), (WHITE, GRAY, BLACK), ((0, 177, 64), WHITE, BLACK), ((230,) * 3,)],
)
def test_images_stand_out_from_their_background(shades: tuple[tuple[int, int, int], ...]) -> None:
    colors, opacity = paint(*shades)
    for each, alpha in ((colors, opacity), (colors / 255, opacity / 255)):
        background = choose_background(each, alpha)
        assert all(np.linalg.norm(np.subtract(background, shade)) > 90 for shade in shades)
        seen = composite(each, alpha)
        expected = torch.tensor(background) / (255 if seen.is_floating_point() else 1)
        assert torch.allclose(seen[:, 0, 0].float(), expected.float())
        assert torch.equal(seen[:, 10:50, 10:50], each[:, 10:50, 10:50])


def test_the_border_decides_about_the_background() -> None:
    """A dark sticker with a white rim stands out from black no less than the rim from the sticker."""
    colors, opacity = paint((60, 0, 0))
    colors[:, 10:50, 10:50] = 255
    colors[:, 13:47, 13:47] = torch.tensor([120, 0, 60], dtype=torch.uint8)[:, None, None]
    background = choose_background(colors, opacity)
    assert np.linalg.norm(np.subtract(background, WHITE)) > 90
    assert choose_background(colors, torch.zeros_like(opacity)) == WHITE  # nothing is visible
    line = torch.zeros(3000, 3000, dtype=torch.uint8)
    line[1234] = 255  # thinner than the cells that large images are divided into
    assert choose_background(torch.full((3, 3000, 3000), 255, dtype=torch.uint8), line) == BLACK


@pytest.mark.parametrize("kind", ["I;16", "I;16B", "I", "PNG", "TIFF", "PPM", "uint16", "float"])
def test_deep_images_are_scaled_not_clipped(kind: str, gray: np.ndarray) -> None:
    deep = gray.astype(np.uint16) * 257
    image: object = {
        "I;16": lambda: Image.fromarray(deep),
        "I;16B": lambda: Image.frombytes("I;16B", (WIDTH, HEIGHT), deep.astype(">u2").tobytes()),
        "I": lambda: Image.fromarray(deep.astype(np.int32)),
        "PNG": lambda: reopen(Image.fromarray(deep), "PNG"),
        "TIFF": lambda: reopen(Image.fromarray(deep), "TIFF"),
        "PPM": lambda: reopen(Image.fromarray(deep), "PPM"),
        "uint16": lambda: deep,
        "float": lambda: Image.fromarray(gray.astype(np.float32) / 255),
    }[kind]()
    assert np.array_equal(as_array(image), gray[..., None].repeat(3, 2))


def test_numbers_without_a_known_range_are_stretched() -> None:
    values = np.linspace(-3, 5, WIDTH * HEIGHT, dtype=np.float32).reshape(HEIGHT, WIDTH)
    values[0, 0] = -3
    stretched = as_array(Image.fromarray(values))
    assert stretched.min() == 0
    assert stretched.max() == 255
    values[5, 5] = np.nan
    assert as_array(Image.fromarray(values)).max() == 255
    assert as_array(Image.fromarray(np.array([[0, 2**31 - 1]], dtype=np.int32))).tolist() == [[[0] * 3, [255] * 3]]


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation(file_format: str) -> None:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), color) for color in ("red", "lime", "blue")]
    buffer = BytesIO()
    options = {"lossless": True} if file_format == "WEBP" else {}
    frames[0].save(buffer, file_format, save_all=True, append_images=frames[1:], **options)
    assert (as_array(buffer.getvalue()) == (255, 0, 0)).all()


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_truncated_files(file_format: str, tmp_path: Path) -> None:
    path = tmp_path / "cut short.img"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, file_format)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    for source in (str(path), path):
        with pytest.raises(ValueError, match=r"cut short\.img is not an image that PIL can read, or is truncated"):
            load_image(source)
    with pytest.raises(ValueError, match=r"image 3 \(\d+ bytes\)"):
        load_image(path.read_bytes(), name="image 3")


def test_a_lazily_opened_truncated_image_names_its_file(photo: Path) -> None:
    photo.write_bytes(photo.read_bytes()[:300])
    with Image.open(photo) as image, pytest.raises(ValueError, match=r"photo\.png"):
        load_image(image)


def test_what_is_not_an_image(tmp_path: Path) -> None:
    text = tmp_path / "notes.jpg"
    text.write_text("no image")
    (tmp_path / "empty.png").touch()
    for path in (text, tmp_path / "empty.png"):
        with pytest.raises(ValueError, match=path.name):
            load_image(path)
    with pytest.raises(ValueError, match="does not exist"):
        load_image(tmp_path / "missing.png")
    with pytest.raises(ValueError, match="is not a file"):
        load_image(str(tmp_path))
    for text in ("missing.png", "", "dir/cat", "data:image/png,abc", "data:image/png;base64,AAAA", "x" * 5000, "\0"):
        with pytest.raises(ValueError, match="image"):
            load_image(text)
    for other in (None, 3, {"image": 1}, object()):
        with pytest.raises(TypeError, match="must be a URL"):
            load_image(other)


def test_decompression_bombs(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", WIDTH * HEIGHT // 2 - 1)
    with pytest.raises(ValueError, match=r"photo\.png has too many pixels.*MAX_IMAGE_PIXELS"):
        load_image(photo)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 6, 7)), "shape"),
        (np.zeros(9), "shape"),
        (np.zeros((0, 5, 3), np.uint8), "at least one pixel, got shape"),
        (np.full((4, 5, 3), np.nan), "NaN"),
        (np.full((4, 5, 3), np.inf), "NaN or infinity"),
        (np.full((4, 5, 3), -1.0), r"float values in \[0, 1\]"),
        (np.full((4, 5, 3), 1.5), r"float values in \[0, 1\]"),
        (np.full((4, 5, 3), 300.0), r"float values in \[0, 1\]"),
        (np.full((4, 5, 3), -1), "integer values"),
        (np.full((4, 5, 3), 70000), "integer values"),
        (np.full((4, 5, 3), "a"), "dtype"),
        (np.full((4, 5, 3), 1j), "dtype"),
        (torch.full((4, 5, 3), 1j), "dtype"),
    ],
)
def test_arrays_that_are_no_image(array: np.ndarray | torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_image(array, name="image 7")
    assert "image 7" in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 640, 3), (3, 640, 3), (4, 64, 3), (3, 5, 4), (1, 7, 1)])
def test_layouts_that_fit_both_ways(shape: tuple[int, int, int]) -> None:
    """They are as PIL gives them for uint8, else as torch does, and one warning per process says so."""
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for each, size in (
        (array, shape[:2]),
        (torch.from_numpy(array), shape[:2]),
        (array / 255, shape[1:]),
        (torch.from_numpy(array / 255), shape[1:]),
    ):
        with pytest.warns(UserWarning, match="input_data_format") as warned:
            assert convert_to_tensor(each).shape[1:] == size
        assert len(warned) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for layout, size in (("channels_first", shape[1:]), ("channels_last", shape[:2])):
            assert convert_to_tensor(array, input_data_format=layout).shape[1:] == size
            assert find_image_size(array / 255, input_data_format=layout) == size
        for unambiguous in (np.zeros((5, 6, 3), np.uint8), np.zeros((3, 5, 6), np.uint8), np.zeros((3, 4), np.uint8)):
            convert_to_tensor(unambiguous)
    if shape[2] == 3:
        assert np.array_equal(convert_to_tensor(array, input_data_format="channels_last").permute(1, 2, 0), array)


def test_the_warning_about_layouts_is_shown_once() -> None:
    with warnings.catch_warnings(record=True) as shown:  # which forgets what has been shown
        warnings.simplefilter("default")
        for height in (1, 3, 3, 4):
            load_image(np.zeros((height, 20, 3), np.uint8))
    assert [each.category for each in shown] == [UserWarning]


def test_layout_of_arrays() -> None:
    with pytest.warns(UserWarning, match="channels"):
        assert find_image_size(np.zeros((3, 8, 3))) == (8, 3)
    assert find_image_size(np.zeros((3, 8, 3)), input_data_format="channels_last") == (3, 8)
    assert convert_to_tensor(np.zeros((6, 8, 2), np.uint8), False, input_data_format="channels_last").shape == (2, 6, 8)
    assert (as_array(np.array([[True, False]])) == [[[255] * 3, [0] * 3]]).all()
    assert as_array(np.full((5, 6, 1), 9, np.uint8)).shape == (5, 6, 3)


def test_flattening() -> None:
    batch = np.zeros((2, 3, 4, 5), np.uint8)
    assert [each.shape for each in flatten_images(batch)] == [(3, 4, 5)] * 2
    assert flatten_images(["a", ["b", "c"], []]) == ["a", "b", "c", None]
    for empty in ([], [[]], [[], []]):
        with pytest.raises(ValueError, match="empty"):
            flatten_images(empty)
    with pytest.raises(ValueError, match="nested too deeply"):
        flatten_images([[["a"]]])
    with pytest.raises(TypeError, match="got None"):
        flatten_images(["a", None])


def test_open_files(photo: Path, pixels: np.ndarray) -> None:
    data = photo.read_bytes()
    with photo.open("rb") as file:
        assert np.array_equal(as_array(file), pixels)
    assert np.array_equal(as_array(BytesIO(data)), pixels)
    with photo.open() as text, pytest.raises(ValueError, match=r"photo\.png is not an image"):
        load_image(text)
    with pytest.raises(ValueError, match=r"image 3 is not an image that PIL can read, or is truncated"):
        load_image(BytesIO(data[:9]), name="image 3")


def test_channels_that_make_no_colors(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"image 2 must have 1, 3 or 4 channels .*, got 12"):
        load_image(pixels, name="image 2", input_data_format="channels_first")


def test_tensors_without_plain_values(gray: np.ndarray) -> None:
    tensor = torch.from_numpy(gray).float() / 255
    nested = torch.nested.nested_tensor([tensor], layout=torch.jagged)
    for other in (tensor.to("meta"), tensor.to_sparse(), nested):
        with pytest.raises(ValueError, match="image must be a dense tensor with values, got one that is"):
            load_image(other)
