"""Prompts: checked, scaled to the resized images, and padded to tensors."""

import numpy as np
import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torchvision.tv_tensors import BoundingBoxes

from fclm_hf.prompts_fclm import check_prompts, pad_prompts, scale_prompts


WIDTH, HEIGHT = 200, 100
SIZE = (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        ([-0.3, 5, 20, 30], [0, 5, 20, 30]),
        ([10, 20, WIDTH + 0.01, HEIGHT + 0.01], [10, 20, WIDTH, HEIGHT]),
        ([-1, -1, 20, 30], [0, 0, 20, 30]),
        ([-1e9, -1e9, 1e9, 1e9], [0, 0, WIDTH, HEIGHT]),
        ([WIDTH - 0.5, 0, WIDTH + 40, 10], [WIDTH - 0.5, 0, WIDTH, 10]),
        ([0, 0, WIDTH, HEIGHT], [0, 0, WIDTH, HEIGHT]),
    ],
)
def test_boxes_of_detectors_are_clipped(box: list[float], clipped: list[float]) -> None:
    assert check_prompts([SIZE], input_boxes=[[box]]).boxes == [[tuple(clipped)]]


def test_boxes_as_detectors_give_them() -> None:
    sides = {"xmin": 10, "ymin": 20, "xmax": 30, "ymax": np.int64(40)}
    for boxes in (
        [sides],
        [{"score": 0.9, "label": "cat", "box": sides}],  # of a pipeline of transformers
        pandas.DataFrame([[10, 20, 30, 40]], columns=["x0", "y0", "x1", "y1"]),
        BoundingBoxes([[10, 20, 30, 40]], format="XYXY", canvas_size=SIZE),
    ):
        assert check_prompts([SIZE], input_boxes=[boxes]).boxes == [[(10, 20, 30, 40)]]
    for layout in ("XYWH", "CXCYWH"):
        boxes = BoundingBoxes([[10, 20, 30, 40]], format=layout, canvas_size=SIZE)
        with pytest.raises(ValueError, match=f"input_boxes must be in the format XYXY, .*, got {layout}"):
            check_prompts([SIZE], input_boxes=[boxes])
    with pytest.raises(ValueError, match="must be 4 numbers"):
        check_prompts([SIZE], input_boxes=[[{"xmin": 10, "ymin": 20, "xmax": 30}]])


def test_a_thin_box_stays_a_box() -> None:
    thin = check_prompts([SIZE], input_boxes=[[[100, 3, 100 + 1e-9, 3 + 1e-12]]])
    box = pad_prompts(scale_prompts(thin, [SIZE], [(7, 14)]))["input_boxes"][0, 0]
    assert box[2] > box[0]
    assert box[3] > box[1]


NUMBERS = st.one_of(st.integers(-3, 205), st.floats(), st.none(), st.text(max_size=2))
COORDINATES = st.floats(0, 100, width=32)


def nest(leaf: st.SearchStrategy, length: int, wrong: bool) -> st.SearchStrategy:
    """A list of `length` leaves; where `wrong`, often something else."""
    right = st.lists(leaf, min_size=length, max_size=length)
    return st.one_of(right, right, st.none(), st.lists(leaf, max_size=3), NUMBERS) if wrong else right


@st.composite
def prompt_sets(draw: st.DrawFn) -> dict:
    """Prompts of one image: all four kinds valid, or one of them of any shape and with any numbers."""
    wrong_kind = draw(st.sampled_from([None, None, "text", "input_points", "input_labels", "input_boxes"]))
    objects, points = draw(st.integers(1, 3)), draw(st.integers(1, 3))

    def build(kind: str, leaf: st.SearchStrategy, wrong_leaf: st.SearchStrategy, *lengths: int) -> object:
        wrong = kind == wrong_kind
        strategy = wrong_leaf if wrong else leaf
        for length in lengths:
            strategy = nest(strategy, length, wrong)
        if not wrong and draw(st.booleans()):
            return [[None] * objects]
        return draw(nest(nest(strategy, objects, wrong), 1, wrong))

    names = st.sampled_from(["low", "a cat", "\U0001f98a"])
    labels = st.sampled_from([0, 1, True, 1.0])
    corners = st.tuples(COORDINATES, COORDINATES, st.integers(101, 200), st.just(HEIGHT)).filter(
        lambda c: c[1] < HEIGHT
    )
    prompts = {
        "text": build("text", names, st.one_of(names, st.just(" "), NUMBERS)),
        "input_points": build("input_points", st.tuples(COORDINATES, COORDINATES), nest(NUMBERS, 2, True), points),
        "input_boxes": build("input_boxes", corners, nest(NUMBERS, 4, True)),
    }
    if prompts["input_points"] != [[None] * objects]:
        prompts["input_labels"] = build("input_labels", labels, st.one_of(labels, NUMBERS), points)
    return {name: value for name, value in prompts.items() if name == wrong_kind or draw(st.booleans())}


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(prompt_sets())
def test_random_prompts_give_valid_tensors_or_one_documented_error(prompts: dict) -> None:
    try:
        checked = check_prompts([SIZE], **prompts)
    except ValueError as error:
        assert str(error).startswith(("text", "input_", "Image 0"))  # noqa: PT017 - valid prompts raise nothing
        return
    data = pad_prompts(scale_prompts(checked, [SIZE], [(50, 100)]))
    for name, value in data.items():
        assert value.shape[:2] == (1, max(1, checked.objects[0])), name
        assert value.float().isfinite().all(), name
    assert ("input_points" in data) == (prompts.get("input_points") is not None)
    if "input_boxes" in data:
        boxes = data["input_boxes"]
        present = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
        assert (present | (boxes == -10).all(-1)).all()
