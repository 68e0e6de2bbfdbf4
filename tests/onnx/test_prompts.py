"""Prompts for the graphs: shapes, padding, masks, and absent objects."""

import numpy as np
import pytest
import torch

from fclm_hf.configuration_fclm import PROMPT_PADDING
from fclm_hf.masks_fclm import TRIMAP_TOLERANCE, find_trimaps
from fclm_hf.modeling_fclm import find_located_objects
from fclm_hf.onnx import prompts


def test_constants_are_those_of_the_model() -> None:
    assert prompts.PADDING_LABEL == PROMPT_PADDING
    assert prompts.TRIMAP_TOLERANCE == TRIMAP_TOLERANCE


def test_prompts_of_one_image_apply_to_all() -> None:
    points, boxes = np.ones((1, 1, 2, 2)), np.arange(8).reshape(1, 2, 4)
    feeds = prompts.prepare_visual_prompts(3, 2, points, None, boxes)
    assert feeds["input_points"].shape == (3, 2, 2, 2)
    assert feeds["input_points"].dtype == feeds["input_boxes"].dtype == np.float32
    assert (feeds["input_labels"] == 1).all()
    assert (feeds["input_boxes"] == boxes).all()
    absent = prompts.prepare_visual_prompts(1, 2, None, None, None)
    assert (absent["input_labels"] == PROMPT_PADDING).all()
    assert absent["input_labels"].dtype == np.int64
    assert not absent["input_boxes"].any()


def test_texts() -> None:
    mask = np.array([[[1, 1], [0, 0]]])
    feeds = prompts.prepare_text_prompts(2, 2, np.ones((1, 2, 5)), mask, 5)
    assert feeds["text_mask"].tolist() == [[1, 0], [1, 0]]
    assert not prompts.prepare_text_prompts(1, 1, None, None, 5)["text_mask"].any()


def test_masks_are_padded() -> None:
    masks = prompts.prepare_masks(1, 2, np.ones((1, 1, 3, 4)), 5, 6)
    assert masks.shape == (1, 2, 5, 6)
    assert (masks[..., :3, :4] == 1).all()
    assert (masks[..., 3:, :] == -1).all()
    with pytest.raises(ValueError, match="must not be larger than pixel_values"):
        prompts.prepare_masks(1, 1, np.ones((1, 1, 6, 6)), 5, 6)


def test_known_pixels_and_absent_objects_as_in_the_model() -> None:
    rng = np.random.default_rng(0)
    masks = np.full((2, 3, 6, 6), -1, np.float32)
    masks[0, :2] = rng.integers(0, 3, (2, 6, 6)) / 2
    masks[1, 0] = rng.random((6, 6))
    alphas = rng.random(masks.shape).astype(np.float32)
    known = find_trimaps(torch.from_numpy(masks)).numpy() & (masks != 0.5)
    assert known.any()
    expected = np.where(known, masks.clip(0, 1), alphas)
    assert (prompts.keep_known_pixels(alphas, masks) == expected).all()

    given = {
        "input_points": np.zeros((2, 3, 1, 2)),
        "input_labels": np.array([[[1], [-10], [-10]], [[-10], [-10], [0]]]),
        "input_boxes": np.array([[[0, 0, 5, 5], [0, 0, 0, 0], [0, 0, 0, 0]]]),
        "input_masks": masks,
    }
    located = torch.zeros(2, 3, dtype=torch.bool)
    for each in find_located_objects(*(torch.from_numpy(value) for value in given.values())):
        located = located | each
    absent = prompts.find_absent(given, np.zeros((2, 3)), 0.5)
    assert absent.any()
    assert (absent == ~located.numpy()).all()
    assert not prompts.find_absent(given, np.ones((2, 3)), 0.5).any()
