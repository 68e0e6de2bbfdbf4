"""Photos to matte by the hundred, runs in processes of their own, and what they have written."""

import os
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from photo_files import make_photo
from tiny_model import tiny_model, tiny_processor
from training_runs import FORKS, find_free_port
from training_sets import encode, write_parquet

from fclm_hf.bulk import BulkOptions, matte_dataset
from fclm_hf.data import SourceConfig


def save_tiny(folder: Path) -> str:
    """Save a tiny checkpoint."""
    tiny_model().save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return str(folder)


def photo_rows(count: int, broken_every: int = 20) -> list[dict[str, Any]]:
    """Return rows with numbers as ids, and text prompts; some of them are truncated or empty files."""
    rows = []
    for number in range(count):
        data = encode(make_photo(50 + number % 3 * 8, 40 + number % 2 * 8, seed=number), "JPEG")
        if number % broken_every == broken_every - 1:
            data = data[:200] if number % (2 * broken_every) == broken_every - 1 else b""
        image = {"bytes": data, "path": None}
        rows.append({"id": number, "image": image, "text": ["low"] * (number % 3) or None})
    return rows


def write_photos(folder: Path, count: int, files: int = 1, **options: Any) -> SourceConfig:
    """Write photos to Parquet files and return them as a source."""
    write_parquet(folder, photo_rows(count, **options), files)
    return SourceConfig(str(folder), "photo")


def read_mattes(out: Path) -> dict[str, tuple[list[bytes], str | None]]:
    """Return mattes and error of each id, which must be in the files once."""
    rows = [row for path in sorted(out.glob("mattes-*.parquet")) for row in pq.read_table(path).to_pylist()]
    found = {row["id"]: (row["mattes"], row["error"]) for row in rows}
    assert len(found) == len(rows)
    return found


def start_processes(options: BulkOptions, count: int) -> Sequence[BaseProcess]:
    """Start a run in several processes, as torchrun does."""
    port = find_free_port()
    processes = []
    for rank in range(count):
        environment = {"WORLD_SIZE": str(count), "RANK": str(rank), "LOCAL_RANK": str(rank)}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
        processes.append(FORKS.Process(target=_run, args=(options, environment)))
        processes[-1].start()
    return processes


def _run(options: BulkOptions, environment: dict[str, str]) -> None:
    """Run in a child process; all but the first must return nothing."""
    os.environ.update(environment)
    summary = matte_dataset(options)
    assert (summary is None) == (environment["RANK"] != "0")
