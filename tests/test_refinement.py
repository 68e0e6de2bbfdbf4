"""The second look at each object: where it looks, what it asks, and what it leaves alone."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from tiny_model import tiny_config, tiny_model, tiny_processor
from torch import nn

from fclm_hf import ReferringMattingPipeline, refinement_fclm
from fclm_hf.refinement_fclm import refine_alphas, settle


SIZE = 84


@pytest.fixture(scope="module")
def model() -> nn.Module:
    model = tiny_model()
    for layer in model.model.prompt_encoder.get_mask_outputs():  # zero until it is trained
        nn.init.normal_(layer.weight, std=0.5)
    return model


def paint(height: int, width: int, top: int, left: int, bottom: int, right: int) -> torch.Tensor:
    """Return an alpha (1, height, width) of 1 in a rectangle and 0.02 around it."""
    alpha = torch.full((1, height, width), 0.02)
    alpha[:, top:bottom, left:right] = 1
    return alpha


@torch.no_grad()
def test_large_objects_are_seen_in_the_whole_image_at_the_other_size(model):
    image, first = torch.randn(1, 3, 60, 90), paint(60, 90, 5, 10, 55, 80)
    prompts = {"input_points": torch.tensor([[[[30.0, 30.0]]]]), "input_labels": torch.tensor([[[1]]])}
    refined = refine_alphas(model, image, first, prompts, SIZE)
    embeddings = model.get_image_embeddings(image, encoder_size=SIZE)
    box = torch.tensor([[[10.0, 5.0, 80.0, 55.0]]])
    expected = model(image_embeddings=embeddings, **prompts, input_boxes=box, input_masks=first[None]).alphas[0]
    torch.testing.assert_close(refined, settle(expected))
    assert not torch.allclose(refined, settle(model(image, **prompts).alphas[0]))


@torch.no_grad()
def test_small_objects_are_seen_in_their_surroundings_alone(model):
    image, first = torch.randn(1, 3, 120, 160), paint(120, 160, 40, 60, 60, 90)
    points = torch.tensor([[[[70.0, 50.0], [5.0, 5.0]]]])  # the second lies outside what is looked at
    refined = refine_alphas(model, image, first, {"input_points": points}, SIZE)
    left, top, right, bottom = (
        48,
        32,
        98,
        68,
    )  # a quarter of 30 pixels on each side, to the left down to a multiple of 8
    crop = model(
        image_embeddings=model.get_image_embeddings(image[..., top:bottom, left:right], encoder_size=SIZE),
        input_points=points - torch.tensor([left, top]),
        input_labels=torch.tensor([[[1, -10]]]),
        input_boxes=torch.tensor([[[12.0, 8.0, 42.0, 28.0]]]),
        input_masks=first[None, :, top:bottom, left:right],
    ).alphas[0]
    torch.testing.assert_close(refined[:, 38:62, 58:92], settle(crop)[:, 6:30, 10:44])  # without the faded border
    outside = torch.ones_like(first, dtype=torch.bool)
    outside[:, top:bottom, left:right] = False
    assert torch.equal(refined[outside], settle(first)[outside])


def test_alphas_next_to_zero_and_one_become_zero_and_one():
    alpha = torch.linspace(0, 1, 1001)
    settled = settle(alpha)
    assert (settled[alpha < 0.0099] == 0).all()
    assert (settled[alpha > 0.9801] == 1).all()
    between = (alpha > 0.03) & (alpha < 0.94)
    torch.testing.assert_close(settled[between], alpha[between])
    steps = settled.diff()
    assert steps.min() >= 0
    assert steps.max() < 0.00151


@torch.no_grad()
def test_what_fades_at_the_border_of_a_crop_lies_between_both_looks(model):
    image, first = torch.randn(1, 3, 120, 160), paint(120, 160, 40, 60, 60, 90)
    refined = refine_alphas(model, image, first, {}, SIZE)
    closer = refined[0, 50, 58]  # inside
    assert abs(refined[0, 50, 52] - first[0, 50, 52]) < abs(closer - first[0, 50, 58]) + 0.5
    assert refined.min() >= 0
    assert refined.max() <= 1


@torch.no_grad()
def test_given_boxes_are_kept(model):
    image, first = torch.randn(1, 3, 60, 90), paint(60, 90, 20, 30, 40, 60)
    box = torch.tensor([[[2.0, 3.0, 85.0, 57.0]]])
    refined = refine_alphas(model, image, first, {"input_boxes": box}, SIZE)
    embeddings = model.get_image_embeddings(image, encoder_size=SIZE)
    unmasked = model(image_embeddings=embeddings, input_boxes=box).alphas[0]
    masks = torch.maximum(first, unmasked)[None]
    expected = model(image_embeddings=embeddings, input_boxes=box, input_masks=masks).alphas[0]
    torch.testing.assert_close(refined, settle(expected))
    assert not torch.allclose(
        refined, settle(model(image_embeddings=embeddings, input_boxes=box, input_masks=first[None]).alphas[0])
    )


@torch.no_grad()
@pytest.mark.parametrize(
    "prompts",
    [
        {"input_boxes": torch.tensor([[[60.0, 40.0, 90.0, 60.0]]])},
        {"input_ids": torch.tensor([[[1, 7, 2]]]), "attention_mask": torch.ones(1, 1, 3, dtype=torch.long)},
    ],
    ids=["box", "text"],
)
def test_what_a_box_or_text_describes_is_seen_without_the_first_matte_too(model, prompts):
    image, first = torch.randn(1, 3, 120, 160), paint(120, 160, 40, 60, 60, 90)
    refined = refine_alphas(model, image, first, prompts, SIZE)
    left, top, right, bottom = 48, 32, 98, 68
    crop = {
        **prompts,
        "image_embeddings": model.get_image_embeddings(image[..., top:bottom, left:right], encoder_size=SIZE),
        "input_boxes": torch.tensor([[[12.0, 8.0, 42.0, 28.0]]]),
    }
    crop_first = first[:, top:bottom, left:right]
    ramps = 0.25 * refinement_fclm.MARGIN * (bottom - top), 0.25 * refinement_fclm.MARGIN * (right - left)
    fade = refinement_fclm._make_feather((left, top, right, bottom), 120, 160, *ramps)
    masks = crop_first + fade * (model(**crop).alphas[0] - crop_first) / 2
    expected = model(**crop, input_masks=masks[None]).alphas[0]
    torch.testing.assert_close(refined[:, 38:62, 58:92], settle(expected)[:, 6:30, 10:44])  # without the faded border


@torch.no_grad()
def test_objects_without_a_matte_stay_as_they_are(model):
    nothing = torch.full((1, 60, 90), 0.3)
    assert torch.equal(refine_alphas(model, torch.randn(1, 3, 60, 90), nothing, {}, SIZE), nothing)


@torch.no_grad()
def test_images_that_the_first_look_has_seen_at_full_size_are_not_seen_again(model):
    first = paint(40, 50, 10, 10, 30, 40)
    assert torch.equal(refine_alphas(model, torch.randn(1, 3, 40, 50), first, {}, SIZE), first)


@torch.no_grad()
@pytest.mark.parametrize("unknown", [0.5, 0.9])
def test_given_masks_and_trimaps_are_seen_again_unless_a_click_is_to_mend_them(model, unknown):
    image, first = torch.randn(1, 3, 60, 90), paint(60, 90, 20, 30, 40, 60)
    mask = torch.zeros(1, 1, 60, 90)
    mask[..., 4:58, 6:86] = unknown
    mask[..., 20:40, 30:60] = 1
    embeddings = model.get_image_embeddings(image, encoder_size=SIZE)
    box = torch.tensor([[[6.0, 4.0, 86.0, 58.0]]])
    expected = model(image_embeddings=embeddings, input_boxes=box, input_masks=mask).alphas[0]
    torch.testing.assert_close(refine_alphas(model, image, first, {"input_masks": mask}, SIZE), settle(expected))

    click = {"input_points": torch.tensor([[[[40.0, 30.0]]]]), "input_labels": torch.tensor([[[1]]])}
    mended = refine_alphas(model, image, first, {"input_masks": mask, **click}, SIZE)
    torch.testing.assert_close(mended, refine_alphas(model, image, first, click, SIZE))


@torch.no_grad()
def test_details_of_the_whole_image_serve_its_parts(model):
    image = torch.randn(2, 3, 120, 150)
    embeddings = model.get_image_embeddings(image, pixel_mask=torch.ones(2, 120, 150, dtype=torch.long))
    for left, top, right, bottom in ((0, 0, 150, 120), (16, 24, 130, 109), (72, 40, 150, 120)):
        basis, *details = embeddings.crop_details(left, top, right, bottom)
        alone = model.get_image_embeddings(image[..., top:bottom, left:right])
        assert basis.shape == alone.detail_basis.shape
        # equal beyond the reach of the zeros that surround an image
        margins = [
            0 if inside == border else 32 for inside, border in ((left, 0), (top, 0), (right, 150), (bottom, 120))
        ]
        for part, expected, stride in zip(
            (basis, *details), (alone.detail_basis, *alone.detail_maps), (2, 4, 8), strict=True
        ):
            assert part.shape == expected.shape
            x0, y0, x1, y1 = (margin // stride for margin in margins)
            rows, columns = slice(y0, (bottom - top) // stride - y1), slice(x0, (right - left) // stride - x1)
            torch.testing.assert_close(part[..., rows, columns], expected[..., rows, columns])
            if stride > 2:  # what lies outside the part does not count
                assert (part[..., -1, :] == torch.finfo(part.dtype).min).all()
                assert (part[..., -1] == torch.finfo(part.dtype).min).all()


@torch.no_grad()
def test_all_looks_share_the_details_of_the_first(model):
    image, first = torch.randn(1, 3, 120, 160), paint(120, 160, 40, 60, 60, 90)
    embeddings = model.get_image_embeddings(image)
    refined = refine_alphas(model, image, first, {}, SIZE, image_embeddings=embeddings)
    region = 48, 32, 98, 68
    crop, details = image[..., 32:68, 48:98], embeddings.crop_details(*region)
    closer = model.get_image_embeddings(crop, encoder_size=SIZE, detail_maps=details)
    box = torch.tensor([[[12.0, 8.0, 42.0, 28.0]]])
    expected = model(image_embeddings=closer, input_boxes=box, input_masks=first[None, :, 32:68, 48:98]).alphas[0]
    torch.testing.assert_close(refined[:, 38:62, 58:92], settle(expected)[:, 6:30, 10:44])
    whole = paint(120, 160, 5, 10, 115, 150)
    refined = refine_alphas(model, image, whole, {}, SIZE, image_embeddings=embeddings)
    torch.testing.assert_close(refined, refine_alphas(model, image, whole, {}, SIZE))


TILE = 56


@pytest.fixture
def tiled(model, monkeypatch) -> nn.Module:
    monkeypatch.setattr(model.config, "tile_size", TILE)
    monkeypatch.setattr(refinement_fclm, "OVERLAP", 16)
    return model


def paint_hair(height: int, width: int) -> torch.Tensor:
    """Return an alpha (1, height, width) of 1 in the left half, 0 in the right half and 0.5 on a wide band between."""
    alpha = torch.zeros(1, height, width)
    alpha[..., : width // 2] = 1
    alpha[..., height // 4 : -height // 4, width // 2 - 8 : width // 2 + 8] = 0.5
    return alpha


@torch.no_grad()
def test_wide_edges_are_seen_in_tiles_and_nothing_else_is(tiled, monkeypatch):
    image, first = torch.randn(1, 3, 150, 200), paint_hair(150, 200)
    monkeypatch.setattr(refinement_fclm, "_look_at_object", lambda photo, alpha, *_: alpha)
    refined = refine_alphas(tiled, image, first, {}, SIZE)
    changed = (refined - settle(first))[0] != 0
    assert changed[40:110, 92:108].all()
    assert not changed[:, :56].any()
    assert not changed[:, 144:].any()
    tile = slice(24, 24 + TILE), slice(72, 72 + TILE)  # of two, the upper one
    embeddings = tiled.get_image_embeddings(image[..., tile[0], tile[1]], encoder_size=42)  # 5/6, a multiple of 14
    expected = tiled(image_embeddings=embeddings, input_masks=first[None, :, tile[0], tile[1]]).alphas[0, 0]
    torch.testing.assert_close(refined[0, 32:64, 80:120], settle(expected)[8:40, 8:48])  # where one tile alone is


@torch.no_grad()
def test_hard_edges_and_images_seen_at_full_size_are_not_tiled(tiled, monkeypatch):
    monkeypatch.setattr(refinement_fclm, "_look_at_object", lambda photo, alpha, *_: alpha)
    hard = (paint_hair(150, 200) > 0.6).float()
    assert torch.equal(refine_alphas(tiled, torch.randn(1, 3, 150, 200), hard, {}, SIZE), hard)
    first = paint_hair(70, 84)  # no larger than the second look
    assert torch.equal(refine_alphas(tiled, torch.randn(1, 3, 70, 84), first, {}, SIZE), first)


@torch.no_grad()
def test_known_pixels_of_a_trimap_stay_through_all_looks(tiled):
    image, trimap = torch.randn(1, 3, 150, 200), paint_hair(150, 200)
    first = tiled(image, input_masks=trimap[None]).alphas[0]
    refined = refine_alphas(tiled, image, first, {"input_masks": trimap[None]}, SIZE)
    known = trimap != 0.5
    assert torch.equal(refined[known], trimap[known])
    tiled.config.tile_size = None
    assert not torch.equal(refined, refine_alphas(tiled, image, first, {"input_masks": trimap[None]}, SIZE))


@torch.no_grad()
def test_each_object_has_its_own_prompts(model):
    image = torch.randn(1, 3, 120, 160)
    first = torch.cat([paint(120, 160, 40, 60, 60, 90), paint(120, 160, 5, 10, 115, 150)])
    boxes = torch.tensor([[[60.0, 40.0, 90.0, 60.0], [10.0, 5.0, 150.0, 115.0]]])
    both = refine_alphas(model, image, first, {"input_boxes": boxes}, SIZE)
    for index in range(2):
        alone = refine_alphas(
            model, image, first[index : index + 1], {"input_boxes": boxes[:, index : index + 1]}, SIZE
        )
        torch.testing.assert_close(both[index], alone[0])


@torch.no_grad()
def test_the_encoder_size_of_a_call_is_as_that_of_the_config():
    model, other = tiny_model(), tiny_model(encoder_size=SIZE)
    image, prompts = torch.randn(2, 3, 40, 64), {"input_boxes": torch.tensor([[[4.0, 5.0, 40.0, 30.0]]])}
    embeddings = model.get_image_embeddings(image, encoder_size=SIZE)
    assert embeddings.encoder_size == SIZE
    alphas = model(image_embeddings=embeddings, **prompts).alphas
    torch.testing.assert_close(alphas, other(image, **prompts).alphas)


def test_pipelines_take_a_second_look_where_the_checkpoint_says_so():
    image = Image.effect_noise((160, 120), 90).convert("RGB")
    model = tiny_model(refinement_size=SIZE)
    nn.init.constant_(model.head.coefficients.bias, 3.0)
    pipe = ReferringMattingPipeline(model=model, processor=tiny_processor())
    box = [30, 20, 100, 90]
    once = pipe(image, input_boxes=box, refine=False, cutout=False)["predicted_alpha"]
    twice = pipe(image, input_boxes=box, cutout=False)["predicted_alpha"]
    features = pipe.processor(images=image, input_boxes=[[box]])
    pixels = features["pixel_values"]
    embeddings = model.get_image_embeddings(pixels, features["pixel_mask"])
    expected = refine_alphas(model, pixels, once[None], features, SIZE, embeddings)[0]
    torch.testing.assert_close(twice, expected.detach())
    assert not torch.allclose(settle(once), twice)


def test_a_second_look_must_be_configured():
    pipe = ReferringMattingPipeline(model=tiny_model(), processor=tiny_processor())
    with pytest.raises(ValueError, match=r"refine=True requires a checkpoint with config\.refinement_size"):
        pipe(Image.new("RGB", (40, 30)), refine=True)
    with pytest.raises(StrictDataclassError, match="refinement_size must be None or a positive multiple of 14"):
        tiny_config(refinement_size=85)
    with pytest.raises(StrictDataclassError, match=r"tile_size must be None or a positive multiple of 14, .*, got 50"):
        tiny_config(refinement_size=SIZE, tile_size=50)
