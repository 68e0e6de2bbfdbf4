"""benchmarks/benchmark.py on small images."""

import json

import numpy as np
import pytest
from scripts import load_script


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
