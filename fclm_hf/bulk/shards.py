"""Output files: each holds consecutive rows of one group of input files, and what a resumed run must know of them."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from ..utils.files import write_atomically
from ..utils.settings import find_changes


SCHEMA = pyarrow.schema(
    [
        ("id", pyarrow.string()),
        ("mattes", pyarrow.list_(pyarrow.binary())),
        ("seconds", pyarrow.float64()),
        ("error", pyarrow.string()),
    ]
)
_KEY = b"fclm_hf"


@dataclass(frozen=True)
class ShardEnd:
    """What follows a shard.

    Args:
        position: Position of the reader after the last row.
        is_last: Whether the group of input files has no further rows.
    """

    position: dict[str, Any]
    is_last: bool


@dataclass(frozen=True)
class ShardInfo:
    """A shard that has been written.

    Args:
        rows: Number of rows.
        errors: Number of rows without mattes.
        end: What follows it.
    """

    rows: int
    errors: int
    end: ShardEnd


Shards = dict[int, dict[int, ShardInfo]]  # by group of input files, and number in the group


def find_path(out: Path, group: int, number: int) -> Path:
    """Return the path of a shard."""
    return out / f"mattes-{group:05d}-{number:05d}.parquet"


def write_shard(path: Path, rows: list[dict[str, Any]], end: ShardEnd, settings: dict[str, Any]) -> ShardInfo:
    """Write a shard atomically.

    Args:
        path: The file.
        rows: Dicts with the columns `id`, `mattes`, `seconds` and `error`.
        end: What follows the shard.
        settings: Settings of the run, as values that JSON can represent.

    Returns:
        What the file says about itself.
    """
    info = ShardInfo(len(rows), sum(row["error"] is not None for row in rows), end)
    metadata = {_KEY: json.dumps({"settings": settings, "shard": asdict(info)}).encode()}
    table = pyarrow.Table.from_pylist(rows, SCHEMA.with_metadata(metadata))
    with write_atomically(path) as temporary:
        # PNG is compressed already
        parquet.write_table(table, temporary, compression={"id": "zstd", "error": "zstd"}, row_group_size=100)
    return info


def find_shards(out: Path, settings: dict[str, Any]) -> Shards:
    """Return the shards in a folder.

    Args:
        out: The folder.
        settings: Settings of the run.

    Returns:
        The shards by group and number.

    Raises:
        ValueError: If they have been written with other settings; the error lists the differences.
    """
    found: Shards = {}
    now = json.loads(json.dumps(settings))
    for path in sorted(out.glob("mattes-*.parquet")):
        record = json.loads((parquet.read_schema(path).metadata or {}).get(_KEY, b"null"))
        if record is None:
            raise ValueError(f"out must hold mattes of fclm_hf only, got {path}.")
        if changes := list(find_changes(record["settings"], now)):
            raise ValueError(f"{out} holds mattes of other settings: {'; '.join(changes)}. Choose another folder.")
        _, group, number = path.stem.split("-")
        shard = record["shard"]
        info = ShardInfo(shard["rows"], shard["errors"], ShardEnd(**shard["end"]))
        found.setdefault(int(group), {})[int(number)] = info
    return found


def count_leading(shards: dict[int, ShardInfo]) -> int:
    """Return the number of shards of a group before the first one that is missing."""
    return next(number for number in range(len(shards) + 1) if number not in shards)


def is_complete(shards: dict[int, ShardInfo]) -> bool:
    """Return whether all shards of a group are there."""
    leading = count_leading(shards)
    return leading > 0 and shards[leading - 1].end.is_last


def list_infos(shards: Shards) -> Iterator[ShardInfo]:
    """Yield all shards."""
    for group in shards.values():
        yield from group.values()
