"""Coarse masks: unknown pixels and edges are marked, in photos, their pairs and the prompts drawn for them."""

import numpy as np
import pytest
from training_sets import make_background

from fclm_hf.data import CompositionSettings, PairComposition, Photo, PromptSettings, sample_prompt, sample_prompts
from fclm_hf.data.synthesis.coarse_masks import crop_coarse_mask, mark_edges, unite_coarse_masks
from fclm_hf.data.synthesis.pairs import Window


SIZE = 96


def make_mask(left: int = 40, right: int = 100) -> np.ndarray:
    """A rectangle whose lowest rows are unknown."""
    mask = np.zeros((120, 160), np.uint8)
    mask[20:100, left:right] = 255
    mask[90:100, left:right] = 128
    return mask


def make_photo(**fields) -> Photo:
    masks = [make_mask(20, 70), make_mask(90, 140)]
    image = np.full((120, 160, 3), (10, 20, 200), np.uint8)
    image[np.maximum(*masks) > 0] = 250, 130, 10
    return Photo(image, masks, [("cat",), ("dog",)], [(), ()], is_coarse=True, **fields)


def compose(photo: Photo, seed: int = 0):
    settings = CompositionSettings(size=SIZE, degradation_prob=0.0)
    background = np.asarray(make_background(1, 120))
    composition = PairComposition([], [background], settings, whole_photo_prob=1.0)
    return composition.compose_photo(photo, background, np.random.default_rng(seed))


def test_a_window_of_a_mask_keeps_what_is_unknown():
    cut = crop_coarse_mask(make_mask(), Window(0, 0, 120, 160).crop, 80)
    assert cut.shape == (60, 80)
    assert set(np.unique(cut)) == {-1, 0, 1}
    assert (cut[10:45, 21:49] == 1).all()
    assert (cut[46:49, 21:49] == -1).all()


def test_a_union_is_known_where_any_mask_is_1_or_all_are_0():
    masks = np.array([[[1, -1, 0, -1]], [[-1, 0, 0, -1]]], np.float32)
    assert unite_coarse_masks(masks).tolist() == [[1, -1, 0, -1]]


@pytest.mark.parametrize(("share", "width"), [(0.01, 2), (0.05, 10)])
def test_edges_are_left_out(share, width):
    mask = np.zeros((50, 100), np.float32)
    mask[:, 50:] = 1
    assert ((mark_edges(mask, share) < 0).sum(1) == width).all()


def test_a_mask_without_edges_stays_known():
    assert (mark_edges(np.ones((30, 40), np.float32)) == 1).all()
    assert (mark_edges(np.zeros((30, 40), np.float32)) == 0).all()


def test_a_pair_of_a_coarse_photo():
    pair = compose(make_photo())
    assert set(np.unique(pair.alphas)) == set(np.unique(pair.foreground)) == {-1, 0, 1}
    inside, outside = pair.foreground == 1, pair.foreground == 0
    outside[pair.valid[0] :], outside[:, pair.valid[1] :] = False, False
    np.testing.assert_allclose(pair.image_a[inside], pair.image_b[inside], atol=1)
    assert np.abs(pair.image_a[outside].astype(int) - pair.image_b[outside]).mean() > 10
    assert pair.names == [("cat",), ("dog",)]
    assert pair.instance == [True, True]


def test_what_no_prompt_can_mean_is_not_asked_for():
    photo = make_photo(instance=[True, False])
    photo.names[1] = ()
    pair = compose(photo)
    assert len(pair.alphas) == 1
    assert pair.foreground[: pair.valid[0], pair.valid[1] // 2 :].max() == 1  # but it is in front
    photo.instance[0], photo.names[0] = False, ()
    assert compose(photo) is None


def test_flags_of_a_photo_reach_its_pair():
    pair = compose(make_photo(is_complete=False, absent_names=("zebra",), instance=[False, True]))
    assert not pair.is_complete
    assert pair.absent_names == ("zebra",)
    assert pair.instance == [False, True]


def test_only_a_name_can_mean_several_objects():
    alpha, settings = np.ones((8, 8), np.float32), PromptSettings()
    for seed in range(20):
        prompt = sample_prompt(alpha, ("cat",), np.random.default_rng(seed), settings, is_instance=False)
        assert list(prompt) == ["text"]
    with pytest.raises(ValueError, match="names or texts must be given"):
        sample_prompt(alpha, (), np.random.default_rng(0), settings, is_instance=False)


def test_absent_names_have_an_empty_target():
    alphas, rng = np.ones((1, 8, 8), np.float32), np.random.default_rng(0)
    settings = PromptSettings(absent_prob=0.5, templates=("{}",))
    prompts, targets = sample_prompts(alphas, [("cat",)], rng, settings, 200, 0.0, absent_names=("zebra", "bus"))
    asked = [prompt.get("text") in ("zebra", "bus") for prompt in prompts]
    assert 60 < sum(asked) < 140
    assert (targets.max((1, 2)) == 0).tolist() == asked


def test_background_clicks_keep_away_from_unknown_pixels():
    alpha = np.full((32, 32), -1, np.float32)
    alpha[8:16, 8:16], alpha[:, 24:] = 1, 0
    settings = PromptSettings(kinds={"point": 1.0})
    for seed in range(60):
        prompt = sample_prompt(alpha, (), np.random.default_rng(seed), settings)
        for (x, y), label in zip(prompt["points"], prompt["labels"], strict=True):
            assert alpha[int(y), int(x)] == label
