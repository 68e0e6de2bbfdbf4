"""Awkward images are used, broken ones skipped and counted by reason, and too many of them end the stream."""

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw
from training_sets import background_rows, encode, make_cutout, make_png, write_parquet

from fclm_hf.data import (
    CompositionSettings,
    InvalidReason,
    InvalidSampleCounter,
    InvalidSampleError,
    PairSettings,
    PairStream,
    RetryPolicy,
    Shard,
    SourceConfig,
    StreamError,
    TooManyInvalidSamplesError,
    open_source,
)
from fclm_hf.data.sources.decoding import decode_alpha, decode_cutout, decode_image, decode_photo, read_bytes
from fclm_hf.data.streaming.mixture import SampleStream


WIDTH, HEIGHT = 32, 24
ROTATED = Image.Exif()
ROTATED[274] = 6  # shown turned by a quarter to the right


def make_photo() -> Image.Image:
    """White at the top left, red at the top right, blue below."""
    photo = Image.new("RGB", (WIDTH, HEIGHT), (20, 20, 220))
    draw = ImageDraw.Draw(photo)
    draw.rectangle((0, 0, WIDTH // 2 - 1, HEIGHT // 2 - 1), fill="white")
    draw.rectangle((WIDTH // 2, 0, WIDTH, HEIGHT // 2 - 1), fill=(220, 20, 20))
    return photo


def make_alpha() -> Image.Image:
    """255 at the top left, else 0."""
    alpha = Image.new("L", (WIDTH, HEIGHT))
    ImageDraw.Draw(alpha).rectangle((0, 0, WIDTH // 2 - 1, HEIGHT // 2 - 1), fill=255)
    return alpha


def deepen(alpha: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(alpha).astype(np.uint16) * 257)


def lie_down(image: Image.Image) -> Image.Image:
    """The pixels that `ROTATED` sets upright."""
    return image.transpose(Image.Transpose.ROTATE_90)


def animate(image: Image.Image, kind: str) -> bytes:
    later = Image.new(image.mode, image.size, "black")
    return encode(image, kind, save_all=True, append_images=[later, later], duration=50, loop=0)


def good_rows() -> list[tuple[str, bytes, bytes]]:
    """Kind, photo and alpha."""
    photo, alpha = make_photo(), make_alpha()
    plain = encode(alpha)
    return [
        ("cmyk", encode(photo.convert("CMYK"), "JPEG", quality=98), plain),
        ("16-bit", encode(photo), encode(deepen(alpha))),
        ("palette", encode(photo.quantize(16)), encode(alpha.convert("P"))),
        ("rotated", encode(lie_down(photo), "JPEG", quality=98, exif=ROTATED), encode(alpha)),
        ("animated", animate(photo, "GIF"), plain),
        ("animated webp", animate(photo, "WEBP"), encode(Image.merge("RGBA", [alpha] * 4))),
        ("rotated alpha", encode(photo), encode(lie_down(alpha), exif=ROTATED)),
        ("mask of ones", encode(photo), encode(Image.fromarray((np.asarray(alpha) > 0).astype(np.uint8)))),
        ("1-bit alpha", encode(photo, "TIFF"), encode(alpha.convert("1"))),
        ("small alpha", encode(photo), encode(alpha.resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BOX))),
    ]


def bad_rows() -> list[tuple[InvalidReason, bytes | None, bytes | None]]:
    photo, alpha = encode(make_photo()), encode(make_alpha())
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    jpeg = encode(noise, "JPEG")
    return [
        (InvalidReason.BROKEN, jpeg[: len(jpeg) * 2 // 3], alpha),
        (InvalidReason.BROKEN, encode(noise)[:-400], alpha),
        (InvalidReason.NOT_AN_IMAGE, b"<html>404</html>", alpha),
        (InvalidReason.NOT_AN_IMAGE, photo, b"%PDF-1.4 something else"),
        (InvalidReason.EMPTY_FILE, b"", alpha),
        (InvalidReason.EMPTY_ALPHA, photo, encode(Image.new("L", (WIDTH, HEIGHT)))),
        (InvalidReason.TOO_LARGE, make_png(60_000, 60_000), alpha),
        (InvalidReason.TOO_LARGE, photo, make_png(12_000, 12_000)),
        (InvalidReason.ZERO_SIZE, make_png(0, 24), alpha),
        (InvalidReason.SIZE_MISMATCH, photo, encode(Image.new("L", (HEIGHT, WIDTH), 255))),
        (InvalidReason.MISSING, None, alpha),
    ]


@pytest.mark.parametrize(
    ("kind", "photo", "alpha"), good_rows(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_awkward_images_are_decoded_upright(kind, photo, alpha):
    pixels = decode_photo(photo).astype(int)
    opacity = decode_alpha(alpha, (HEIGHT, WIDTH))
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert opacity.shape == (HEIGHT, WIDTH)
    for (row, column), color in {(4, 4): (255, 255, 255), (4, 28): (220, 20, 20), (20, 16): (20, 20, 220)}.items():
        assert np.abs(pixels[row, column] - color).max() < 25
    assert opacity[:11, :15].min() == 255
    assert opacity[14:].max() == 0 == opacity[:, 18:].max()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "palette", "webp"])
def test_cutouts_of_any_kind_keep_their_alpha(mode):
    image = make_cutout(0)
    image.putpixel((0, 0), (9, 9, 9, 255))
    data = {
        "RGBA": lambda: encode(image),
        "LA": lambda: encode(image.convert("LA")),
        "palette": lambda: encode(image.quantize(8)),
        "webp": lambda: encode(image, "WEBP", lossless=True),
    }[mode]()
    colors, alpha = decode_cutout(data)
    assert colors.shape == (16, 16, 3)
    assert alpha.shape == (16, 16)
    assert alpha[8, 8] == 1 == alpha[0, 0]
    assert alpha[0, 15] == 0


@pytest.mark.parametrize("image", [make_photo(), make_photo().convert("RGBA")], ids=["RGB", "opaque RGBA"])
def test_opaque_images_are_not_cutouts(image):
    with pytest.raises(InvalidSampleError, match="no transparency"):
        decode_cutout(encode(image))
    with pytest.raises(InvalidSampleError, match="alpha is 0 everywhere"):
        decode_cutout(encode(Image.new("RGBA", (4, 4))))


def test_relative_paths_start_at_the_source(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"abc")
    for value, base in (("a.bin", str(tmp_path)), (str(tmp_path / "a.bin"), ""), ({"bytes": b"abc", "path": "x"}, "")):
        assert read_bytes(value, base, RetryPolicy(0)) == b"abc"
    assert read_bytes({"bytes": None, "path": f"file://{tmp_path}/a.bin"}, "", RetryPolicy(0)) == b"abc"
    for value in ("b.bin", None, {"bytes": None, "path": None}):
        with pytest.raises(InvalidSampleError, match="missing image"):
            read_bytes(value, str(tmp_path), RetryPolicy(0))


def test_pixels_are_counted_before_they_are_decoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", WIDTH * HEIGHT - 1)
    with pytest.raises(InvalidSampleError, match=f"too many pixels: {WIDTH} x {HEIGHT}"):
        decode_image(encode(make_photo()))


def test_invalid_files_among_a_thousand_are_counted_and_skipped(tmp_path):
    """1,000 rows in a folder: 600 plain, 200 awkward, 200 broken."""
    rng = np.random.default_rng(0)
    good, bad = good_rows(), bad_rows()
    plain = [("plain", encode(make_photo()), encode(make_alpha()))]
    picked = [*plain * 600, *(good[index % len(good)] for index in range(200))]
    picked += [bad[index % len(bad)] for index in range(200)]
    entries, expected = [], {}
    for number in rng.permutation(len(picked)):
        kind, photo, alpha = picked[number]
        paths = f"{number}.jpg", f"{number}_alpha.png"
        for path, data in zip(paths, (photo, alpha), strict=True):
            if data is not None:
                (tmp_path / path).write_bytes(data)
        entries.append({"image": paths[0], "alpha": paths[1], "id": str(number)})
        if isinstance(kind, InvalidReason):
            expected[kind.value] = expected.get(kind.value, 0) + 1
    index = tmp_path / "index.json"
    index.write_text(json.dumps(entries))
    source = open_source(SourceConfig("json", "image_alpha", data_files=str(index)))
    counter = InvalidSampleCounter()
    stream = SampleStream(source, Shard(), 0, RetryPolicy(0))
    used = set()
    for _ in picked:
        streamed = stream.take()
        try:
            sample = streamed.load()
        except InvalidSampleError as error:
            counter.count_invalid(error, streamed.key)
            continue
        counter.count_used()
        assert sample.epoch == 0
        used.add(int(sample.key.rpartition(":")[2]))
        photo = sample.content
        assert photo.image[4, 4].min() > 230
        assert photo.image[20, 16].argmax() == 2
        assert photo.alphas[0][4, 4] == 255
        assert photo.alphas[0][20, 28] == 0
    assert used == set(range(800))
    assert sum(expected.values()) == 200
    assert counter.reasons == expected
    assert counter.used == 800


def test_counters_merge_and_report_reasons():
    counters = [InvalidSampleCounter(used=60), InvalidSampleCounter(used=30)]
    for counter, count in zip(counters, (4, 6), strict=True):
        for number in range(count):
            reason = InvalidReason.BROKEN if number else InvalidReason.MISSING
            counter.count_invalid(InvalidSampleError(reason, "why"), f"set:{number}")
    total = InvalidSampleCounter.merge(counters)
    assert (total.used, total.skipped, total.fraction) == (90, 10, 0.1)
    assert total.reasons == {"broken or truncated image": 8, "missing image": 2}
    assert str(total).startswith("10 of 100 samples skipped; 8 x broken or truncated image, such as set:1 (broken")
    assert InvalidSampleCounter.from_state_dict(json.loads(json.dumps(total.state_dict()))) == total
    total.check(max_fraction=0.1, min_count=100)
    total.check(max_fraction=0.05, min_count=101)
    with pytest.raises(
        TooManyInvalidSamplesError, match=r"10 of 100 .* fraction .* at most 5.0%, got 10.0%: fix the data"
    ):
        total.check(max_fraction=0.05, min_count=100)


def test_an_object_that_shrinks_to_nothing_is_invalid(tmp_path):
    speck = Image.new("RGBA", (400, 400))
    speck.putpixel((200, 200), (255, 0, 0, 255))
    images = [encode(speck), *(encode(make_cutout(number)) for number in range(9))]
    rows = [{"image": {"bytes": data, "path": None}, "id": number} for number, data in enumerate(images)]
    sources = [
        open_source(SourceConfig(str(write_parquet(tmp_path / kind, part)), kind))
        for kind, part in (("rgba", rows), ("background", background_rows(5)))
    ]
    rare = dict.fromkeys(("plant_prob", "cluster_prob", "lattice_prob", "hair_prob"), 0.0)
    settings = PairSettings(CompositionSettings(size=32, object_counts=(1, 0, 0), **rare), max_invalid_fraction=0.5)
    stream = PairStream([sources[0]], [sources[1]], Shard(), settings)
    keys = [key for drawn in stream.draw(30) for _, key in drawn.keys]
    assert len(keys) == 30
    assert not any(key.endswith(":0") for key in keys)
    assert stream.invalid_samples.reasons == {"nothing left at the training size": stream.invalid_samples.skipped}
    # the backgrounds of its pairs were fine
    assert stream.invalid_samples.skipped == 3
    assert stream.invalid_samples.used == 90 - 3


def test_only_invalid_samples_end_the_stream(tmp_path):
    rows = [{"image": {"bytes": b"no image", "path": None}} for _ in range(7)]
    folder = str(write_parquet(tmp_path, rows))
    sources = [open_source(SourceConfig(folder, kind)) for kind in ("rgba", "background")]
    for fraction, error, told in (
        (0.05, TooManyInvalidSamplesError, r"50 of 50 samples skipped; 50 x not an image, such as .*100.0%"),
        (1.0, StreamError, r"No pair can be made of 512 in a row: (\d+) of \1 samples skipped; \1 x not an image"),
    ):
        settings = PairSettings(CompositionSettings(plant_prob=0), max_invalid_fraction=fraction, min_sample_count=50)
        with pytest.raises(error, match=told):
            PairStream([sources[0]], [sources[1]], Shard(), settings).draw(1)


def test_what_pil_can_read_but_not_convert_is_broken():
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), np.float32(np.nan))).save(buffer, "TIFF")
    with pytest.raises(InvalidSampleError, match="alpha is 0 everywhere"):
        decode_alpha(buffer.getvalue(), (4, 4))
