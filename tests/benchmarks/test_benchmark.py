"""benchmarks/benchmark.py on small images."""

import json
import math
import sys

import numpy as np
import pytest
from scripts import load_script
from tiny_model import TINY_TEXT

from fclm_hf.configuration_fclm import PRESETS


benchmark = load_script("benchmark")


@pytest.mark.slow
def test_benchmark_on_small_images(capsys: pytest.CaptureFixture) -> None:
    ballast = np.ones(200_000_000)  # 1.6 GB here must not count in the process that is measured
    options = ["--sections", "encoder", "cached", "memory", "lite", "--side", "64", "--repeats", "1"]
    summary = benchmark.main([*options, "--photo", "320x240"])
    del ballast
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == summary
    rows = summary["rows"]
    assert [row["section"] for row in rows] == ["encoder", *["cached"] * 6, *["memory"] * 4, "lite"]
    for row in rows:
        assert row["pass"] == (row["value"] <= row["bound"])
    assert rows[0]["value"] > 1
    assert all(0.1 < row["value"] < 1.6 for row in rows if row["section"] == "memory")


def test_metrics_section_compares_equal_values(capsys: pytest.CaptureFixture) -> None:
    rows = benchmark.main(["--sections", "metrics", "--side", "64", "--repeats", "1"])["rows"]
    assert len(rows) == 3
    for row in rows:
        assert row["value"] > 0
        assert float(row["note"].rsplit(" ", 1)[1]) < 1e-9
    assert "Conn, 125 x 187" in capsys.readouterr().out


def test_training_section_times_the_step_and_its_parts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys.modules["benchmark_training"], "BATCH", 1)
    monkeypatch.setitem(PRESETS["matting-small"], "text_config", TINY_TEXT)  # frozen, and most of the weights
    rows = benchmark.main(["--sections", "training", "--side", "64", "--repeats", "1"])["rows"]
    assert [row["unit"] for row in rows] == ["x", "%"]
    for row in rows:
        assert math.isfinite(row["value"])
        assert row["value"] > 0
        parts = [part.split()[0] for part in row["note"].split(", ")]
        assert parts == ["batch", "encoder", "teacher", "decoder", "step", "transport"]
    assert "K = 4 tokens, 28 px" in capsys.readouterr().out
