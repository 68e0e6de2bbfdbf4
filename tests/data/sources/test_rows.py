"""Rows of streamed sources: split so that each is read once, shuffled, resumed exactly, also after lost connections."""

import json
import random
from collections import Counter
from typing import ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem
from huggingface_hub.utils import httpx
from training_sets import background_rows, encode, make_background, write_metadata, write_parquet, write_webdataset

from fclm_hf.data import LostConnectionError, RetryPolicy, Shard, SourceConfig, StreamError, open_source
from fclm_hf.data.sources.rows import OrderedRows, ShuffledRows


ROWS = 53
QUICK = RetryPolicy(max_retries=20, sleep=lambda seconds: None)


def write_set(folder, layout: str, files: int) -> SourceConfig:
    shuffle = {"shuffle_rows": 9}
    if layout == "parquet":
        return SourceConfig(str(write_parquet(folder, background_rows(ROWS), files)), "background", **shuffle)
    folder.mkdir()
    image = encode(make_background(0))
    if layout == "webdataset":
        for index, part in enumerate(np.array_split(np.arange(ROWS), files)):
            samples = [(str(number), {"png": image, "cls": str(number).encode()}) for number in part]
            write_webdataset(folder / f"train-{index:02d}.tar", samples)
        return SourceConfig(str(folder), "background", columns={"image": "png", "id": "cls"}, **shuffle)
    for number in range(ROWS):
        (folder / f"{number}.png").write_bytes(image)
    write_metadata(folder, [{"file_name": f"{number}.png", "id": number} for number in range(ROWS)])
    return SourceConfig(str(folder), "background", **shuffle)


def read(rows: ShuffledRows, count: int) -> list[tuple[int, int]]:
    """Epoch and id of the next rows."""
    found = []
    for _ in range(count):
        epoch, values = rows.peek()
        found.append((epoch, int(values["id"])))
        rows.advance()
    return found


LAYOUTS = [("parquet", 1), ("parquet", 4), ("webdataset", 4), ("folder", 1)]


@pytest.mark.parametrize(("layout", "files"), LAYOUTS)
@pytest.mark.parametrize("count", [1, 2, 4, 6, 8])
def test_every_row_is_in_exactly_one_shard(tmp_path, layout, files, count):
    """More shards than files, as many, and numbers that do not divide each other."""
    source = open_source(write_set(tmp_path / "set", layout, files))
    for epoch in range(2):
        seen = []
        for index in range(count):
            rows = OrderedRows(source, Shard(index, count), seed=3, retry=QUICK)
            for _ in range(epoch):
                list(iter(rows.read, None))
            part = [int(row["id"]) for row in iter(rows.read, None)]
            assert ROWS // count - files <= len(part) <= ROWS // count + files
            seen += part
        assert sorted(seen) == list(range(ROWS))


@pytest.mark.parametrize(("layout", "files"), LAYOUTS)
@pytest.mark.parametrize("shard", [Shard(), Shard(1, 3)])
def test_resume_at_any_row_is_bit_exact(tmp_path, layout, files, shard):
    source = open_source(write_set(tmp_path / "set", layout, files))
    total = 2 * ROWS // shard.count + 5
    rows = ShuffledRows(source, shard, seed=5, retry=QUICK)
    expected = read(rows, total + 3)
    assert max(epoch for epoch, _ in expected) == 2
    first = ShuffledRows(source, shard, seed=5, retry=QUICK)
    for done in range(0, total, 3):
        state = json.loads(json.dumps(first.state_dict()))
        resumed = ShuffledRows(source, shard, seed=5, retry=QUICK)
        resumed.load_state_dict(state)
        assert read(resumed, total - done) == expected[done:total]
        assert read(first, 3) == expected[done : done + 3]


def test_epochs_hold_every_row_once_in_another_order(tmp_path):
    source = open_source(write_set(tmp_path / "set", "parquet", 4))
    found = read(ShuffledRows(source, Shard(), seed=0, retry=QUICK), 3 * ROWS)
    orders = [[number for at, number in found if at == epoch] for epoch in range(3)]
    assert [epoch for epoch, _ in found] == sorted(epoch for epoch, _ in found)
    assert all(sorted(order) == list(range(ROWS)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert list(range(ROWS)) not in orders
    other = read(ShuffledRows(source, Shard(), seed=1, retry=QUICK), ROWS)
    assert [number for _, number in other] != orders[0]


def test_blocks_end_at_their_limits(tmp_path):
    config = write_set(tmp_path / "set", "parquet", 1)
    size = len(background_rows(1)[0]["image"]["bytes"])
    config.shuffle_rows, config.shuffle_megabytes = 1000, 5 * size / 2**20
    found = read(ShuffledRows(open_source(config), Shard(), seed=0, retry=QUICK), 20)
    blocks = [{number for _, number in found[start : start + 6]} for start in (0, 6, 12)]
    assert all(max(block) - min(block) < 8 for block in blocks)
    config.shuffle_rows = 1
    ordered = read(ShuffledRows(open_source(config), Shard(), seed=0, retry=QUICK), ROWS)
    assert [number for _, number in ordered] == list(range(ROWS))


def test_a_shard_without_rows_is_an_error(tmp_path):
    config = write_set(tmp_path / "set", "parquet", 1)
    with pytest.raises(StreamError, match="no rows for one of the shards: it is empty, keep accepts no row"):
        ShuffledRows(open_source(config), Shard(60, 61), seed=0, retry=QUICK).peek()
    config.keep = {"id": [-1]}
    with pytest.raises(StreamError, match="keep accepts no row"):
        ShuffledRows(open_source(config), Shard(), seed=0, retry=QUICK).peek()


class FlakyFileSystem(LocalFileSystem):
    """
    Local files behind a connection that drops one operation out of `every`. Like a streamed file of huggingface_hub, a
    file whose connection dropped reads as if it were at its end.
    """

    protocol = "flaky"
    every = 0
    chance = random.Random(0)
    drops: ClassVar[Counter[str]] = Counter()

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + str(path).removeprefix("flaky://").strip("/")

    def maybe_drop(self, what: str) -> None:
        if self.every and self.chance.randrange(self.every) == 0:
            self.drops[what] += 1
            raise httpx.ReadError(f"dropped while {what}")

    def _open(self, path, *args, **kwargs):
        self.maybe_drop("opening")
        file = super()._open(path, *args, **kwargs)
        read = file.read

        has_dropped = False

        def read_or_drop(*arguments):
            nonlocal has_dropped
            if has_dropped:
                return b""
            has_dropped = True
            self.maybe_drop("reading")
            has_dropped = False
            return read(*arguments)

        file.read = read_or_drop
        return file


@pytest.fixture
def flaky(monkeypatch):
    fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
    # `datasets` tries again to open a file, after pauses
    monkeypatch.setattr("datasets.config.STREAMING_OPEN_MAX_RETRIES", 1)
    monkeypatch.setattr("datasets.config.STREAMING_OPEN_RETRY_INTERVAL", 0)
    FlakyFileSystem.drops.clear()
    yield FlakyFileSystem
    FlakyFileSystem.every = 0


@pytest.mark.parametrize(("layout", "files", "every"), [("parquet", 4, 6), ("webdataset", 4, 4)])
def test_reading_resumes_after_dropped_connections(tmp_path, flaky, layout, files, every):
    config = write_set(tmp_path / "set", layout, files)
    pattern = "*.parquet" if layout == "parquet" else "*.tar"
    config.path, config.data_files = layout, f"flaky://{tmp_path}/set/{pattern}"
    source = open_source(config, QUICK)
    expected = read(ShuffledRows(source, Shard(), seed=2, retry=QUICK), 2 * ROWS)
    flaky.every = every
    pauses = []
    patient = RetryPolicy(max_retries=60, sleep=pauses.append)
    found = read(ShuffledRows(source, Shard(), seed=2, retry=patient), 2 * ROWS)
    assert found == expected
    assert {number for _, number in found} == set(range(ROWS))
    assert sum(flaky.drops.values()) >= 5
    assert len(pauses) >= 5
    flaky.every = 1
    with pytest.raises(LostConnectionError, match=r"Reading \w+ failed 3 times, the last time with \w*Error"):
        read(ShuffledRows(source, Shard(), seed=2, retry=RetryPolicy(max_retries=2, sleep=pauses.append)), 1)
