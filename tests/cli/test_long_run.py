"""`fclm matte` over thousands of photos, killed again and again: each is done once, and memory does not grow."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from photo_files import make_photo, write_truncated
from PIL import Image
from tiny_model import tiny_model, tiny_processor

import fclm_hf


SLOPE_LIMIT = 8192  # bytes per photo; a single leaked alpha or cutout of these photos takes more
GROWTH_LIMIT = 4 * 1024 * 1024  # bytes that the allocator may keep all in all, which decides about short runs only


def write_photos(folder: Path, photos: int, broken: int) -> None:
    """Write photos of different sizes, of which some are truncated."""
    folder.mkdir()
    rng = random.Random(0)
    bad = set(rng.sample(range(photos), broken))
    for index in range(photos):
        path = folder / f"{index // 100:02}" / f"{'bad' if index in bad else 'photo'}-{index:04}.jpg"
        path.parent.mkdir(exist_ok=True)
        if index in bad:
            write_truncated(path)
        else:
            make_photo(60 + index % 5 * 8, 50 + index % 3 * 8, seed=index).save(path)


class MatteRun:
    """A run in a process of its own."""

    def __init__(self, photos: Path, out: Path, checkpoint: Path) -> None:
        command = [sys.executable, "-m", "fclm_hf.cli", "matte", photos, "-o", out, "--model", checkpoint]
        env = {**os.environ, "PYTHONPATH": str(Path(fclm_hf.__file__).parents[1]), "HF_HUB_OFFLINE": "1"}
        self.out, self.memory = out, []
        self.process = subprocess.Popen(
            [*command, "--skip-existing", "--batch-size", "4"],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def count_done(self) -> int:
        return sum(1 for path in self.out.rglob("[!.]*.png"))

    def wait_until(self, done: int | None) -> None:
        """Wait for a number of files or for the end, and record files and resident bytes."""
        while self.process.poll() is None and (done is None or self.count_done() < done):
            with contextlib.suppress(OSError, IndexError):  # it has just ended
                resident = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
                self.memory.append((self.count_done(), resident * os.sysconf("SC_PAGESIZE")))
            time.sleep(0.2)

    def measure_slope(self) -> tuple[float, int]:
        """Return the growth of resident memory, in bytes per photo, over the last three quarters, and their photos."""
        points = np.array([point for point in self.memory if point[1]], dtype=float)
        start = points[0, 0] + (points[-1, 0] - points[0, 0]) / 4
        points = points[points[:, 0] >= start]
        return float(np.polyfit(*points.T, 1)[0]), int(points[-1, 0] - points[0, 0])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize(("photos", "broken", "kills"), [(200, 10, 3), (2000, 50, 10)])
def test_killed_runs_do_each_photo_once(tmp_path: Path, photos: int, broken: int, kills: int) -> None:
    checkpoint, source, out = tmp_path / "checkpoint", tmp_path / "photos", tmp_path / "out"
    tiny_model().save_pretrained(checkpoint)
    tiny_processor().save_pretrained(checkpoint)
    write_photos(source, photos, broken)
    rng, first_seen, leftovers = random.Random(1), {}, 0
    for _ in range(kills):
        run = MatteRun(source, out, checkpoint)
        run.wait_until(len(first_seen) + rng.randint(1, photos // 2 // kills))
        time.sleep(rng.uniform(0, 0.1))
        run.process.send_signal(signal.SIGKILL)
        assert run.process.wait() == -signal.SIGKILL
        leftovers += len(list(out.rglob(".unfinished-*")))
        for path in out.rglob("[!.]*.png"):
            with Image.open(path) as image:
                image.load()  # no half file
            assert first_seen.setdefault(path, path.stat().st_mtime_ns) == path.stat().st_mtime_ns
    run = MatteRun(source, out, checkpoint)
    run.wait_until(None)
    report = run.process.stdout.read().strip().splitlines()[-1]
    good = photos - broken
    assert run.process.returncode == 1
    assert report == f"{good - len(first_seen)} done, {len(first_seen)} skipped, {broken} failed."
    assert all(path.stat().st_mtime_ns == moment for path, moment in first_seen.items())
    expected = {path.relative_to(source).with_suffix(".png") for path in source.rglob("photo-*.jpg")}
    assert {path.relative_to(out) for path in out.rglob("*") if path.is_file()} == expected
    slope, measured = run.measure_slope()
    print(f"{leftovers} half files were left by kills and removed; {slope:.0f} bytes per photo over {measured} photos")
    assert slope < max(SLOPE_LIMIT, GROWTH_LIMIT / measured)
