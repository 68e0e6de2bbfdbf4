"""IMQ: crops against whole images, and counts worked out by hand."""

import pickle

import numpy as np
import pytest
from metric_inputs import disc, load_oracles

from fclm_hf.metrics import InstanceMattingQuality


oracles = load_oracles()
SIZE = (90, 140)
CENTERS = [(20, 20), (70, 30), (125, 45), (30, 75), (85, 80)]  # two of them cut by the border


def measure(pred: np.ndarray, target: np.ndarray, iou_threshold: float = 0.5) -> dict[str, float]:
    quality = InstanceMattingQuality(iou_threshold)
    quality.update(pred, target)
    return quality.compute()


def measured_rows(pred: np.ndarray, target: np.ndarray, iou_threshold: float) -> list[dict]:
    quality = InstanceMattingQuality(iou_threshold)
    quality.update(pred, target)
    return quality.rows


def draw(shift: float, radius: float) -> np.ndarray:
    return np.stack([disc(SIZE, (x + shift, y - shift), radius) for x, y in CENTERS])


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.75])
def test_crops_give_what_whole_images_give(threshold: float) -> None:
    generator = np.random.default_rng(0)
    for _ in range(10):
        target = draw(0, generator.uniform(12, 24))
        pred = draw(generator.uniform(0, 5), generator.uniform(10, 24))
        pred *= generator.random(pred.shape) < 0.98
        pred = pred[generator.permutation(5)[: generator.integers(3, 6)]]
        result = measure(pred, target, threshold)
        for name, expected in oracles.quality_at_full_size(pred, target, threshold).items():
            assert result[name] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_small_benchmark_instances_agree() -> None:
    pred, target = oracles.draw_instances((160, 240))
    result = measure(pred, target)
    for name, expected in oracles.quality_at_full_size(pred, target).items():
        assert result[name] == pytest.approx(expected, rel=1e-9)
    assert result["tp"] == 20


def test_perfect_and_missed_instances_by_hand() -> None:
    target = draw(0, 14)
    perfect = measure(target[::-1], target)
    assert perfect["tp"] == 5
    assert perfect["fp"] == perfect["fn"] == 0
    for name in ("mad", "mse", "grad", "conn", "iou"):
        assert perfect[f"imq_{name}"] == pytest.approx(100, rel=1e-6)
    two = measure(target[:2], target)
    assert (two["tp"], two["fp"], two["fn"]) == (2, 0, 3)
    assert two["imq_mad"] == pytest.approx(100 * 2 / 3.5, rel=1e-6)


def test_more_predictions_than_targets() -> None:
    target = draw(0, 14)
    result = measure(np.concatenate([target, target[:1]]), target)
    assert (result["tp"], result["fp"], result["fn"]) == (5, 1, 0)
    assert result["imq_conn"] == pytest.approx(100 * 5 / 5.5, rel=1e-6)


def test_no_instances() -> None:
    target, nothing = draw(0, 14), np.zeros((0, *SIZE))
    missed, invented, empty = measure(nothing, target), measure(target, nothing), measure(nothing, nothing)
    assert (missed["tp"], missed["fp"], missed["fn"]) == (0, 0, 5)
    assert (invented["tp"], invented["fp"], invented["fn"]) == (0, 5, 0)
    for result in (missed, invented, empty):
        assert all(value == 0 for name, value in result.items() if name.startswith("imq") or name == "rq")
    blank = measure(np.zeros((1, *SIZE)), np.zeros((1, *SIZE)))
    assert (blank["tp"], blank["fp"], blank["fn"], blank["imq_mad"]) == (0, 1, 1, 0)


def test_a_floor_makes_the_support_the_whole_image() -> None:
    target = draw(0, 14)
    assert measure(np.maximum(target, 1 / 255), target)["tp"] == 0


def test_data_set_counts_add_up() -> None:
    target = draw(0, 14)
    whole, first, second = (InstanceMattingQuality() for _ in range(3))
    for quality in (whole, first):
        quality.update(draw(3, 14), target)
    for quality in (whole, second):
        quality.update(np.zeros((0, *SIZE)), target)
    assert second.merge(first).compute() == whole.compute()
    alone = measure(draw(3, 14), target)
    assert whole.compute()["imq_mad"] == pytest.approx(alone["imq_mad"] * alone["tp"] / (alone["tp"] + 2.5), rel=1e-5)
    assert whole.compute()["fn"] == 5


def test_order_and_process_do_not_change_a_digit() -> None:
    generator = np.random.default_rng(0)
    whole = InstanceMattingQuality()
    parts = []
    for number in range(9):
        target = draw(0, generator.uniform(10, 20))[: number % 6]
        pred = draw(generator.uniform(0, 4), generator.uniform(10, 20)) * generator.uniform(0.5, 1)
        pred = pred[: generator.integers(0, 6)]
        whole.update(pred, target)
        parts.append(InstanceMattingQuality(rows=measured_rows(pred, target, 0.5)))
    expected = whole.compute()
    for _ in range(5):
        merged = InstanceMattingQuality()
        for index in generator.permutation(9):
            merged.merge(pickle.loads(pickle.dumps(parts[index])))
        assert merged.compute() == expected


def test_rows_serve_a_higher_threshold() -> None:
    pred, target = draw(4, 12), draw(0, 14)
    quality = InstanceMattingQuality(0.5)
    quality.update(pred, target)
    assert InstanceMattingQuality(0.75, quality.rows).compute() == measure(pred, target, 0.75)
    assert measure(pred, target, 0.75)["tp"] < quality.compute()["tp"]
    with pytest.raises(ValueError, match=r"at least that of the rows, 0\.75, got 0\.5"):
        InstanceMattingQuality(0.5, measured_rows(pred, target, 0.75))


def test_invalid_thresholds_and_merges() -> None:
    for threshold in (0, -1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="iou_threshold"):
            InstanceMattingQuality(threshold)
    with pytest.raises(ValueError, match="same type and options"):
        InstanceMattingQuality(0.5).merge(InstanceMattingQuality(0.75))
