"""Pairs: what A and B share, and where they differ."""

import cv2
import numpy as np
import pytest
from PIL import Image
from training_sets import make_background, make_cutout

from fclm_hf.data import (
    CompositionSettings,
    Foreground,
    PairComposition,
    Photo,
)
from fclm_hf.data.synthesis.pairs import Window, draw_window


SIZE = 96
RARE = ("plant", "cluster", "lattice", "hair", "photo_texture", "surface_texture", "translucency", "soft_edge")
PLAIN = {f"{name}_prob": 0.0 for name in (*RARE, "distractor", "degradation", "letterbox", "shadow")}


def make_composition(clutter=(), whole_photo_prob=0.3, **settings) -> PairComposition:
    chosen = CompositionSettings(**{"size": SIZE, **PLAIN, **settings})
    return PairComposition(list(clutter), [np.asarray(make_background(9, 120))], chosen, whole_photo_prob)


def make_foreground(number: int, **fields) -> Foreground:
    pixels = np.asarray(make_cutout(number, 60))
    return Foreground(pixels[..., :3], pixels[..., 3].astype(np.float32) / 255, (f"object {number}",), **fields)


def make_backgrounds() -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(make_background(1, 120)), np.asarray(make_background(2, 120))


def make_photo(objects: int = 1, **fields) -> Photo:
    """Soft-edged orange discs before a blue wall, 120 x 160: C = a F + (1 - a) B holds exactly."""
    rows, columns = np.mgrid[:120, :160]
    alphas = []
    for index in range(objects):
        distance = np.hypot(rows - 60, columns - 160 * (index + 1) / (objects + 1))
        alphas.append((np.clip((34 / objects - distance) / 10 + 0.5, 0, 1) * 255).round().astype(np.uint8))
    share = np.sum(alphas, axis=0)[..., None] / 255
    image = (share * (250, 130, 10) + (1 - share) * (10, 20, 200)).round().astype(np.uint8)
    return Photo(image, alphas, [(f"disc {index}",) for index in range(objects)], fields.pop("texts", [()] * objects))


def test_composites_share_objects_and_differ_behind_them():
    composition = make_composition()
    for seed in range(10):
        rng = np.random.default_rng(seed)
        pair = composition.compose_cutouts([make_foreground(40), make_foreground(300)], make_backgrounds(), rng)
        assert pair.image_a.shape == pair.image_b.shape == (SIZE, SIZE, 3)
        assert pair.image_a.dtype == np.uint8
        assert 1 <= len(pair.alphas) == len(pair.names) == len(pair.texts) <= 2
        assert (pair.alphas.sum(0) <= pair.foreground + 1e-6).all()
        assert pair.foreground.max() <= 1
        behind = pair.foreground == 0
        assert np.abs(pair.image_a[behind].astype(int) - pair.image_b[behind]).mean() > 10
        for image in (pair.image_a, pair.image_b):  # one flat color each in both
            assert all(image[alpha > 0.99].std(0).max() < 1.5 for alpha in pair.alphas)


def test_objects_are_in_harmony_with_the_background_in_b_only():
    closer = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        background = np.full((100, 100, 3), (240, 240, 30), np.uint8)
        pair = make_composition().compose_cutouts([make_foreground(40)], (background, background), rng)
        solid = pair.alphas[0] > 0.99
        color = {name: image[solid].mean(0) for name, image in (("a", pair.image_a), ("b", pair.image_b))}
        goal = pair.image_b[pair.foreground == 0].mean(0)
        closer.append(np.abs(color["b"] - goal).sum() < np.abs(color["a"] - goal).sum())
    assert np.mean(closer) > 0.9


def test_the_same_seed_gives_the_same_pair():
    for clutter in ([], [make_foreground(7)]):
        composition = make_composition(
            clutter, distractor_prob=1.0, hair_prob=0.5, degradation_prob=1.0, letterbox_prob=0.5, shadow_prob=1.0
        )
        one, two = (
            composition.compose_cutouts([make_foreground(40)], make_backgrounds(), np.random.default_rng(4))
            for _ in range(2)
        )
        assert (one.image_a == two.image_a).all()
        assert (one.image_b == two.image_b).all()
        assert (one.alphas == two.alphas).all()
        assert one.valid == two.valid


def test_padding_is_the_same_in_both_images():
    for seed in range(6):
        rng = np.random.default_rng(seed)
        pair = make_composition(letterbox_prob=1.0).compose_cutouts([make_foreground(40)], make_backgrounds(), rng)
        height, width = pair.valid
        assert (height, width) != (SIZE, SIZE)
        for image in (pair.image_a, pair.image_b, pair.foreground, pair.alphas.max(0)):
            assert image[height:].max(initial=0) == 0 == image[:, width:].max(initial=0)


def test_copies_and_new_surfaces_have_no_names():
    rng = np.random.default_rng(0)
    objects = [make_foreground(40, texts=("the round thing",))]
    pair = make_composition().compose_cutouts(objects, make_backgrounds(), rng, copies=3)
    assert len(pair.names) > 1
    assert not any(pair.names)
    assert not any(pair.texts)
    pair = make_composition().compose_cutouts(objects, make_backgrounds(), rng)
    assert pair.names == [("object 40",)]
    assert pair.texts == [("the round thing",)]
    pair = make_composition(photo_texture_prob=1.0).compose_cutouts(objects, make_backgrounds(), rng)
    assert pair.names == [()] == pair.texts


def fill_hull(alpha: np.ndarray) -> float:
    """Area over that of the convex hull through pixel centers: a little above 1 for a disc."""
    return alpha.sum() / cv2.contourArea(cv2.convexHull(np.argwhere(alpha > 0.5).astype(np.float32)))


def test_objects_may_become_clusters_and_lattices():
    filled = {}
    for name in ("plain", "cluster_prob", "lattice_prob"):
        composition = make_composition(single_scale=(0.5, 0.6), **({} if name == "plain" else {name: 1.0}))
        pairs = [
            composition.compose_cutouts([make_foreground(40)], make_backgrounds(), np.random.default_rng(seed))
            for seed in range(6)
        ]
        assert all(pair.names == [("object 40",)] and pair.alphas.dtype == np.float32 for pair in pairs)
        filled[name] = np.mean([fill_hull(pair.alphas[0]) for pair in pairs])
    assert filled["plain"] > 1.0 > 0.97 > filled["cluster_prob"] > 0.8 > filled["lattice_prob"]


@pytest.mark.parametrize("whole", [0.0, 1.0])
def test_b_is_the_photo_and_a_shows_its_object_without_a_halo(whole, monkeypatch):
    monkeypatch.setattr("fclm_hf.data.synthesis.pairs.jitter_colors", lambda image, rng: image)
    background = np.full((90, 90, 3), 255, np.uint8)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        pair = make_composition(whole_photo_prob=whole).compose_photo(make_photo(), background, rng)
        height, width = pair.valid
        assert (height, width) == ((72, 96) if whole else (SIZE, SIZE))
        content = np.s_[:height, :width]
        alpha, image_a, image_b = (each[content] for each in (pair.foreground, pair.image_a, pair.image_b))
        np.testing.assert_array_equal(pair.alphas[0], pair.foreground)
        solid, clear = alpha > 0.999, alpha == 0
        orange, blue = image_b[solid].mean(0), image_b[clear].mean(0)
        expected = alpha[..., None] * orange + (1 - alpha[..., None]) * blue
        assert np.abs(image_b - expected).max() < 12  # still one photo
        white = image_a[clear].mean(0)
        expected = alpha[..., None] * orange + (1 - alpha[..., None]) * white
        edge = (alpha > 0.2) & (alpha < 0.8)
        assert edge.sum() > 30
        naive = np.abs(alpha[..., None] * image_b + (1 - alpha[..., None]) * white - expected)[edge].mean()
        assert np.abs(image_a - expected)[edge].mean() < min(12, 0.4 * naive)


def test_photos_with_texts_are_neither_cropped_nor_mirrored():
    photo = make_photo(2, texts=[("the left disc",), ("the right disc",)])
    for seed in range(6):
        pair = make_composition(whole_photo_prob=0.0).compose_photo(
            photo, make_backgrounds()[0], np.random.default_rng(seed)
        )
        assert pair.valid == (72, 96)
        assert pair.texts == photo.texts
        left, right = (np.average(np.arange(SIZE), weights=alpha.sum(0)) for alpha in pair.alphas)
        assert left < 40 < 56 < right


def test_objects_of_one_name_in_a_photo_lose_it():
    photo = make_photo(3)
    photo.names = [("cat", "animal"), ("dog", "animal"), ()]
    pair = make_composition(whole_photo_prob=1.0).compose_photo(photo, make_backgrounds()[0], np.random.default_rng(0))
    assert pair.names == [("cat",), ("dog",), ()]


def test_windows_show_the_object():
    rng = np.random.default_rng(0)
    alpha = np.zeros((200, 300), np.uint8)
    alpha[50:90, 200:220] = 255
    for _ in range(200):
        window = draw_window(alpha, rng)
        assert 0 <= window.top <= 200 - window.height
        assert 0 <= window.left <= 300 - window.width
        assert 60 <= window.height == window.width <= 100
        assert alpha[window.top :, window.left :][: window.height, : window.width].any()
    part = Window(50, 200, 20, 40).crop(np.dstack([alpha] * 3), 80)
    assert part.shape == (40, 80, 3)
    assert part[:, :36].min() == 255
    assert part[:, 44:].max() == 0


def test_tiny_backgrounds_are_accepted():
    pixel = np.zeros((1, 2, 3), np.uint8)
    pair = make_composition().compose_cutouts([make_foreground(3)], (pixel, pixel), np.random.default_rng(0))
    assert pair.image_a.shape == (SIZE, SIZE, 3)
    photo = Photo(np.asarray(Image.new("RGB", (3, 2))), [np.full((2, 3), 255, np.uint8)], [()], [()])
    assert make_composition().compose_photo(photo, pixel, np.random.default_rng(0)).foreground.min() >= 0


@pytest.mark.parametrize("is_coarse", [False, True])
def test_backgrounds_of_photos(is_coarse):
    photo = make_photo()
    photo.is_coarse = is_coarse
    made = {}
    for choice in ("pair", "own", "replaced"):
        composition = make_composition(photo_backgrounds=choice, whole_photo_prob=1.0)
        backgrounds = make_backgrounds()
        pair = composition.compose_photo(photo, backgrounds[0], np.random.default_rng(3), backgrounds[1])
        rows = slice(0, pair.valid[0])
        made[choice] = {"a": pair.image_a[rows], "b": pair.image_b[rows], "behind": pair.foreground[rows] == 0}
    own = made["own"]
    assert np.array_equal(own["a"], own["b"])
    assert np.array_equal(made["pair"]["b"][own["behind"]], own["b"][own["behind"]])  # the photo itself
    for first, second in (("pair", "own"), ("replaced", "own")):
        behind = made[first]["behind"]
        assert np.abs(made[first]["a"][behind].astype(int) - made[second]["a"][behind]).mean() > 10
    replaced = made["replaced"]
    assert np.abs(replaced["a"][replaced["behind"]].astype(int) - replaced["b"][replaced["behind"]]).mean() > 10
    assert np.abs(replaced["b"][replaced["behind"]].astype(int) - own["b"][own["behind"]]).mean() > 10
    with pytest.raises(ValueError, match="photo_backgrounds must be one of pair, own, replaced, got 'any'"):
        CompositionSettings(photo_backgrounds="any")
