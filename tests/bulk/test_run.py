"""Runs over a data set: results, resumption after a kill, several processes, and errors before any work."""

import io
import os
import signal
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from bulk_runs import photo_rows, read_mattes, save_tiny, start_processes, write_photos
from PIL import Image
from transformers import pipeline

from fclm_hf import ReferringMattingPipeline
from fclm_hf.bulk import BulkOptions, BulkSummary, PhotoMatter, matte_dataset
from fclm_hf.data import SourceConfig


ROWS = 60


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SourceConfig:
    return write_photos(tmp_path_factory.mktemp("photos"), ROWS, files=3)


@pytest.fixture
def options(source: SourceConfig, checkpoint: str, tmp_path: Path) -> BulkOptions:
    return BulkOptions(
        source, tmp_path / "out", model=checkpoint, batch_size=4, rows_per_shard=8, threads=1, device="cpu"
    )


@pytest.fixture(scope="module")
def mattes(source: SourceConfig, checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What a run in one process writes."""
    out = tmp_path_factory.mktemp("whole")
    options = BulkOptions(
        source, out, model=checkpoint, batch_size=4, rows_per_shard=8, threads=1, device="cpu", workers=1
    )
    counts: list[int] = []
    assert matte_dataset(options, counts.append) == BulkSummary(ROWS, 3, 0)
    assert sum(counts) == ROWS
    assert max(counts) == 4
    assert len(list(out.iterdir())) == 9
    return read_mattes(out)


def test_mattes_are_those_of_the_pipeline(mattes: dict, checkpoint: str) -> None:
    torch.set_num_threads(1)
    assert list(mattes) == [str(number) for number in range(ROWS)]
    matting = pipeline("referring-matting", model=checkpoint, device="cpu", pipeline_class=ReferringMattingPipeline)
    for row in photo_rows(ROWS)[:21]:
        found, error = mattes[str(row["id"])]
        if row["id"] == 19:
            assert (found, error[:22]) == ([], "image (200 bytes) is n")
            continue
        assert error is None
        expected = matting(row["image"]["bytes"], text=row["text"], cutout=False)
        expected = expected if isinstance(expected, list) else [expected]
        assert len(found) == len(expected) == max(len(row["text"] or []), 1)
        for data, result in zip(found, expected, strict=True):
            levels = np.asarray(Image.open(io.BytesIO(data)), np.int16)
            # photos of a batch are encoded together, which may round differently
            assert np.abs(levels - np.asarray(result["alpha"], np.int16)).max() <= 1


def test_a_killed_run_is_continued(options: BulkOptions, mattes: dict) -> None:
    (process,) = start_processes(options, 1)
    while len(list(options.out.glob("mattes-*"))) < 2:
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    (options.out / ".unfinished-0-mattes-00002-00000.parquet").write_bytes(b"half")
    before = {path.name: path.stat().st_mtime_ns for path in options.out.glob("mattes-*")}
    assert 2 <= len(before) < 9
    (options.out / "mattes-00000-00000.parquet").unlink()  # a hole, as several processes leave
    summary = matte_dataset(options)
    assert (summary.rows, summary.errors) == (ROWS, 3)
    assert 0 < summary.resumed < ROWS
    assert read_mattes(options.out) == mattes
    assert not list(options.out.glob(".*"))
    kept = set(before) - {"mattes-00000-00000.parquet"}
    assert all((options.out / name).stat().st_mtime_ns == before[name] for name in kept)
    assert matte_dataset(options).resumed == ROWS


def test_two_processes_divide_the_work(options: BulkOptions, mattes: dict) -> None:
    processes = start_processes(options, 2)
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0]
    assert read_mattes(options.out) == mattes


def test_cutouts_and_prompts_for_all(options: BulkOptions, tmp_path: Path) -> None:
    options.out, options.cutout, options.prompts = tmp_path / "cutouts", True, {"input_boxes": [[5, 5, 30, 30]]}
    options.source = write_photos(tmp_path / "few", 3)
    matte_dataset(options)
    rows = datasets.load_dataset(str(options.out), split="train", cache_dir=tmp_path / "cache")
    rows = rows.cast_column("mattes", datasets.List(datasets.Image()))
    assert [[each.mode for each in row["mattes"]] for row in rows] == [["RGBA"]] * 3
    assert rows[1]["mattes"][0].size == (58, 48)
    assert all(row["seconds"] > 0 for row in rows)


def test_other_settings_are_refused(options: BulkOptions, tmp_path: Path) -> None:
    options.source = write_photos(tmp_path / "few", 3)
    matte_dataset(options)
    options.cutout = True
    with pytest.raises(ValueError, match="holds mattes of other settings: cutout was False and is True"):
        matte_dataset(options)
    write_photos(tmp_path / "few", 3, files=2)
    (tmp_path / "few" / "train-000-of-001.parquet").unlink()
    options.cutout = False
    with pytest.raises(ValueError, match="groups was 1 and is 2"):
        matte_dataset(options)
    options.out = tmp_path / "few"
    (tmp_path / "few" / "train-000-of-002.parquet").rename(tmp_path / "few" / "mattes-0-0.parquet")
    with pytest.raises(ValueError, match="out must hold mattes of fclm_hf only, got"):
        matte_dataset(options)


def test_what_does_not_fit_in_memory_is_done_one_by_one(
    options: BulkOptions, mattes: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    matter = PhotoMatter(options, base="")
    forward = matter.pipe.forward

    def run(batch: dict, **kwargs: object) -> dict:
        if len(batch["image"]) > 1 or batch["image"][0].width == 58:
            raise torch.OutOfMemoryError("out of memory")
        return forward(batch, **kwargs)

    monkeypatch.setattr(matter.pipe, "forward", run)
    small, large = matter.matte_rows([{"id": str(row["id"]), "image": row["image"]} for row in photo_rows(2)])
    assert (small["error"], large["error"]) == (None, "out of memory")
    assert len(small["mattes"]) == 1
    assert large["mattes"] == []


def test_options_that_are_refused(source: SourceConfig, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for fields, problem in (
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"dtype": "int8"}, "dtype must be one of float32, float16, bfloat16, got 'int8'"),
        ({"engine": "dask"}, "engine must be one of local, ray, got 'dask'"),
        ({"actors": 2}, "actors must be used with engine 'ray', got engine 'local'"),
        ({"out": tmp_path / "file"}, "out must be a folder, got the file"),
        ({"prompts": {"texts": "dog"}}, "prompts must be text, input_boxes, .*, got texts"),
        ({"source": SourceConfig("photos", "background")}, "source must be of kind 'photo', got 'background'"),
    ):
        with pytest.raises(ValueError, match=problem):
            BulkOptions(**{"source": source, "out": tmp_path / "out", **fields})
