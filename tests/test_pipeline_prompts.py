"""Prompts of the pipeline: in any nesting, and shared among the images of a call."""

from collections import deque
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pytest
import torch
from datasets import Dataset
from mattes import BOX, OTHER_BOX, TOLERANCE, assert_close, list_objects, predict_directly
from photo_files import make_photo
from PIL import Image

from fclm_hf import ReferringMattingPipeline


CLICK, OTHER_CLICK = [9, 8], [40, 30]
MASK = np.zeros((40, 50), np.uint8)
MASK[5:30, 10:40] = 255


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


@pytest.mark.parametrize(
    ("name", "values"),
    [("input_boxes", [BOX, OTHER_BOX]), ("text", ["low", "owl"]), ("input_masks", [MASK, 255 - MASK])],
)
def test_prompts_of_any_collection(pipe: ReferringMattingPipeline, name: str, values: list[Any]) -> None:
    photo = make_photo()
    expected = [each["predicted_alpha"] for each in pipe(photo, **{name: values}, cutout=False)]
    assert not torch.equal(*expected)
    collections = [iter(values), (each for each in values), tuple(values), dict(enumerate(values)).values()]
    for given in collections if name != "input_masks" else collections[:3]:
        found = pipe(photo, **{name: given}, cutout=False)
        assert all(torch.equal(one["predicted_alpha"], alpha) for one, alpha in zip(found, expected, strict=True))
    shared = list(pipe(iter([photo, photo]), **{name: iter(values)}, cutout=False))
    assert all(torch.equal(two[1]["predicted_alpha"], expected[1]) for two in shared)
    with pytest.raises(ValueError, match=f"{name} must be the prompts of every image, .* got a list for 2 images"):
        list(pipe(iter([photo, photo]), **{name: [[each] for each in values]}))
    if name == "text":
        with pytest.raises(ValueError, match="must be a str or None"):
            pipe(photo, text=set(values))  # in which order?


def test_own_prompts_come_before_those_of_the_call(pipe: ReferringMattingPipeline) -> None:
    mine, theirs = pipe([{"image": make_photo(), "input_boxes": BOX}, make_photo()], input_boxes=[OTHER_BOX])
    torch.testing.assert_close(mine["predicted_alpha"], pipe(make_photo(), input_boxes=BOX)["predicted_alpha"])
    assert not torch.equal(mine["predicted_alpha"], theirs["predicted_alpha"])
    torch.testing.assert_close(theirs["predicted_alpha"], pipe(make_photo(), input_boxes=OTHER_BOX)["predicted_alpha"])


def give_same(pipe: ReferringMattingPipeline, images: list[Any], prompts: dict[str, Any], own: list[dict]) -> None:
    """Prompts of the call give what each image gives alone with prompts of its own."""
    for result, image, each in zip(pipe(images, **prompts, cutout=False), images, own, strict=True):
        expected = pipe(image, **each, cutout=False)
        assert type(result) is type(expected)
        for one, other in zip(list_objects(result), list_objects(expected), strict=True):
            assert_close(one, other)


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


def test_columns_pair_up(pipe: ReferringMattingPipeline) -> None:
    """A column of `datasets` is read lazily, but is as good as a list; so is one of pandas."""
    photos = [make_photo(), make_photo(60, 50, seed=1)]
    rows = Dataset.from_dict({"image": photos, "text": ["low", "owl"]}).cast_column("image", datasets.Image())
    expected = pipe(photos, text=["low", "owl"], cutout=False)
    for images in (rows["image"], deque(photos), pandas.Series(photos), np.array([*photos, None], dtype=object)[:2]):
        results = list(pipe(images, text=rows["text"], cutout=False))
        for result, each in zip(results, expected, strict=True):
            assert_close(result, each)
    with pytest.raises(ValueError, match=r"write text=\[\['low', 'owl', 'cat'\]\] \* 2"):
        pipe(rows["image"], text=["low", "owl", "cat"])
    with pytest.raises(ValueError, match=r"it may hold one text for each image or the objects of every image"):
        pipe(rows, text=["low", "owl"])
    assert [len(each) for each in pipe(rows.select_columns("image"), text=[["low", "owl"]], cutout=False)] == [2, 2]


def test_rows_of_pandas(pipe: ReferringMattingPipeline, tmp_path: Path) -> None:
    make_photo().save(tmp_path / "a.png")
    table = pandas.DataFrame({"image": [str(tmp_path / "a.png")] * 2, "text": ["low", None], "size": [1, 2]})
    expected = [pipe(make_photo(), text="low", cutout=False), pipe(make_photo(), cutout=False)]
    missing = pandas.DataFrame({**table, "text": pandas.Series(["low", float("nan")], dtype=object)})
    for results in (
        pipe(table, cutout=False),
        pipe(missing, cutout=False),
        [pipe(row, cutout=False) for _, row in table.iterrows()],
        [pipe(row, cutout=False) for row in table.itertuples()],
        pipe((row for row in table.itertuples()), cutout=False),
    ):
        for result, each in zip(results, expected, strict=True):
            assert_close(result, each)
    assert len(pipe(table["image"].to_numpy(), cutout=False)) == 2


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
        (np.stack([MASK] * 3, axis=-1), 1),  # as OpenCV reads a file
        ([torch.from_numpy(MASK)[..., None]], 1),
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
