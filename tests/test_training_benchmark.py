"""The section "training" of the benchmark script."""

import math
from pathlib import Path

import pytest


def test_section_trains_and_records_both_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    import benchmark
    import benchmark_training

    monkeypatch.setattr(benchmark_training, "BATCH", 1)
    rows = benchmark.main(["--sections", "training", "--side", "64", "--repeats", "1"])["rows"]
    assert [(row["bound"], row["unit"], row["at_most"]) for row in rows] == [(1.15, "x", True), (3, "%", True)]
    for row in rows:
        assert math.isfinite(row["value"]) and row["value"] > 0
        parts = [part.split()[0] for part in row["note"].split(", ")]
        assert parts == ["batch", "encoder", "teacher", "decoder", "step", "transport"]
    assert "K = 4 tokens, 28 px" in capsys.readouterr().out
