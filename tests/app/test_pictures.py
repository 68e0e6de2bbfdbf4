"""Pictures of the app: previews, overlays, backgrounds and archives."""

import base64
import os
import time
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from photo_files import make_photo
from PIL import Image, ImageCms

from fclm_hf.app.pictures import (
    OBJECT_COLORS,
    PREVIEW_SIDE,
    ResultFolder,
    Style,
    draw_overlay,
    encode_url,
    make_preview,
    parse_color,
    save_png,
    select,
    shrink,
    shrink_results,
    unite,
    write_zip,
)
from fclm_hf.pipeline_results_fclm import MattingResults


@pytest.fixture
def results() -> MattingResults:
    """Two objects, the left and the right half."""
    alphas = torch.zeros(1, 2, 40, 50)
    alphas[0, 0, :, :25], alphas[0, 1, :, 25:] = 1, 0.5
    return MattingResults(make_photo(), alphas, "multiscale")


@pytest.mark.parametrize(
    ("size", "expected"),
    [((100, 50), (100, 50)), ((4096, 2048), (1024, 512)), ((30000, 3), (1024, 1)), ((1024, 1025), (1023, 1024))],
)
def test_previews_keep_the_aspect_ratio(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert shrink(size) == expected


def test_previews_of_photos_and_mattes_have_one_size() -> None:
    photo = Image.new("RGBA", (3000, 2000))
    preview = shrink_results(MattingResults(photo, torch.ones(1, 3, 20, 30), None))
    assert preview.image.size == make_preview(photo).size == (PREVIEW_SIDE, 683)
    assert preview.image.mode == "RGBA"
    assert preview.alphas.shape == (1, 3, 683, 1024)
    assert preview[0]["alpha"].size == (1024, 683)


def test_data_urls_hold_the_picture() -> None:
    header, data = encode_url(make_photo(), "PNG").split(",")
    assert header == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(base64.b64decode(data)))), np.asarray(make_photo()))


def test_overlays_have_the_colors_of_the_objects(results: MattingResults) -> None:
    overlay = np.asarray(draw_overlay(results.alphas[0], [0, 7]))
    assert overlay.shape == (40, 50, 4)
    assert tuple(overlay[0, 0, :3]) == OBJECT_COLORS[0]
    assert tuple(overlay[0, -1, :3]) == OBJECT_COLORS[7 % len(OBJECT_COLORS)]
    assert overlay[0, 0, 3] == pytest.approx(2 * overlay[0, -1, 3], abs=1)


def test_overlays_of_nothing_are_clear() -> None:
    assert not np.asarray(draw_overlay(torch.zeros(1, 4, 5), [0]))[..., 3].any()


def test_objects_are_united_or_selected(results: MattingResults) -> None:
    alpha = np.asarray(unite(results)[0]["alpha"])
    assert (alpha[:, :25] == 255).all()
    assert (alpha[:, 25:] == 128).all()
    assert not np.asarray(select(results, 1)[0]["alpha"])[:, :25].any()
    assert len(unite(MattingResults(make_photo(), torch.zeros(1, 0, 4, 5)))) == 0


def test_styles(results: MattingResults) -> None:
    result = results[0]
    assert Style().render(result) is result["cutout"]
    assert Style("Matte").render(result) is result["alpha"]
    colored = np.asarray(Style("Color", "rgba(74, 144.2, 217, 1)").render(result))
    assert colored.shape == (40, 50, 3)
    assert (colored[:, 25:] == (74, 144, 217)).all()
    np.testing.assert_array_equal(colored[:, :25], np.asarray(make_photo())[:, :25])
    pictured = Style("Picture", backdrop=Image.new("RGB", (7, 90), "navy")).render(result)
    assert (np.asarray(pictured)[:, 25:] == (0, 0, 128)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("JPEG",), "output must be one of Transparent, Color, Picture, Matte, got 'JPEG'"),
        (("Color", "no color"), "color must be a name, or a code such as #4a90d9, got 'no color'"),
        (("Picture",), "Choose a picture"),
    ],
)
def test_styles_that_cannot_be(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Style(*arguments)


@pytest.mark.parametrize(
    ("color", "expected"),
    [
        ("navy", (0, 0, 128)),
        (" #fff", (255, 255, 255)),
        ("rgb(1, 2, 3)", (1, 2, 3)),
        ("rgba(255.4,0,9,0.5)", (255, 0, 9)),
    ],
)
def test_colors(color: str, expected: tuple[int, int, int]) -> None:
    assert parse_color(color) == expected


def test_names_of_files() -> None:
    assert Style().name_file("photos/a.b.jpg") == "a.b_cutout.png"
    assert Style("Matte").name_file(Path("cat.png"), 2) == "cat_matte_2.png"
    assert Style("Color").name_file("cat.png") == "cat_composite.png"
    assert len(Style().name_file("a" * 250 + ".png")) < 120


def test_archives_and_profiles(tmp_path: Path) -> None:
    photo = make_photo()
    photo.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    write_zip(tmp_path / "all.zip", iter([("a.png", photo), ("b.png", make_photo(seed=1))]))
    save_png(photo, tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert archive.namelist() == ["a.png", "b.png"]
        assert archive.testzip() is None
        assert archive.read("a.png") == (tmp_path / "a.png").read_bytes()
    with Image.open(tmp_path / "a.png") as saved:
        assert saved.info["icc_profile"] == photo.info["icc_profile"]


def test_old_results_are_removed(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path / "results", max_age=60)
    old, new = folder.make_path("a.png"), folder.make_path("a.png")
    assert old != new
    for path in (old, new):
        path.write_bytes(b"")
    os.utime(old.parent, (time.time() - 61,) * 2)
    folder.remove_old()
    assert (old.exists(), new.exists()) == (False, True)
    folder.close()
    assert list((tmp_path / "results").iterdir()) == []
