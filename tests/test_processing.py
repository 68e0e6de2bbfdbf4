"""The processor: prompts checked, scaled and padded beside the images."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_model import tiny_model, tiny_processor
from transformers import AutoProcessor
from transformers.utils import logging as transformers_logging

from fclm_hf import FCLMProcessor


WIDTH, HEIGHT = 200, 100
SIZE = (HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def processor() -> FCLMProcessor:
    return tiny_processor(size={"longest_edge": 100})


@pytest.fixture(scope="module")
def image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def test_without_prompts(processor: FCLMProcessor, image: Image.Image) -> None:
    inputs = processor(image)
    assert set(inputs) == {"pixel_values", "pixel_mask", "original_sizes"}
    assert inputs["pixel_values"].shape == (1, 3, 64, 128)


def test_points_and_boxes_are_scaled_to_the_resized_frame(processor: FCLMProcessor, image: Image.Image) -> None:
    inputs = processor(
        image,
        input_points=[[[[0, 0], [200, 100], [51, 33]]]],
        input_labels=[[[1, 0, True]]],
        input_boxes=[[[10, 20, 200, 100]]],
    )
    assert inputs["input_points"].tolist() == [[[[0, 0], [100, 50], [25.5, 16.5]]]]
    assert inputs["input_points"].dtype == inputs["input_boxes"].dtype == torch.float32
    assert inputs["input_labels"].tolist() == [[[1, 0, 1]]]
    assert inputs["input_labels"].dtype == torch.int64
    assert inputs["input_boxes"].tolist() == [[[5, 10, 100, 50]]]
    assert "object_mask" not in inputs


def test_a_ragged_batch(processor: FCLMProcessor, image: Image.Image) -> None:
    inputs = processor(
        [image, image.resize((50, 60)), image],
        text=[["low", None], "newer", None],
        input_points=[[[[2, 4]], None], None, None],
        input_labels=None,
        input_boxes=[[None, [0, 0, 8, 6]], None, None],
    )
    assert inputs["object_mask"].tolist() == [[True, True], [True, False], [True, False]]
    assert inputs["input_points"].shape == (3, 2, 1, 2)
    assert inputs["input_points"][0, 0].tolist() == [[1, 2]]
    assert inputs["input_points"].sum() == 3
    assert inputs["input_labels"].tolist() == [[[1], [-10]], [[-10], [-10]], [[-10], [-10]]]
    assert inputs["input_boxes"][0, 1].tolist() == [0, 0, 4, 3]
    assert (inputs["input_boxes"].flatten(0, 1)[[0, 2, 3, 4, 5]] == -10).all()
    assert inputs["attention_mask"].any(-1).tolist() == [[True, False], [True, False], [False, False]]
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape


def test_a_sample_is_the_same_alone_and_in_a_batch(processor: FCLMProcessor, image: Image.Image) -> None:
    small = image.resize((60, 90))
    alone = processor(small, text=[["low"]], input_points=[[[[5, 6]]]], input_boxes=[[[1, 2, 9, 9]]])
    batch = processor(
        [image, small],
        text=[["newer", "low er low er"], ["low"]],
        input_points=[[[[1, 1], [2, 2], [3, 3]], None], [[[5, 6]]]],
        input_boxes=[None, [[1, 2, 9, 9]]],
    )
    assert torch.equal(batch["pixel_values"][1, :, :90, :60], alone["pixel_values"][0, :, :90, :60])
    assert torch.equal(batch["input_points"][1, :1, :1], alone["input_points"][0])
    assert batch["input_labels"][1].tolist() == [[1, -10, -10], [-10, -10, -10]]
    assert torch.equal(batch["input_boxes"][1, :1], alone["input_boxes"][0])
    length = alone["input_ids"].shape[-1]
    assert torch.equal(batch["input_ids"][1, 0, :length], alone["input_ids"][0, 0])
    assert batch["attention_mask"][1, 0].sum() == alone["attention_mask"].sum()


def test_arrays_and_tensors_as_prompts(processor: FCLMProcessor, image: Image.Image) -> None:
    points, boxes = [[[[1.0, 2.0], [3.0, 4.0]]]], [[[1.0, 2.0, 3.0, 4.0]]]
    reference = processor(image, input_points=points, input_labels=[[[1, 0]]], input_boxes=boxes)
    kinds = [np.array, torch.tensor, lambda value: [np.array(value[0])], lambda value: [[torch.tensor(value[0][0])]]]
    for make in kinds:
        labels = make([[[1, 0]]])
        inputs = processor(image, input_points=make(points), input_labels=labels, input_boxes=make(boxes))
        assert all(torch.equal(inputs[key], reference[key]) for key in reference)


def test_text(processor: FCLMProcessor, image: Image.Image) -> None:
    alone = processor(text=["low", "low newer"])
    expected = processor.tokenizer(["low", "low newer"], padding=True, truncation=True, return_tensors="pt")
    assert set(alone) == set(expected)
    assert all(torch.equal(alone[key], expected[key]) for key in expected)
    both = [image, image]
    flat = processor(both, text=["low", "low newer"])
    nested = processor(both, text=[["low"], ["low newer"]])
    assert torch.equal(flat["input_ids"], expected["input_ids"])
    assert torch.equal(nested["input_ids"], expected["input_ids"][:, None])
    assert torch.equal(processor(both, text="low")["input_ids"], processor(text=["low", "low"])["input_ids"])
    boxed = processor(both, text="low", input_boxes=[[[0, 0, 1, 1]], [[0, 0, 1, 1]]])
    assert boxed["input_ids"].shape[:2] == (2, 1)
    unknown = processor(image, text="日本語 ÿ 🦊 \u0000 42!")
    assert unknown["attention_mask"].all()
    assert processor(image, text="low", padding="max_length", max_length=9)["input_ids"].shape == (1, 9)
    assert processor(both, text=["low", "low newer"], padding=False)["input_ids"].shape == expected["input_ids"].shape


def test_more_prompts_for_the_same_images(processor: FCLMProcessor, image: Image.Image) -> None:
    prompts = {"text": [["low", None]], "input_points": [[None, [[5, 6]]]], "input_boxes": [[[1, 2, 30, 40], None]]}
    together = processor(image, **prompts)
    later = processor.encode_prompts([SIZE], [(50, 100)], **prompts)
    assert set(together) - set(later) == {"pixel_values", "pixel_mask", "original_sizes"}
    assert all(torch.equal(together[name], value) for name, value in later.items())
    assert processor.encode_prompts([SIZE], [(50, 100)]) == {}
    with pytest.raises(ValueError, match="does not overlap"):
        processor.encode_prompts([SIZE], [(50, 100)], input_boxes=[[[WIDTH, 0, WIDTH + 1, 5]]])


def test_numpy_output(processor: FCLMProcessor, image: Image.Image) -> None:
    inputs = processor(image, text="low", input_boxes=[[[0, 0, 1, 1]]], return_tensors="np")
    assert {type(value) for value in inputs.values()} == {np.ndarray}


def test_unknown_outputs(processor: FCLMProcessor, image: Image.Image) -> None:
    with pytest.raises(ValueError, match="tensorflow is not a valid TensorType"):
        processor(image, return_tensors="tensorflow")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_casting_leaves_coordinates_exact(processor: FCLMProcessor, image: Image.Image, dtype: torch.dtype) -> None:
    alpha = np.full((HEIGHT, WIDTH), 0.7, np.float32)
    prompts = {"input_points": [[[[180.3, 90.7]]]], "input_boxes": [[[0.1, 0, 199.3, 5]]], "segmentation_maps": alpha}
    inputs = processor(image, **prompts)
    expected = {name: value.clone() for name, value in inputs.items()}
    assert inputs.to("cpu", dtype) is inputs
    assert inputs["pixel_values"].dtype == dtype
    assert all(torch.equal(inputs[name], expected[name]) for name in expected.keys() - {"pixel_values"})
    assert inputs.to("meta")["input_points"].device.type == "meta"


def test_labels_agree_with_the_prompts(processor: FCLMProcessor, image: Image.Image) -> None:
    alpha = np.full((HEIGHT, WIDTH), 128, np.uint8)
    inputs = processor([image, image], text=[["low", "er"], "low"], segmentation_maps=[[alpha, alpha], alpha])
    assert inputs["labels"].shape == (2, 2, 64, 128)
    assert inputs["object_mask"].tolist() == [[True, True], [True, False]]
    for text, count in (("low", 1), (None, 1), ([["a", "b", "c"]], 3)):
        with pytest.raises(ValueError, match=rf"segmentation_maps\[0\] .* each of the {count} objects .*, got 2"):
            processor(image, text=text, segmentation_maps=[[alpha, alpha]])


def test_prompts_are_checked_before_any_pixel_is_processed(
    processor: FCLMProcessor, image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(processor.image_processor), "preprocess", lambda *args, **kwargs: pytest.fail("too late"))
    with pytest.raises(ValueError, match=r"input_boxes\[1\]\[0\] \(image 1, object 0\) does not overlap"):
        processor([image, image], input_boxes=[None, [[0, HEIGHT, 1, HEIGHT + 5]]])


def test_prompts_refer_to_the_upright_image(processor: FCLMProcessor, image: Image.Image, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    for source in (tmp_path / "turned.jpg", Image.open(tmp_path / "turned.jpg")):
        inputs = processor(source, input_points=[[[[50, 199]]]])
        assert inputs["original_sizes"].tolist() == [[WIDTH, HEIGHT]]
        with pytest.raises(ValueError, match="outside the image"):
            processor(source, input_points=[[[[150, 50]]]])


NAN, INF = float("nan"), float("inf")
BAD_PROMPTS = [
    ({"input_points": [[[[201, 5]]]]}, r"input_points\[0\]\[0\].*image 0, object 0.*point 0.*x <= 200.*\[201, 5\]"),
    ({"input_points": [[[[5, 5], [5, 100.5]]]]}, r"point 1,.*y <= 100"),
    ({"input_points": [[[[-0.1, 5]]]]}, "outside the image"),
    ({"input_points": [[[[NAN, 5]]]]}, "NaN or infinity"),
    ({"input_points": [[[[5, INF]]]]}, "NaN or infinity"),
    ({"input_points": [[[[5, 10**400]]]]}, "NaN or infinity"),
    ({"input_points": [[[[5, 5, 5]]]]}, "must be 2 numbers"),
    ({"input_points": [[[["5", 5]]]]}, "must be 2 numbers"),
    ({"input_points": [[[[True, 5]]]]}, "must be 2 numbers"),
    ({"input_points": [[[5, 5]]]}, "must be 2 numbers.*image > object > point"),
    ({"input_points": [[5, 5]]}, r"input_points\[0\]\[0\] .* must be a list, got 5: expected image > object > point"),
    ({"input_points": [5]}, "must be a list of objects, got 5"),
    ({"input_points": 5}, "input_points must be a list, got 5"),
    ({"input_points": {"x": 5}}, "input_points must be a list, got {'x': 5}"),
    ({"input_points": [[[]]]}, "at least one point"),
    ({"input_points": [[[[5, 5]]], [[[5, 5]]]]}, "must hold prompts for 1 images, got 2"),
    ({"input_labels": [[[1]]]}, "input_labels must come with input_points"),
    ({"input_points": [[[[5, 5]]]], "input_labels": [[[2]]]}, r"input_labels\[0\]\[0\].*must be 1 .* or 0 .*, got 2"),
    ({"input_points": [[[[5, 5]]]], "input_labels": [[[NAN]]]}, "must be 1 "),
    ({"input_points": [[[[5, 5]]]], "input_labels": [[["1"]]]}, "must be 1 "),
    ({"input_points": [[[[5, 5]]]], "input_labels": [[1]]}, "expected image > object > point"),
    ({"input_points": [[[[5, 5]]]], "input_labels": [[[1, 0]]]}, "one label for each of 1 points, got 2"),
    ({"input_points": [[[[5, 5]]]], "input_labels": [[[1], [1]]]}, "1 in input_points, 2 in input_labels"),
    ({"input_points": [[None]], "input_labels": [[[1]]]}, "this object has no points"),
    (
        {"input_boxes": [[[200, 0, 201, 5]]]},
        r"input_boxes\[0\]\[0\].*image 0, object 0.*does not overlap the image of 200 x 100",
    ),
    ({"input_boxes": [[[-10, 0, 0, 5]]]}, "does not overlap"),
    ({"input_boxes": [[[0, 100, 20, 105]]]}, "does not overlap"),
    ({"input_boxes": [[[-1, -1, -1, -1]]]}, "is empty"),
    ({"input_boxes": [[[1, 1, 2, 2], []]]}, r"input_boxes\[0\]\[1\].*must be 4 numbers, got \[\]"),
    ({"input_boxes": [[[5, 5, 5, 9]]]}, "is empty"),
    ({"input_boxes": [[[5, 9, 8, 5]]]}, "is empty"),
    ({"input_boxes": [[[NAN, 0, 1, 1]]]}, "NaN or infinity"),
    ({"input_boxes": [[0, 0, 1, 1]]}, "must be 4 numbers.*image > object"),
    ({"input_boxes": [[[0, 0, 1]]]}, "must be 4 numbers"),
    ({"input_boxes": [[[0, 0, 1, 1], [1, 1, 2, 2]]], "text": "low"}, "1 in text, 2 in input_boxes"),
    ({"text": 5}, "text must be a list, got 5"),
    ({"text": [5]}, "must be a list of objects, got 5"),
    ({"text": [[5]]}, r"text\[0\]\[0\].*must be a str or None, got 5"),
    ({"text": ""}, r"text\[0\]\[0\].*must not be empty"),
    ({"text": [["low", " \n"]]}, r"text\[0\]\[1\].*object 1\) must not be empty"),
    ({"text": ["low", "er"]}, r"text must hold texts for 1 images, got 2.*\[\['low', 'er'\]\]"),
    ({"text": []}, "text must hold texts"),
    ({"text": b"low"}, "text must be a list, got b'low'"),
    ({"text": "\ud800"}, r"text\[0\]\[0\].*must be valid Unicode"),
]


@pytest.mark.parametrize(("prompts", "message"), BAD_PROMPTS)
def test_one_clear_error(processor: FCLMProcessor, image: Image.Image, prompts: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        processor(image, **prompts)


def test_nothing_to_process(processor: FCLMProcessor, image: Image.Image) -> None:
    with pytest.raises(ValueError, match="images or text must be given"):
        processor()
    with pytest.raises(ValueError, match="input_boxes must come with images"):
        processor(text="low", input_boxes=[[[0, 0, 1, 1]]])


def test_samples_without_an_image_take_text_only(processor: FCLMProcessor, image: Image.Image) -> None:
    inputs = processor([[], [image]], text=["low", "newer"])
    assert len(inputs["input_ids"]) == 2
    assert len(inputs["pixel_values"]) == 1
    with pytest.raises(ValueError, match="without an image"):
        processor([[], [image]], input_boxes=[[[0, 0, 1, 1]], None])
    with pytest.raises(ValueError, match="without an image"):
        processor([[], [image]], text="low", segmentation_maps=[np.zeros(SIZE)])


@pytest.mark.parametrize("none", [[], np.zeros((0, 4)), torch.zeros(0, 4)], ids=["list", "array", "tensor"])
def test_an_image_without_objects(processor: FCLMProcessor, image: Image.Image, none: object) -> None:
    """It has padding only, which the object mask tells."""
    for text in (None, "low"):
        inputs = processor(image, text=text, input_boxes=[none])
        assert inputs["input_boxes"].tolist() == [[[-10] * 4]]
        assert inputs["object_mask"].tolist() == [[False]]
        assert "input_ids" not in inputs or not inputs["attention_mask"].any()
    inputs = processor([image, image, image], input_boxes=[[[0, 0, 9, 9], [1, 1, 8, 8]], none, None])
    assert inputs["object_mask"].tolist() == [[True, True], [False, False], [True, False]]
    inputs = processor([image, image], input_points=[[], [[[1, 2]]]], text=[[], ["low"]])
    assert inputs["object_mask"].tolist() == [[False], [True]]


def test_a_model_takes_images_without_objects(processor: FCLMProcessor, image: Image.Image) -> None:
    model, sizes = tiny_model(), [SIZE, SIZE]

    def predict(boxes: list) -> list[torch.Tensor]:
        with torch.no_grad():
            outputs = model(**processor([image, image], input_boxes=boxes))
        return [each["alpha"] for each in processor.post_process_image_matting(outputs, sizes)]

    box = [0, 0, 90, 90]
    first, none = predict([[box], []])
    assert none.shape == (0, *SIZE)
    torch.testing.assert_close(first, predict([[box], [box]])[0], atol=3e-6, rtol=0)
    assert [alpha.shape for alpha in predict([[], []])] == [(0, *SIZE)] * 2


def test_round_trip(processor: FCLMProcessor, image: Image.Image, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path / "first")
    loaded = FCLMProcessor.from_pretrained(tmp_path / "first")
    loaded.save_pretrained(tmp_path / "second")
    FCLMProcessor.from_pretrained(tmp_path / "second").save_pretrained(tmp_path / "third")
    # tokenizer_config.json also says whether the tokenizer was loaded from a folder: the same from the second time on
    for folders, names in (
        (("first", "second"), ["processor_config.json", "tokenizer.json"]),
        (("second", "third"), sorted(path.name for path in (tmp_path / "first").iterdir())),
    ):
        for name in names:
            assert (tmp_path / folders[0] / name).read_bytes() == (tmp_path / folders[1] / name).read_bytes()
    auto = AutoProcessor.from_pretrained(tmp_path / "first")
    assert type(auto) is FCLMProcessor
    prompts = {"text": "low er", "input_points": [[[[5, 6]]]], "input_boxes": [[[1, 2, 30, 40]]]}
    small = image.resize((80, 60))  # loading may pick the other backend, whose resampling differs by a gray level
    for saved, again, photo in ((processor, loaded, small), (loaded, auto, image)):
        reference, inputs = saved(photo, **prompts), again(photo, **prompts)
        tolerance = 1e-6 if type(saved.image_processor) is not type(again.image_processor) else 0
        assert set(inputs) == set(reference)
        assert all((inputs[key] - reference[key]).abs().max() <= tolerance for key in reference)


def test_masks_are_resized_and_padded(processor: FCLMProcessor, image: Image.Image) -> None:
    rough = np.zeros(SIZE, bool)
    rough[20:60, 100:] = True
    other = image.resize((50, 60))
    inputs = processor([image, other], input_masks=[[rough, None], [np.ones((60, 50), bool)]])
    masks = inputs["input_masks"]
    assert masks.shape == (2, 2, 60, 100)
    assert masks.dtype == torch.float32
    assert (masks[0, 0, 11:29, 51:] == 1).all()
    assert (masks[0, 0, 31:50] == 0).all()
    assert (masks[0, 0, 50:] == -1).all()
    assert (masks[0, 1] == -1).all()
    assert (masks[1, 0, :, :50] == 1).all()
    assert (masks[1, 0, :, 50:] == -1).all()
    assert (masks[1, 1] == -1).all()
    assert inputs["object_mask"].tolist() == [[True, True], [True, False]]


def test_masks_of_images_processed_before(processor: FCLMProcessor, image: Image.Image) -> None:
    mask = np.random.default_rng(0).random(SIZE, dtype=np.float32)
    encoded = processor.encode_prompts([SIZE], [(50, 100)], input_masks=[[mask]])
    torch.testing.assert_close(encoded["input_masks"], processor(image, input_masks=[[mask]])["input_masks"])
    assert not processor.encode_prompts([SIZE], [(50, 100)], input_masks=[[None]])


def test_a_trimap_stays_one(processor: FCLMProcessor, image: Image.Image) -> None:
    trimap = np.zeros(SIZE, np.uint8)
    trimap[21:61, 51:151] = 255
    trimap[31:41, 51:151] = 128
    masks = processor(image, input_masks=[[Image.fromarray(trimap)]])["input_masks"]
    assert masks[masks >= 0].unique().tolist() == pytest.approx([0, 128 / 255, 1])
    rough = processor(image, input_masks=[[trimap.clip(0, 200)]])["input_masks"]
    assert len(rough[rough >= 0].unique()) > 3


@pytest.mark.parametrize("kind", ["stack", "batch", "tensor"])
def test_masks_as_arrays(processor: FCLMProcessor, image: Image.Image, kind: str) -> None:
    masks = np.random.default_rng(0).random((2, *SIZE), dtype=np.float32)
    given = {"stack": [masks], "batch": masks[None], "tensor": torch.from_numpy(masks)[None]}[kind]
    expected = processor(image, input_masks=[[masks[0], masks[1]]])["input_masks"]
    torch.testing.assert_close(processor(image, input_masks=given)["input_masks"], expected)


@pytest.mark.parametrize("nesting", [list, lambda masks: masks])
def test_masks_with_color_channels(processor: FCLMProcessor, image: Image.Image, nesting: Callable) -> None:
    """As OpenCV reads a grayscale PNG; of colors that differ none is the mask."""
    mask = np.zeros(SIZE, np.uint8)
    mask[20:60, 50:150] = 255
    expected = processor(image, input_masks=[[mask]])["input_masks"]
    color = np.stack([mask] * 3, axis=-1)
    assert torch.equal(processor(image, input_masks=[nesting([color])])["input_masks"], expected)
    color[30, 60, 1] = 0
    with pytest.raises(ValueError, match=r"must have the shape \(100, 200\) of its image"):
        processor(image, input_masks=[nesting([color])])


@pytest.mark.parametrize(
    "prompts",
    [{"input_boxes": [[[0.1, 0.2, 0.9, 0.8]]]}, {"input_boxes": [[[0, 0, 1, 1]]]}, {"input_points": [[[[0.5, 0.5]]]]}],
)
def test_fractions_are_pointed_out(
    processor: FCLMProcessor, image: Image.Image, caplog: pytest.LogCaptureFixture, prompts: dict
) -> None:
    transformers_logging.warning_once.cache_clear()
    with caplog.at_level(logging.WARNING, "fclm_hf"):
        processor(image, input_boxes=[[[0.5, 0.5, 90, 80]]], input_points=[[[[0.5, 0.5], [90, 80]]]])
        assert not caplog.records
        processor(image, **prompts)
    (record,) = caplog.records
    name = "box" if "input_boxes" in prompts else "point"
    assert record.message.startswith(f"A {name} lies within the first pixel of its image: a {name} is in pixels")


def test_a_mask_beside_a_text_has_an_object_axis(processor: FCLMProcessor, image: Image.Image) -> None:
    inputs = processor(image, text="low", input_masks=[[np.ones(SIZE, bool)]])
    assert inputs["input_ids"].ndim == 3


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (
            [[np.zeros((5, 5), bool)]],
            r"input_masks\[0\]\[0\] \(image 0, object 0\) must have the shape \(100, 200\) of its image, got \(5, 5\)",
        ),
        ([[np.full(SIZE, 3.0)]], r"input_masks\[0\]\[0\].*finite float values in \[0, 1\], got \[3, 3\]"),
        ("mask.png", r"input_masks must be a list, got 'mask\.png': expected image > object > mask"),
        (["mask.png"], r"input_masks\[0\] \(image 0\) must be a list of objects, got 'mask\.png'"),
    ],
)
def test_refused_masks(processor: FCLMProcessor, image: Image.Image, masks: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        processor(image, input_masks=masks)


def test_masks_of_segment_anything(processor: FCLMProcessor, image: Image.Image) -> None:
    """They have a dimension for the masks of an object, and one for the objects."""
    mask = np.zeros(SIZE, bool)
    mask[10:60, 20:90] = True
    expected = processor(image, input_masks=[[mask]], segmentation_maps=[[mask]])
    for array in (mask[None], torch.from_numpy(mask)[None, None], mask[..., None]):
        inputs = processor(image, input_masks=[[array]], segmentation_maps=[[array]])
        assert torch.equal(inputs["input_masks"], expected["input_masks"])
        assert torch.equal(inputs["labels"], expected["labels"])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_the_opacity_of_a_mask_counts(processor: FCLMProcessor, image: Image.Image, mode: str) -> None:
    """A cutout is a mask; what its file holds where it is transparent does not matter."""
    opacity = np.zeros(SIZE, np.uint8)
    opacity[10:60, 20:90] = 255
    cutout = image.convert("LA" if mode == "LA" else "RGBA")
    cutout.putalpha(Image.fromarray(opacity))
    if mode == "P":
        cutout = cutout.quantize()
    expected = processor(image, input_masks=[[opacity]])["input_masks"]
    assert torch.equal(processor(image, input_masks=[[cutout]])["input_masks"], expected)
    opaque = Image.fromarray(opacity).convert("RGBA")
    assert torch.equal(processor(image, input_masks=[[opaque]])["input_masks"], expected)


def test_masks_need_images(processor: FCLMProcessor) -> None:
    with pytest.raises(ValueError, match="input_masks must come with images"):
        processor(text="low", input_masks=[[np.zeros(SIZE, bool)]])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int64, np.uint32])
def test_masks_of_zeros_and_ones_are_binary(processor: FCLMProcessor, image: Image.Image, dtype: type) -> None:
    """As detectors, SAM, and OpenCV give them."""
    mask = np.zeros((image.height, image.width), bool)
    mask[10:60, 20:90] = True
    expected = processor(image, input_masks=[[mask]])["input_masks"]
    for array in (mask.astype(dtype), torch.from_numpy(mask.astype(dtype))):
        assert torch.equal(processor(image, input_masks=[[array]])["input_masks"], expected)
        assert processor(image, segmentation_maps=[[array]])["labels"].max() == 1
    faint = processor(image, input_masks=[[Image.fromarray(mask.astype(np.uint8))]])["input_masks"]
    assert faint.max() == pytest.approx(1 / 255)  # an image is an alpha, be it faint
    with pytest.raises(ValueError, match="must have dtype bool, uint8, uint16 or float"):
        processor(image, input_masks=[[np.where(mask, 2, 0)]])


def test_long_texts_are_cut_off_with_a_warning(
    processor: FCLMProcessor, image: Image.Image, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "fclm_hf"):
        processor(image, text=[["low", "low " * 8]])
        assert not caplog.records
        inputs = processor(image, text=[["low", "low " * 30]])
    limit = processor.tokenizer.model_max_length
    assert inputs["input_ids"].shape[-1] == limit
    assert [record.message for record in caplog.records] == [
        f"Only the first {limit} of 32 tokens of a text are used: {('low ' * 30)!r:.77}...."
    ]


def test_a_broken_tokenizer_is_one_clear_error(image: Image.Image) -> None:
    processor = tiny_processor()
    processor.tokenizer.model_max_length = {}
    with pytest.raises(ValueError, match=r"^text: the tokenizer has failed: TypeError: "):
        processor(image, text="low")
