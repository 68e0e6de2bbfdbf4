"""Any prompts whatever: finite alphas in [0, 1] of the right shape, or one documented error."""

import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_model import tiny_model, tiny_processor


WIDTH, HEIGHT = 40, 30
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8))

numbers = st.one_of(
    st.integers(-5, 45),
    st.floats(0, 30),
    st.sampled_from([float("nan"), float("inf"), 0, 0.0, WIDTH, HEIGHT, 1e9, None, "5", True]),
)
good_numbers = st.integers(0, 30)
points = st.lists(good_numbers, min_size=2, max_size=2)
boxes = st.tuples(st.integers(0, 14), st.integers(0, 14), st.integers(15, 30), st.integers(15, 30))
words = st.one_of(st.sampled_from(["low", "cat", "", " "]), st.text(max_size=60))


def nested(leaf: st.SearchStrategy, depth: int) -> st.SearchStrategy:
    """`depth` lists around `leaf`, mostly well formed."""
    for _ in range(depth):
        leaf = st.lists(leaf | st.none(), max_size=3) if depth > 2 else st.lists(leaf, min_size=1, max_size=3)
    return leaf


@st.composite
def coherent(draw: st.DrawFn) -> dict:
    """Prompts of one image that agree with each other: any mix, any number of objects and clicks."""
    objects = draw(st.integers(1, 4))

    def each(value: st.SearchStrategy) -> list:
        return [draw(st.lists(value | st.none(), min_size=objects, max_size=objects))]

    prompts = {}
    if draw(st.booleans()):
        prompts["text"] = each(st.sampled_from(["low", "a photo of a cat.", "猫 🐱", "x" * 200]))
    if draw(st.booleans()):
        prompts["input_boxes"] = each(boxes)
    if draw(st.booleans()):
        prompts["input_points"] = each(st.lists(points, min_size=1, max_size=5))
        if draw(st.booleans()):
            prompts["input_labels"] = [
                [clicks and [draw(st.integers(0, 1)) for _ in clicks] for clicks in prompts["input_points"][0]]
            ]
    return prompts


wild = st.recursive(numbers, lambda inner: st.lists(inner, max_size=4), max_leaves=12)
prompt_sets = st.fixed_dictionaries(
    {},
    optional={
        "text": st.one_of(words, st.lists(words, max_size=2), nested(words, 2), wild),
        "input_points": st.one_of(nested(points, 3), st.just([[[[3, 4], [5, 6]]]]), wild),
        "input_labels": st.one_of(st.just([[[1, 0]]]), nested(st.integers(0, 1), 3), wild),
        "input_boxes": st.one_of(st.lists(st.lists(boxes, min_size=1, max_size=3), min_size=1, max_size=1), wild),
    },
)


@pytest.fixture(scope="module")
def parts():
    return tiny_model(encoder_size=28), tiny_processor()


def check(parts, prompts: dict) -> bool:
    model, processor = parts
    try:
        inputs = processor(images=PHOTO, **prompts)
    except ValueError as error:
        names = ("text", "input_points", "input_labels", "input_boxes")
        assert any(name in str(error) for name in names), error  # noqa: PT017 (prompts may be accepted or refused)
        return False
    inputs.pop("original_sizes")
    with torch.no_grad():
        outputs = model(**inputs)
    (result,) = processor.post_process_image_matting(outputs, target_sizes=[(HEIGHT, WIDTH)])
    alpha = result["alpha"]
    assert alpha.dtype == torch.float32
    assert alpha.shape[1:] == (HEIGHT, WIDTH)
    has_no_objects = [[]] in prompts.values()
    assert (len(alpha) == 0) == has_no_objects
    assert torch.isfinite(alpha).all()
    assert (alpha >= 0).all()
    assert (alpha <= 1).all()
    return True


def run(parts, examples: int) -> None:
    accepted = []

    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(coherent() | prompt_sets)
    def try_one(prompts):
        accepted.append(check(parts, prompts))

    try_one()
    assert 0.1 < np.mean(accepted) < 0.95, "the random prompts are nearly all of one kind"


def test_some_random_prompts(parts):
    run(parts, 150)


@pytest.mark.slow
def test_ten_thousand_random_prompts(parts):
    run(parts, int(os.environ.get("FCLM_RANDOM_PROMPTS", 10_000)))
