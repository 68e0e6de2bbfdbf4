"""The section "metrics" of the benchmark script."""

from pathlib import Path

import pytest


def test_section_measures_the_same_values_twice(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    import benchmark

    rows = benchmark.main(["--sections", "metrics", "--side", "64", "--repeats", "1"])["rows"]
    assert [row["bound"] for row in rows] == [5, 3, 5]
    for row in rows:
        assert row["value"] > 0
        assert float(row["note"].rsplit(" ", 1)[1]) < 1e-9
    assert "Conn, 125 x 187" in capsys.readouterr().out
