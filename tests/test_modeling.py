"""FCLM's own guarantees: cached embeddings, gradients, precision, compilation, saving, shapes and errors."""

import pytest
import torch
from model_prompts import prompts
from tiny_model import tiny_backbone_model, tiny_config, tiny_model
from transformers import AutoModelForImageMatting

from fclm_hf import FCLMConfig, FCLMForImageMatting


@pytest.fixture(scope="module", params=["dinov2", "timm"])
def model(request) -> FCLMForImageMatting:
    return tiny_backbone_model(request.param)


def test_a_frozen_text_tower_keeps_its_semantic_head(tmp_path):
    model = tiny_model(freeze_text_encoder=True)
    model.save_pretrained(tmp_path)
    for each in (model, FCLMForImageMatting.from_pretrained(tmp_path)):
        frozen = {name for name, weight in each.named_parameters() if not weight.requires_grad}
        assert frozen - {"model.prompt_encoder.fourier_matrix"} == {
            name for name, _ in each.named_parameters() if "text_model" in name or "semantic_head" in name
        }


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
