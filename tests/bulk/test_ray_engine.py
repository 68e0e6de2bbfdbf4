"""Ray Data on two nodes: with broken files and a worker that is killed, the mattes are those of one process."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from bulk_runs import read_mattes, save_tiny, write_photos

from fclm_hf.bulk import BulkOptions, BulkSummary, matte_dataset


ROWS, SHARD = 1000, 64
START_SECONDS = 300
# Ray gives up on a node within 30 seconds, which a busy machine may need
PATIENCE = {
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_health_check_failure_threshold": "100",
    "RAY_py_gcs_connect_timeout_s": "300",
    "RAY_worker_niceness": "0",
    "RAY_worker_register_timeout_seconds": "300",
}


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start a cluster of two nodes on this machine."""
    for name, value in PATIENCE.items():
        monkeypatch.setenv(name, value)
    ray = pytest.importorskip("ray")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    find_node = ray._private.services.get_node

    def find_node_patiently(*args: Any) -> Any:
        """Wait for a node for longer than the 30 seconds of Ray, as the machine may be busy."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            with contextlib.suppress(RuntimeError):
                return find_node(*args)
            time.sleep(0.5)
        return find_node(*args)

    monkeypatch.setattr("ray._private.services.get_node", find_node_patiently)
    size = {"num_cpus": 2, "object_store_memory": 200 * 2**20}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    try:
        cluster.add_node(**size)
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()


def list_actors() -> list[psutil.Process]:
    """Processes of this test's cluster that matte."""
    return [each for each in psutil.Process().children(recursive=True) if "RayMatter" in read_title(each)]


def read_title(process: psutil.Process) -> str:
    """Title of a process, or nothing if it has just ended."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


@pytest.mark.slow
def test_a_killed_worker_loses_no_row(tmp_path: Path, address: str) -> None:
    settings: dict[str, Any] = {
        "source": write_photos(tmp_path / "photos", ROWS, files=3),
        "model": save_tiny(tmp_path / "tiny"),
        "batch_size": 8,
        "rows_per_shard": SHARD,
        "threads": 1,
        "device": "cpu",
    }
    alone = BulkOptions(out=tmp_path / "alone", **settings)
    assert matte_dataset(alone) == BulkSummary(ROWS, ROWS // 20, 0)
    expected = read_mattes(alone.out)
    assert list(expected) == [str(number) for number in range(ROWS)]

    done: list[int] = []
    killed: list[int] = []

    def kill_an_actor() -> None:
        """Kill a worker once a third of the photos is done."""
        while sum(done) < ROWS // 3:
            time.sleep(0.05)
        actor = list_actors()[0]
        os.kill(actor.pid, signal.SIGKILL)
        killed.append(sum(done))

    killer = threading.Thread(target=kill_an_actor, daemon=True)
    killer.start()
    spread = BulkOptions(out=tmp_path / "spread", engine="ray", address=address, actors=2, **settings)
    summary = matte_dataset(spread, done.append)
    killer.join()
    print(f"killed after {killed} of {ROWS} photos")
    assert ROWS // 3 <= killed[0] < ROWS
    assert sum(done) == ROWS
    assert summary == BulkSummary(ROWS, ROWS // 20, 0)
    assert read_mattes(spread.out) == expected

    # what another engine has begun is continued
    for path in sorted(spread.out.glob("mattes-*"))[3:]:
        path.unlink()
    spread.engine, spread.address, spread.actors = "local", None, None
    assert matte_dataset(spread).resumed == 3 * SHARD
    assert read_mattes(spread.out) == expected


def test_ray_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    source = write_photos(tmp_path / "photos", 3)
    with pytest.raises(ImportError, match=r'engine "ray" requires Ray: pip install "fclm-hf\[ray\]"'):
        matte_dataset(BulkOptions(source, tmp_path / "out", engine="ray"))
