"""Half precision: mattes stay those of fp32, however the model gets there, and no image gives NaN."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from paths import PHOTOS
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_model import TINY_TEXT, tiny_model
from transformers import pipeline

from fclm_hf import LITE_CHECKPOINT, FCLMForImageMatting, FCLMProcessor


HALF = [torch.float16, torch.bfloat16]
OBJECTS = {  # name and box; the click is the center of the box
    "astronaut": ("a woman", [60, 10, 440, 500]),
    "cat": ("cat", [40, 20, 420, 290]),
    "coffee": ("cup", [150, 20, 470, 330]),
}
needs_checkpoint = pytest.mark.skipif(not Path(LITE_CHECKPOINT).is_dir(), reason="the embedded checkpoint is not there")


@pytest.fixture(scope="module")
def processor() -> FCLMProcessor:
    return FCLMProcessor.from_pretrained(LITE_CHECKPOINT)


@pytest.fixture(scope="module")
def inputs(processor: FCLMProcessor) -> dict[str, dict]:
    """A bundled photo, small, with each kind of prompt."""
    return {"cat": prepare(processor, "cat", longest_edge=160)}


@pytest.fixture(scope="module")
def expected(inputs: dict[str, dict]) -> dict[str, torch.Tensor]:
    return compute_alphas(FCLMForImageMatting.from_pretrained(LITE_CHECKPOINT), inputs)


def prepare(processor: FCLMProcessor, name: str, longest_edge: int) -> dict[str, dict]:
    text, (x0, y0, x1, y1) = OBJECTS[name]
    photo = Image.open(PHOTOS / f"{name}.jpg")
    mask = Image.new("L", photo.size)
    mask.paste(255, (x0, y0, x1, y1))
    prompts = {
        "none": {},
        "text": {"text": [[text]]},
        "box": {"input_boxes": [[[x0, y0, x1, y1]]]},
        "click": {"input_points": [[[[(x0 + x1) / 2, (y0 + y1) / 2]]]]},
        "mask": {"input_masks": [[mask]]},
    }
    size = {"longest_edge": longest_edge}
    return {kind: dict(processor(photo, **given, size=size)) for kind, given in prompts.items()}


@torch.inference_mode()
def compute_alphas(model: FCLMForImageMatting, inputs: dict[str, dict]) -> dict[str, torch.Tensor]:
    """Return the alphas of each photo, one per kind of prompt."""
    alphas = {}
    for name, kinds in inputs.items():
        pixels, mask = (kinds["none"][key] for key in ("pixel_values", "pixel_mask"))
        embeddings = model.get_image_embeddings(pixels, mask)
        prompts = [{key: given[key] for key in given.keys() - kinds["none"].keys()} for given in kinds.values()]
        alphas[name] = torch.cat([model(image_embeddings=embeddings, **given).alphas[0] for given in prompts])
    return alphas


def check_alphas(alphas: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, values in expected.items():
        assert values.max() > 0.9, name
        assert (alphas[name] - values).abs().max() <= 2 / 255, name


@needs_checkpoint
@pytest.mark.parametrize("dtype", HALF)
def test_loaded_in_half_precision(dtype, inputs, expected):
    check_alphas(compute_alphas(FCLMForImageMatting.from_pretrained(LITE_CHECKPOINT, dtype=dtype), inputs), expected)


@needs_checkpoint
@pytest.mark.parametrize("cast", ["half", "bfloat16", "to"])
def test_cast_to_half_precision(cast, inputs, expected):
    model = FCLMForImageMatting.from_pretrained(LITE_CHECKPOINT)
    model = model.to("cpu", torch.bfloat16) if cast == "to" else getattr(model, cast)()
    check_alphas(compute_alphas(model, inputs), expected)
    assert model.double().dtype == torch.float64


@needs_checkpoint
@pytest.mark.parametrize("dtype", HALF)
def test_under_autocast(dtype, inputs, expected):
    model = FCLMForImageMatting.from_pretrained(LITE_CHECKPOINT)
    with torch.autocast("cpu", dtype):
        check_alphas(compute_alphas(model, inputs), expected)


@needs_checkpoint
def test_training_under_autocast_is_in_half_precision(inputs):
    model = FCLMForImageMatting.from_pretrained(LITE_CHECKPOINT)
    pixels = inputs["cat"]["none"]["pixel_values"]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert model.eval()(pixels).logits.dtype == torch.float32
        assert model.train()(pixels).logits.dtype == torch.bfloat16


@needs_checkpoint
@pytest.mark.parametrize("dtype", HALF)
def test_pipeline_in_half_precision(dtype):
    photo = Image.open(PHOTOS / "cat.jpg").resize((225, 150))
    exact, half = (
        pipeline("referring-matting", dtype=each, device="cpu")(photo, text="cat", cutout=False)
        for each in (torch.float32, dtype)
    )
    assert exact["predicted_alpha"].max() > 0.9
    assert (half["predicted_alpha"] - exact["predicted_alpha"]).abs().max() <= 2 / 255


@needs_checkpoint
@pytest.mark.slow
@pytest.mark.parametrize("dtype", HALF)
def test_bundled_photos(dtype, processor):
    inputs = {name: prepare(processor, name, longest_edge=1024) for name in OBJECTS}
    expected = compute_alphas(FCLMForImageMatting.from_pretrained(LITE_CHECKPOINT), inputs)
    check_alphas(compute_alphas(FCLMForImageMatting.from_pretrained(LITE_CHECKPOINT, dtype=dtype), inputs), expected)


def make_plain_images() -> Iterator[Image.Image]:
    for color in ("black", "white", "teal"):
        yield Image.new("RGB", (40, 24), color)
        yield Image.new("RGB", (1, 1), color)


@needs_checkpoint
@pytest.mark.parametrize(
    ("backbone", "dtype", "autocast"),
    [
        ("timm", torch.float32, False),
        ("dinov2", torch.float32, False),
        ("dinov2", torch.float32, True),
        ("dinov2", torch.float16, False),
        ("dinov2", torch.bfloat16, False),
        pytest.param("timm", torch.float16, False, marks=pytest.mark.slow),
        pytest.param("timm", torch.bfloat16, False, marks=pytest.mark.slow),
        pytest.param("timm", torch.float32, True, marks=pytest.mark.slow),
    ],
)
def test_plain_images_give_numbers(backbone, dtype, autocast, processor):
    if backbone == "dinov2":
        model = tiny_model(text_config={**TINY_TEXT, "vocab_size": len(processor.tokenizer)})
    else:
        model = FCLMForImageMatting.from_pretrained(LITE_CHECKPOINT)
    model = model.to(dtype)
    manager = torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext()
    for image in make_plain_images():
        mask = Image.new("L", image.size, 255)
        box = [0, 0, *image.size]
        for prompts in ({}, {"text": [["cat"]], "input_points": [[[[0, 0]]]], "input_boxes": [[box]]}):
            given = processor(image, **prompts, input_masks=[[mask]])
            with torch.inference_mode(), manager:
                alphas = model(**given).alphas
            assert alphas.dtype == torch.float32
            assert torch.isfinite(alphas).all()
            assert alphas.shape[:2] == (1, 1)


@torch.no_grad()
@pytest.mark.parametrize("dtype", HALF)
def test_older_checkpoints_load_in_half_precision(dtype, tmp_path):
    """Weights that they lack are created by transformers in the requested precision."""
    pytest.importorskip("timm")
    backbone = {"model_type": "timm_backbone", "backbone": "tf_efficientnet_lite0", "out_indices": [2, 3, 4]}
    tiny_model(backbone_config=backbone, coarse_level=1, encoder_size=64).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "prompt_encoder.mask_" not in name}
    assert len(kept) < len(weights)
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model = FCLMForImageMatting.from_pretrained(tmp_path, dtype=dtype)
    pixels = torch.randn(1, 3, 48, 48)
    alphas = model(pixels, input_masks=torch.ones(1, 1, 48, 48)).alphas
    expected = FCLMForImageMatting.from_pretrained(tmp_path)(pixels, input_masks=torch.ones(1, 1, 48, 48)).alphas
    torch.testing.assert_close(alphas, expected, rtol=0, atol=1e-6)
