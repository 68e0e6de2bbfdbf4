"""Metrics against the values in fixtures/reference_metrics, which the reference implementations gave."""

import json
from pathlib import Path

import numpy as np
import pytest
from paths import FIXTURES
from PIL import Image

from fclm_hf.metrics import (
    DichotomousMetrics,
    InstanceMattingQuality,
    connectivity_error,
    dichotomous_metrics,
    gradient_error,
    mad,
    mse,
    sad,
)


FOLDER = FIXTURES / "reference_metrics"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
ALPHA_FUNCTIONS = {"sad": sad, "mse": mse, "gradient": gradient_error, "connectivity": connectivity_error}


def read(path: Path, dtype: type = np.float64) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(dtype) / dtype(255)


def read_pair(name: str, dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray]:
    return read(FOLDER / f"pairs/{name}_pred.png", dtype), read(FOLDER / f"pairs/{name}_gt.png", dtype)


def assert_agree(measured: dict[str, float], expected: dict[str, float]) -> None:
    assert measured == {name: pytest.approx(value, rel=1e-4, abs=1e-6) for name, value in expected.items()}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(EXPECTED["pairs"]))
def test_mattes(name: str, dtype: type) -> None:
    pred, target = read_pair(name, dtype)
    trimap = np.asarray(Image.open(FOLDER / f"pairs/{name}_trimap.png"))
    measured = {"mad": mad(pred, target)}
    for key, function in ALPHA_FUNCTIONS.items():
        measured[key] = function(pred, target)
        measured[f"{key}_trimap"] = function(pred, target, trimap)
    for key in ("gradient", "connectivity"):
        measured[f"{key}_gca"] = ALPHA_FUNCTIONS[key](pred, target, variant="gca")
    assert_agree(measured, {key: EXPECTED["pairs"][name][key] for key in measured})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dichotomous(dtype: type) -> None:
    pytest.importorskip("py_sod_metrics", reason="pysodmetrics is not installed (extra eval)")
    rows = {name: dichotomous_metrics(*read_pair(name, dtype)) for name in EXPECTED["pairs"]}
    for name, row in rows.items():
        measured = DichotomousMetrics([row]).compute()
        expected = {key.removesuffix("_minmax"): value for key, value in EXPECTED["pairs"][name].items()}
        assert_agree(measured, {key: expected[key] for key in measured})
    assert_agree(DichotomousMetrics(rows.values()).compute(), EXPECTED["dichotomous_dataset"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_instances(dtype: type) -> None:
    quality = InstanceMattingQuality(0.5)
    for folder in sorted((FOLDER / "instances" / "gt").iterdir()):
        target = np.stack([read(path, dtype) for path in sorted(folder.iterdir())])
        paths = sorted((FOLDER / "instances" / "pred" / folder.name).glob("*.png"))
        pred = np.stack([read(path, dtype) for path in paths]) if paths else np.zeros((0, *target.shape[1:]))
        quality.update(pred, target)
    for threshold in (0.5, 0.75):
        measured = InstanceMattingQuality(threshold, quality.rows).compute()
        expected = EXPECTED["instances"][f"InstMatt IMQ at IoU {threshold}"]
        assert_agree({key: measured[key.lower()] for key in expected}, expected)
