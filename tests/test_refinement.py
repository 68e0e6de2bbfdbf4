"""The second look at each object: where it looks, what it asks, and what it leaves alone."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from tiny_model import tiny_config, tiny_model, tiny_processor
from torch import nn

from fclm_hf import ReferringMattingPipeline
from fclm_hf.refinement_fclm import refine_alphas


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
    torch.testing.assert_close(refined, expected)
    assert not torch.allclose(refined, model(image, **prompts).alphas[0])


@torch.no_grad()
def test_small_objects_are_seen_in_their_surroundings_alone(model):
    image, first = torch.randn(1, 3, 120, 160), paint(120, 160, 40, 60, 60, 90)
    points = torch.tensor([[[[70.0, 50.0], [5.0, 5.0]]]])  # the second lies outside what is looked at
    refined = refine_alphas(model, image, first, {"input_points": points}, SIZE)
    left, top, right, bottom = 52, 32, 98, 68  # a quarter of 30 pixels on each side, rounded to even
    crop = model(
        image_embeddings=model.get_image_embeddings(image[..., top:bottom, left:right], encoder_size=SIZE),
        input_points=points - torch.tensor([left, top]),
        input_labels=torch.tensor([[[1, -10]]]),
        input_boxes=torch.tensor([[[8.0, 8.0, 38.0, 28.0]]]),
        input_masks=first[None, :, top:bottom, left:right],
    ).alphas[0]
    torch.testing.assert_close(refined[:, 38:62, 58:92], crop[:, 6:30, 6:40])  # without the faded border
    outside = torch.ones_like(first, dtype=torch.bool)
    outside[:, top:bottom, left:right] = False
    assert torch.equal(refined[outside], first[outside])


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
    expected = model(image_embeddings=embeddings, input_boxes=box, input_masks=first[None]).alphas[0]
    torch.testing.assert_close(refined, expected)


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
    torch.testing.assert_close(refine_alphas(model, image, first, {"input_masks": mask}, SIZE), expected)

    click = {"input_points": torch.tensor([[[[40.0, 30.0]]]]), "input_labels": torch.tensor([[[1]]])}
    mended = refine_alphas(model, image, first, {"input_masks": mask, **click}, SIZE)
    torch.testing.assert_close(mended, refine_alphas(model, image, first, click, SIZE))


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
    expected = refine_alphas(model, features["pixel_values"], once[None], features, SIZE)[0]
    torch.testing.assert_close(twice, expected.detach())
    assert not torch.allclose(once, twice)


def test_a_second_look_must_be_configured():
    pipe = ReferringMattingPipeline(model=tiny_model(), processor=tiny_processor())
    with pytest.raises(ValueError, match=r"refine=True requires a checkpoint with config\.refinement_size"):
        pipe(Image.new("RGB", (40, 30)), refine=True)
    with pytest.raises(StrictDataclassError, match="refinement_size must be None or a positive multiple of 14"):
        tiny_config(refinement_size=85)
