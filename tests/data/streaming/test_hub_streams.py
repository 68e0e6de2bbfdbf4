"""Training streams from Hub data sets over HTTP: with requests that fail, the batches are bit-identical."""

import json
from collections import Counter

import pytest
from paths import HELPERS, ROOT
from training_sets import (
    background_rows,
    cutout_rows,
    encode,
    make_background,
    make_cutout,
    write_metadata,
    write_parquet,
    write_webdataset,
)


LocalHub = pytest.importorskip("local_hub", reason="needs the local Hub of the tests").LocalHub

STREAM = """
    import hashlib, json, sys
    from itertools import islice
    import torch
    torch.set_num_threads(1)
    from tiny_model import tiny_tokenizer
    from fclm_hf.data import *

    def digest(batch):
        hashed = hashlib.md5()
        for key, value in batch.items():
            hashed.update(value.contiguous().numpy().tobytes() if hasattr(value, "numpy") else repr(value).encode())
        return hashed.hexdigest()

    def find(name, kind, **fields):
        return open_source(SourceConfig(f"tester/{name}", kind, shuffle_rows=10, **fields))

    foregrounds = [
        find("parquet", "rgba"),
        find("webdataset", "rgba", columns={"image": "png", "name": "json.name", "id": "json.id"}),
        find("training-set", "rgba", data_files="foregrounds.json", columns={"image": "file"}),
    ]
    backgrounds = [find("image-folder", "background")]
    settings = PairSettings(CompositionSettings(size=32), max_invalid_fraction=0.0, min_sample_count=1)
    stream = TrainingStream(foregrounds, backgrounds, tiny_tokenizer(), settings, BatchSettings(4, 1))
    loader = StreamLoader(stream, num_workers=2)
    batches = list(islice(loader, int(sys.argv[1])))
    seen = [key for batch in batches for keys in batch["sample_keys"] for key in keys]
    print(json.dumps([[digest(batch) for batch in batches], seen, loader.invalid_samples.skipped]))
"""


@pytest.fixture
def sets(hub, tmp_path):
    from local_hub.client import upload_data_sets

    folder = tmp_path / "sets"
    write_parquet(folder / "parquet", cutout_rows(40), files=4)
    for part in range(2):
        samples = [
            (
                f"{number}",
                {"png": encode(make_cutout(number)), "json": json.dumps({"name": "x", "id": number}).encode()},
            )
            for number in range(100 + part, 120, 2)
        ]
        write_webdataset(folder / "webdataset" / f"train-{part}.tar", samples)
    for name in ("training-set", "image-folder"):
        (folder / name / "files").mkdir(parents=True)
    entries = []
    for number in range(200, 220):
        make_cutout(number).save(folder / "training-set" / "files" / f"{number}.png")
        entries.append({"file": f"files/{number}.png", "name": f"thing {number}", "id": number})
    (folder / "training-set" / "foregrounds.json").write_text(json.dumps(entries))
    for row in background_rows(12):
        make_background(row["id"]).save(folder / "image-folder" / "files" / f"{row['id']}.png")
    write_metadata(folder / "image-folder" / "files", [{"file_name": f"{n}.png", "year": n} for n in range(12)])
    upload_data_sets(hub, tmp_path / "home", *sorted(folder.iterdir()))
    return hub


@pytest.mark.slow
def test_failing_requests_change_nothing(sets, tmp_path):
    from local_hub.client import run_client

    paths = f"{ROOT}:{HELPERS}"
    digests, seen, skipped = run_client(sets, tmp_path / "one", STREAM, 16, PYTHONPATH=paths)
    sets.log.clear()
    with sets.failing(drop=0.05, error=0.05):
        again = run_client(sets, tmp_path / "two", STREAM, 16, PYTHONPATH=paths)
    faults = Counter(entry.fault for entry in sets.log)
    assert faults["drop"] >= 3
    assert faults["error"] >= 3
    assert again == [digests, seen, skipped]
    assert skipped == 0
    assert len(set(digests)) == 16
    assert len({key.rpartition(":")[2] for _, key in seen}) > 40
