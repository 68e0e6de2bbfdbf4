"""Batches of rows: the same for any number of processes, in any layout, and from where a run was interrupted."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bulk_runs import write_photos
from photo_files import make_photo
from training_sets import encode, write_metadata, write_webdataset

from fclm_hf.bulk import BulkOptions
from fclm_hf.bulk.reading import BatchReader, RowBatch, count_members, join_members, list_members
from fclm_hf.bulk.shards import ShardEnd, ShardInfo
from fclm_hf.data import RetryPolicy, SourceConfig, open_source


def open_reader(source: SourceConfig, done: dict | None = None, **options: Any) -> BatchReader:
    options = {"batch_size": 3, "rows_per_shard": 5, **options}
    return BatchReader(open_source(source), BulkOptions(source, "out", **options), done or {}, RetryPolicy(0))


def read(reader: BatchReader, rank: int = 0, processes: int = 1) -> list[RowBatch]:
    pairs = list_members(reader.groups, processes)
    assert len(pairs) % processes == 0 or len(pairs) >= 4 * processes
    share = len(pairs) // processes
    parts = join_members(pairs[rank * share : (rank + 1) * share], count_members(reader.groups, processes))
    return [batch for part in parts for batch in reader.read(part)]


def by_place(batches: list[RowBatch]) -> dict[tuple[int, int, int], RowBatch]:
    """Batches by place; a position in a file has more than one notation, so only what it leads to is compared."""
    ends = [batch.end and replace(batch.end, position={}) for batch in batches]
    batches = [replace(batch, end=end) for batch, end in zip(batches, ends, strict=True)]
    found = {(batch.group, batch.number, batch.start): batch for batch in batches}
    assert len(found) == len(batches)
    return found


@pytest.mark.parametrize(("rows", "files"), [(23, 1), (20, 3)])
def test_processes_read_the_same_batches(tmp_path: Path, rows: int, files: int) -> None:
    reader = open_reader(write_photos(tmp_path, rows, files))
    whole = read(reader)
    assert [row["id"] for batch in whole for row in batch.rows] == list(map(str, range(rows)))
    assert {len(batch.rows) for batch in whole} <= {1, 2, 3}
    assert sum(batch.end is not None and batch.end.is_last for batch in whole) == files
    for processes in (2, 3, 4):
        parts = [read(reader, rank, processes) for rank in range(processes)]
        assert all(parts)
        assert by_place([batch for part in parts for batch in part]) == by_place(whole)


def test_what_is_missing_is_read(tmp_path: Path) -> None:
    """Shards that are done are left out, wherever they are, and reading starts after the leading ones."""
    source = write_photos(tmp_path, 25)
    batches = read(open_reader(source))
    whole, ends = by_place(batches), find_ends(batches)
    assert [end.is_last for end in ends.values()] == [False] * 4 + [True]  # 25 is a multiple of 5
    for done in ({0}, {0, 1, 3}, {1, 4}, set(range(5))):
        infos = {number: ShardInfo(5, 0, json_end(ends[number])) for number in done}
        reader = open_reader(source, {0: infos})
        batches = read(reader)
        assert by_place(batches) == {key: batch for key, batch in whole.items() if key[1] not in done}
        ends |= find_ends(batches)  # a run that was continued is continued
        assert reader.list_open_groups() == ([] if len(done) == 5 else [0])


def find_ends(batches: list[RowBatch]) -> dict[int, ShardEnd]:
    return {batch.number: batch.end for batch in batches if batch.end is not None}


def json_end(end: ShardEnd) -> ShardEnd:
    """What is left of an end in a file."""
    return ShardEnd(json.loads(json.dumps(end.position)), end.is_last)


def test_layouts_and_prompts(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.jpg", "deep/b.jpg"):
        make_photo().save(folder / name)
    assert [row["id"] for batch in read(open_reader(SourceConfig(str(folder), "photo"))) for row in batch.rows] == [
        "a.jpg",
        "deep/b.jpg",
    ]
    boxes = [[[1, 2, 30, 20]], [[1, 2, 30, 20], [5, 5, 9, 9]]]
    files = ("a.jpg", "deep/b.jpg")
    rows = [{"file_name": name, "bbox": box, "text": "x"} for name, box in zip(files, boxes, strict=True)]
    write_metadata(folder, rows)
    source = SourceConfig(str(folder), "photo", columns={"input_boxes": "bbox"})
    (batch,) = read(open_reader(source))
    assert [row["input_boxes"] for row in batch.rows] == boxes
    assert [row["text"] for row in batch.rows] == ["x", "x"]
    (batch,) = read(open_reader(SourceConfig(str(folder), "photo"), prompts={"text": "cat"}))
    assert [row.keys() for row in batch.rows] == [{"id", "image"}] * 2  # nothing from columns

    photo = encode(make_photo(), "JPEG")
    for part in range(2):
        samples = [(f"{part}{n}", {"jpg": photo, "json": json.dumps({"name": "low"}).encode()}) for n in range(4)]
        write_webdataset(tmp_path / "web" / f"train-{part}.tar", samples)
    source = SourceConfig(str(tmp_path / "web"), "photo", columns={"image": "jpg", "text": "json.name"})
    batches = read(open_reader(source))
    assert [row["id"] for batch in batches for row in batch.rows] == [f"{p}{n}" for p in range(2) for n in range(4)]
    assert {row["text"] for batch in batches for row in batch.rows} == {"low"}


def test_rows_without_ids_are_named_by_their_place(tmp_path: Path) -> None:
    source = write_photos(tmp_path, 7)
    source.columns["id"] = "text"  # null in every third row
    names = [row["id"] for batch in read(open_reader(source)) for row in batch.rows]
    assert names[0] == "00000-0000000"
    assert names[6] == "00000-0000006"
