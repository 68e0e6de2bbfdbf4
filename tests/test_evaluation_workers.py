"""Worker processes change nothing but the time."""

from pathlib import Path

import pytest
from benchmark_folders import write_folders, write_him2k

from fclm_hf.evaluation import EvaluationOptions, evaluate
from fclm_hf.evaluation.scoring import ScoringPool


@pytest.mark.parametrize("write", [write_folders, write_him2k])
def test_two_workers_give_the_same_summary_as_none(tmp_path: Path, write: object) -> None:
    data = write(tmp_path / "data")
    summaries = [
        evaluate(EvaluationOptions(str(data), tmp_path / f"out{workers}", baselines=["grabcut"], workers=workers))
        for workers in (0, 1, 2)
    ]
    assert summaries[0] == summaries[1] == summaries[2]
    files = [(tmp_path / f"out{workers}" / "summary.json").read_bytes() for workers in (0, 1, 2)]
    assert files[0] == files[1] == files[2]


def test_errors_of_a_worker_come_back() -> None:
    with pytest.raises(KeyError, match="unknown"), ScoringPool(2) as pool:
        pool.submit("unknown", [], [], [], lambda rows: None)
        pool.finish()
