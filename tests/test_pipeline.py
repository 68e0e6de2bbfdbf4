"""The pipeline: what it takes and gives, and that batches, chunks and precision do not change the result."""

import copy
import json
import logging
import pickle
import re
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset
from photo_files import encode_transparent, make_photo, serve, write_awkward_photos, write_truncated
from PIL import Image
from tiny_model import tiny_model, tiny_processor
from transformers import pipeline
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.pt_utils import KeyDataset
from transformers.utils import output_capturing
from transformers.utils.output_capturing import _CAN_RECORD_REGISTRY

from fclm_hf import LITE_CHECKPOINT, ReferringMattingPipeline, image_loading_fclm, image_utils_fclm, pipeline_fclm


TOLERANCE = 3e-6  # float32 rounding: sums over other shapes run in another order
BOX, OTHER_BOX = [5, 5, 30, 35], [20.5, 0, 50, 40]


@pytest.fixture(scope="module")
def pipe() -> ReferringMattingPipeline:
    return pipeline("referring-matting", model=tiny_model(), processor=tiny_processor(), device="cpu")


@pytest.fixture(scope="module")
def checkpoint(pipe: ReferringMattingPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    pipe.save_pretrained(folder)
    return folder


def predict_directly(pipe: ReferringMattingPipeline, image: Image.Image, **prompts: Any) -> torch.Tensor:
    inputs = pipe.processor(images=image, **prompts)
    sizes = inputs.pop("original_sizes")
    with torch.no_grad():
        return pipe.processor.post_process_image_matting(pipe.model(**inputs), sizes)[0]["alpha"]


def list_objects(result: Any) -> list[dict[str, Any]]:
    return [result] if isinstance(result, dict) else result


@pytest.mark.parametrize(
    ("prompts", "nested"),
    [
        ({}, {}),
        ({"text": "a cat"}, {"text": [["a cat"]]}),
        ({"text": ["a cat"]}, {"text": [["a cat"]]}),
        ({"text": ["a cat", "dog"]}, {"text": [["a cat", "dog"]]}),
        ({"input_boxes": BOX}, {"input_boxes": [[BOX]]}),
        ({"input_boxes": [BOX]}, {"input_boxes": [[BOX]]}),
        ({"input_boxes": np.array([BOX, OTHER_BOX])}, {"input_boxes": [[BOX, OTHER_BOX]]}),
        ({"input_boxes": torch.tensor([[BOX]])}, {"input_boxes": [[BOX]]}),
        ({"input_points": [9, 8]}, {"input_points": [[[[9, 8]]]]}),
        (
            {"input_points": [[9, 8], [40, 30]], "input_labels": [1, 0]},
            {"input_points": [[[[9, 8], [40, 30]]]], "input_labels": [[[1, 0]]]},
        ),
        (
            {"input_points": [[[9, 8]], [[40, 30]]], "input_labels": [[1], [0]]},
            {"input_points": [[[[9, 8]], [[40, 30]]]], "input_labels": [[[1], [0]]]},
        ),
        (
            {"text": ["a cat", None], "input_boxes": [None, BOX]},
            {"text": [["a cat", None]], "input_boxes": [[None, BOX]]},
        ),
    ],
)
def test_prompts(pipe: ReferringMattingPipeline, prompts: dict[str, Any], nested: dict[str, Any]) -> None:
    """One object gives a dict, several give a list; each is what processor and model give."""
    expected = predict_directly(pipe, make_photo(), **nested)
    result = pipe(make_photo(), **prompts)
    assert isinstance(result, dict if len(expected) == 1 else list)
    for one, alpha in zip(list_objects(result), expected, strict=True):
        assert set(one) == {"alpha", "predicted_alpha", "cutout"}
        assert one["predicted_alpha"].shape == (40, 50)
        assert one["predicted_alpha"].dtype == torch.float32
        torch.testing.assert_close(one["predicted_alpha"], alpha, atol=TOLERANCE, rtol=0)
        assert (one["alpha"].mode, one["alpha"].size) == ("L", (50, 40))
        np.testing.assert_array_equal(np.asarray(one["alpha"]), (one["predicted_alpha"] * 255).round().numpy())
        assert (one["cutout"].mode, one["cutout"].size) == ("RGBA", (50, 40))
        np.testing.assert_array_equal(np.asarray(one["cutout"])[..., 3], np.asarray(one["alpha"]))
    assert set(pipe(make_photo(), cutout=False)) == {"alpha", "predicted_alpha"}


def make_samples() -> list[Any]:
    samples: list[Any] = [{"image": make_photo(30 + i % 3 * 40, 40, i), "input_points": [[1, 2]] * i} for i in (1, 2)]
    samples += [make_photo(70, 40, 3), {"image": make_photo(70, 40, 4), "text": ["low", "lower owl"]}]
    samples += [{"image": make_photo(70, 40, 5 + i), "input_boxes": [[1, 2, 20, 30]] * (i + 1)} for i in range(3)]
    samples += [{"image": make_photo(70, 40, 8), "text": "er", "input_points": [3, 4], "input_labels": 0}]
    return [*samples, make_photo(33, 90), {"image": make_photo(20, 20), "input_boxes": [0, 0, 20, 20], "text": None}]


@pytest.fixture(scope="module")
def alone(pipe: ReferringMattingPipeline) -> list[Any]:
    return [pipe(sample, cutout=False) for sample in make_samples()]


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_batches_equal_one_by_one(pipe: ReferringMattingPipeline, alone: list[Any], batch_size: int) -> None:
    batched = list(pipe((sample for sample in make_samples()), batch_size=batch_size, cutout=False))
    assert len(batched) == len(alone) == 10
    for result, expected in zip(batched, alone, strict=True):
        assert type(result) is type(expected)
        for one, other in zip(list_objects(result), list_objects(expected), strict=True):
            torch.testing.assert_close(one["predicted_alpha"], other["predicted_alpha"], atol=TOLERANCE, rtol=0)


def test_containers(pipe: ReferringMattingPipeline, checkpoint: Path) -> None:
    photos = [make_photo(seed=seed) for seed in range(3)]
    expected = [result["alpha"].tobytes() for result in pipe(photos, cutout=False)]

    class Photos(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(photos)

        def __getitem__(self, index: int) -> Image.Image:
            return photos[index]

    for images in (tuple(photos), iter(photos), map(Image.Image.copy, photos), Photos(), np.stack(photos)):
        assert [result["alpha"].tobytes() for result in pipe(images, cutout=False, batch_size=2)] == expected
    file = BytesIO()
    photos[0].save(file, "PNG")
    file.seek(0)
    assert pipe(file, cutout=False)["alpha"].tobytes() == expected[0]  # one image, though it is iterable
    assert pipe([]) == []
    assert len(pipe([photos[0]])) == 1  # a list in, a list out
    preset = pipeline("referring-matting", model=str(checkpoint), text="cat", cutout=False)
    assert preset(photos[0])["alpha"].tobytes() == pipe(photos[0], text="cat")["alpha"].tobytes()


def test_own_prompts_come_before_those_of_the_call(pipe: ReferringMattingPipeline) -> None:
    mine, theirs = pipe([{"image": make_photo(), "input_boxes": BOX}, make_photo()], input_boxes=[OTHER_BOX])
    torch.testing.assert_close(mine["predicted_alpha"], pipe(make_photo(), input_boxes=BOX)["predicted_alpha"])
    assert not torch.equal(mine["predicted_alpha"], theirs["predicted_alpha"])
    torch.testing.assert_close(theirs["predicted_alpha"], pipe(make_photo(), input_boxes=OTHER_BOX)["predicted_alpha"])


def assert_close(result: dict[str, Any], expected: dict[str, Any]) -> None:
    torch.testing.assert_close(result["predicted_alpha"], expected["predicted_alpha"], atol=TOLERANCE, rtol=0)


def give_same(pipe: ReferringMattingPipeline, images: list[Any], prompts: dict[str, Any], own: list[dict]) -> None:
    """Prompts of the call give what each image gives alone with prompts of its own."""
    for result, image, each in zip(pipe(images, **prompts, cutout=False), images, own, strict=True):
        expected = pipe(image, **each, cutout=False)
        assert type(result) is type(expected)
        for one, other in zip(list_objects(result), list_objects(expected), strict=True):
            assert_close(one, other)


CLICK, OTHER_CLICK = [9, 8], [40, 30]


@pytest.mark.parametrize(
    ("prompts", "own"),
    [
        # one object for all
        ({"text": "low"}, [{"text": "low"}] * 2),
        ({"input_boxes": BOX}, [{"input_boxes": BOX}] * 2),
        ({"input_boxes": np.array([BOX])}, [{"input_boxes": BOX}] * 2),
        ({"input_points": CLICK, "input_labels": 0}, [{"input_points": CLICK, "input_labels": 0}] * 2),
        ({"input_points": [CLICK], "input_labels": [0]}, [{"input_points": CLICK, "input_labels": 0}] * 2),
        # pairs
        ({"text": ["low", "owl"]}, [{"text": "low"}, {"text": "owl"}]),
        ({"text": ["low", None]}, [{"text": "low"}, {}]),
        ({"text": [["low"], ["owl", "er"]]}, [{"text": "low"}, {"text": ["owl", "er"]}]),
        ({"text": [["low", "owl"], "er"]}, [{"text": ["low", "owl"]}, {"text": "er"}]),
        ({"input_boxes": [[BOX], [OTHER_BOX]]}, [{"input_boxes": BOX}, {"input_boxes": OTHER_BOX}]),
        ({"input_boxes": torch.tensor([[BOX], [OTHER_BOX]])}, [{"input_boxes": BOX}, {"input_boxes": OTHER_BOX}]),
        ({"input_boxes": [None, [BOX, OTHER_BOX]]}, [{}, {"input_boxes": [BOX, OTHER_BOX]}]),
        ({"input_boxes": [[BOX], np.zeros((0, 4))]}, [{"input_boxes": BOX}, {"input_boxes": []}]),
        (
            {"input_points": [[[CLICK]], [[CLICK, OTHER_CLICK]]], "input_labels": [[[1]], [[1, 0]]]},
            [{"input_points": CLICK}, {"input_points": [CLICK, OTHER_CLICK], "input_labels": [1, 0]}],
        ),
        ({"text": "low", "input_boxes": [[BOX], []]}, [{"text": "low", "input_boxes": BOX}, {"input_boxes": []}]),
        # one list for all, as said or by its nesting
        ({"text": [["low", "owl"]] * 2}, [{"text": ["low", "owl"]}] * 2),
        ({"text": [["low", "owl"]]}, [{"text": ["low", "owl"]}] * 2),
        ({"input_boxes": [[BOX, OTHER_BOX]]}, [{"input_boxes": [BOX, OTHER_BOX]}] * 2),
    ],
)
def test_lists_pair_up(pipe: ReferringMattingPipeline, prompts: dict[str, Any], own: list[dict[str, Any]]) -> None:
    give_same(pipe, [make_photo(), make_photo(60, 50, seed=1)], prompts, own)


@pytest.mark.parametrize(
    ("count", "prompts", "spelling"),
    [
        (
            3,
            {"text": ["low", "owl"]},
            r"text must have the prompts of 3 images, got a list of 2: .*"
            r"text=\[\['low', 'owl'\]\] \* 3 for the same objects in every image, or text=\[prompts of image 0",
        ),
        (2, {"text": ["low", "owl", "er"]}, r"text=\[\['low', 'owl', 'er'\]\] \* 2"),
        (3, {"text": [["low"], ["owl"]]}, r"text must have the prompts of 3 images, got a list of 2"),
        (2, {"input_boxes": [BOX, OTHER_BOX]}, r"input_boxes=\[\[\[5, 5, 30, 35\], \[20.5, 0, 50, 40\]\]\] \* 2 for"),
        (3, {"input_boxes": [[BOX], [OTHER_BOX]]}, "input_boxes must have the prompts of 3 images, got a list of 2"),
        (2, {"input_points": [CLICK, OTHER_CLICK]}, r"input_points=\[\[\[\[9, 8\], \[40, 30\]\]\]\] \* 2"),
        (2, {"input_points": [[CLICK], [OTHER_CLICK]]}, r"input_points=\[\[\[\[9, 8\]\], \[\[40, 30\]\]\]\] \* 2"),
    ],
)
def test_lists_that_may_mean_either(
    pipe: ReferringMattingPipeline, count: int, prompts: dict[str, Any], spelling: str
) -> None:
    with pytest.raises(ValueError, match=spelling):
        pipe([make_photo()] * count, **prompts)


def test_a_generator_gives_the_prompts_of_the_call_to_all(pipe: ReferringMattingPipeline) -> None:
    photos = [make_photo(), make_photo(60, 50, seed=1)]
    results = list(pipe(iter(photos), text=["low", "owl"], cutout=False))
    assert [len(each) for each in results] == [2, 2]
    assert_close(results[1][0], pipe(photos[1], text="low"))
    with pytest.raises(ValueError, match=r'text must be the prompts of every image, .* yield {"image": ..., "text"'):
        pipe(iter(photos), text=[["low"], ["owl"]])


def test_next(pipe: ReferringMattingPipeline) -> None:
    photos = [make_photo(seed=seed) for seed in range(3)]
    expected = [result["alpha"].tobytes() for result in pipe(photos, cutout=False)]
    for images in (iter(photos), (photo for photo in photos), Dataset.from_list([{"image": p} for p in photos])):
        results = pipe(images, cutout=False)
        assert next(results)["alpha"].tobytes() == expected[0]
        assert [result["alpha"].tobytes() for result in results] == expected[1:]  # goes on
        assert next(results, None) is None
    taken = []
    next(pipe((taken.append(photo) or photo for photo in photos), cutout=False))
    assert len(taken) == 1  # no more than what was asked for


def test_rows_of_data_sets(pipe: ReferringMattingPipeline, tmp_path: Path) -> None:
    """Further columns pass, and images need not be decoded; neither as rows of a dict nor as a column."""
    for seed in range(2):
        make_photo(seed=seed).save(tmp_path / f"{seed}.png")
    files = [str(tmp_path / f"{seed}.png") for seed in range(2)]
    columns = {
        "image": files,
        "label": [3, 4],
        "objects": [{"bbox": BOX}] * 2,
        "boxes": [[], []],
        "input_boxes": [BOX, None],
    }
    rows = Dataset.from_dict(columns).cast_column("image", datasets.Image())
    expected = [pipe(files[0], input_boxes=BOX), pipe(files[1])]
    undecoded = rows.cast_column("image", datasets.Image(decode=False))
    assert set(undecoded[0]["image"]) == {"bytes", "path"}
    in_bytes = [
        {"image": {"bytes": Path(file).read_bytes(), "path": None}, "input_boxes": box}
        for file, box in zip(files, (BOX, None), strict=True)
    ]
    for images in (rows, undecoded, list(undecoded), in_bytes, KeyDataset(undecoded, "image")):
        for result, other in zip(pipe(images, batch_size=2), expected, strict=True):
            if not isinstance(images, KeyDataset) or other is expected[1]:
                assert_close(result, other)
    assert_close(pipe(undecoded[1]["image"]), expected[1])
    pixels = [
        pipe.processor(image)["pixel_values"] for image in (files[0], undecoded[0]["image"], in_bytes[0]["image"])
    ]
    assert all(torch.equal(pixels[0], each) for each in pixels)
    for row, problem in (
        ({"bytes": None, "path": None}, 'must have "bytes" or a "path"'),
        ({"bytes": None, "path": str(tmp_path / "none.png")}, "does not exist"),
        ({"bytes": b"no image", "path": "train/7.png"}, r"train/7\.png is not an image"),
    ):
        with pytest.raises(ValueError, match=problem):
            pipe({"image": row})


@pytest.mark.parametrize("none", [[], [[]], np.zeros((0, 4)), torch.zeros(0, 4), torch.zeros(1, 0, 4)], ids=repr)
def test_images_without_objects(pipe: ReferringMattingPipeline, none: Any) -> None:
    """They give an empty list, alone and among others."""
    photo = make_photo()
    assert pipe(photo, input_boxes=none) == []
    assert pipe(photo, input_boxes=none, text="low") == []
    assert pipe([photo, photo], input_boxes=none) == [[], []]
    samples = [{"image": photo, "input_boxes": box} for box in ([BOX, OTHER_BOX], none, BOX, none)]
    for batch_size in (1, 4):
        results = pipe(samples, batch_size=batch_size)
        assert [each if each == [] else len(list_objects(each)) for each in results] == [2, [], 1, []]
        assert_close(results[2], pipe(photo, input_boxes=BOX))


def test_boxes_of_detectors(pipe: ReferringMattingPipeline) -> None:
    results = [
        pipe(make_photo(), input_boxes=box, cutout=False)["predicted_alpha"]
        for box in ([-0.3, -1, 50.01, 40.2], [0, 0, 50, 40])
    ]
    assert torch.equal(*results)


def test_objects_share_one_encoding(pipe: ReferringMattingPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, forward = pipe.model.get_image_embeddings, pipe.model.forward
    calls: list[str] = []
    monkeypatch.setattr(pipe.model, "get_image_embeddings", lambda *a, **k: calls.append("encode") or encode(*a, **k))
    monkeypatch.setattr(pipe.model, "forward", lambda *a, **k: calls.append("decode") or forward(*a, **k))
    boxes = [[i, i, i + 20, i + 15] for i in range(7)]
    together = pipe(make_photo(), input_boxes=boxes)
    assert calls == ["encode", "decode"]
    calls.clear()
    by_three = pipe(make_photo(), input_boxes=boxes, objects_per_pass=3)
    assert calls == ["encode", *["decode"] * 3]
    for one, other in zip(together, by_three, strict=True):
        torch.testing.assert_close(one["predicted_alpha"], other["predicted_alpha"], atol=TOLERANCE, rtol=0)


def test_a_photo_is_opened_and_converted_once(
    pipe: ReferringMattingPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for module, name in ((image_loading_fclm, "_decode"), (image_utils_fclm, "_simplify_mode")):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, n=name, function=function: calls.append(n) or function(*args))
    make_photo().convert("RGBA").save(tmp_path / "photo.png")
    pipe(tmp_path / "photo.png", input_boxes=BOX)
    assert calls == ["_decode", "_simplify_mode"]


def test_only_pixels_are_cast(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = pipeline("referring-matting", model=tiny_model().bfloat16(), processor=tiny_processor(), device="cpu")
    forward, seen = pipe.model.forward, {}
    monkeypatch.setattr(pipe.model, "forward", lambda **kwargs: seen.update(kwargs) or forward(**kwargs))
    result = pipe(make_photo(600, 400), input_points=[[301.0, 257.0]])
    assert seen["input_points"].tolist() == [[[[301.0, 257.0]]]]  # bfloat16 would make 300 and 256 of it
    assert seen["image_embeddings"].coarse_map.dtype == torch.bfloat16
    assert result["predicted_alpha"].dtype == torch.float32


def test_awkward_files(pipe: ReferringMattingPipeline, tmp_path: Path) -> None:
    sizes = write_awkward_photos(tmp_path)
    results = pipe([str(tmp_path / name) for name in sizes], batch_size=4)
    for (name, size), result in zip(sizes.items(), results, strict=True):
        assert result["alpha"].size == result["cutout"].size == size, name
        assert torch.isfinite(result["predicted_alpha"]).all()
    upright = make_photo().rotate(-90, expand=True)
    rotated = pipe(tmp_path / "rotated.jpg", text="low")["predicted_alpha"]
    assert (rotated - pipe(upright, text="low")["predicted_alpha"]).abs().mean() < 0.1  # JPEG noise
    kept = {name for name, result in zip(sizes, results, strict=True) if "icc_profile" in result["cutout"].info}
    assert kept == {"profile.png"}


def make_transparent_photo() -> tuple[Image.Image, np.ndarray]:
    """Return a gray photo whose left part is hidden behind transparency, and its opacity."""
    colors = np.asarray(make_photo().convert("L").convert("RGB"))
    opacity = np.full(colors.shape[:2], 255, np.uint8)
    opacity[:, :15] = 0
    return Image.fromarray(np.dstack([colors, opacity])), opacity


def encode_transparent_photo() -> dict[str, bytes]:
    pixels = np.asarray(make_transparent_photo()[0])
    return encode_transparent(pixels[..., :3], pixels[..., 3])


@pytest.mark.parametrize("kind", encode_transparent_photo())
def test_cutouts_are_as_transparent_as_their_photo(pipe: ReferringMattingPipeline, kind: str) -> None:
    pixels = np.asarray(make_transparent_photo()[0])
    photo = Image.open(BytesIO(encode_transparent_photo()[kind]))
    opacity = torch.from_numpy(np.array(photo.convert("RGBA") if photo.mode != "I;16" else pixels)[..., 3]) / 255
    assert opacity[:, :10].max() < 0.05
    for result in pipe([photo, photo], input_boxes=[[BOX, OTHER_BOX]] * 2, batch_size=2)[0]:
        assert (result["predicted_alpha"] <= opacity).all()
        assert np.array_equal(np.asarray(result["cutout"])[..., 3], result["alpha"])
        assert result["cutout"].size == result["alpha"].size == (50, 40)
        assert result["cutout"].mode == "RGBA"
    array = np.asarray(photo.convert("RGBA")) if photo.mode != "I;16" else pixels
    for each in (array, torch.from_numpy(array.copy()).permute(2, 0, 1), array / 255):
        assert (pipe(each, cutout=False)["predicted_alpha"] <= torch.from_numpy(array[..., 3].copy()) / 255).all()


def test_hidden_colors_do_not_matter(pipe: ReferringMattingPipeline) -> None:
    """Neither the alpha nor the colors of a cutout depend on what a file holds where it is transparent."""
    photo, opacity = make_transparent_photo()
    results = []
    for hidden in ((255, 255, 255), (0, 0, 0), (255, 0, 200)):
        pixels = np.array(photo)
        pixels[opacity == 0, :3] = hidden
        results.append(pipe(Image.fromarray(pixels), input_boxes=BOX))
    assert results[0]["predicted_alpha"].max() > 0
    for result in results[1:]:
        assert torch.equal(result["predicted_alpha"], results[0]["predicted_alpha"])
        assert np.array_equal(result["cutout"], results[0]["cutout"])


def test_opaque_images_with_an_alpha_channel_are_plain_photos(pipe: ReferringMattingPipeline) -> None:
    expected = pipe(make_photo(), text="low")
    for photo in (make_photo().convert("RGBA"), np.asarray(make_photo().convert("RGBA"))):
        result = pipe(photo, text="low")
        assert torch.equal(result["predicted_alpha"], expected["predicted_alpha"])
        assert np.array_equal(result["cutout"], expected["cutout"])


def test_layout_of_arrays(pipe: ReferringMattingPipeline) -> None:
    strip = np.random.default_rng(0).integers(0, 256, (3, 64, 3), dtype=np.uint8)
    with pytest.warns(UserWarning, match="input_data_format"):
        assert pipe(strip)["alpha"].size == (64, 3)
    assert pipe(strip, input_data_format="channels_last")["alpha"].size == (64, 3)
    assert pipe([strip, strip], input_data_format="channels_first")[1]["alpha"].size == (3, 64)
    for prompt in ({}, {"input_boxes": [1, 1, 40, 3]}):
        expected = pipe(Image.fromarray(strip), **prompt)["predicted_alpha"]
        assert torch.equal(pipe(strip, input_data_format="channels_last", **prompt)["predicted_alpha"], expected)


def test_limits(pipe: ReferringMattingPipeline, tmp_path: Path) -> None:
    make_photo().save(tmp_path / "photo.png")
    for limits, problem in [
        ({"max_pixels": 1999}, r"photo\.png has too many pixels"),
        ({"max_bytes": 100}, r"photo\.png is too large"),
        ({"max_pixels": 0}, "max_pixels must be a positive number, got 0"),
        ({"max_bytes": "1"}, "max_bytes must be a positive number, got '1'"),
        ({"timeout": -1}, "timeout must be a positive number, got -1"),
        ({"input_data_format": "HWC"}, "input_data_format must be"),
    ]:
        with pytest.raises(ValueError, match=problem):
            pipe(tmp_path / "photo.png", **limits)
    assert pipe(tmp_path / "photo.png", max_pixels=2000, max_bytes=100_000)["alpha"].size == (50, 40)


def test_files_and_uploads(pipe: ReferringMattingPipeline) -> None:
    class Upload(BytesIO):
        async def read(self, size: int = -1) -> bytes:
            return super().read(size)

    file = BytesIO()
    make_photo().save(file, "PNG")  # stands at its end
    assert torch.equal(pipe(file)["predicted_alpha"], pipe(make_photo())["predicted_alpha"])
    with pytest.raises(TypeError, match="asynchronously"):
        pipe(Upload(file.getvalue()))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (64, 48)])
@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (7, 200, 90), (0, 0, 0, 0), (255, 255, 255, 128)])
def test_constant_images(
    pipe: ReferringMattingPipeline, size: tuple[int, int], color: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pymatting", None)  # it divides by zero for one pixel
    photo = Image.new("RGBA" if len(color) == 4 else "RGB", size, color)
    for prompts in ({}, {"text": "low"}, {"input_boxes": [0, 0, *size]}, {"input_points": [0, 0]}):
        result = pipe(photo, **prompts)
        alpha = result["predicted_alpha"]
        assert torch.isfinite(alpha).all()
        assert alpha.min() >= 0
        assert alpha.max() <= (1 if len(color) == 3 else color[3] / 255)
        assert result["cutout"].size == size


def test_urls(pipe: ReferringMattingPipeline, tmp_path: Path) -> None:
    for name in ("photo.png", "slow.png"):
        make_photo().save(tmp_path / name)
    with serve(tmp_path) as address:
        expected = pipe(make_photo())["predicted_alpha"]
        for options in ({}, {"timeout": 5}):
            assert torch.equal(pipe(f"{address}/photo.png", **options)["predicted_alpha"], expected)
        with pytest.raises(ValueError, match=r"slow\.png cannot be downloaded"):
            pipe(f"{address}/slow.png", timeout=0.2)
        with pytest.raises(ValueError, match=r"none\.png cannot be downloaded.*404"):
            pipe(f"{address}/none.png", timeout=5)


def test_errors_name_the_culprit(pipe: ReferringMattingPipeline, tmp_path: Path) -> None:
    write_truncated(tmp_path / "broken.jpg")
    photo = make_photo()
    for images, prompts, problem in [
        (tmp_path / "broken.jpg", {}, r"broken\.jpg"),
        ([photo, str(tmp_path / "broken.jpg")], {}, r"^inputs\[1\]: .*broken\.jpg"),
        (
            [photo, {"image": photo, "input_boxes": [[50, 0, 99, 9]]}],
            {},
            r"^inputs\[1\]: input_boxes.* does not overlap the image",
        ),
        ({"image": photo, "input_box": [BOX]}, {}, r"Unknown key 'input_box' .* did you mean 'input_boxes'\?"),
        ({"text": "cat"}, {}, 'must have the key "image"'),
        (photo, {"input_labels": [1]}, "input_labels must come with input_points"),
        (photo, {"text": ["a", "b"], "input_boxes": [BOX]}, "different numbers of objects"),
        (photo, {"input_boxes": [[[[BOX]]]]}, "must be 4 numbers"),
        (photo, {"text": ""}, "must not be empty"),
        (photo, {"objects_per_pass": 0}, "objects_per_pass must be at least 1"),
        (photo, {"objects_per_pass": "2"}, "objects_per_pass must be at least 1, got '2'"),
    ]:
        with pytest.raises(ValueError, match=problem):
            pipe(images, **prompts)
    for images, prompts, problem in [
        (None, {}, "images must be an image"),
        (photo, {"boxes": [BOX]}, r"Unknown arguments \['boxes'\]"),
        ([photo, object()], {}, r"^inputs\[1\]: image must be"),
    ]:
        with pytest.raises(TypeError, match=problem):
            pipe(images, **prompts)


def test_round_trip(pipe: ReferringMattingPipeline, checkpoint: Path, tmp_path: Path) -> None:
    """Weights are bit-exact, and without `custom_pipelines` in the config: that would ask for trust in remote code."""
    assert "custom_pipelines" not in json.loads((checkpoint / "config.json").read_text())
    first = pipeline("referring-matting", model=str(checkpoint), device="cpu")
    assert isinstance(first, ReferringMattingPipeline)
    first.save_pretrained(tmp_path)
    second = pipeline("referring-matting", model=str(tmp_path), device="cpu")
    states = [each.model.state_dict() for each in (pipe, first, second)]
    assert all(torch.equal(value, state[name]) for state in states[1:] for name, value in states[0].items())
    # the image processor of `pipe` is PIL's, which rounds differently
    original = pipeline("referring-matting", model=pipe.model, processor=first.processor, device="cpu")
    for prompts in ({}, {"text": "lower owl"}, {"input_boxes": [BOX, OTHER_BOX]}):
        results = [list_objects(each(make_photo(), **prompts, cutout=False)) for each in (original, first, second)]
        for objects in zip(*results, strict=True):
            alphas = [each["predicted_alpha"] for each in objects]
            assert all(torch.equal(alphas[0], alpha) for alpha in alphas[1:])


def test_default_model_is_local(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = PIPELINE_REGISTRY.supported_tasks["referring-matting"]
    assert task["default"]["model"][0] == LITE_CHECKPOINT
    monkeypatch.setitem(task, "default", {"model": (str(checkpoint), "main")})
    assert pipeline("referring-matting", local_files_only=True)(make_photo())["alpha"].size == (50, 40)


def test_the_default_model_comes_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is part of the package: no other model can take its place some day."""
    logger, messages = logging.getLogger("transformers.pipelines"), []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: messages.append(record.getMessage()))
    monkeypatch.setattr(logger, "level", logging.WARNING)
    logger.manager._clear_cache()
    logger.addHandler(handler)
    try:
        pipeline("referring-matting", device="cpu")
        logger.warning("No model was supplied, defaulted to somebody/else and revision main.")
    finally:
        logger.removeHandler(handler)
        logger.manager._clear_cache()
    assert messages == ["No model was supplied, defaulted to somebody/else and revision main."]


@pytest.mark.skipif(not Path(LITE_CHECKPOINT, "config.json").exists(), reason="the embedded checkpoint is not there")
def test_embedded_checkpoint() -> None:
    pipe = pipeline("referring-matting", device="cpu")
    assert pipe.model.dtype == torch.float32  # fp16 weights on disk must not make a CPU compute in fp16
    disc = pipe(make_photo(320, 240), input_boxes=[46, 60, 167, 180])["predicted_alpha"]
    assert disc[120, 106] > 0.9
    assert disc[20, 300] < 0.1


MASK = np.zeros((40, 50), np.uint8)
MASK[5:30, 10:40] = 255


@pytest.mark.parametrize(
    ("masks", "count"),
    [
        (MASK, 1),
        ([MASK], 1),
        ([[MASK]], 1),
        (Image.fromarray(MASK), 1),
        (torch.from_numpy(MASK)[None], 1),
        ([MASK, None], 2),
        (np.stack([MASK, MASK]), 2),
    ],
)
def test_masks_in_any_nesting(pipe: ReferringMattingPipeline, masks: Any, count: int) -> None:
    image = make_photo()
    results = list_objects(pipe(image, input_masks=masks))
    expected = predict_directly(pipe, image, input_masks=[[MASK, None if count == 2 and masks[1] is None else MASK]])
    assert len(results) == count
    for result, alpha in zip(results, expected, strict=False):
        torch.testing.assert_close(result["predicted_alpha"], alpha, rtol=0, atol=TOLERANCE)


def test_a_mask_from_a_file_and_of_a_sample(pipe: ReferringMattingPipeline, tmp_path: Path) -> None:
    image, path = make_photo(), tmp_path / "mask.png"
    Image.fromarray(MASK).save(path)
    results = pipe([{"image": image, "input_masks": str(path)}, image], input_masks=MASK)
    torch.testing.assert_close(results[0]["predicted_alpha"], results[1]["predicted_alpha"], rtol=0, atol=0)


def test_results_of_several_objects_are_made_on_access(
    pipe: ReferringMattingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = pipeline_fclm.make_cutout
    monkeypatch.setattr(pipeline_fclm, "make_cutout", lambda *args: calls.append(1) or original(*args))
    monkeypatch.setattr(pipeline_fclm, "_BYTES_OF_RESULTS", 2 * 50 * 40 * 9 - 1)
    results = pipe(make_photo(), input_boxes=[BOX, OTHER_BOX])
    assert isinstance(results, list)
    assert len(results) == 2
    assert not calls
    first, second = results
    assert len(calls) == 2
    alone = pipe(make_photo(), input_boxes=OTHER_BOX)
    for same in (second, results[1], results[-1], next(reversed(results)), results[1:][0], results.copy()[1]):
        torch.testing.assert_close(same["predicted_alpha"], alone["predicted_alpha"], rtol=0, atol=TOLERANCE)
    copies = pickle.loads(pickle.dumps(results))
    assert copies[0]["alpha"].tobytes() == first["alpha"].tobytes()
    for joined in (results * 2, 2 * results, [first] + results, results + [first]):  # noqa: RUF005
        assert all(isinstance(each, dict) for each in joined)
        assert len(joined) in (3, 4)
    results.sort(
        key=lambda result: float((result["predicted_alpha"] - first["predicted_alpha"]).abs().max()), reverse=True
    )
    assert [each["alpha"].tobytes() for each in results] == [each["alpha"].tobytes() for each in (second, first)]
    assert results.pop(1)["alpha"].tobytes() == first["alpha"].tobytes()
    assert len(results) == 1


def test_what_is_added_to_results_stays(pipe: ReferringMattingPipeline) -> None:
    results = pipe(make_photo(), input_boxes=[BOX, OTHER_BOX])
    assert type(results) is list
    for number, result in enumerate(results):
        result["label"] = number
    assert [result["label"] for result in results] == [0, 1]


def test_unknown_foreground(pipe: ReferringMattingPipeline) -> None:
    with pytest.raises(ValueError, match="foreground must be one of"):
        pipe(make_photo(), foreground="knn")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"batch_size": "2"}, "batch_size must be an integer of at least 1, got '2'"),
        ({"num_workers": -1}, "num_workers must be an integer of at least 0, got -1"),
        ({"cutout": "no"}, "cutout must be True or False, got 'no'"),
    ],
)
def test_settings_are_checked_for_single_images_too(
    pipe: ReferringMattingPipeline, arguments: dict[str, Any], problem: str
) -> None:
    for images in (make_photo(), [make_photo()] * 2):
        with pytest.raises(ValueError, match=problem):
            pipe(images, **arguments)


def test_a_missing_gpu_is_not_replaced_silently(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.pipelines.base.is_torch_cuda_available", lambda: False)
    with pytest.raises(ValueError, match=r'device must be -1 or "cpu", as torch finds no GPU here, got 0\.'):
        pipeline("referring-matting", model=str(checkpoint), device=0)
    for device in (-1, "cpu", None):
        assert pipeline("referring-matting", model=str(checkpoint), device=device).device.type == "cpu"


def test_pickled_copies_give_the_same_mattes(pipe: ReferringMattingPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a process that has built no model, of whose parts transformers does not know what they record."""
    expected = pipe(make_photo(), text="low")["predicted_alpha"]
    monkeypatch.setattr("transformers.utils.output_capturing._CAN_RECORD_REGISTRY", type(_CAN_RECORD_REGISTRY)())
    monkeypatch.setattr("fclm_hf.modeling_fclm._CAN_RECORD_REGISTRY", output_capturing._CAN_RECORD_REGISTRY)
    for copied in (pickle.loads(pickle.dumps(pipe)), copy.deepcopy(pipe)):
        assert torch.equal(copied(make_photo(), text="low")["predicted_alpha"], expected)
    assert torch.equal(pipe(make_photo(), text="low")["predicted_alpha"], expected)


def test_tokens_that_the_model_does_not_know(pipe: ReferringMattingPipeline) -> None:
    inputs = pipe.processor(make_photo(), text=[["low"]])
    with torch.no_grad():
        embeddings = pipe.model.get_image_embeddings(inputs["pixel_values"], inputs["pixel_mask"])
    inputs["input_ids"][0, 0, 1] = pipe.model.config.text_config.vocab_size
    with pytest.raises(ValueError, match=r"input_ids must be in \[0, \d+\], got \d+ to \d+: the tokenizer does not"):
        pipeline_fclm.decode_alphas(pipe.model, embeddings, inputs)


def test_mistyped_names_of_files(pipe: ReferringMattingPipeline) -> None:
    for name in ("catt", "photos/catt", "cat.jpg", "abcd1234", "~/cat.png", "ftp://host/cat.png", ""):
        with pytest.raises(
            ValueError, match=f"^image: there is no file {re.escape(repr(name))}, and it is neither a URL"
        ):
            pipe(name)
    with pytest.raises(ValueError, match=r"^inputs\[1\]: image: there is no file 'catt', and"):
        pipe([make_photo(), "catt"])
    with pytest.raises(ValueError, match=r"there is no file 'mask', and"):
        pipe(make_photo(), input_masks="mask")
    with pytest.raises(ValueError, match=r'The "image" of a dict must be an image, got None'):
        pipe({"image": None})
    with pytest.raises(TypeError, match="Unknown argument 'image': did you mean 'images'"):
        pipe(image=make_photo())
