"""Procedural plants, clusters, lattices and hair."""

import cv2
import numpy as np
import pytest

from fclm_hf.data import Foreground, add_hair
from fclm_hf.data.synthesis.procedural import cut_lattice, grow_plant, make_cluster


@pytest.fixture
def disc() -> Foreground:
    alpha = np.zeros((120, 100), np.uint8)
    cv2.circle(alpha, (50, 60), 40, 255, -1, cv2.LINE_AA)
    colors = np.full((120, 100, 3), (200, 40, 20), np.uint8)
    return Foreground(colors, alpha.astype(np.float32) / 255, ("disc",))


def outline_ratio(alpha: np.ndarray) -> float:
    """Length of the outline over that of a disc of the same area: 1 for a disc, more for what has thin parts."""
    inside = (alpha > 0.5).astype(np.uint8)
    contours, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return sum(cv2.arcLength(contour, True) for contour in contours) / (2 * np.sqrt(np.pi * inside.sum()))


def test_plants_have_thin_parts_and_differ(disc):
    plants = [grow_plant(np.random.default_rng(seed), 160) for seed in range(8)]
    for plant in plants:
        assert plant.colors.shape == (160, 160, 3)
        assert plant.colors.dtype == np.uint8
        assert plant.alpha.dtype == np.float32
        assert plant.alpha.min() == 0
        assert plant.alpha.max() == 1
    assert np.mean([outline_ratio(plant.alpha) for plant in plants]) > 2 * outline_ratio(disc.alpha)
    assert len({plant.alpha.tobytes() for plant in plants}) == len(plants)
    again = grow_plant(np.random.default_rng(0), 160)
    np.testing.assert_array_equal(again.alpha, plants[0].alpha)
    np.testing.assert_array_equal(again.colors, plants[0].colors)


def test_a_cluster_holds_several_copies_in_the_colors_of_one(disc):
    pile = make_cluster(disc, np.random.default_rng(1), 200)
    assert pile.names == ("disc",)
    assert pile.alpha.shape == (200, 200)
    one = disc.alpha.sum() * (200 * 0.45 / 120) ** 2  # the largest that one copy can be
    assert pile.alpha.sum() > 1.5 * one
    red, green, blue = pile.colors[pile.alpha > 0.9].astype(float).mean(0)
    assert red > 3 * green > 3 * blue


def test_a_lattice_takes_a_part_of_the_object_away(disc):
    for seed in range(6):
        lattice = cut_lattice(disc, np.random.default_rng(seed))
        assert (lattice.alpha <= disc.alpha).all()
        assert 0.1 < lattice.alpha.sum() / disc.alpha.sum() < 0.95
        assert outline_ratio(lattice.alpha) > 1.5 * outline_ratio(disc.alpha)


def test_hair_adds_thin_fractional_alpha():
    alpha = np.zeros((120, 120), np.float32)
    alpha[40:80, 40:80] = 1
    colors = np.full((120, 120, 3), (180, 120, 60), np.uint8)
    grown_colors, grown = add_hair(colors, alpha, np.random.default_rng(3))
    new = (grown > 0.05) & (alpha == 0)
    assert new.sum() > 50
    assert (grown >= alpha).all()
    assert grown.max() <= 1
    assert np.abs(grown_colors[new].astype(int).mean(0) - (180, 120, 60)).max() < 40
