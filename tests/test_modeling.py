"""FCLM's own guarantees: batches equal single images, prompts in any mix, cached embeddings, precision, compilation."""

import copy
import itertools

import pytest
import torch
from tiny_model import tiny_config, tiny_model
from torch import nn
from transformers import AutoModelForImageMatting

from fclm_hf import FCLMConfig, FCLMForImageMatting


POINTS = [[[20.0, 10.0], [40.0, 30.0]], [[5.0, 6.0]]]
LABELS = [[1, 0], [1]]
BOXES = [[4.0, 3.0, 50.0, 40.0], [10.0, 10.0, 30.0, 38.0]]


@pytest.fixture(scope="module", params=["dinov2", "timm"])
def model(request) -> FCLMForImageMatting:
    if request.param == "dinov2":
        return tiny_model()
    pytest.importorskip("timm")
    backbone = {"model_type": "timm_backbone", "backbone": "tf_efficientnet_lite0", "out_indices": [2, 3, 4]}
    return tiny_model(backbone_config=backbone, coarse_level=1, encoder_size=64, semantic_head_size=None)


def pad_points(points: list, labels: list, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    padded = [[*object_points, *[[0.0, 0.0]] * (length - len(object_points))] for object_points in points]
    marks = [[*object_labels, *[-10] * (length - len(object_labels))] for object_labels in labels]
    return torch.tensor([padded]), torch.tensor([marks])


def prompts() -> dict[str, torch.Tensor]:
    input_points, input_labels = pad_points(POINTS, LABELS, 2)
    input_ids = torch.tensor([[[55, 3, 4, 56], [55, 7, 56, 56]]])
    return {
        "input_points": input_points,
        "input_labels": input_labels,
        "input_boxes": torch.tensor([BOXES]),
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
    }


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


def test_a_frozen_text_tower_keeps_its_semantic_head(tmp_path):
    model = tiny_model(freeze_text_encoder=True)
    model.save_pretrained(tmp_path)
    for each in (model, FCLMForImageMatting.from_pretrained(tmp_path)):
        frozen = {name for name, weight in each.named_parameters() if not weight.requires_grad}
        assert frozen - {"model.prompt_encoder.fourier_matrix"} == {
            name for name, _ in each.named_parameters() if "text_model" in name or "semantic_head" in name
        }


@torch.no_grad()
def test_an_all_zero_attention_row_means_no_text(model):
    image, given = torch.randn(1, 3, 56, 56), prompts()
    given["attention_mask"][0, 1] = 0
    mixed = model(image, **given).alphas[:, 1]
    bare = {key: given[key][:, 1:] for key in ("input_points", "input_labels", "input_boxes")}
    torch.testing.assert_close(mixed, model(image, **bare).alphas[:, 0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_cached_embeddings_give_the_same_result(model):
    image = torch.randn(1, 3, 45, 59)
    mask = torch.ones(1, 45, 59, dtype=torch.long)
    mask[:, 40:] = 0
    embeddings = model.get_image_embeddings(image, mask)
    expected, cached = model(image, mask, **prompts()), model(image_embeddings=embeddings, **prompts())
    torch.testing.assert_close(cached.alphas, expected.alphas, atol=0, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_implementations_agree(implementation):
    torch.manual_seed(3)
    model, image = tiny_model(), torch.randn(1, 3, 56, 56)
    expected = model(image, **prompts()).alphas
    model.set_attn_implementation(implementation)
    assert model.config._attn_implementation == implementation
    torch.testing.assert_close(model(image, **prompts()).alphas, expected, atol=1e-5, rtol=0)


def test_gradients_reach_all_parts_and_checkpointing_changes_nothing():
    torch.manual_seed(4)
    model, image = tiny_model(coarse_loss_weight=1.0).train(), torch.randn(2, 3, 56, 56)
    given = {key: value.expand(2, *value.shape[1:]) for key, value in prompts().items()}
    labels = (torch.rand(2, 2, 56, 56) > 0.5).float()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        model(image, **given, labels=labels).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4)
    assert any("backbone" in name for name in gradients[0])
    assert any("text_model" in name for name in gradients[0])


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_stays_close(dtype):
    torch.manual_seed(6)
    image = torch.randn(1, 3, 56, 56)
    expected = tiny_model()(image, **prompts()).alphas
    model = tiny_model().to(dtype)
    alphas = model(image.to(dtype), **prompts()).alphas
    assert alphas.dtype == torch.float32
    assert torch.isfinite(alphas).all()
    assert (alphas - expected).abs().mean() < 0.02


@torch.no_grad()
def test_pixels_of_any_float_type():
    model, image = tiny_model().to(torch.bfloat16), torch.randn(1, 3, 56, 56)
    expected = model(image.to(torch.bfloat16), **prompts()).alphas
    torch.testing.assert_close(model(image, **prompts()).alphas, expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_prompts_for_one_image_go_to_all():
    model, images = tiny_model(), torch.randn(1, 3, 56, 56).expand(2, -1, -1, -1)
    alphas = model(images, **prompts()).alphas
    torch.testing.assert_close(alphas[:1], model(images[:1], **prompts()).alphas, rtol=0, atol=1e-5)
    torch.testing.assert_close(alphas[:1], alphas[1:], rtol=0, atol=1e-6)


@torch.no_grad()
def test_half_precision_keeps_coordinates_in_fp32(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    model = AutoModelForImageMatting.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert model.model.prompt_encoder.fourier_matrix.dtype == torch.float32
    assert model.head.coefficients.weight.dtype == torch.bfloat16
    assert torch.isfinite(model(torch.randn(1, 3, 56, 56, dtype=torch.bfloat16), **prompts()).alphas).all()


def test_training_step_on_the_meta_device():
    with torch.device("meta"):
        model = FCLMForImageMatting(tiny_config(coarse_loss_weight=1.0)).train()
        given = {key: torch.empty_like(value, device="meta") for key, value in prompts().items()}
        pixel_mask = torch.ones(1, 56, 56, dtype=torch.long)
        loss = model(torch.empty(1, 3, 56, 56), pixel_mask, **given, labels=torch.empty(1, 2, 56, 56)).loss
        loss.backward()
    assert loss.shape == ()


@torch.no_grad()
def test_compiles_without_graph_breaks():
    torch.manual_seed(7)
    model, image = tiny_model(), torch.randn(1, 3, 56, 56)
    expected = model(image, **prompts()).alphas
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(image, **prompts()).alphas, expected, atol=1e-6, rtol=0)


@torch.no_grad()
def test_save_and_load_are_bit_exact(tmp_path):
    torch.manual_seed(8)
    model, image = tiny_model(), torch.randn(1, 3, 56, 56)
    model.save_pretrained(tmp_path)
    again = AutoModelForImageMatting.from_pretrained(tmp_path)
    assert type(again) is FCLMForImageMatting
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(again(image, **prompts()).alphas, model(image, **prompts()).alphas)


@torch.no_grad()
def test_encoder_size_none_runs_the_backbone_at_full_size():
    model = tiny_model(encoder_size=None)
    embeddings = model.get_image_embeddings(torch.randn(1, 3, 56, 84))
    assert embeddings.coarse_map.shape[-2:] == (4, 6)
    assert model(torch.randn(1, 3, 50, 80)).alphas.shape == (1, 1, 50, 80)


@torch.no_grad()
def test_shapes_are_those_that_are_documented():
    model, config = tiny_model(), tiny_config()
    size1, _, size4, size8 = config.detail_hidden_sizes
    embeddings = model.get_image_embeddings(torch.randn(2, 3, 43, 64))
    padded_height, padded_width = 56, 72  # multiples of 8, and one cell more
    assert embeddings.coarse_map.shape == (2, 32, 4, 4)
    assert embeddings.fine_map is None  # level 0
    assert [each.shape for each in embeddings.detail_maps] == [
        (2, size4, padded_height // 4, padded_width // 4),
        (2, size8, padded_height // 8, padded_width // 8),
    ]
    assert embeddings.detail_basis.shape == (2, 4 * size1, padded_height // 2, padded_width // 2)
    assert embeddings.pixel_mask.shape == (2, 1, 43, 64)
    outputs = model.model(image_embeddings=embeddings, **prompts())
    assert outputs.object_features.shape == (2, 2, size4, padded_height // 4, padded_width // 4)
    assert outputs.coarse_logits.shape == (2, 2, padded_height // 8, padded_width // 8)
    assert outputs.prompt_embeds.shape == (2, 2, 32)
    assert model(image_embeddings=embeddings, **prompts()).logits.shape == (2, 2, 43, 64)


@torch.no_grad()
def test_images_are_resized_and_padded_to_the_encoder_input():
    model = tiny_model().model
    sizes = torch.tensor([[20, 40], [40, 10]])
    maps = model.resize_and_pad(torch.ones(2, 1, 40, 40), sizes)
    assert maps.shape == (2, 1, 56, 56)
    assert maps[0, 0].eq(1).sum() == 28 * 56
    assert maps[1, 0, :, :14].eq(1).all()
    assert maps[0, 0, 28:].eq(0).all()
    assert maps[1, 0, :, 14:].eq(0).all()


@torch.no_grad()
def test_device_map_on_the_cpu(tmp_path):
    model, image = tiny_model(), torch.randn(1, 3, 56, 56)
    model.save_pretrained(tmp_path)
    mapped = FCLMForImageMatting.from_pretrained(tmp_path, device_map="cpu")
    assert all(torch.equal(value, mapped.state_dict()[name]) for name, value in model.state_dict().items())
    assert torch.equal(mapped(image).alphas, model(image).alphas)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Exactly one of pixel_values and image_embeddings"),
        ({"input_labels": torch.ones(1, 1, 1)}, "input_labels requires input_points, got input_labels alone"),
        ({"input_points": torch.zeros(1, 2, 1, 2), "input_boxes": torch.zeros(1, 3, 4)}, "number of objects"),
        ({"labels": torch.zeros(1, 1, 20, 20)}, "labels must have the shape of the alphas"),
        (
            {"pixel_values": torch.zeros(3, 56, 56)},
            r"pixel_values must have shape \(batch_size, 3, .* got \(3, 56, 56\)",
        ),
        ({"pixel_mask": torch.ones(1, 50, 56)}, "pixel_mask must have the shape of the images"),
        (
            {"input_boxes": torch.zeros(1, 4)},
            r"input_boxes must have shape \(batch_size, num_objects, 4\) .* got \(1, 4\)",
        ),
        ({"input_boxes": torch.zeros(2, 1, 4)}, "with batch_size 1"),
        ({"input_points": torch.zeros(1, 2, 2)}, "input_points must have shape"),
        (
            {"input_points": torch.zeros(1, 1, 2, 2), "input_labels": torch.ones(1, 1, 3)},
            "input_labels must have shape",
        ),
        ({"input_ids": torch.ones(1, 3).long(), "attention_mask": torch.ones(1, 4)}, "attention_mask must have shape"),
        ({"object_mask": torch.ones(1)}, "object_mask must have shape"),
    ],
)
def test_bad_calls(arguments, message):
    image = {"pixel_values": torch.zeros(1, 3, 56, 56)} if arguments else {}
    with pytest.raises(ValueError, match=message):
        tiny_model()(**{**image, **arguments})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 30, "decoder_attention_heads": 4}, "hidden_size"),
        ({"task": "trimap"}, "task"),
        ({"encoder_size": 50}, "encoder_size"),
        ({"coarse_level": 2}, "coarse_level"),
        ({"semantic_head_size": 0}, "semantic_head_size"),
        ({"dense_prompts": False}, "semantic_head_size"),
        ({"detail_hidden_sizes": [4, 4, 4]}, "detail_hidden_sizes"),
    ],
)
def test_bad_configs(fields, message):
    with pytest.raises(Exception, match=message):
        tiny_config(**fields)


def test_presets():
    for name, width in {"matting-small": 384, "dis-base": 768}.items():
        config = FCLMConfig.from_preset(name)
        assert config.backbone_config.hidden_size == width
        assert config.text_config.vocab_size == 49408
    assert FCLMConfig.from_preset("lite", encoder_size=384).encoder_size == 384
    with pytest.raises(ValueError, match="name must be one of"):
        FCLMConfig.from_preset("huge")


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


def test_unknown_pixels_have_no_loss(model):
    image, given = torch.randn(1, 3, 44, 61), prompts()
    labels = (torch.rand(1, 2, 44, 61) > 0.5).float()
    label_mask = torch.ones(1, 2, 44, 61, dtype=torch.bool)
    with torch.no_grad():
        exact = model(image, **given, labels=labels).loss
        torch.testing.assert_close(model(image, **given, labels=labels, label_mask=label_mask).loss, exact)
        label_mask[0, 1, :, 20:40] = False
        coarse = model(image, **given, labels=labels, label_mask=label_mask).loss
        labels[0, 1, :, 20:40] = 1 - labels[0, 1, :, 20:40]
        torch.testing.assert_close(model(image, **given, labels=labels, label_mask=label_mask).loss, coarse)
        assert coarse != exact
    with pytest.raises(ValueError, match="label_mask must have the shape of the alphas"):
        model(image, **given, labels=labels, label_mask=label_mask[:, :1])


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
