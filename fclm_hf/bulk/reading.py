"""Rows of a data set in batches that do not depend on the number of processes, from where a run was interrupted."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..data import RetryPolicy, Source
from ..data.sources.retry import ResumableReader
from ..data.sources.samples import find_identity
from .options import BulkOptions
from .shards import ShardEnd, ShardInfo, Shards, count_leading, is_complete


MAX_GROUPS = 1024  # the files of a data set are read in at most this many groups
Row = dict[str, Any]


@dataclass(frozen=True)
class RowBatch:
    """Consecutive rows of a shard.

    Args:
        group: Number of the group of input files.
        number: Number of the shard in its group.
        start: Number of the first row in its shard.
        rows: The rows: "id", the undecoded "image", and prompts; or what has been made of them.
        end: What follows the shard, in its last batch.
    """

    group: int
    number: int
    start: int
    rows: list[Row]
    end: ShardEnd | None


@dataclass(frozen=True)
class Part:
    """What a process reads of a group of input files: of every `count` shards those with these numbers.

    Args:
        group: Number of the group.
        members: Remainders of the numbers of the shards, divided by `count`.
        count: Number of members that share the group.
    """

    group: int
    members: tuple[int, ...] = (0,)
    count: int = 1

    def has(self, number: int) -> bool:
        """Return whether the shard of this number belongs to the part."""
        return number % self.count in self.members


def count_groups(source: Source) -> int:
    """Return the number of groups in which the files of a source are read, whatever the number of processes."""
    return min(source.dataset.num_shards, MAX_GROUPS)


def list_members(groups: int, processes: int) -> list[tuple[int, int]]:
    """Return (group, member) pairs that can be divided among processes; groups have as few members as possible."""
    count = count_members(groups, processes)
    return [(group, member) for group in range(groups) for member in range(count)]


def count_members(groups: int, processes: int) -> int:
    """Return the number of processes that share each group of input files: 1 if there are many groups."""
    return 1 if groups >= 4 * processes else processes // math.gcd(groups, processes)


def join_members(pairs: Sequence[tuple[int, int]], count: int) -> list[Part]:
    """Return the parts of a process, one for each group; a group is read once for all of its members.

    Args:
        pairs: Pairs of group and member.
        count: Number of members of each group.
    """
    groups: dict[int, list[int]] = {}
    for group, member in pairs:
        groups.setdefault(group, []).append(member)
    return [Part(group, tuple(members), count) for group, members in groups.items()]


class BatchReader:
    """Reads the batches of a source that are not done.

    Args:
        source: The opened source.
        options: Options of the run.
        done: Shards that have been written.
        retry: Policy for lost connections.
    """

    def __init__(self, source: Source, options: BulkOptions, done: Shards, retry: RetryPolicy) -> None:
        self.source, self.options, self.done, self.retry = source, options, done, retry
        self.groups = count_groups(source)
        self._roles = ["image", *options.list_prompt_roles(source)]

    def list_open_groups(self) -> list[int]:
        """Return the numbers of the groups that lack shards."""
        return [group for group in range(self.groups) if not is_complete(self.done.get(group, {}))]

    def read(self, part: Part) -> Iterator[RowBatch]:
        """Yield the batches of a part, without those of shards that are done.

        Args:
            part: What to read.

        Raises:
            LostConnectionError: If the connection stays down.
        """
        done = self.done.get(part.group, {})
        if is_complete(done):
            return
        number = count_leading(done)
        before = done[number - 1] if number else None
        rows = _GroupRows(self.source, part.group, self.groups, self.retry, before)
        while rows.has_more():
            if number in done or not part.has(number):
                rows.skip(self.options.rows_per_shard)
            else:
                yield from self._read_shard(rows, part.group, number)
            number += 1

    def _read_shard(self, rows: "_GroupRows", group: int, number: int) -> Iterator[RowBatch]:
        """Yield the batches of the next shard."""
        size = self.options.rows_per_shard
        start, batch = 0, []
        for index in range(size):
            values, position = rows.read()
            batch.append(self._make_row(values, f"{group:05d}-{number * size + index:07d}"))
            is_last = not rows.has_more()
            end = ShardEnd(position, is_last) if is_last or index + 1 == size else None
            if end is not None or len(batch) == self.options.batch_size:
                yield RowBatch(group, number, start, batch, end)
                start, batch = index + 1, []
            if is_last:
                return

    def _make_row(self, values: Row, place: str) -> Row:
        """Return the id, image and prompts of a row; without an id or path its place in the data set is its id."""
        identity = find_identity(self.source, values)
        row = {role: values[role] for role in self._roles if values[role] is not None or role == "image"}
        return {"id": place if identity is None else identity, **row}


class _GroupRows:
    """Rows of a group of input files, with one row read ahead.

    Args:
        source: The opened source.
        group: Number of the group.
        groups: Number of groups.
        retry: Policy for lost connections.
        before: The shard after which to start, if any.
    """

    def __init__(self, source: Source, group: int, groups: int, retry: RetryPolicy, before: ShardInfo | None) -> None:
        self._source = source
        dataset = source.dataset.shard(num_shards=groups, index=group)
        self._reader = ResumableReader(dataset, source.config.label, retry, before.end.position if before else None)
        self._next = self._read()

    def has_more(self) -> bool:
        """Return whether there are more rows."""
        return self._next is not None

    def read(self) -> tuple[Row, dict[str, Any]]:
        """Return the next row by role, and the position after it."""
        row, position = self._next
        self._next = self._read()
        return self._source.read_roles(row), position

    def skip(self, count: int) -> None:
        """Skip so many rows, or those that are left."""
        for _ in range(count):
            if self._next is not None:
                self._next = self._read()

    def _read(self) -> tuple[Row, dict[str, Any]] | None:
        """Return the next accepted row and the position after it."""
        while (row := self._reader.read()) is not None:
            if self._source.accepts(row):
                return row, self._reader.position
        return None
