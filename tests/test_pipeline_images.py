"""Images of the pipeline: files, rows, arrays and URLs, with transparency, limits and odd sizes."""

import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset
from mattes import BOX, OTHER_BOX, assert_close
from photo_files import encode_transparent, make_photo, serve, write_awkward_photos
from PIL import Image
from transformers.pipelines.pt_utils import KeyDataset

from fclm_hf import ReferringMattingPipeline, image_loading_fclm, image_utils_fclm


def test_rows_of_data_sets(pipe: ReferringMattingPipeline, tmp_path: Path) -> None:
    """Further columns pass, and images need not be decoded; neither as rows of a dict nor as a column."""
    for seed in range(2):
        make_photo(seed=seed).save(tmp_path / f"{seed}.png")
    files = [str(tmp_path / f"{seed}.png") for seed in range(2)]
    columns = {
        "image": files,
        "label": [3, 4],
        "objects": [{"bbox": BOX}] * 2,
        "boxes": [[], []],
        "input_boxes": [BOX, None],
    }
    rows = Dataset.from_dict(columns).cast_column("image", datasets.Image())
    expected = [pipe(files[0], input_boxes=BOX), pipe(files[1])]
    undecoded = rows.cast_column("image", datasets.Image(decode=False))
    assert set(undecoded[0]["image"]) == {"bytes", "path"}
    in_bytes = [
        {"image": {"bytes": Path(file).read_bytes(), "path": None}, "input_boxes": box}
        for file, box in zip(files, (BOX, None), strict=True)
    ]
    for images in (rows, undecoded, list(undecoded), in_bytes, KeyDataset(undecoded, "image")):
        for result, other in zip(pipe(images, batch_size=2), expected, strict=True):
            if not isinstance(images, KeyDataset) or other is expected[1]:
                assert_close(result, other)
    assert_close(pipe(undecoded[1]["image"]), expected[1])
    pixels = [
        pipe.processor(image)["pixel_values"] for image in (files[0], undecoded[0]["image"], in_bytes[0]["image"])
    ]
    assert all(torch.equal(pixels[0], each) for each in pixels)
    for row, problem in (
        ({"bytes": None, "path": None}, 'must have "bytes" or a "path"'),
        ({"bytes": None, "path": str(tmp_path / "none.png")}, "does not exist"),
        ({"bytes": b"no image", "path": "train/7.png"}, r"train/7\.png is not an image"),
    ):
        with pytest.raises(ValueError, match=problem):
            pipe({"image": row})


def test_a_photo_is_opened_and_converted_once(
    pipe: ReferringMattingPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for module, name in ((image_loading_fclm, "_decode"), (image_utils_fclm, "_simplify_mode")):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, n=name, function=function: calls.append(n) or function(*args))
    make_photo().convert("RGBA").save(tmp_path / "photo.png")
    pipe(tmp_path / "photo.png", input_boxes=BOX)
    assert calls == ["_decode", "_simplify_mode"]


def test_awkward_files(pipe: ReferringMattingPipeline, tmp_path: Path) -> None:
    sizes = write_awkward_photos(tmp_path)
    results = pipe([str(tmp_path / name) for name in sizes], batch_size=4)
    for (name, size), result in zip(sizes.items(), results, strict=True):
        assert result["alpha"].size == result["cutout"].size == size, name
        assert torch.isfinite(result["predicted_alpha"]).all()
    upright = make_photo().rotate(-90, expand=True)
    rotated = pipe(tmp_path / "rotated.jpg", text="low")["predicted_alpha"]
    assert (rotated - pipe(upright, text="low")["predicted_alpha"]).abs().mean() < 0.1  # JPEG noise
    kept = {name for name, result in zip(sizes, results, strict=True) if "icc_profile" in result["cutout"].info}
    assert kept == {"profile.png"}
    make_photo().save(tmp_path / "print.jpg", dpi=(300, 240))
    printed = pipe(tmp_path / "print.jpg")
    assert printed["alpha"].info["dpi"] == printed["cutout"].info["dpi"] == (300, 240)
    assert "icc_profile" not in pipe(tmp_path / "profile.png")["alpha"].info


def make_transparent_photo() -> tuple[Image.Image, np.ndarray]:
    """Return a gray photo whose left part is hidden behind transparency, and its opacity."""
    colors = np.asarray(make_photo().convert("L").convert("RGB"))
    opacity = np.full(colors.shape[:2], 255, np.uint8)
    opacity[:, :15] = 0
    return Image.fromarray(np.dstack([colors, opacity])), opacity


def encode_transparent_photo() -> dict[str, bytes]:
    pixels = np.asarray(make_transparent_photo()[0])
    return encode_transparent(pixels[..., :3], pixels[..., 3])


@pytest.mark.parametrize("kind", encode_transparent_photo())
def test_cutouts_are_as_transparent_as_their_photo(pipe: ReferringMattingPipeline, kind: str) -> None:
    pixels = np.asarray(make_transparent_photo()[0])
    photo = Image.open(BytesIO(encode_transparent_photo()[kind]))
    opacity = torch.from_numpy(np.array(photo.convert("RGBA") if photo.mode != "I;16" else pixels)[..., 3]) / 255
    assert opacity[:, :10].max() < 0.05
    for result in pipe([photo, photo], input_boxes=[[BOX, OTHER_BOX]] * 2, batch_size=2)[0]:
        assert (result["predicted_alpha"] <= opacity).all()
        assert np.array_equal(np.asarray(result["cutout"])[..., 3], result["alpha"])
        assert result["cutout"].size == result["alpha"].size == (50, 40)
        assert result["cutout"].mode == "RGBA"
    array = np.asarray(photo.convert("RGBA")) if photo.mode != "I;16" else pixels
    for each in (array, torch.from_numpy(array.copy()).permute(2, 0, 1), array / 255):
        assert (pipe(each, cutout=False)["predicted_alpha"] <= torch.from_numpy(array[..., 3].copy()) / 255).all()


def test_hidden_colors_do_not_matter(pipe: ReferringMattingPipeline) -> None:
    """Neither the alpha nor the colors of a cutout depend on what a file holds where it is transparent."""
    photo, opacity = make_transparent_photo()
    results = []
    for hidden in ((255, 255, 255), (0, 0, 0), (255, 0, 200)):
        pixels = np.array(photo)
        pixels[opacity == 0, :3] = hidden
        results.append(pipe(Image.fromarray(pixels), input_boxes=BOX))
    assert results[0]["predicted_alpha"].max() > 0
    for result in results[1:]:
        assert torch.equal(result["predicted_alpha"], results[0]["predicted_alpha"])
        assert np.array_equal(result["cutout"], results[0]["cutout"])


def test_opaque_images_with_an_alpha_channel_are_plain_photos(pipe: ReferringMattingPipeline) -> None:
    expected = pipe(make_photo(), text="low")
    for photo in (make_photo().convert("RGBA"), np.asarray(make_photo().convert("RGBA"))):
        result = pipe(photo, text="low")
        assert torch.equal(result["predicted_alpha"], expected["predicted_alpha"])
        assert np.array_equal(result["cutout"], expected["cutout"])


def test_layout_of_arrays(pipe: ReferringMattingPipeline) -> None:
    strip = np.random.default_rng(0).integers(0, 256, (3, 64, 3), dtype=np.uint8)
    with pytest.warns(UserWarning, match="input_data_format"):
        assert pipe(strip)["alpha"].size == (64, 3)
    assert pipe(strip, input_data_format="channels_last")["alpha"].size == (64, 3)
    assert pipe([strip, strip], input_data_format="channels_first")[1]["alpha"].size == (3, 64)
    for prompt in ({}, {"input_boxes": [1, 1, 40, 3]}):
        expected = pipe(Image.fromarray(strip), **prompt)["predicted_alpha"]
        assert torch.equal(pipe(strip, input_data_format="channels_last", **prompt)["predicted_alpha"], expected)


def test_limits(pipe: ReferringMattingPipeline, tmp_path: Path) -> None:
    make_photo().save(tmp_path / "photo.png")
    for limits, problem in [
        ({"max_pixels": 1999}, r"photo\.png has too many pixels"),
        ({"max_bytes": 100}, r"photo\.png is too large"),
        ({"max_pixels": 0}, "max_pixels must be a positive number, got 0"),
        ({"max_bytes": "1"}, "max_bytes must be a positive number, got '1'"),
        ({"timeout": -1}, "timeout must be a positive number, got -1"),
        ({"input_data_format": "HWC"}, "input_data_format must be"),
    ]:
        with pytest.raises(ValueError, match=problem):
            pipe(tmp_path / "photo.png", **limits)
    assert pipe(tmp_path / "photo.png", max_pixels=2000, max_bytes=100_000)["alpha"].size == (50, 40)


def test_files_and_uploads(pipe: ReferringMattingPipeline) -> None:
    class Upload(BytesIO):
        async def read(self, size: int = -1) -> bytes:
            return super().read(size)

    file = BytesIO()
    make_photo().save(file, "PNG")  # stands at its end
    assert torch.equal(pipe(file)["predicted_alpha"], pipe(make_photo())["predicted_alpha"])
    with pytest.raises(TypeError, match="asynchronously"):
        pipe(Upload(file.getvalue()))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (64, 48)])
@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (7, 200, 90), (0, 0, 0, 0), (255, 255, 255, 128)])
def test_constant_images(
    pipe: ReferringMattingPipeline, size: tuple[int, int], color: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pymatting", None)  # it divides by zero for one pixel
    photo = Image.new("RGBA" if len(color) == 4 else "RGB", size, color)
    for prompts in ({}, {"text": "low"}, {"input_boxes": [0, 0, *size]}, {"input_points": [0, 0]}):
        result = pipe(photo, **prompts)
        alpha = result["predicted_alpha"]
        assert torch.isfinite(alpha).all()
        assert alpha.min() >= 0
        assert alpha.max() <= (1 if len(color) == 3 else color[3] / 255)
        assert result["cutout"].size == size


def test_urls(pipe: ReferringMattingPipeline, tmp_path: Path) -> None:
    for name in ("photo.png", "slow.png"):
        make_photo().save(tmp_path / name)
    with serve(tmp_path) as address:
        expected = pipe(make_photo())["predicted_alpha"]
        for options in ({}, {"timeout": 60}):
            assert torch.equal(pipe(f"{address}/photo.png", **options)["predicted_alpha"], expected)
        with pytest.raises(ValueError, match=r"slow\.png cannot be downloaded"):
            pipe(f"{address}/slow.png", timeout=0.2)
        with pytest.raises(ValueError, match=r"none\.png cannot be downloaded.*404"):
            pipe(f"{address}/none.png", timeout=60)
