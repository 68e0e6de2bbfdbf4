"""A run over a whole data set: what is missing is read, matted and written, in one process, several, or with Ray."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from ..data import RetryPolicy, open_source
from ..utils.files import remove_unfinished
from .matting import PhotoMatter
from .options import BulkOptions
from .reading import BatchReader, Part, RowBatch, count_groups, count_members, join_members, list_members
from .shards import find_path, find_shards, list_infos, write_shard


@dataclass(frozen=True)
class BulkSummary:
    """What a finished run has made.

    Args:
        rows: Number of rows in the output folder.
        errors: Number of those without mattes.
        resumed: Number of rows that earlier runs had made.

    Example:
        >>> from fclm_hf.bulk import BulkSummary
        >>> print(BulkSummary(rows=1000, errors=2, resumed=512))
        1000 photos: 998 matted, 2 failed; 512 of them by earlier runs.
    """

    rows: int
    errors: int
    resumed: int

    def __str__(self) -> str:
        text = f"{self.rows} photos: {self.rows - self.errors} matted, {self.errors} failed"
        return text + (f"; {self.resumed} of them by earlier runs." if self.resumed else ".")


def matte_dataset(
    options: BulkOptions, report: Callable[[int], None] | None = None, matter: PhotoMatter | None = None
) -> BulkSummary | None:
    """Matte a data set and write Parquet files with the columns `id`, `mattes`, `seconds` and `error`.

    `mattes` is a list of PNG files, one for each object. What cannot be matted has an `error` and no mattes. A run that
    was interrupted, or even killed, is continued: each row is in the files once. Processes that `accelerate launch` or
    `torchrun` started divide the work.

    Args:
        options: Options of the run.
        report: Called with the number of rows after each batch.
        matter: What mattes the photos, if a model is loaded already. It is not used by Ray.

    Returns:
        What is in the output folder; None in all processes but the first.

    Raises:
        ValueError: If the data set does not exist, lacks a column, or the output folder holds mattes of other settings.
        LostConnectionError: If the connection stays down.
        ImportError: If Ray is not installed.

    Example:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from fclm_hf.bulk import BulkOptions, matte_dataset
        >>> from fclm_hf.data import SourceConfig
        >>> Path("photos").mkdir()
        >>> for name in ("navy", "olive"):
        ...     Image.new("RGB", (64, 48), name).save(f"photos/{name}.png")
        >>> options = BulkOptions(SourceConfig("photos", "photo"), "mattes", prompts={"text": "dog"}, device="cpu")
        >>> print(matte_dataset(options))
        2 photos: 2 matted, 0 failed.
        >>> print(matte_dataset(options))
        2 photos: 2 matted, 0 failed; 2 of them by earlier runs.
    """
    retry = RetryPolicy()
    source = open_source(options.source, retry)
    settings = {**options.describe(), "groups": count_groups(source)}
    state = _join_processes(options)
    if state is None or state.is_main_process:
        options.out.mkdir(parents=True, exist_ok=True)
        remove_unfinished(options.out)
    done = find_shards(options.out, settings)
    _wait(state)
    writer = _ShardWriter(options, settings)
    for batch in _start_engine(options, BatchReader(source, options, done, retry), state, matter):
        writer.add(batch)
        if report is not None:
            report(len(batch.rows))
    _wait(state)
    if state is not None and not state.is_main_process:
        return None
    infos = list(list_infos(find_shards(options.out, settings)))
    return BulkSummary(
        sum(info.rows for info in infos), sum(info.errors for info in infos), sum(i.rows for i in list_infos(done))
    )


class _ShardWriter:
    """Collects batches in any order, and writes each shard once it is complete.

    Args:
        options: Options of the run.
        settings: Settings of the run.
    """

    def __init__(self, options: BulkOptions, settings: dict[str, Any]) -> None:
        self.options, self.settings = options, settings
        self._batches: dict[tuple[int, int], dict[int, RowBatch]] = {}

    def add(self, batch: RowBatch) -> None:
        """Add a batch."""
        key = batch.group, batch.number
        batches = self._batches.setdefault(key, {})
        batches[batch.start] = batch
        last = max(batches.values(), key=lambda each: each.start)
        rows = [row for start in sorted(batches) for row in batches[start].rows]
        if last.end is not None and len(rows) == last.start + len(last.rows):
            write_shard(find_path(self.options.out, *key), rows, last.end, self.settings)
            del self._batches[key]


def _start_engine(
    options: BulkOptions, reader: BatchReader, state: Any, matter: PhotoMatter | None
) -> Iterator[RowBatch]:
    """Yield matted batches in any order."""
    if not reader.list_open_groups():
        return iter(())
    if options.engine == "ray":
        from .ray_engine import matte_with_ray

        return matte_with_ray(options, reader)
    return _matte_locally(options, reader, state, matter)


def _matte_locally(
    options: BulkOptions, reader: BatchReader, state: Any, matter: PhotoMatter | None
) -> Iterator[RowBatch]:
    """Yield the matted batches of this process."""
    if state is not None and options.device is None:
        options = replace(options, device=str(state.device))
    matter = matter or PhotoMatter(options, reader.source.base, reader.retry)
    batches = (batch for part in list_parts(reader.groups, state) for batch in reader.read(part))
    with ThreadPoolExecutor(options.workers) as pool:
        pending: deque[Future[RowBatch]] = deque()
        try:
            for batch in batches:
                pending.append(pool.submit(matter, batch))
                if len(pending) > options.workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def list_parts(groups: int, state: Any) -> list[Part]:
    """Return what this process reads.

    Args:
        groups: Number of groups of input files.
        state: `accelerate.PartialState`, or None for a single process.
    """
    if state is None:
        return [Part(group) for group in range(groups)]
    with state.split_between_processes(list_members(groups, state.num_processes)) as mine:
        return join_members(mine, count_members(groups, state.num_processes))


def _join_processes(options: BulkOptions) -> Any:
    """Return `accelerate.PartialState` if several processes have been started, else None."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or options.engine == "ray":
        return None
    from accelerate import PartialState

    # the first process may wait for the last one for as long as shards take
    return PartialState(cpu=options.device == "cpu", timeout=timedelta(days=30))


def _wait(state: Any) -> None:
    """Wait until all processes are here."""
    if state is not None:
        state.wait_for_everyone()
