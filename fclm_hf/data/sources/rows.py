"""Endless rows of one source: split among consumers, shuffled, and resumable at any row."""

import math
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
from datasets.distributed import split_dataset_by_node

from .invalid_samples import StreamError
from .retry import Backoff, single_reads
from .source import Source


@dataclass(frozen=True)
class Share:
    """The part of every source that one worker of one process reads: part `index` of `count`."""

    index: int = 0
    count: int = 1


def split_rows(dataset: datasets.IterableDataset, share: Share) -> datasets.IterableDataset:
    """The rows of one share: every row is in exactly one.

    Consumers are split over as many groups of files as divide evenly; in a group each takes one row out of as many as
    there are members. With as many files as consumers, or a multiple, no file is read twice; with one file all read it.
    """
    groups = math.gcd(dataset.num_shards, share.count)
    dataset = dataset.shard(num_shards=groups, index=share.index % groups)
    return split_dataset_by_node(dataset, rank=share.index // groups, world_size=share.count // groups)


class OrderedRows:
    """Rows of a share, epoch after epoch, each epoch with the files in another order.

    A connection that drops is taken up again at the row that comes next.
    """

    def __init__(self, source: Source, share: Share, seed: int, backoff: Backoff):
        self._source = source
        self._dataset = split_rows(source.dataset, share)  # a copy: its epoch is not shared with other workers
        self._seed = seed
        self._backoff = backoff
        self.epoch = 0
        self._position: dict[str, Any] | None = None
        self._iterator = None

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self._position = state["epoch"], state["position"]
        self._iterator = None

    def read(self) -> dict[str, Any] | None:
        """The next row of the epoch by role; None once at its end, after which the next epoch begins."""
        while True:
            row = self._backoff.run(self._read, f"Reading {self._source.config.label}")
            if row is None:
                self.epoch, self._position, self._iterator = self.epoch + 1, None, None
                return None
            if self._source.accepts(row):
                return self._source.read_roles(row)

    def _read(self) -> dict[str, Any] | None:
        if self._iterator is None:
            # `datasets` orders files by its epoch; 0 would leave them as they are
            self._dataset.set_epoch(1 + int(np.random.default_rng([self._seed, self.epoch]).integers(2**31)))
            self._dataset.load_state_dict(self._position)
            # not iter(dataset), which would split the rows among the workers of a DataLoader once more
            self._iterator = self._dataset.iter(batch_size=1)
        try:
            with single_reads():
                row = next(self._iterator, None)
        except BaseException as error:
            self._iterator = None  # begins again at the last known position
            if isinstance(error, FileNotFoundError) and "://" in str(error):
                # it was there when the source was opened: `datasets` says so too when it cannot ask
                raise ConnectionError(str(error)) from error
            raise
        self._position = self._dataset.state_dict()
        return None if row is None else {name: values[0] for name, values in row.items()}


@dataclass
class Block:
    """Rows that are shuffled together, and the state of the reader where they begin."""

    start: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    size: int = 0
    is_full: bool = False


class ShuffledRows:
    """Rows in blocks, each in a random order. Blocks end with their epoch, so an epoch holds every row once.

    While a block is handed out the next one is read row by row, so that reading does not come in bursts. The position
    is where the block begins and how many of its rows are done: to resume, the block is read again. A shuffle buffer
    would lose what it holds.
    """

    def __init__(self, source: Source, share: Share, seed: int, backoff: Backoff):
        self._config = source.config
        self._rows = OrderedRows(source, share, seed, backoff)
        self._seed = [seed, share.index]
        self._begin(blocks=0, done=0)

    def _begin(self, blocks: int, done: int) -> None:
        self._blocks, self._done = blocks, done
        self._block: Block | None = None
        self._ahead = Block(self._rows.state_dict())

    def state_dict(self) -> dict[str, Any]:
        start = self._ahead.start if self._block is None else self._block.start
        return {"start": start, "blocks": self._blocks, "done": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rows.load_state_dict(state["start"])
        self._begin(state["blocks"], state["done"])

    def peek(self) -> tuple[int, dict[str, Any]]:
        """Epoch and row that come next."""
        if self._block is None:
            self._start_block()
        return self._block.start["epoch"], self._block.rows[self._order[self._done]]

    def advance(self) -> None:
        """Goes on to the next row."""
        self._grow(self._ahead)
        self._done += 1
        if self._done == len(self._block.rows):
            self._block, self._blocks, self._done = None, self._blocks + 1, 0

    def _start_block(self) -> None:
        block = self._ahead
        while not block.is_full:
            self._grow(block)
        if not block.rows:
            raise StreamError(
                f"{self._config.label} has no rows for one of the worker processes: it is empty, keep leaves nothing"
                " over, or there are more worker processes than rows."
            )
        self._order = np.random.default_rng([*self._seed, self._blocks]).permutation(len(block.rows))
        self._block, self._ahead = block, Block(self._rows.state_dict())

    def _grow(self, block: Block) -> None:
        if block.is_full:
            return
        row = self._rows.read()
        if row is None:
            # an epoch may end just where a block does
            block.is_full = bool(block.rows) or block.start["position"] is None
            block.start = block.start if block.rows else self._rows.state_dict()
            return
        block.rows.append(row)
        block.size += _count_bytes(row)
        megabytes = self._config.shuffle_megabytes
        block.is_full = len(block.rows) >= self._config.shuffle_rows or block.size >= megabytes * 2**20


def _count_bytes(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_count_bytes, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(_count_bytes, value))
    return len(value) if isinstance(value, (bytes, str)) else 0
