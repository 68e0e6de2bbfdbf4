"""Worker processes: the same results, errors that come back, and no process left behind."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from benchmark_folders import write_folders, write_him2k

from fclm_hf.evaluation import EvaluationOptions, evaluate
from fclm_hf.evaluation.workers import ScoringPool


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


def test_errors_of_a_worker_are_raised() -> None:
    pool = ScoringPool(2)
    pool.submit("unknown", [], [], [], lambda rows: None)
    with pytest.raises(KeyError, match="unknown"), pool:
        pool.finish()


MAIN = """
import sys
from fclm_hf.evaluation import EvaluationOptions, evaluate

def follow(samples, description, total):
    for number, sample in enumerate(samples):
        if number == 4:
            from multiprocessing import active_children
            print(*(child.pid for child in active_children()), flush=True)
            sys.stdin.read()
        yield sample

if __name__ == "__main__":
    evaluate(EvaluationOptions(sys.argv[1], sys.argv[2], baselines=["grabcut"]), follow)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="whether a process runs is read from /proc")
def test_a_killed_run_leaves_no_process_and_resumes(tmp_path: Path) -> None:
    data, out, script = write_folders(tmp_path / "data", count=6), tmp_path / "out", tmp_path / "main.py"
    script.write_text(MAIN)
    command = [sys.executable, str(script), str(data), str(out)]
    main = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    workers = [int(number) for number in main.stdout.readline().split()]
    assert workers
    assert all(runs(number) for number in workers)
    main.kill()
    main.wait()
    assert wait_until(lambda: not any(runs(number) for number in workers))
    parts = {path: path.stat().st_mtime_ns for path in (out / "grabcut" / "box" / "parts").iterdir()}
    assert 0 < len(parts) < 6
    whole, resumed = (
        evaluate(EvaluationOptions(str(data), folder, baselines=["grabcut"], workers=0))
        for folder in (tmp_path / "whole", out)
    )
    assert resumed == whole
    assert all(path.stat().st_mtime_ns == changed for path, changed in parts.items())


def runs(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
