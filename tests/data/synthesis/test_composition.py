"""Composition, simulated prompts and batches, on images made here."""

import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from tiny_model import tiny_tokenizer

from fclm_hf.data import (
    Backgrounds,
    ComposedBatches,
    Composition,
    CompositionSettings,
    Foregrounds,
    PromptSettings,
    add_strands,
    composite_objects,
    sample_prompt,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(0)
    entries = []
    for index, colour in enumerate([(200, 30, 30), (30, 200, 30), (30, 30, 200), (220, 220, 40)]):
        image = Image.new("RGBA", (90, 70 + 10 * index), (0, 0, 0, 0))
        ImageDraw.Draw(image).ellipse((4, 4, 84, 60), fill=(*colour, 255))
        image.save(folder / f"object_{index}.png")
        entries.append({"file": f"object_{index}.png", "name": f"object {index}", "cls": "thing"})
    (folder / "foregrounds.json").write_text(json.dumps(entries))
    (folder / "photos").mkdir()
    for index in range(3):
        noise = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((400, 300)).save(folder / "photos" / f"{index}.jpg")
    return folder


def make_composition(folder, **settings) -> Composition:
    return Composition(
        Foregrounds(folder, general_names={"thing": ("thing",)}),
        Backgrounds(folder / "photos"),
        CompositionSettings(size=96, **settings),
    )


def test_visible_alphas_and_background_sum_to_one():
    rng = np.random.default_rng(0)
    background = np.full((8, 9, 3), 100.0, np.float32)
    alphas = rng.random((3, 8, 9)).astype(np.float32)
    colours = rng.random((3, 8, 9, 3)).astype(np.float32) * 255
    image, visible = composite_objects(background, list(zip(colours, alphas, strict=True)))
    rest = 1 - np.sum(visible, axis=0)
    np.testing.assert_allclose(rest, np.prod(1 - alphas, axis=0), atol=1e-6)
    expected = rest[..., None] * background + sum(v[..., None] * c for v, c in zip(visible, colours, strict=True))
    np.testing.assert_allclose(image, expected, rtol=1e-4)
    np.testing.assert_array_equal(visible[2], alphas[2])


def test_samples_repeat_and_are_in_range(folder):
    composition = make_composition(folder)
    for seed in range(12):
        sample = composition.sample(np.random.default_rng(seed))
        again = composition.sample(np.random.default_rng(seed))
        np.testing.assert_array_equal(sample["image"], again["image"])
        np.testing.assert_array_equal(sample["alphas"], again["alphas"])
        assert sample["image"].shape == (96, 96, 3)
        assert sample["image"].dtype == np.uint8
        assert 1 <= len(sample["alphas"]) == len(sample["names"]) <= 3
        assert sample["alphas"].min() >= 0
        assert sample["alphas"].max() <= 1
        assert sample["alphas"].sum(0).max() <= 1 + 1e-5
        assert (sample["alphas"].sum((1, 2)) >= 0.003 * 96 * 96).all()
        height, width = sample["valid"]
        assert sample["alphas"][:, height:].sum() == 0 == sample["alphas"][:, :, width:].sum()


def test_the_rearmost_object_may_be_as_large_as_a_single_one(folder):
    rng = np.random.default_rng(0)
    large, small = (0.9, 1.0), (0.2, 0.3)
    settings = {"single_scale": large, "shared_scale": small}
    always, never = (make_composition(folder, overlaid=share, **settings) for share in (1.0, 0.0))
    assert always._draw_scales(3, rng) == [large, small, small]
    assert never._draw_scales(3, rng) == [small] * 3
    assert always._draw_scales(1, rng) == never._draw_scales(1, rng) == [large]


def test_the_image_shows_the_object_where_its_alpha_is(folder):
    names = "plants distractors strands photo_texture surface_texture translucent soft_edge shadow"
    plain = dict.fromkeys(names.split(), 0.0)
    composition = make_composition(
        folder, **plain, harmonise=0.0, degrade=0.0, letterbox=0.0, object_counts=(1.0, 0.0, 0.0)
    )
    for seed in range(8):
        sample = composition.sample(np.random.default_rng(seed))
        inside = sample["image"][sample["alphas"][0] > 0.99].astype(float)
        assert inside.std(0).max() < 12  # one flat colour, unlike the noise behind it


def test_strands_add_thin_fractional_alpha():
    alpha = np.zeros((120, 120), np.float32)
    alpha[40:80, 40:80] = 1
    colours = np.full((120, 120, 3), (180, 120, 60), np.uint8)
    grown_colours, grown = add_strands(colours, alpha, np.random.default_rng(3))
    new = (grown > 0.05) & (alpha == 0)
    assert new.sum() > 50
    assert (grown >= alpha).all()
    assert grown.max() <= 1
    assert np.abs(grown_colours[new].astype(int).mean(0) - (180, 120, 60)).max() < 40


def test_prompts_fit_the_object():
    alpha = np.zeros((60, 80), np.float32)
    alpha[10:30, 20:60] = 1
    rng = np.random.default_rng(0)
    kinds = set()
    for _ in range(200):
        prompt = sample_prompt(alpha, ("cat",), rng, PromptSettings())
        kinds.add("+".join(sorted(prompt)))
        if "box" in prompt:
            x0, y0, x1, y1 = prompt["box"]
            assert 0 <= x0 < x1 <= 80
            assert 0 <= y0 < y1 <= 60
            assert abs(x0 - 20) < 8
            assert abs(y1 - 30) < 6
        for (x, y), label in zip(prompt.get("points", ()), prompt.get("labels", ()), strict=True):
            assert (alpha[int(y), int(x)] > 0.5) == bool(label)
        assert "cat" in prompt.get("text", "cat")
    assert len(kinds) == 6
    assert all("text" not in sample_prompt(alpha, (), rng, PromptSettings()) for _ in range(30))
    with pytest.raises(ValueError, match="alpha is 0 everywhere"):
        sample_prompt(np.zeros((9, 9), np.float32), (), rng, PromptSettings(kinds={"box": 1}))


def test_batches_are_complete_and_repeat_whatever_the_workers(folder):
    batches = ComposedBatches(make_composition(folder), tiny_tokenizer(), batch_size=3, prompts_per_image=2, seed=5)
    plain = torch.utils.data.DataLoader(batches, batch_size=None)
    parallel = torch.utils.data.DataLoader(batches, batch_size=None, num_workers=2)
    for index, (one, two) in enumerate(zip(plain, parallel, strict=False)):
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
        assert one["pixel_values"].shape == (3, 3, 96, 96)
        assert one["pixel_values"].abs().max() <= 1
        assert one["labels"].shape == (3, 2, 96, 96)
        assert one["input_points"].shape[:2] == one["input_boxes"].shape[:2] == one["input_ids"].shape[:2] == (3, 2)
        if index == 3:
            break


def test_a_folder_without_images_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="neither foregrounds.json nor images"):
        Foregrounds(tmp_path)


def test_foregrounds_that_show_nothing_are_an_error(folder, tmp_path):
    Image.new("RGBA", (20, 20), (9, 9, 9, 0)).save(tmp_path / "clear.png")
    with pytest.raises(ValueError, match=r"clear\.png is transparent everywhere"):
        Foregrounds(tmp_path)[0]
    with pytest.raises(ValueError, match="showed no object of at least min_area = 2.0"):
        make_composition(folder, min_area=2.0).sample(np.random.default_rng(0))
    (tmp_path / "foregrounds.json").write_text(json.dumps([{"file": "clear.png"}]))
    with pytest.raises(ValueError, match=r"foregrounds\.json: entry 0 lacks name"):
        Foregrounds(tmp_path)
