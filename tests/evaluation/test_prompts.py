"""Prompts that data sets give, and prompts derived from true mattes."""

import numpy as np
import pytest
from benchmark_folders import SIZE, matte, photo
from PIL import Image

from fclm_hf.evaluation.baselines import BASELINES, fill_box
from fclm_hf.evaluation.prompts import (
    PromptRules,
    find_box,
    find_point,
    make_rough_mask,
    make_trimap,
    prompt_targets,
    words_in_vocabulary,
)
from fclm_hf.evaluation.samples import EvaluationSample, Target


def test_boxes_end_where_alpha_falls_to_127() -> None:
    alpha = np.zeros(SIZE, np.uint8)
    alpha[10:20, 5:30] = 127
    assert find_box(alpha) is None
    assert find_point(alpha) is None
    alpha[12:18, 6:29] = 128
    assert find_box(alpha) == (6, 12, 29, 18)
    assert find_point(alpha) == (17, 14.5)


def test_points_inside_a_ring() -> None:
    ring = np.asarray(matte(30, 24, 18)) - np.asarray(matte(30, 24, 8))
    x, y = find_point(ring, "center")
    assert ring[round(y), round(x)] == 0
    x, y = find_point(ring, "inside")
    assert ring[int(y), int(x)] == 255
    assert 11 <= np.hypot(x - 30, y - 24) <= 15
    full = np.full(SIZE, 255, np.uint8)
    assert find_point(full, "inside")[1] == pytest.approx(SIZE[0] / 2, abs=1)


def test_provided_prompts_take_precedence_and_none_joins_objects() -> None:
    mattes = [np.asarray(matte(16, 20)), np.asarray(matte(46, 26)), np.zeros(SIZE, np.uint8)]
    targets = (
        Target("s/0", None, text="the low er", box=(1, 2, 3, 4)),
        Target("s/1", None, cls="low"),
        Target("s/2", None),
    )
    sample = EvaluationSample("s", None, targets)
    texts, skipped = prompt_targets(sample, mattes, "text", PromptRules())
    assert [each.text for each in texts] == ["the low er", "a photo of low."]
    assert skipped == {"no text": 1}
    boxes, skipped = prompt_targets(sample, mattes, "box", PromptRules())
    assert [each.box for each in boxes] == [(1, 2, 3, 4), find_box(mattes[1])]
    assert skipped == {"no solid pixel": 1}
    points, _ = prompt_targets(sample, mattes, "point", PromptRules(point="inside"))
    assert [each.point for each in points] == [find_point(each, "inside") for each in mattes[:2]]
    (joined,), skipped = prompt_targets(sample, mattes, "none", PromptRules())
    assert joined.target.name == "s"
    assert not skipped
    assert np.array_equal(joined.alpha, np.maximum(mattes[0], mattes[1]))
    single = EvaluationSample("s", None, targets[:1])
    assert prompt_targets(single, mattes[:1], "none", PromptRules())[0][0].target.name == "s/0"


def test_unknown_words_are_left_out() -> None:
    vocabulary = frozenset({"low</w>", "er</w>"})
    assert words_in_vocabulary("Low er", vocabulary)
    assert not words_in_vocabulary("lower", vocabulary)
    targets = (Target("0", None, cls="low"), Target("1", None, cls="lower"))
    mattes = [np.asarray(matte(16, 20))] * 2
    prompted, skipped = prompt_targets(
        EvaluationSample("s", None, targets), mattes, "text", PromptRules("{CLS}", vocabulary=vocabulary)
    )
    assert [each.text for each in prompted] == ["low"]
    assert skipped == {"unknown word": 1}


COMPILED = pytest.param("closed-form", marks=pytest.mark.slow)  # numba takes 45 s the first time


@pytest.mark.parametrize("name", [COMPILED, *sorted(BASELINES.keys() - {"closed-form"})])
def test_baselines_beat_the_box_or_are_it(name: str) -> None:
    if name == "closed-form":
        pytest.importorskip("pymatting", reason="pymatting is not installed (extra eval)")
    truth = np.asarray(matte(30, 24, 12)) / 255
    noise = np.random.default_rng(0).integers(-8, 9, (*SIZE, 3))
    pixels = 60 + noise + truth[..., None] * np.array([120, 60, 0])
    image, box = Image.fromarray(pixels.astype(np.uint8)), (14, 8, 46, 40)
    alpha = BASELINES[name](image, box)
    assert alpha.dtype == np.float32
    assert alpha.shape == SIZE
    error, plain = np.abs(alpha - truth).mean(), np.abs(fill_box(image, box) - truth).mean()
    assert error == plain if name == "box-as-mask" else error < 0.7 * plain
    assert np.all(alpha[:, : int(box[0]) - 1] == 0)


def test_baselines_of_a_box_that_is_the_image() -> None:
    for run in (BASELINES["box-as-mask"], BASELINES["grabcut"]):
        assert np.isfinite(run(photo(matte(30, 24)), (0, 0, SIZE[1], SIZE[0]))).all()


def test_rough_masks_are_binary_and_near_the_matte() -> None:
    alpha = np.asarray(matte(30, 24, 18))
    mask = make_rough_mask(alpha)
    assert set(np.unique(mask)) == {0, 255}
    assert ((mask > 127) != (alpha > 127)).mean() < 0.05
    wide = np.zeros((400, 600), np.uint8)
    wide[100:300, 200:400], wide[200, :200] = 255, 255
    assert not make_rough_mask(wide)[200, :190].any()  # thin parts are lost
    assert make_rough_mask(wide)[110:290, 210:390].all()


def test_trimaps_hold_what_is_certain() -> None:
    alpha = np.zeros((200, 300), np.uint8)
    alpha[50:150, 100:200], alpha[90, 200:220] = 255, 60
    trimap = make_trimap(alpha)
    assert set(np.unique(trimap)) == {0, 128, 255}
    assert (alpha[trimap == 255] == 255).all()
    assert (alpha[trimap == 0] == 0).all()
    assert (trimap[100, 97:103] == 128).all()
    assert trimap[100, 110] == 255


def test_masks_as_prompts() -> None:
    mattes = [np.asarray(matte(16, 20)), np.zeros(SIZE, np.uint8)]
    provided = Image.fromarray(np.full(SIZE, 128, np.uint8))
    sample = EvaluationSample("s", None, (Target("s/0", None, trimap=provided), Target("s/1", None)))
    masks, skipped = prompt_targets(sample, mattes, "mask", PromptRules())
    assert np.array_equal(masks[0].mask, make_rough_mask(mattes[0]))
    assert skipped == {"no solid pixel": 1}
    trimaps, _ = prompt_targets(sample, mattes, "trimap", PromptRules())
    assert (trimaps[0].mask == 128).all()
