"""Both image processors: what they give, that they agree, and that post-processing undoes them."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from paths import ROOT
from PIL import Image, ImageDraw
from transformers.utils import is_torchvision_available

from fclm_hf import FCLMImageProcessorPil


BACKENDS = [FCLMImageProcessorPil]
if is_torchvision_available():
    from fclm_hf import FCLMImageProcessor

    BACKENDS.append(FCLMImageProcessor)

GRAY_LEVEL = 1 / 255 / 0.5 + 1e-6  # in normalized values


@pytest.fixture(params=BACKENDS, ids=lambda backend: backend.__name__)
def processor(request: pytest.FixtureRequest):
    return request.param(size={"longest_edge": 96})


def draw_scene(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colors, hard edges, thin lines and noise, as a photo has."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(30):
        start, end = rng.integers(0, (width, height)), rng.integers(0, (width, height))
        draw.line([tuple(start.tolist()), tuple(end.tolist())], fill=tuple(rng.integers(0, 256, 3).tolist()))
    noise = rng.integers(-20, 21, (height, width, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def test_batch(processor) -> None:
    images = [draw_scene(90, 50), draw_scene(200, 130), draw_scene(41, 96)]
    inputs = processor(images, return_tensors="pt")
    assert inputs["pixel_values"].shape == (3, 3, 96, 96)
    assert inputs["pixel_values"].dtype == torch.float32
    assert inputs["pixel_mask"].dtype == inputs["original_sizes"].dtype == torch.int64
    assert inputs["original_sizes"].tolist() == [[50, 90], [130, 200], [96, 41]]
    for values, mask, size in zip(*list(inputs.values())[:2], [(50, 90), (62, 96), (96, 41)], strict=True):
        assert mask[: size[0], : size[1]].all()
        assert mask.sum() == size[0] * size[1]
        assert (values * (1 - mask) == 0).all()
    exact = torch.from_numpy(np.array(images[0])).permute(2, 0, 1) / 255
    assert torch.allclose(inputs["pixel_values"][0, :, :50, :90], (exact - 0.5) / 0.5, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "shape", "expected"),
    [
        ({"longest_edge": 100}, (333, 1000), (33, 100)),
        ({"longest_edge": 100}, (1000, 1), (100, 1)),
        ({"longest_edge": 100}, (1, 5000), (1, 100)),
        ({"longest_edge": 100}, (100, 7), (100, 7)),
        ({"longest_edge": 5000}, (20, 10), (20, 10)),
        ({"max_height": 50, "max_width": 200}, (100, 300), (50, 150)),
        ({"max_height": 50, "max_width": 60}, (100, 300), (20, 60)),
        ({"max_height": 50, "max_width": 60}, (10, 12), (10, 12)),
        ({"height": 64, "width": 32}, (10, 12), (64, 32)),
        (64, (128, 100), (64, 50)),
    ],
)
def test_sizes(processor, size, shape: tuple[int, int], expected: tuple[int, int]) -> None:
    inputs = processor(Image.new("RGB", shape[::-1]), size=size, return_tensors="pt")
    mask = inputs["pixel_mask"][0]
    assert (int(mask.sum(0).max()), int(mask.sum(1).max())) == expected
    assert all(side % 32 == 0 for side in mask.shape)


def test_settings(processor) -> None:
    scene = draw_scene(70, 50)
    raw = processor(scene, do_rescale=False, do_normalize=False, do_pad=False, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(raw, torch.from_numpy(np.array(scene)).permute(2, 0, 1).float())
    unit = torch.from_numpy(np.array(scene)).permute(2, 0, 1) / 255
    kept = processor(unit * 3 - 1, do_rescale=False, do_normalize=False, do_pad=False, return_tensors="pt")
    assert torch.equal(kept["pixel_values"][0], unit * 3 - 1)
    assert processor(scene, size_divisor=100, return_tensors="pt")["pixel_values"].shape[-2:] == (100, 100)
    padded = processor(scene, pad_size={"height": 51, "width": 80}, return_tensors="pt")
    assert padded["pixel_mask"].shape == (1, 51, 80)
    assert padded["pixel_mask"].sum() == 50 * 70
    as_arrays = processor(scene, return_tensors="np")
    assert all(isinstance(value, np.ndarray) for value in as_arrays.values())
    ragged = processor([scene, scene.resize((30, 20))], do_pad=False)
    assert [tuple(values.shape) for values in ragged["pixel_values"]] == [(3, 50, 70), (3, 20, 30)]
    full = processor(scene.resize((300, 200)), do_resize=False, return_tensors="pt")
    assert full["pixel_mask"].sum() == 300 * 200


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"size": {"shortest_edge": 32}}, "size must be"),
        ({"rescale_factor": 0.0}, "rescale_factor must be"),
        ({"size": {"longest_edge": 0}}, "size must be"),
        ({"do_center_crop": True, "crop_size": 8}, "do_center_crop"),
        ({"size_divisor": 0}, "size_divisor"),
        ({"pad_size": {"height": 40, "width": 300}}, "pad_size"),
        ({"do_pad": False, "images": [np.zeros((9, 9, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)]}, "do_pad=True"),
        ({"images": []}, "empty"),
        ({"images": [np.zeros((9, 9, 3), np.uint8), np.full((9, 9, 3), np.nan)]}, "image 1"),
    ],
)
def test_settings_that_are_not_accepted(processor, kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        processor(**{"images": draw_scene(70, 50), "return_tensors": "pt", **kwargs})


@pytest.mark.skipif(len(BACKENDS) < 2, reason="torchvision is not installed")
def test_backends_agree_to_one_gray_level() -> None:
    shapes = [(97, 61), (640, 427), (333, 1001), (1500, 999), (64, 64), (5, 700)]
    images = [draw_scene(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    images += [images[i].convert(mode) for i, mode in enumerate(["L", "RGBA", "CMYK", "P"])]
    for limit in (64, 333):
        pil, vision = (backend(size={"longest_edge": limit})(images, return_tensors="pt") for backend in BACKENDS)
        assert torch.equal(pil["pixel_mask"], vision["pixel_mask"])
        difference = (pil["pixel_values"] - vision["pixel_values"]).abs()
        assert difference.max() <= GRAY_LEVEL
        assert difference.mean() < GRAY_LEVEL / 20
    # four channels and floats take other ways through both libraries; floats are not rounded, so compare more closely
    deep = np.random.default_rng(0).random((4, 120, 77), dtype=np.float32)
    kwargs = {"do_rescale": False, "do_normalize": False, "do_convert_rgb": False, "size": {"longest_edge": 50}}
    pil, vision = (backend()(deep, return_tensors="pt", **kwargs)["pixel_values"] for backend in BACKENDS)
    assert torch.allclose(pil, vision, atol=1e-5)
    flat = (deep * 255).astype(np.uint8)
    pil, vision = (backend()(flat, return_tensors="pt", **kwargs)["pixel_values"] for backend in BACKENDS)
    assert (pil - vision).abs().max() <= 1


def test_input_types_are_bit_exact(processor, tmp_path: Path) -> None:
    scene = draw_scene(150, 110)
    scene.save(tmp_path / "scene.png")
    array = np.array(scene)
    forms = [str(tmp_path / "scene.png"), tmp_path / "scene.png", (tmp_path / "scene.png").read_bytes()]
    forms += [array, array.transpose(2, 0, 1), torch.from_numpy(array), array / 255, [scene], [[scene]], array[None]]
    reference = processor(scene, return_tensors="pt")
    for form in forms:
        inputs = processor(form, return_tensors="pt")
        assert all(torch.equal(inputs[key], reference[key]) for key in reference)


def test_labels(processor) -> None:
    scene = draw_scene(192, 96)
    alpha = np.zeros((96, 192), np.float32)
    alpha[:, 50:] = np.linspace(0, 1, 142)
    inputs = processor(scene, segmentation_maps=alpha, return_tensors="pt")
    labels = inputs["labels"]
    assert labels.shape == (1, 1, 64, 96)
    assert labels.dtype == torch.float32
    assert (labels * (1 - inputs["pixel_mask"][:, None]) == 0).all()
    assert abs(float(labels.sum()) * 4 - alpha.sum()) < 0.01 * alpha.sum()
    assert ((labels * 255) % 1 != 0).float().mean() > 0.3  # not quantised to 8 bit
    levels = np.round(alpha * 255).astype(np.uint8)
    same = [levels, [levels], [[levels]], levels[None], levels[None, None], Image.fromarray(levels), levels / 255]
    same += [torch.from_numpy(levels), [[Image.fromarray(levels)]], levels.astype(np.uint16) * 257]
    reference = processor(scene, segmentation_maps=levels, return_tensors="pt")["labels"]
    for maps in same:
        assert torch.allclose(processor(scene, segmentation_maps=maps, return_tensors="pt")["labels"], reference)
    two = processor([scene, scene], segmentation_maps=[[alpha, alpha > 0.5], levels], return_tensors="pt")
    assert two["labels"].shape == (2, 2, 64, 96)
    assert (two["labels"][1, 1] == 0).all()
    assert two["object_mask"].tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (
            np.zeros((10, 12), np.float32),
            r"segmentation_maps\[0\]\[0\] must have the shape \(50, 70\) of its image, got \(10, 12\)",
        ),
        (np.full((50, 70), 2.0), r"finite float values in \[0, 1\]"),
        (np.full((50, 70), np.nan), "finite float values"),
        (np.zeros((50, 70), np.int64), "dtype"),
        ([np.zeros((50, 70)), np.zeros((50, 70))], "of 1 images, got 2"),
        ([[]], "at least one map"),
        ([None], "NoneType"),
        ([[[np.zeros((50, 70))]]], "got list"),
        (3, "got int"),
    ],
)
def test_maps_that_are_not_accepted(processor, maps: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        processor(draw_scene(70, 50), segmentation_maps=maps, return_tensors="pt")


def test_post_processing_undoes_the_processing(processor) -> None:
    """Alphas made at the processed size come back at the original one, bit for bit where the sizes are equal."""
    images = [draw_scene(90, 50), draw_scene(300, 201)]
    ramp = [np.tile(np.linspace(0, 1, image.width, dtype=np.float32), (image.height, 1)) for image in images]
    inputs = processor(images, segmentation_maps=ramp, return_tensors="pt")
    mask = inputs["pixel_mask"]
    outputs = SimpleNamespace(
        alphas=torch.where(mask[:, None] == 1, inputs["labels"], torch.tensor(0.7)).repeat(1, 2, 1, 1),
        image_sizes=torch.stack([mask[:, :, 0].sum(1), mask[:, 0].sum(1)], 1),
        object_mask=torch.tensor([[True, True], [True, False]]),
    )
    results = processor.post_process_image_matting(outputs, inputs["original_sizes"])
    assert [tuple(result["alpha"].shape) for result in results] == [(2, 50, 90), (1, 201, 300)]
    assert torch.equal(results[0]["alpha"][1], torch.from_numpy(ramp[0]))
    assert (results[1]["alpha"][0] - torch.from_numpy(ramp[1])).abs().max() < 0.01
    processed = processor.post_process_image_matting(outputs)
    assert torch.equal(processed[1]["alpha"], outputs.alphas[1, :1, :64, :96])
    plain = processor.post_process_image_matting({"alphas": outputs.alphas.half() * 2}, [(10, 20), (96, 96)])
    assert plain[0]["alpha"].shape == (2, 10, 20)
    assert plain[1]["alpha"].dtype == torch.float32
    assert plain[1]["alpha"].max() == 1
    nothing = SimpleNamespace(alphas=torch.zeros(1, 2, 8, 8), object_mask=torch.tensor([[False, False]]))
    assert processor.post_process_image_matting(nothing, [(30, 40)])[0]["alpha"].shape == (0, 30, 40)
    for sizes in (
        [(5, 5)],
        [(5, 5), (0, 3)],
        [(5, 5), (3,)],
        [5, 5],
        5,
        [(5, 5), (float("nan"), 5)],
        [(5, 5), ("a", "b")],
    ):
        with pytest.raises(ValueError, match="target_sizes"):
            processor.post_process_image_matting(outputs, sizes)


def test_round_trip(processor, tmp_path: Path) -> None:
    processor.image_mean, processor.size_divisor = (0.4, 0.5, 0.6), 16
    processor.save_pretrained(tmp_path)
    loaded = type(processor).from_pretrained(tmp_path)
    assert loaded.to_dict() == processor.to_dict()
    loaded.save_pretrained(tmp_path / "again")
    name = "preprocessor_config.json"
    assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert json.loads((tmp_path / name).read_text())["image_processor_type"] == "FCLMImageProcessor"
    scene = draw_scene(150, 110)
    first, second = (each(scene, return_tensors="pt") for each in (processor, loaded))
    assert all(torch.equal(first[key], second[key]) for key in first)


WITHOUT_TORCHVISION = """
import sys
sys.modules["torchvision"] = None  # every import of it fails
import torch
from transformers import AutoImageProcessor, AutoProcessor
import fclm_hf
folder = sys.argv[1]
image_processor = AutoImageProcessor.from_pretrained(folder)
processor = AutoProcessor.from_pretrained(folder)
assert type(image_processor) is type(processor.image_processor) is fclm_hf.FCLMImageProcessorPil, type(image_processor)
prompts = {"text": "low", "input_boxes": [[[1, 2, 30, 40]]]}
inputs = processor(folder + "/scene.png", segmentation_maps=[folder + "/map.png"], **prompts)
torch.save(dict(inputs), folder + "/inputs.pt")
assert not any(name.startswith("torchvision.") for name in sys.modules)
"""


def test_without_torchvision(tmp_path: Path) -> None:
    """The PIL processor does everything in a Python that has no torchvision, and reads what the other one saved."""
    from tiny_model import tiny_tokenizer

    from fclm_hf import FCLMProcessor

    draw_scene(150, 110).save(tmp_path / "scene.png")
    draw_scene(150, 110).convert("L").save(tmp_path / "map.png")
    processor = FCLMProcessor(BACKENDS[-1](size={"longest_edge": 96}), tiny_tokenizer())
    processor.save_pretrained(tmp_path)
    command = [sys.executable, "-c", WITHOUT_TORCHVISION, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    inputs = torch.load(tmp_path / "inputs.pt")
    expected = processor(
        tmp_path / "scene.png", text="low", input_boxes=[[[1, 2, 30, 40]]], segmentation_maps=[tmp_path / "map.png"]
    )
    assert set(inputs) == set(expected)
    for key, value in expected.items():
        tolerance = GRAY_LEVEL if key == "pixel_values" else 0
        assert (value - inputs[key]).abs().max() <= tolerance, key


@pytest.mark.parametrize("processor_class", BACKENDS)
def test_images_may_shrink_to_a_pixel(processor_class: type) -> None:
    image = np.full((30, 40, 3), 51, np.uint8)
    inputs = processor_class(size=1, do_pad=False)(image, return_tensors="pt")
    torch.testing.assert_close(inputs["pixel_values"], torch.full((1, 3, 1, 1), -0.6))
