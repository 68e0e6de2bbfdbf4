"""What is measured of the foreground tokens of pairs."""

import numpy as np
import pytest
from tiny_model import tiny_model, tiny_processor
from training_sets import make_background

from fclm_hf.data import Pair
from fclm_hf.reproduction.tokens import find_tokens, measure_distance, measure_neighbors, measure_separability


pytest.importorskip("sklearn", reason="needs the extra figures")


def test_separability_and_neighbors_of_mixed_and_separate_domains():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(10), 40)
    alike = rng.normal(size=(2, 400, 8))
    apart = alike + np.array([0, 3])[:, None, None]
    assert abs(measure_separability(alike, groups) - 0.5) < 0.1
    assert measure_separability(apart, groups) > 0.95
    assert abs(measure_neighbors(alike) - 0.5) < 0.1
    assert measure_neighbors(apart) > 0.95


def test_distance_is_that_of_paired_tokens():
    first = np.eye(4)[None].repeat(2, 0)  # (2, tokens, channels)
    assert measure_distance(first) == pytest.approx(0)
    other = np.stack([np.eye(4), 3 * np.eye(4)[[0, 1, 3, 2]]])
    assert measure_distance(other) == pytest.approx(0.5)


def test_neighbors_separate_what_no_line_separates():
    """Each pair has its own direction, along which A and B are separated, in opposite order in every second pair."""
    rng = np.random.default_rng(0)
    groups, directions = np.repeat(np.arange(8), 40), 4 * np.eye(16)
    tokens = directions[None, groups] + 0.2 * rng.normal(size=(2, 320, 16))
    tokens += np.array([1, -1])[:, None, None] * np.where(groups % 2, 1, -1)[:, None] * directions[8 + groups]
    assert measure_neighbors(tokens) > 0.95
    assert measure_separability(tokens, groups) < 0.75


def test_tokens_are_the_foreground_of_the_last_map():
    """Both images are the same; the object fills the upper left quarter, 2 x 2 of the 4 x 4 tokens."""
    image, foreground = np.asarray(make_background(3, 64)), np.zeros((64, 64), np.float32)
    foreground[:30, :30] = 1
    pair = Pair(image, image, foreground[None], foreground, [()], [()], (64, 64))
    model, processor = tiny_model().eval(), tiny_processor()
    tokens = find_tokens(model, processor, pair)
    pixels = processor(images=[image], return_tensors="pt")["pixel_values"]
    expected = model.model.get_feature_maps(pixels).feature_maps[-1][0, :, :2, :2].flatten(1).T
    assert tokens.shape == (2, 4, 32)
    for each in tokens:
        np.testing.assert_allclose(each, expected.detach(), atol=1e-5)
