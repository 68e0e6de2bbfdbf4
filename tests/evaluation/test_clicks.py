"""Clicks in a row: where they fall, what is fed back, and the numbers of clicks that are reported."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_folders import write_dev, write_him2k
from tiny_model import tiny_model, tiny_processor

from fclm_hf.evaluation import EvaluationOptions, evaluate
from fclm_hf.evaluation.clicks import click_through, count_clicks, describe_clicks, find_next_click
from fclm_hf.evaluation.predictors import CheckpointPredictor
from fclm_hf.evaluation.prompts import PromptedTarget
from fclm_hf.evaluation.samples import Target


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_model().save_pretrained(folder)
    tiny_processor(size={"longest_edge": 64}).save_pretrained(folder)
    return str(folder)


def make_squares(count: int) -> np.ndarray:
    """Return squares of 11, 9, 7, ... pixels in a row."""
    alpha = np.zeros((20, 20 * count), np.uint8)
    for index in range(count):
        side = 11 - 2 * index
        alpha[4 : 4 + side, 20 * index + 4 : 20 * index + 4 + side] = 255
    return alpha


def make_target(alpha: np.ndarray) -> PromptedTarget:
    return PromptedTarget(Target("object", alpha), alpha, point=(9.0, 9.0))


class SquareModel:
    """Mattes the squares that were clicked."""

    def __init__(self, alpha: np.ndarray):
        self.alpha, self.calls = alpha / 255, []

    def __call__(self, **prompts: Any) -> np.ndarray:
        self.calls.append(prompts)
        mattes = []
        for points, labels in zip(prompts["input_points"][0], prompts["input_labels"][0], strict=True):
            assert labels == [1] * len(points)
            chosen = np.zeros_like(self.alpha)
            for x, _ in points:
                columns = np.s_[:, 20 * int(x // 20) : 20 * int(x // 20) + 20]
                chosen[columns] = self.alpha[columns]
            mattes.append(chosen)
        return np.stack(mattes)


def test_the_largest_error_is_clicked_in_its_middle():
    target = make_squares(2) / 255
    assert find_next_click(np.zeros_like(target), target) == ((9.0, 9.0), 1)
    first = target.copy()
    first[:, 20:] = 0
    assert find_next_click(first, target) == ((28.0, 8.0), 1)
    first[:, 16:] = 1  # the lesser error is missing, the greater one superfluous
    (x, y), label = find_next_click(first, first * 0)
    assert label == 0
    assert 20 < x < 36
    assert y in (9.0, 10.0)
    assert find_next_click(target, target) is None


def test_clicks_to_a_perfect_matte():
    alpha = make_squares(3)
    model = SquareModel(alpha)
    whole = 11**2 + 9**2 + 7**2
    (scores,) = click_through(model, [make_target(alpha)], 5)
    assert scores == pytest.approx([11**2 / whole, (11**2 + 9**2) / whole, 1, 1, 1])
    assert len(model.calls) == 3  # nothing is left to click
    assert "input_masks" not in model.calls[0]
    assert np.array_equal(model.calls[2]["input_masks"][0][0][:, :40], alpha[:, :40] / 255)
    assert not model.calls[2]["input_masks"][0][0][:, 40:].any()
    assert model.calls[2]["input_points"] == [[[[9.0, 9.0], [28.0, 8.0], [47.0, 7.0]]]]
    columns = describe_clicks(scores)
    assert (columns["noc85"], columns["noc90"]) == (3, 3)
    assert columns["iou_click5"] == 1


def test_objects_of_one_image_are_clicked_together():
    alpha = make_squares(3)
    easy = np.where(np.arange(60) < 20, alpha, 0)
    model = SquareModel(alpha)
    scores = click_through(model, [make_target(easy), make_target(alpha)], 2)
    assert scores[0] == [1, 1]
    assert scores[1][1] > scores[1][0]
    assert [len(call["input_points"][0]) for call in model.calls] == [2, 1]
    assert click_through(model, [], 3) == []


def test_number_of_clicks_to_an_iou():
    assert count_clicks([0.2, 0.85, 0.95], 0.85) == 2
    assert count_clicks([0.2, 0.85, 0.95], 0.9) == 3
    assert count_clicks([0.2, 0.3, 0.4], 0.9) == 3  # never: as many as were given
    assert count_clicks([0.9, 0.3], 0.9) == 1


def test_clicks_of_a_checkpoint(tmp_path: Path, checkpoint: str):
    data = write_dev(tmp_path / "data") / "coco"
    options = {"models": [checkpoint], "prompts": ["box", "point"], "workers": 0, "rows": "csv"}
    summary = evaluate(EvaluationOptions(str(data), tmp_path / "out", clicks=3, **options))
    box, point = (result["measures"] for result in summary["results"])
    assert set(point) - set(box) == {"iou_click1", "iou_click2", "iou_click3", "noc85", "noc90"}
    assert point["iou_click1"] == pytest.approx(point["iou"], abs=0.02)
    assert 1 <= point["noc85"] <= point["noc90"] <= 3
    assert summary["settings"]["clicks"] == 3
    (folder,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    rows = list(csv.DictReader((folder / "point" / "rows.csv").open()))
    assert np.mean([float(row["iou_click3"]) for row in rows]) == pytest.approx(point["iou_click3"])
    assert "noc85" not in next(csv.DictReader((folder / "box" / "rows.csv").open()))
    # the clicks change nothing else, and a run without them has the settings of earlier releases
    plain = evaluate(EvaluationOptions(str(data), tmp_path / "plain", **options))
    assert plain["results"][1]["measures"] == {name: point[name] for name in plain["results"][1]["measures"]}
    assert "clicks" not in json.loads((tmp_path / "plain" / "settings.json").read_text())


def test_a_perfect_checkpoint_needs_one_click(tmp_path: Path, checkpoint: str, monkeypatch: pytest.MonkeyPatch):
    data = write_dev(tmp_path / "data") / "coco"
    mattes: list[np.ndarray] = []

    def read(self: Any, sample: Any, image: Any, prompted: Any) -> Any:
        mattes[:] = [each.alpha / np.float32(255) for each in prompted["point"]]
        yield "point", list(mattes)

    monkeypatch.setattr(CheckpointPredictor, "predict", read)
    monkeypatch.setattr(CheckpointPredictor, "encode", lambda self, image: lambda **_: np.stack(mattes))
    options = EvaluationOptions(
        str(data), tmp_path / "out", models=[checkpoint], prompts=["point"], clicks=2, workers=0
    )
    measures = evaluate(options)["results"][0]["measures"]
    assert measures == {
        "iou": 1,
        "solidity": 1,
        "iou_click1": 1,
        "iou_click2": 1,
        "noc85": 1,
        "noc90": 1,
    }


def test_where_clicks_do_not_apply(tmp_path: Path, checkpoint: str):
    with pytest.raises(ValueError, match="clicks must be 1 without prompt point and a checkpoint, got 2"):
        EvaluationOptions("data", tmp_path / "out", models=[checkpoint], clicks=2)
    with pytest.raises(ValueError, match="clicks must be at least 1, got 0"):
        EvaluationOptions("data", tmp_path / "out", models=[checkpoint], prompts=["point"], clicks=0)
    data = write_him2k(tmp_path / "him2k")
    options = EvaluationOptions(str(data), tmp_path / "out", models=[checkpoint], prompts=["point"], clicks=2)
    with pytest.raises(ValueError, match="clicks must be 1 for protocol instances"):
        evaluate(options)
