"""Endless rows of one source: split into shards, shuffled in blocks, and resumable at any row.

Three layers, each of which knows only the one below:

1. [`~fclm_hf.data.sources.retry.ResumableReader`] reads the rows of one epoch in order.
2. [`OrderedRows`] chains epochs and looks up the role of each column. Its state is the epoch and the position in it.
3. [`ShuffledRows`] shuffles blocks of consecutive rows. A block is first *filled* row by row, then *served* in random
   order while the next one is filled. Its state is where the served block begins, its number, and how many of its rows
   are done, so resuming reads one block again. A shuffle buffer would lose its content.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
from datasets.distributed import split_dataset_by_node

from .invalid_samples import StreamError
from .retry import ResumableReader, RetryPolicy
from .source import Source


@dataclass(frozen=True)
class Shard:
    """A part of every source.

    Args:
        index: Number of the part, from 0.
        count: Number of parts.

    Example:
        >>> from fclm_hf.data import Shard
        >>> Shard(2, 8)
        Shard(index=2, count=8)
    """

    index: int = 0
    count: int = 1


def split_rows(dataset: datasets.IterableDataset, shard: Shard) -> datasets.IterableDataset:
    """Return the rows of one shard; every row is in exactly one.

    Files and shards are divided evenly into as many groups as possible. The n shards of a group each take every n-th
    row of its files. If the number of files is a multiple of the number of shards, no file is read twice; a single file
    is read by every shard.
    """
    groups = math.gcd(dataset.num_shards, shard.count)
    dataset = dataset.shard(num_shards=groups, index=shard.index % groups)
    return split_dataset_by_node(dataset, rank=shard.index // groups, world_size=shard.count // groups)


class OrderedRows:
    """Rows of a shard, epoch after epoch, each epoch with the files in another order.

    Args:
        source: The source to read.
        shard: The part of it to read.
        seed: Seed of the order of files.
        retry: Policy for lost connections.
    """

    def __init__(self, source: Source, shard: Shard, seed: int, retry: RetryPolicy):
        self._source = source
        self._dataset = split_rows(source.dataset, shard)  # a copy: its epoch is not shared with other workers
        self._seed = seed
        self._retry = retry
        self._reader: ResumableReader | None = None
        self._start_epoch(0)

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and the position after the last row that was read."""
        return {"epoch": self.epoch, "position": self._reader.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a position that [`state_dict`] returned."""
        self._start_epoch(state["epoch"], state["position"])

    def read(self) -> dict[str, Any] | None:
        """Return the next row of the epoch by role, or None once at its end; then the next epoch begins."""
        while (row := self._reader.read()) is not None:
            if self._source.accepts(row):
                return self._source.read_roles(row)
        self._start_epoch(self.epoch + 1)
        return None

    def _start_epoch(self, epoch: int, position: dict[str, Any] | None = None) -> None:
        self.epoch = epoch
        # `datasets` shuffles files by its own epoch number, except for 0
        self._dataset.set_epoch(1 + int(np.random.default_rng([self._seed, epoch]).integers(2**31)))
        self._reader = ResumableReader(self._dataset, self._source.config.label, self._retry, position)


@dataclass
class Block:
    """Consecutive rows of one epoch that are shuffled together.

    Attributes:
        start: State of [`OrderedRows`] before the first row.
        rows: The rows, by role.
        num_bytes: Size of all images and strings in `rows`.
        is_full: Whether no row may be added.
    """

    start: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    num_bytes: int = 0
    is_full: bool = False


class ShuffledRows:
    """Rows in blocks, each in a random order.

    A block ends with its epoch at the latest, so an epoch holds every row once. While a block is served, each step
    adds a row to the next one, so that reading does not come in bursts.

    Args:
        source: The source to read.
        shard: The part of it to read.
        seed: Seed of the order of files and rows.
        retry: Policy for lost connections.
    """

    def __init__(self, source: Source, shard: Shard, seed: int, retry: RetryPolicy):
        self._config = source.config
        self._reader = OrderedRows(source, shard, seed, retry)
        self._seed = [seed, shard.index]
        self._restart(number=0, done=0)

    def state_dict(self) -> dict[str, Any]:
        """Return where the served block starts, its number, and how many of its rows are done."""
        block = self._filling if self._serving is None else self._serving
        return {"start": block.start, "blocks": self._number, "done": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a row whose state [`state_dict`] returned."""
        self._reader.load_state_dict(state["start"])
        self._restart(state["blocks"], state["done"])

    def peek(self) -> tuple[int, dict[str, Any]]:
        """Return the epoch and the values by role of the next row, without moving on.

        Raises:
            StreamError: If the shard has no rows, or the connection stays down.
        """
        if self._serving is None:
            self._serve_next_block()
        return self._serving.start["epoch"], self._serving.rows[self._order[self._done]]

    def advance(self) -> None:
        """Move on to the next row."""
        self._add_row(self._filling)
        self._done += 1
        if self._done == len(self._serving.rows):
            self._serving, self._number, self._done = None, self._number + 1, 0

    def _restart(self, number: int, done: int) -> None:
        """Fill the block of this `number` from where the reader is; `done` of its rows have been served."""
        self._number, self._done = number, done
        self._serving: Block | None = None
        self._filling = Block(self._reader.state_dict())

    def _serve_next_block(self) -> None:
        """Complete and shuffle the block that is being filled, and begin the next one."""
        block = self._filling
        while not block.is_full:
            self._add_row(block)
        if not block.rows:
            raise StreamError(
                f"{self._config.label} has no rows for one of the shards: it is empty, keep accepts no row, or there"
                " are more shards (num_shards) than rows or files with rows."
            )
        self._order = np.random.default_rng([*self._seed, self._number]).permutation(len(block.rows))
        self._serving, self._filling = block, Block(self._reader.state_dict())

    def _add_row(self, block: Block) -> None:
        """Add the next row to a block unless it is full."""
        if block.is_full:
            return
        row = self._reader.read()
        if row is None:
            self._end_epoch(block)
            return
        block.rows.append(row)
        block.num_bytes += _count_bytes(row)
        max_bytes = self._config.shuffle_megabytes * 2**20
        block.is_full = len(block.rows) >= self._config.shuffle_rows or block.num_bytes >= max_bytes

    def _end_epoch(self, block: Block) -> None:
        """Close a block that holds the epoch's last row; move an empty one to the start of the next epoch."""
        if block.rows:
            block.is_full = True
            return
        # an empty block at the start of an epoch means that the whole epoch is empty
        block.is_full = block.start["position"] is None
        block.start = self._reader.state_dict()


def _count_bytes(value: Any) -> int:
    """Return the size of the bytes and strings inside nested lists and dicts."""
    if isinstance(value, dict):
        return sum(map(_count_bytes, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(_count_bytes, value))
    return len(value) if isinstance(value, (bytes, str)) else 0
