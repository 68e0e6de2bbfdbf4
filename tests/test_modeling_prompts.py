"""Prompts of the model: any mix of them, padding, texts that match somewhere or nowhere, masks and trimaps."""

import copy
import itertools

import pytest
import torch
from model_prompts import BOXES, LABELS, POINTS, pad_points, prompts
from tiny_model import tiny_backbone_model, tiny_model
from torch import nn

from fclm_hf import FCLMForImageMatting


@pytest.fixture(scope="module", params=["dinov2", "timm"])
def model(request) -> FCLMForImageMatting:
    return tiny_backbone_model(request.param)


@torch.no_grad()
def test_text_embeds_stand_for_the_text_tower(model):
    pixels, given = torch.randn(2, 3, 44, 61), prompts()
    text = model.model.get_text_features(given["input_ids"][0]).pooler_output[None]
    expected = model(pixels, **given)
    torch.testing.assert_close(model(pixels, **given, text_embeds=text).logits, expected.logits, rtol=0, atol=1e-6)
    other = model(pixels, **given, text_embeds=text.flip(1)).logits
    assert (other - expected.logits).abs().max() > 1e-5
    with pytest.raises(ValueError, match="text_embeds requires input_ids, got text_embeds alone"):
        model(pixels, text_embeds=text)


@torch.no_grad()
def test_padding_objects_and_points_do_not_change_a_result(model):
    torch.manual_seed(1)
    small, large = torch.randn(1, 3, 44, 61), torch.randn(1, 3, 70, 52)
    batch = torch.zeros(2, 3, 70, 64)
    mask = torch.zeros(2, 70, 64, dtype=torch.long)
    for index, image in enumerate((small, large)):
        height, width = image.shape[-2:]
        batch[index, :, :height, :width] = image[0]
        mask[index, :height, :width] = 1
    points, labels = pad_points(POINTS, LABELS, 5)
    empty_points, empty_labels = pad_points([[], []], [[], []], 5)
    together = model(
        batch,
        mask,
        input_points=torch.cat([points, empty_points]),
        input_labels=torch.cat([labels, empty_labels]),
        input_boxes=torch.cat([torch.full((1, 2, 4), -10.0), torch.tensor([BOXES])]),
    ).alphas
    for index in range(2):
        alone = model(small, input_points=torch.tensor([[POINTS[index]]]), input_labels=torch.tensor([[LABELS[index]]]))
        torch.testing.assert_close(together[0, index, :44, :61], alone.alphas[0, 0], atol=2e-5, rtol=0)
        alone = model(large, input_boxes=torch.tensor([[BOXES[index]]]))
        torch.testing.assert_close(together[1, index, :70, :52], alone.alphas[0, 0], atol=2e-5, rtol=0)
    assert together[0, :, 44:].abs().max() == 0
    assert together[0, :, :, 61:].abs().max() == 0


@torch.no_grad()
def test_every_mix_of_prompts_matters(model):
    torch.manual_seed(2)
    image, everything = torch.randn(1, 3, 56, 56), prompts()
    groups = {
        "point": ("input_points", "input_labels"),
        "box": ("input_boxes",),
        "text": ("input_ids", "attention_mask"),
    }
    seen = []
    for count in range(4):
        for chosen in itertools.combinations(groups, count):
            given = {key: everything[key] for name in chosen for key in groups[name]}
            alphas = model(image, **given).alphas
            assert alphas.shape == (1, 2 if chosen else 1, 56, 56)
            assert torch.isfinite(alphas).all()
            assert alphas.min() >= 0
            assert alphas.max() <= 1
            assert all((alphas[:, :1] - other).abs().max() > 1e-6 for other in seen), chosen
            seen.append(alphas[:, :1])


@torch.no_grad()
def test_text_similarity_maps_follow_the_semantic_map():
    model = tiny_model()
    torch.manual_seed(3)
    embeddings = model.get_image_embeddings(torch.randn(1, 3, 56, 28))
    assert embeddings.semantic_map.shape == (1, 24, 4, 4)
    valid = torch.arange(4).expand(1, 1, 4, 4) < 2  # the encoder input is square, the image half as wide
    texts, given = torch.randn(2, 24), torch.tensor([True, False])
    encoder = model.model.prompt_encoder
    match, below, present = encoder.draw_text_similarity(
        embeddings.semantic_map.expand(2, -1, -1, -1), valid.expand(2, -1, -1, -1), texts, given, 4, 4
    )[0]
    expected = torch.cosine_similarity(embeddings.semantic_map[0], texts[0, :, None, None], dim=0)
    expected = expected * embeddings.semantic_map[0].norm(dim=0)
    torch.testing.assert_close(match, expected.clamp(-4, 4))
    torch.testing.assert_close(below[:, :2], (expected - expected[:, :2].max())[:, :2].clamp(-4, 4))
    assert below[:, :2].max() == 0
    assert present.eq(1).all()
    assert not encoder.draw_text_similarity(embeddings.semantic_map, valid, None, None, 8, 8).any()
    both = encoder.draw_text_similarity(embeddings.semantic_map.expand(2, -1, -1, -1), valid, texts, given, 8, 8)
    assert both.shape == (2, 3, 8, 8)
    assert both[0].any()
    assert not both[1].any()

    changed = embeddings.semantic_map + torch.randn(1, 24, 1, 1)
    before = model(image_embeddings=embeddings, **prompts()).logits
    embeddings.semantic_map = changed
    assert (model(image_embeddings=embeddings, **prompts()).logits - before).abs().max() > 1e-4


@torch.no_grad()
def test_an_all_zero_attention_row_means_no_text(model):
    image, given = torch.randn(1, 3, 56, 56), prompts()
    given["attention_mask"][0, 1] = 0
    mixed = model(image, **given).alphas[:, 1]
    bare = {key: given[key][:, 1:] for key in ("input_points", "input_labels", "input_boxes")}
    torch.testing.assert_close(mixed, model(image, **bare).alphas[:, 0], atol=1e-5, rtol=0)


def test_padding_objects_have_neither_alpha_nor_loss():
    torch.manual_seed(5)
    model, image, given = tiny_model(), torch.randn(1, 3, 56, 56), prompts()
    labels = torch.rand(1, 2, 56, 56)
    with torch.no_grad():
        mask = torch.tensor([[True, False]])
        masked = model(image, **given, object_mask=mask, labels=labels)
        assert masked.alphas[0, 1].abs().max() == 0
        labels[0, 1] = 0.5
        assert model(image, **given, object_mask=mask, labels=labels).loss == masked.loss


@torch.no_grad()
def test_prompts_for_one_image_go_to_all():
    model, images = tiny_model(), torch.randn(1, 3, 56, 56).expand(2, -1, -1, -1)
    alphas = model(images, **prompts()).alphas
    torch.testing.assert_close(alphas[:1], model(images[:1], **prompts()).alphas, rtol=0, atol=1e-5)
    torch.testing.assert_close(alphas[:1], alphas[1:], rtol=0, atol=1e-6)


@torch.no_grad()
def test_new_mask_weights_change_nothing(model):
    image, given = torch.randn(1, 3, 44, 61), prompts()
    masks = torch.rand(1, 2, 44, 61)
    expected = model(image, **given).alphas
    torch.testing.assert_close(model(image, **given, input_masks=masks).alphas, expected, rtol=0, atol=0)


@pytest.fixture(scope="module")
def masking_model(model) -> FCLMForImageMatting:
    """A copy with mask weights other than zero."""
    model = copy.deepcopy(model)
    for conv in model.model.prompt_encoder.get_mask_outputs():
        torch.nn.init.normal_(conv.weight, std=0.5)
    return model


@torch.no_grad()
def test_an_absent_mask_is_no_mask(masking_model):
    image = torch.randn(1, 3, 44, 61)
    masks = torch.full((1, 2, 44, 61), -1.0)
    masks[0, 1] = 0
    masks[0, 1, 10:30, 10:30] = 1
    expected, given = masking_model(image).alphas[0, 0], masking_model(image, input_masks=masks).alphas[0]
    torch.testing.assert_close(given[0], expected, rtol=0, atol=1e-5)
    assert (given[1] - expected).abs().max() > 1e-3


@torch.no_grad()
def test_masks_of_padded_images(masking_model):
    small, mask = torch.randn(1, 3, 44, 61), torch.rand(1, 1, 44, 61)
    alone = masking_model(small, input_masks=mask).alphas
    pixels, pixel_mask = torch.zeros(1, 3, 70, 90), torch.zeros(1, 70, 90, dtype=torch.long)
    pixels[..., :44, :61], pixel_mask[:, :44, :61] = small, 1
    padded = torch.nn.functional.pad(mask, (0, 29, 0, 26), value=0.7)
    result = masking_model(pixels, pixel_mask, input_masks=padded).alphas
    torch.testing.assert_close(result[..., :44, :61], alone, rtol=0, atol=1e-4)


@torch.no_grad()
def test_what_a_trimap_knows_stays(masking_model):
    image = torch.randn(1, 3, 44, 61)
    trimap = torch.zeros(1, 1, 44, 61)
    trimap[..., 10:30, :] = 1
    trimap[..., 28:34, :] = 0.5
    alphas = masking_model(image, input_masks=trimap).alphas
    known = trimap != 0.5
    assert torch.equal(alphas[known], trimap[known])
    rough = (trimap > 0.7).float()
    assert (masking_model(image, input_masks=rough).alphas - rough).abs().max() > 0.1


@torch.no_grad()
def test_masks_may_lack_the_padding(masking_model):
    image, mask = torch.randn(1, 3, 44, 61), torch.rand(1, 1, 40, 50)
    padded = torch.nn.functional.pad(mask, (0, 11, 0, 4), value=-1.0)
    expected = masking_model(image, input_masks=padded).alphas
    torch.testing.assert_close(masking_model(image, input_masks=mask).alphas, expected, rtol=0, atol=0)


def test_masks_must_not_exceed_the_image(model):
    with pytest.raises(ValueError, match=r"not be larger than pixel_values, \(44, 61\), got \(45, 61\)"):
        model(torch.randn(1, 3, 44, 61), input_masks=torch.zeros(1, 1, 45, 61))


@torch.no_grad()
def test_a_text_that_matches_nowhere_gives_an_empty_matte_unless_another_prompt_says_where():
    model, image = tiny_model(), torch.randn(1, 3, 40, 64)
    ids = torch.tensor([[[3, 4, 56], *[[8, 9, 56]] * 5]])
    mask = torch.ones_like(ids)
    mask[0, 5] = 0  # no text
    boxes = torch.zeros(1, 6, 4)
    boxes[0, 2] = torch.tensor([4.0, 4.0, 30.0, 30.0])
    points, labels = torch.full((1, 6, 1, 2), 9.0), torch.full((1, 6, 1), -10)
    labels[0, 3] = 0
    masks = torch.full((1, 6, 40, 64), -1.0)
    masks[0, 4] = 0.3
    prompts = {
        "input_ids": ids, "attention_mask": mask, "input_boxes": boxes, "input_points": points, "input_labels": labels,
        "input_masks": masks,
    }  # fmt: skip
    free = model(image, **prompts)
    assert free.text_scores.shape == (1, 6)
    assert free.text_scores[0, 5] == torch.inf
    torch.testing.assert_close(free.text_scores[0, 1:5], free.text_scores[0, 1].expand(4))
    low, high = free.text_scores[0, :2].sort().values
    model.config.text_score_threshold = float((low + high) / 2)
    gated = model(image, **prompts)
    absent = free.text_scores[0] < model.config.text_score_threshold
    absent[2:5] = False
    assert absent.sum() == 1
    assert gated.alphas[0, absent].eq(0).all()
    assert torch.equal(gated.alphas[0, ~absent], free.alphas[0, ~absent])
    assert free.alphas[0, absent].gt(0).all()


@torch.no_grad()
def test_text_scores_are_the_highest_match_within_each_image():
    model, ids = tiny_model(), torch.tensor([[[1, 2, 3], [4, 5, 6]]])
    pixels, pixel_mask = torch.randn(2, 3, 40, 64), torch.ones(2, 40, 64, dtype=torch.long)
    pixel_mask[1, :, 32:] = 0
    embeddings = model.get_image_embeddings(pixels, pixel_mask)
    scores = model(image_embeddings=embeddings, input_ids=ids).text_scores
    direction = nn.functional.normalize(model.model.get_text_features(ids[0]).pooler_output, dim=-1)
    match = torch.einsum("bchw,oc->bohw", embeddings.semantic_map, direction)
    rows = -(-35 // 14)  # the encoder input of 56 px holds 35 rows of the image, in cells of 14
    torch.testing.assert_close(scores[0], match[0, :, :rows].amax((1, 2)))
    torch.testing.assert_close(scores[1], match[1, :, :, : -(-45 // 14)].amax((1, 2)))
