"""Tables as the paper prints them, with ours beside."""

import json
from pathlib import Path

import pytest

from fclm_hf.reproduction.results import write_table
from fclm_hf.reproduction.tables import BENCHMARKS, Benchmark


METRICS = {"mse": 0.02, "sad": 30.0, "gradient": 20.0, "connectivity_gca": 5.0}


def write(folder: Path, benchmarks: dict[str, Benchmark], key: str) -> tuple[str, dict]:
    measures = {("table5_full", key, "text"): {seed: {**METRICS, "iou": 0.5, "sad": 30.0 + seed} for seed in range(3)}}
    text = write_table(folder, "table5", ["table5_full", "table5_transport"], benchmarks, measures, {"steps": 5})
    return text, json.loads((folder / "table5.json").read_text())


def test_ours_below_the_papers(tmp_path: Path) -> None:
    text, summary = write(tmp_path, {"refmatte": BENCHMARKS["refmatte"]}, "refmatte")
    lines = text.splitlines()
    assert lines[0].startswith("**Table 5")
    assert (
        lines[2] == "| | RefMatte-RW100 MSE ↓ | RefMatte-RW100 SAD ↓ | RefMatte-RW100 Grad ↓ | RefMatte-RW100 Conn ↓ |"
    )
    assert lines[4:] == [
        "| w/o alignment | 0.157 | 24.33 | 26.87 | 6.07 |",
        "| L_adv | 0.128 | 22.79 | 23.01 | 4.83 |",
        "| L_OT, paper | 0.134 | 22.47 | 20.72 | 4.34 |",
        "| L_OT, here |  |  |  |  |",
        "| L_adv + L_OT (Ours), paper | 0.01 | 21.31 | 19.38 | 3.33 |",
        "| L_adv + L_OT (Ours), here | 0.02000 ± 0 | 31.00 ± 1 | 20.00 ± 0 | 5.000 ± 0 |",
    ]
    assert (tmp_path / "table5.md").read_text() == text
    last = summary["rows"][-1]
    assert last["paper"] == {"refmatte": {"mse": 0.010, "sad": 21.31, "gradient": 19.38, "connectivity_gca": 3.33}}
    assert last["here"]["refmatte"]["sad"] == {"mean": 31, "std": 1, "seeds": {"0": 30, "1": 31, "2": 32}}
    assert summary["steps"] == 5


def test_other_benchmarks_are_in_the_same_line(tmp_path: Path) -> None:
    other = Benchmark("coco", "photos/coco", "dev-coco", None, ("iou",))
    lines = write(tmp_path, {"tests/photos/coco": other}, "tests/photos/coco")[0].splitlines()
    assert lines[2].startswith("| | paper: RefMatte-RW100 MSE ↓ |")
    assert lines[2].endswith("| coco IoU ↑ |")
    assert lines[-1] == "| L_adv + L_OT (Ours) | 0.01 | 21.31 | 19.38 | 3.33 | 0.5000 ± 0 |"


def test_a_table_that_cannot_be_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"refmatte": BENCHMARKS["refmatte"]}, "refmatte")
    before = (tmp_path / "table5.json").read_bytes()
    monkeypatch.setattr("fclm_hf.utils.files.flush_to_disk", lambda path: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path, {"refmatte": BENCHMARKS["refmatte"]}, "other")
    assert (tmp_path / "table5.json").read_bytes() == before
    assert not list(tmp_path.glob(".unfinished-*"))
