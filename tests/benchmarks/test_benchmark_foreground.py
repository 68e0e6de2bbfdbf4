"""benchmarks/benchmark_foreground.py on small photos."""

import json
from pathlib import Path

import numpy as np
import pytest
from paths import PHOTOS
from PIL import Image
from scripts import load_script


pytest.importorskip("pymatting", reason="pymatting is not installed (extra matting)")
benchmark = load_script("benchmark_foreground")


@pytest.mark.slow  # pymatting compiles for 40 s in a new environment
def test_benchmark_on_small_photos(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows, columns = np.mgrid[:60, :80]
    alpha = (np.clip((25 - np.hypot(rows - 30, columns - 40)) / 6, 0, 1) * 255).astype(np.uint8)
    for folder in ("input", "alpha", "cutouts"):
        (tmp_path / "alphamatting" / folder).mkdir(parents=True)
    for name in ("astronaut", "cat", "coffee"):
        photo = Image.open(PHOTOS / f"{name}.jpg").convert("RGB").resize((80, 60))
        photo.save(tmp_path / "alphamatting" / "input" / f"{name}.png")
        Image.fromarray(alpha).save(tmp_path / "alphamatting" / "alpha" / f"{name}.png")
    photo.putalpha(Image.fromarray(alpha))
    photo.save(tmp_path / "alphamatting" / "cutouts" / "cup.png")
    options = ["--data", str(tmp_path), "--cutouts", str(tmp_path / "alphamatting" / "cutouts"), "--rounds", "1"]
    tables = benchmark.main(options)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == tables
    assert list(tables["true alpha"]) == list(tables["alpha of the model"]) == ["astronaut", "cat", "coffee", "cup"]
    for row in tables["true alpha"].values():
        assert row["ratio"] == row["own"] / row["pymatting"]
        assert 0 < row["own"] < 10
        assert row["own_seconds"] > 0
    for row in tables["alpha of the model"].values():
        assert row["own_near"] <= row["own"]
