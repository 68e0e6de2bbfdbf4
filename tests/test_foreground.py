"""Decontaminated colors: measured against the true foreground, on a known composite."""

import importlib.util
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from paths import PHOTOS
from PIL import Image, ImageCms, ImageDraw, ImageFilter

from fclm_hf import foreground_estimation_fclm, foreground_fclm
from fclm_hf.foreground_fclm import estimate_foreground, make_cutout
from fclm_hf.image_utils_fclm import load_image


needs_pymatting = pytest.mark.skipif(not importlib.util.find_spec("pymatting"), reason="pymatting is not there")


@pytest.fixture(params=["cv2", "torch"], ids=["opencv", "without-opencv"])
def estimator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymatting", None)  # makes its import fail
    if request.param == "torch":
        monkeypatch.setattr(foreground_estimation_fclm, "cv2", None)


def make_scene(size: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """A smooth orange and brown object with a wavy, soft edge: colors (H, W, 3) uint8, alpha (H, W)."""
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    angle, radius = np.arctan2(rows, columns), np.hypot(rows, columns)
    alpha = np.clip((0.3 + 0.03 * np.sin(9 * angle) - radius) * 12 + 0.5, 0, 1)
    shade = 0.5 + 0.2 * np.sin(20 * rows) * np.cos(17 * columns)
    return (np.stack([shade + 0.25, shade, 0.6 - shade / 2], axis=-1) * 255).round().astype(np.uint8), alpha


def composite(colors: np.ndarray, alpha: np.ndarray, background: Any) -> np.ndarray:
    opacity = alpha[..., None]
    return (opacity * colors + (1 - opacity) * np.array(background)).round().astype(np.uint8)


GREEN, MAGENTA = (20, 220, 40), (220, 20, 200)


@pytest.mark.usefixtures("estimator")
def test_no_halo_on_a_new_background() -> None:
    colors, alpha = make_scene()
    photo, truth = composite(colors, alpha, GREEN), composite(colors, alpha, MAGENTA)
    edge = (alpha > 0) & (alpha < 1)

    def measure_error(foreground: np.ndarray) -> float:
        return np.abs(composite(foreground, alpha, MAGENTA).astype(int) - truth)[edge].mean()

    cutout = np.asarray(make_cutout(Image.fromarray(photo), alpha))
    assert cutout.shape == (160, 160, 4)
    np.testing.assert_array_equal(cutout[..., 3], (alpha * 255).round())
    assert measure_error(cutout[..., :3]) < measure_error(photo) / 4


@pytest.mark.usefixtures("estimator")
def test_no_halo_after_shrinking() -> None:
    """Resizing that ignores alpha mixes in the colors of transparent pixels: they must be the object's."""
    colors, alpha = make_scene()
    hard = (alpha > 0.5).astype(float)
    photo = composite(colors, hard, GREEN)
    foreground = estimate_foreground(photo, hard)
    np.testing.assert_array_equal(foreground[hard == 1], photo[hard == 1])
    assert (foreground[hard == 0][:, 1].astype(int) - foreground[hard == 0][:, 0] < 40).mean() > 0.99  # no green
    shrunk = np.asarray(Image.fromarray(foreground).resize((20, 20), Image.Resampling.BOX)).astype(int)
    expected = np.asarray(Image.fromarray(colors).resize((20, 20), Image.Resampling.BOX)).astype(int)
    opacity = np.asarray(Image.fromarray((hard * 255).astype(np.uint8)).resize((20, 20), Image.Resampling.BOX))
    edge = (opacity > 30) & (opacity < 225)
    naive = np.asarray(Image.fromarray(photo).resize((20, 20), Image.Resampling.BOX)).astype(int)
    assert np.abs(shrunk - expected)[edge].mean() < np.abs(naive - expected)[edge].mean() / 4


@pytest.mark.usefixtures("estimator")
def test_kinds_of_input_agree() -> None:
    colors, alpha = make_scene(48)
    eight_bit = (alpha * 255).round().astype(np.uint8)
    unit = (eight_bit / 255).astype(np.float32)
    expected = make_cutout(colors, eight_bit)
    for image in (colors, Image.fromarray(colors)):
        for matte in (eight_bit, unit, torch.from_numpy(unit), Image.fromarray(eight_bit)):
            difference = np.asarray(make_cutout(image, matte)).astype(int) - np.asarray(expected)
            assert np.abs(difference).max() <= 1
    floats = estimate_foreground(colors / 255, unit)
    assert floats.dtype == np.float32
    assert floats.min() >= 0
    assert floats.max() <= 1
    np.testing.assert_allclose(floats * 255, np.asarray(expected)[..., :3], atol=1.5)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (3, 50)])
@pytest.mark.parametrize("opacity", [0.0, 0.5, 1.0])
def test_extreme_shapes_and_alphas(size: tuple[int, int], opacity: float) -> None:
    image = np.random.default_rng(0).random((*size, 3))
    foreground = estimate_foreground(image, np.full(size, opacity))
    assert foreground.shape == image.shape
    assert np.isfinite(foreground).all()
    if opacity == 1:
        np.testing.assert_allclose(foreground, image, atol=0.01)


def test_errors() -> None:
    image, alpha = np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5))
    for arguments, problem in [
        ((image[..., 0], alpha), r"image must have shape \(H, W, 3\)"),
        ((image, alpha[None]), r"alpha must have shape \(H, W\)"),
        ((image, alpha.T), "alpha must have the height and width of the image"),
        ((image, alpha + 2), r"alpha must be uint8, or float in \[0, 1\]"),
        ((image, alpha * np.nan), r"alpha must be uint8, or float in \[0, 1\]"),
    ]:
        with pytest.raises(ValueError, match=problem):
            make_cutout(*arguments)


@pytest.mark.parametrize("size", [(120, 90), (1, 7), (33, 50)])
def test_opencv_and_torch_agree(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    image, alpha = rng.random((*size, 3)), rng.random(size).clip(0.2, 0.8) * 5 / 3 - 1 / 3
    expected = estimate_foreground(image, alpha)
    monkeypatch.setattr(foreground_estimation_fclm, "cv2", None)
    found = estimate_foreground(image, alpha)
    assert found.dtype == np.float32
    assert np.abs(found - expected).mean() < 0.01
    assert not np.array_equal(found, expected)


def measure_recomposition_error(foreground: np.ndarray, colors: np.ndarray, alpha: np.ndarray) -> float:
    edge = (alpha > 0) & (alpha < 1)
    return np.abs(composite(foreground, alpha, MAGENTA).astype(int) - composite(colors, alpha, MAGENTA))[edge].mean()


@needs_pymatting
@pytest.mark.parametrize("size", [160, 400])
def test_at_least_as_good_as_pymatting_with_the_true_alpha(size: int) -> None:
    colors, alpha = make_scene(size)
    photo = composite(colors, alpha, GREEN)
    own, theirs = (
        measure_recomposition_error(estimate_foreground(photo, alpha, method=method), colors, alpha)
        for method in ("multiscale", "pymatting")
    )
    assert own <= 1.05 * theirs


def make_disc(blur: float) -> tuple[np.ndarray, np.ndarray]:
    """A blurred red disc over green and its true alpha."""
    mask = Image.new("L", (320, 320))
    ImageDraw.Draw(mask).ellipse((80, 80, 240, 240), fill=255)
    alpha = np.asarray(mask.filter(ImageFilter.GaussianBlur(blur))) / 255
    return composite(np.full((320, 320, 3), RED), alpha, (30, 200, 30)), alpha


RED = (200, 30, 30)


@pytest.mark.usefixtures("estimator")
@pytest.mark.parametrize("blur", [2, 4])
@pytest.mark.parametrize("error", [-0.2, -0.1, 0.0, 0.1, 0.2, "too steep"])
def test_no_halo_with_a_wrong_alpha(blur: int, error: float | str) -> None:
    photo, alpha = make_disc(blur)
    if error == "too steep":  # as models make it
        wrong = np.clip((alpha - 0.35) * 5, 0, 1)
    else:
        wrong = np.clip(alpha + error * ((alpha > 0.02) & (alpha < 0.98)), 0, 1)
    visible = (wrong > 0.05) & (alpha > 0.05)
    difference = np.abs(estimate_foreground(photo, wrong).astype(int) - RED).max(2)[visible]
    assert difference.max() <= 25
    assert difference.mean() <= 3


@pytest.mark.parametrize("size", [200, 320])  # at once, and in tiles
@pytest.mark.parametrize("error", [-0.2, 0.2])
def test_refined_alpha_is_nearer_to_the_truth(size: int, error: float) -> None:
    photo, alpha = (each[:size, :size] for each in make_disc(4))
    partial = (alpha > 0.02) & (alpha < 0.98)
    wrong = np.clip(alpha + error * partial, 0.02, 0.98) * partial + alpha * ~partial
    given, refined = (
        np.asarray(make_cutout(photo, wrong, refine_alpha=refine)).astype(float) for refine in (False, True)
    )
    np.testing.assert_array_equal(given[..., 3], (wrong * 255 + 0.5).astype(int))
    np.testing.assert_array_equal(refined[..., 3][~partial], given[..., 3][~partial])
    truth = composite(np.full((size, size, 3), RED), alpha, MAGENTA)
    before, after = (np.abs(each[..., 3] / 255 - alpha)[partial].mean() for each in (given, refined))
    assert after < before / 4
    before, after = (
        np.abs(composite(each[..., :3], each[..., 3] / 255, MAGENTA).astype(int) - truth)[partial].mean()
        for each in (given, refined)
    )
    assert after < before / 2


@pytest.mark.parametrize("orientation", [3, 6])
def test_rotated_photos_are_turned_upright(orientation: int, tmp_path: Path) -> None:
    """As by the pipeline, which the alpha comes from; one that is upside down would not even have another size."""
    exif = Image.Exif()
    exif[274] = orientation
    rng = np.random.default_rng(0)
    stored = Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8))
    stored.save(tmp_path / "photo.png", exif=exif)
    upright = stored.transpose({3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270}[orientation])
    photo = Image.open(tmp_path / "photo.png")
    for image in (photo, photo.convert("RGB"), photo.copy(), load_image(photo), upright):
        cutout = np.asarray(make_cutout(image, np.ones((upright.height, upright.width))))
        np.testing.assert_array_equal(cutout[..., :3], np.asarray(upright))


MODES = ["1", "L", "P", "RGB", "LA", "PA", "RGBA", "CMYK", "YCbCr", "HSV", "I", "I;16", "F", "La", "RGBa", "LAB"]


@pytest.mark.parametrize("mode", MODES)
def test_colors_of_every_mode(mode: str) -> None:
    """Where the alpha is 1, they are those of the image as the model sees it."""
    levels = np.tile(np.arange(0, 250, 10, dtype=np.uint8), (4, 1))
    gray = Image.fromarray(levels)
    if mode in ("I", "I;16", "F"):
        image = Image.fromarray(
            {"I": levels * np.int32(257), "I;16": levels * np.uint16(257), "F": levels / np.float32(255)}[mode]
        )
    elif mode == "LAB":
        image = ImageCms.profileToProfile(
            gray.convert("RGB"), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
    else:
        image = {"PA": gray.convert("P"), "La": gray.convert("LA"), "RGBa": gray.convert("RGBA")}.get(
            mode, gray
        ).convert(mode)
    assert image.mode == mode
    cutout = np.asarray(make_cutout(image, np.ones(levels.shape)))
    np.testing.assert_array_equal(cutout[..., 3], 255)
    np.testing.assert_array_equal(cutout[..., :3], np.asarray(load_image(image)))


def test_alphas_of_any_kind(tmp_path: Path) -> None:
    """Deep alphas, masks, and files, as those of data sets, detectors, and OpenCV."""
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    levels = np.zeros((20, 30), np.uint8)
    levels[5:15, 8:20], levels[5:15, 20] = 255, 128
    expected = np.asarray(make_cutout(image, levels))
    deep, floats = levels.astype(np.uint16) * 257, (levels / 255).astype(np.float32)
    transparent = Image.fromarray(np.dstack([image, levels]))
    transparent.save(tmp_path / "alpha.png")
    for alpha in (
        deep,
        torch.from_numpy(deep),
        Image.fromarray(deep),
        Image.fromarray(floats),
        Image.fromarray(levels).convert("I"),
        levels[..., None],
        np.dstack([levels] * 3),
        floats * 1.0001 - 1e-5,  # overshoots, as after resampling
        transparent,
        tmp_path / "alpha.png",
    ):
        np.testing.assert_array_equal(np.asarray(make_cutout(image, alpha)), expected)
    mask = levels == 255
    expected = np.asarray(make_cutout(image, mask.astype(np.uint8) * 255))
    for alpha in (mask, torch.from_numpy(mask), mask.astype(np.int64)):
        np.testing.assert_array_equal(np.asarray(make_cutout(image, alpha)), expected)
    Image.fromarray(image).save(tmp_path / "photo.png")
    np.testing.assert_array_equal(np.asarray(make_cutout(str(tmp_path / "photo.png"), mask)), expected)


def test_the_resolution_is_kept() -> None:
    image = Image.new("RGB", (4, 3))
    for resolution, kept in (((300, 300), True), ((72.5, 0), False), ((float("nan"), 1), False), ("300", False)):
        image.info["dpi"] = resolution
        assert (make_cutout(image, np.ones((3, 4))).info.get("dpi") == resolution) == kept


def test_only_profiles_of_rgb_images_are_kept() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for mode, kept in (("RGB", True), ("CMYK", False)):
        image = Image.new(mode, (4, 3))
        image.info["icc_profile"] = profile if kept else profile.replace(b"RGB ", b"CMYK")
        assert ("icc_profile" in make_cutout(image, np.ones((3, 4))).info) == kept


def make_photo_pair(object_name: str, background_name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photo's texture behind a ragged, soft edge, over another photo: composite, colors and alpha of the object."""
    colors, behind = (
        np.asarray(Image.open(PHOTOS / name).convert("RGB").resize((320, 240)))
        for name in (object_name, background_name)
    )
    rows, columns = np.mgrid[:240, :320]
    rng = np.random.default_rng(0)
    ragged = np.asarray(Image.fromarray(rng.normal(size=(80, 107)).astype(np.float32)).resize((320, 240)))
    alpha = np.clip((90 - np.hypot(rows - 120, columns - 160)) / 16 + 0.5 * ragged, 0, 1)
    return composite(colors, alpha, behind), colors, alpha


PAIRS = [("cat.jpg", "coffee.jpg"), ("astronaut.jpg", "cat.jpg"), ("coffee.jpg", "astronaut.jpg")]


@pytest.mark.parametrize("names", PAIRS)
def test_less_halo_on_real_photos(names: tuple[str, str]) -> None:
    photo, colors, alpha = make_photo_pair(*names)
    with_photo = measure_recomposition_error(photo, colors, alpha)
    own = measure_recomposition_error(estimate_foreground(photo, alpha), colors, alpha)
    assert own < with_photo / 2
    if importlib.util.find_spec("pymatting"):
        theirs = estimate_foreground(photo, alpha, method="pymatting")
        assert own <= 1.05 * measure_recomposition_error(theirs, colors, alpha)


@pytest.mark.parametrize("names", PAIRS)
@pytest.mark.parametrize("error", [0.1, 0.2])
def test_less_halo_on_real_photos_with_a_wrong_alpha(names: tuple[str, str], error: float) -> None:
    """Errors of alpha that vary slowly along the edge; no color mends what they show of the object itself."""
    photo, colors, alpha = make_photo_pair(*names)
    rng = np.random.default_rng(1)
    drift = np.asarray(Image.fromarray(rng.normal(size=(10, 13)).astype(np.float32)).resize((320, 240)))
    edge = (alpha > 0) & (alpha < 1)
    wrong = np.clip(alpha + error * edge * drift / drift.std(), 0, 1)
    truth = composite(colors, alpha, MAGENTA).astype(int)
    with_photo, own = (
        np.abs(composite(each, wrong, MAGENTA) - truth)[edge].mean()
        for each in (photo, np.asarray(make_cutout(photo, wrong))[..., :3])
    )
    assert own < 0.8 * with_photo


def test_tiles_leave_no_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    colors, alpha = make_scene(700)
    photo = composite(colors, alpha, GREEN)
    tiled = estimate_foreground(photo, alpha)
    monkeypatch.setattr(foreground_estimation_fclm, "_TILE", 1000)
    difference = np.abs(tiled.astype(int) - estimate_foreground(photo, alpha))[alpha > 0]
    assert difference.max() <= 1


def test_memory_of_large_transparent_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Floats of the whole image would take 16 bytes per pixel and more at each step."""
    for module in (foreground_fclm, foreground_estimation_fclm):
        monkeypatch.setattr(module, "STORED_SIZE", 128)
    monkeypatch.setattr(foreground_estimation_fclm, "_WHOLE_SIZE", 64)
    monkeypatch.setattr(foreground_estimation_fclm, "_TILE", 32)
    height, width = 900, 1200
    image = Image.new("RGBA", (width, height), (250, 250, 250, 0))
    image.paste((200, 30, 30, 255), (300, 200, 800, 700))
    alpha = np.asarray(image.getchannel("A"))
    tracemalloc.start()
    cutout = np.asarray(make_cutout(image, alpha))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 * height * width
    np.testing.assert_array_equal(cutout[..., 3], alpha)
    visible = alpha > 0
    np.testing.assert_array_equal(cutout[visible], np.asarray(image)[visible])
    near = cutout[190:710, 290:810][~visible[190:710, 290:810]]
    assert np.abs(near[:, :3].astype(int) - RED).max() <= 1  # not the white that is hidden there


def test_no_global_state_is_touched() -> None:
    code = """
import os, random, sys, warnings
import cv2, numpy as np, torch
from fclm_hf.foreground_fclm import estimate_foreground
def read():
    return (torch.get_num_threads(), cv2.getNumThreads(), dict(os.environ), list(warnings.filters), random.getstate(),
            torch.random.get_rng_state().tolist(), str(np.random.get_state()))
before = read()
image = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
estimate_foreground(image, np.linspace(0, 1, 90000).reshape(300, 300))
assert read() == before
assert not {"pymatting", "numba"} & sys.modules.keys()
child = os.fork()
if not child:
    estimate_foreground(image, np.linspace(0, 1, 90000).reshape(300, 300))
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_pymatting_only_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymatting", None)
    image, alpha = np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5))
    make_cutout(image, alpha)
    with pytest.raises(ImportError, match=r'The method "pymatting" needs pymatting: pip install "fclm-hf\[matting\]"'):
        make_cutout(image, alpha, method="pymatting")
    with pytest.raises(ValueError, match="method must be one of"):
        make_cutout(image, alpha, method="knn")
