"""The embedded checkpoint: its size, its vocabulary, its pinned alphas, and that it cuts out what it is asked for."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from paths import PHOTOS
from PIL import Image, ImageDraw, ImageFilter
from pin_alphas import PROMPTS, compute_alphas, read_expected
from transformers import AutoModelForImageMatting, AutoProcessor, pipeline

from fclm_hf import LITE_CHECKPOINT


pytestmark = pytest.mark.skipif(not Path(LITE_CHECKPOINT).is_dir(), reason="the embedded checkpoint is not there")


@pytest.fixture(scope="module")
def matting():
    return pipeline("referring-matting")


def test_size_and_names_of_the_weights():
    weights = Path(LITE_CHECKPOINT) / "model.safetensors"
    assert weights.stat().st_size <= 14_000_000
    model, loading = AutoModelForImageMatting.from_pretrained(LITE_CHECKPOINT, output_loading_info=True)
    assert not any(loading[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    assert model.dtype == torch.float32
    assert 4e6 < sum(parameter.numel() for parameter in model.parameters()) < 7e6


@pytest.mark.parametrize("kind", PROMPTS)
def test_alphas_are_those_that_are_pinned(matting, kind):
    """Compare a slice of the alpha of each kind of prompt with tests/fixtures/fclm_lite_alphas.json.

    After replacing the checkpoint, run `python tests/helpers/pin_alphas.py` to pin the new alphas.
    """
    alphas = compute_alphas(matting.model, matting.processor, PROMPTS[kind])
    torch.testing.assert_close(alphas, torch.tensor(read_expected()[kind]), rtol=0, atol=1e-3)


def test_unknown_words_are_spelled(matting):
    tokenizer = AutoProcessor.from_pretrained(LITE_CHECKPOINT).tokenizer
    for text in ("cat", "Xyzzy-42 ünïcode 猫 🐱", "a" * 500):
        ids = tokenizer(text, truncation=True)["input_ids"]
        assert len(ids) <= 32
        assert ids[0] == tokenizer.bos_token_id
        assert ids[-1] == tokenizer.eos_token_id
        assert torch.isfinite(matting(PHOTOS / "cat.jpg", text=text, cutout=False)["predicted_alpha"]).all()
    assert tokenizer.decode(tokenizer("a cat")["input_ids"], skip_special_tokens=True).strip() == "a cat"


def test_the_box_says_which_object(matting):
    cup = (150, 20, 470, 330)
    alpha = matting(PHOTOS / "coffee.jpg", input_boxes=[cup], cutout=False)["predicted_alpha"]
    inside = alpha[cup[1] : cup[3], cup[0] : cup[2]]
    assert inside.mean() > 0.4
    assert inside.sum() > 0.8 * alpha.sum()


def test_the_model_takes_all_that_the_processor_gives(matting):
    photo = Image.open(PHOTOS / "cat.jpg")
    inputs = matting.processor(images=photo, text=[["cat"]])
    with torch.no_grad():
        outputs = matting.model(**inputs)
    alpha = matting.processor.post_process_image_matting(outputs, inputs["original_sizes"])[0]["alpha"]
    assert torch.equal(alpha[0], matting(photo, text="cat", cutout=False, refine=False)["predicted_alpha"])


def test_pipeline_round_trip(matting, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymatting", None)  # its first call in a new environment compiles for 40 s
    matting.save_pretrained(tmp_path)
    again = pipeline("referring-matting", model=str(tmp_path))
    weights, same = matting.model.state_dict(), again.model.state_dict()
    assert weights.keys() == same.keys()
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    photo = Image.open(PHOTOS / "cat.jpg")
    matting(photo, cutout=False)  # the first run of a process may differ in its last bits from the next one
    first, second = (each(photo, input_points=[[220, 150]]) for each in (matting, again))
    assert torch.equal(first["predicted_alpha"], second["predicted_alpha"])
    assert np.array_equal(first["cutout"], second["cutout"])


@pytest.mark.parametrize("blur", [2, 4])
def test_no_halo_with_the_alpha_of_the_model(matting, blur):
    """A blurred red disc over green: its edge is red, where the photo is up to 140 levels off."""
    mask = Image.new("L", (320, 320))
    ImageDraw.Draw(mask).ellipse((80, 80, 240, 240), fill=255)
    mask = mask.filter(ImageFilter.GaussianBlur(blur))
    photo = Image.composite(
        Image.new("RGB", mask.size, (200, 30, 30)), Image.new("RGB", mask.size, (30, 200, 30)), mask
    )
    cutout = np.asarray(matting(photo, input_boxes=[76, 76, 244, 244])["cutout"]).astype(int)
    visible = (cutout[..., 3] > 13) & (np.asarray(mask) > 13)
    assert 15_000 < visible.sum() < 35_000
    assert np.abs(np.asarray(photo).astype(int) - (200, 30, 30)).max(2)[visible].max() > 130
    error = np.abs(cutout[..., :3] - (200, 30, 30)).max(2)[visible]
    assert error.max() <= 25
    assert error.mean() <= 3


@pytest.mark.parametrize("color", [(255, 255, 255), (0, 0, 0), (128, 128, 128)])
def test_objects_on_transparency_come_out_whatever_their_color(matting, color):
    rows, columns = np.mgrid[:160, :200]
    opacity = (np.hypot(rows - 80, columns - 100) < 50).astype(np.uint8) * 255
    pixels = np.dstack([np.full((160, 200, 3), color, np.uint8), opacity])
    for prompts in ({}, {"input_boxes": [50, 30, 150, 130]}):
        result = matting(Image.fromarray(pixels), **prompts)
        wrong = np.abs(np.asarray(result["alpha"]).astype(int) - opacity).sum() / opacity.sum()
        assert wrong < 0.01
        cutout = np.asarray(result["cutout"]).astype(int)
        assert np.abs(cutout[cutout[..., 3] > 0][:, :3] - color).max() <= 1


def test_a_hole_in_a_photo_is_one_in_the_cutout(matting):
    box = [60, 20, 430, 290]  # the cat
    photo = np.asarray(Image.open(PHOTOS / "cat.jpg"))
    rows, columns = np.mgrid[: photo.shape[0], : photo.shape[1]]
    hole = np.hypot(rows - 150, columns - 220) < 30  # in the cat
    whole = matting(PHOTOS / "cat.jpg", input_boxes=box)
    assert np.asarray(whole["alpha"])[hole].min() > 240
    pixels = np.dstack([photo, np.where(hole, 0, 255).astype(np.uint8)])
    pixels[hole, :3] = 255
    result = matting(Image.fromarray(pixels), input_boxes=box)
    alpha = np.asarray(result["alpha"])
    assert alpha[hole].max() == 0
    assert alpha[~hole].sum() > 0.9 * np.asarray(whole["alpha"])[~hole].sum()
    ring = ~hole & (np.hypot(rows - 150, columns - 220) < 33)
    change = np.abs(np.asarray(result["cutout"])[ring][:, :3].astype(int) - photo[ring])
    assert change[alpha[ring] == 255].max() <= 8  # 255 stands for a little less, too
    assert np.asarray(result["cutout"])[hole][:, :3].mean() < 200  # not the white that was hidden there
