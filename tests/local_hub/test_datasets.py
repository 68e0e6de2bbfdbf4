"""The real `datasets` client streams from the local Hub, also when requests fail."""

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from local_hub import LocalHub
from local_hub.client import run_client, upload_data_sets
from photo_files import make_photo


STREAM = """
    import hashlib, json, sys
    import datasets, numpy
    for name in ("STREAMING_READ_RETRY_INTERVAL", "STREAMING_READ_SERVER_UNAVAILABLE_RETRY_INTERVAL"):
        setattr(datasets.config, name, 0)

    def describe(value):
        if hasattr(value, "getpixel"):
            return [value.size, hashlib.md5(numpy.asarray(value).tobytes()).hexdigest()]
        return value

    rows = {}
    for name in sys.argv[1:]:
        stream = datasets.load_dataset(f"tester/{name}", split="train", streaming=True)
        rows[name] = [{key: describe(value) for key, value in row.items()} for row in stream]
    print(json.dumps(rows))
"""


def write_parquet(folder: Path) -> None:
    rows = [{"id": number, "noise": np.random.default_rng(number).bytes(500)} for number in range(1000)]
    for shard in range(4):
        part = Dataset.from_list([{**row, "noise": row["noise"].hex()} for row in rows[shard::4]])
        part.to_parquet(folder / "data" / f"train-{shard:05d}-of-00004.parquet")


def write_webdataset(folder: Path) -> None:
    for shard in range(2):
        with tarfile.open(folder / f"train-{shard}.tar", "w") as tar:
            for number in range(shard, 8, 2):
                buffer = io.BytesIO()
                make_photo(seed=number).save(buffer, "PNG")
                label = json.dumps({"id": number}).encode()
                for name, content in ((f"{number:03d}.png", buffer.getvalue()), (f"{number:03d}.json", label)):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))


def write_image_folder(folder: Path) -> None:
    lines = []
    for number in range(5):
        make_photo(seed=number).save(folder / "train" / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "text": f"cat {number}"}))
    (folder / "train" / "metadata.jsonl").write_text("\n".join(lines))


WRITERS = {"parquet": write_parquet, "webdataset": write_webdataset, "image-folder": write_image_folder}


@pytest.fixture
def datasets_hub(hub: LocalHub, tmp_path: Path) -> LocalHub:
    folders = [tmp_path / "data" / name for name in WRITERS]
    for folder, write in zip(folders, WRITERS.values(), strict=True):
        for subfolder in ("data", "train"):
            (folder / subfolder).mkdir(parents=True)
        write(folder)
    upload_data_sets(hub, tmp_path / "home", *folders)
    return hub


def test_streaming(datasets_hub: LocalHub, tmp_path: Path) -> None:
    rows = run_client(datasets_hub, tmp_path / "home", STREAM, *WRITERS, USE_TORCH="0")
    assert [row["id"] for row in rows["parquet"]] == [number for shard in range(4) for number in range(shard, 1000, 4)]
    assert all(bytes.fromhex(row["noise"]) == np.random.default_rng(row["id"]).bytes(500) for row in rows["parquet"])
    assert [row["json"]["id"] for row in rows["webdataset"]] == [0, 2, 4, 6, 1, 3, 5, 7]
    assert len({row["png"][1] for row in rows["webdataset"]}) == 8
    assert [row["text"] for row in rows["image-folder"]] == [f"cat {number}" for number in range(5)]
    assert {row["image"][1] for row in rows["image-folder"]} < {row["png"][1] for row in rows["webdataset"]}
    assert {tuple(row["png"][0]) for row in rows["webdataset"]} == {(50, 40)}

    with datasets_hub.failing(drop=0.15, error=0.15, only="GET /(cdn|datasets)"):
        again = run_client(datasets_hub, tmp_path / "other", STREAM, *WRITERS, USE_TORCH="0")
    faults = Counter(entry.fault for entry in datasets_hub.log)
    assert faults["drop"] + faults["error"] >= 3
    assert again == rows
