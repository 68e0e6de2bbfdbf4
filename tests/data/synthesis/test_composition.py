"""Composites of cut-out objects over photos, and the settings that they are drawn with."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fclm_hf.data import Composition, CompositionSettings, Foreground, composite_objects


COLORS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (220, 220, 40)]


def make_foreground(index: int) -> Foreground:
    image = Image.new("RGBA", (90, 70 + 10 * index), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((4, 4, 84, 60), fill=(*COLORS[index], 255))
    pixels = np.asarray(image)
    return Foreground(pixels[..., :3], pixels[..., 3].astype(np.float32) / 255, (f"object {index}", "thing"))


def make_photo(index: int) -> np.ndarray:
    noise = np.random.default_rng(index).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((400, 300)))


def make_composition(**settings) -> Composition:
    return Composition([make_foreground(3)], [make_photo(2)], CompositionSettings(size=96, **settings))


def test_visible_alphas_and_background_sum_to_one():
    rng = np.random.default_rng(0)
    background = np.full((8, 9, 3), 100.0, np.float32)
    alphas = rng.random((3, 8, 9)).astype(np.float32)
    colors = rng.random((3, 8, 9, 3)).astype(np.float32) * 255
    image, visible = composite_objects(background, list(zip(colors, alphas, strict=True)))
    rest = 1 - np.sum(visible, axis=0)
    np.testing.assert_allclose(rest, np.prod(1 - alphas, axis=0), atol=1e-6)
    expected = rest[..., None] * background + sum(v[..., None] * c for v, c in zip(visible, colors, strict=True))
    np.testing.assert_allclose(image, expected, rtol=1e-4)
    np.testing.assert_array_equal(visible[2], alphas[2])


def test_composites_repeat_and_are_in_range():
    composition = make_composition()
    for seed in range(12):
        objects = [make_foreground(index) for index in range(1 + seed % 3)]
        composite, again = (composition.compose(objects, make_photo(0), np.random.default_rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(composite.image, again.image)
        np.testing.assert_array_equal(composite.alphas, again.alphas)
        assert composite.image.shape == (96, 96, 3)
        assert composite.image.dtype == np.uint8
        assert 1 <= len(composite.alphas) == len(composite.names) == len(composite.texts) <= 3
        assert composite.alphas.min() >= 0
        assert composite.alphas.max() <= 1
        assert composite.alphas.sum(0).max() <= 1 + 1e-5
        assert (composite.alphas.sum((1, 2)) >= 0.003 * 96 * 96).all()
        height, width = composite.valid
        assert composite.alphas[:, height:].sum() == 0 == composite.alphas[:, :, width:].sum()


def test_the_rearmost_object_may_be_as_large_as_a_single_one():
    rng = np.random.default_rng(0)
    large, small = (0.9, 1.0), (0.2, 0.3)
    settings = {"single_scale": large, "shared_scale": small}
    always, never = (make_composition(occlusion_prob=prob, **settings) for prob in (1.0, 0.0))
    assert always._draw_scales(3, rng) == [large, small, small]
    assert never._draw_scales(3, rng) == [small] * 3
    assert always._draw_scales(1, rng) == never._draw_scales(1, rng) == [large]


def test_the_image_shows_the_object_where_its_alpha_is():
    names = "plant cluster lattice distractor hair photo_texture surface_texture translucency soft_edge shadow"
    names += " harmonize degradation letterbox"
    composition = make_composition(**{f"{name}_prob": 0.0 for name in names.split()})
    for seed in range(8):
        composite = composition.compose([make_foreground(seed % 4)], make_photo(1), np.random.default_rng(seed))
        inside = composite.image[composite.alphas[0] > 0.99].astype(float)
        assert inside.std(0).max() < 12  # one flat color, unlike the noise behind it


def test_objects_that_show_too_little_give_no_composite():
    composition = make_composition(min_area=2.0)
    assert composition.compose([make_foreground(0)], make_photo(0), np.random.default_rng(0)) is None


def test_old_names_of_settings_are_accepted_with_a_warning():
    with pytest.warns(FutureWarning, match=r"CompositionSettings\.twins is deprecated .* use duplicate_prob"):
        settings = CompositionSettings(twins=0.25)
    assert settings.duplicate_prob == 0.25
    with pytest.warns(FutureWarning, match="use duplicate_prob"):
        assert settings.twins == 0.25
    with pytest.raises(TypeError, match="twins is the old name of duplicate_prob: got both"):
        CompositionSettings(twins=0.25, duplicate_prob=0.5)
    fields = CompositionSettings.__dataclass_fields__
    assert set(CompositionSettings.RENAMED.values()) < set(fields)
    assert not set(CompositionSettings.RENAMED) & set(fields)
