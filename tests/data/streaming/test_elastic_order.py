"""The order of the samples does not depend on the numbers of processes and workers, also where a run resumes."""

import json
import multiprocessing
import os
import random
import signal
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import tiny_tokenizer
from training_sets import background_rows, cutout_rows, encode, make_cutout, write_parquet, write_webdataset

from fclm_hf.data import (
    BatchSettings,
    CompositionSettings,
    PairSettings,
    RetryPolicy,
    SourceConfig,
    StreamLoader,
    TrainingStream,
    open_source,
)
from fclm_hf.data.streaming.dataloader import merge_states


GLOBAL_BATCH = 8
ROWS = 10_000
Keys = list[list[tuple[int, str]]]


def write_sets(folder: Path, count: int, files: int) -> None:
    """Write half of the cut-outs to Parquet files and half to WebDataset files, and backgrounds; none is broken."""
    rows = cutout_rows(count)
    write_parquet(folder / "parquet", rows[: count // 2], files)
    for index, part in enumerate(np.array_split(np.arange(count // 2, count), files)):
        samples = [
            (str(row), {"png": encode(make_cutout(row)), "json": json.dumps({"name": f"object {row}"}).encode()})
            for row in part
        ]
        write_webdataset(folder / "webdataset" / f"train-{index:03d}.tar", samples)
    write_parquet(folder / "backgrounds", background_rows(40), files)


def make_loader(folder: Path, rank: int = 0, processes: int = 1, workers: int = 0, **fields) -> StreamLoader:
    columns = {"image": "png", "name": "json.name"}
    configs = [
        SourceConfig(str(folder / "parquet"), "rgba", shuffle_rows=50),
        SourceConfig(str(folder / "webdataset"), "rgba", shuffle_rows=50, columns=columns),
    ]
    pairs = PairSettings(CompositionSettings(size=16, plant_prob=0.05), retry=RetryPolicy(0), max_invalid_fraction=1)
    stream = TrainingStream(
        [open_source(config) for config in configs],
        [open_source(SourceConfig(str(folder / "backgrounds"), "background"))],
        tiny_tokenizer(),
        pairs,
        BatchSettings(GLOBAL_BATCH // processes, prompts_per_image=1),
        rank=rank,
        world_size=processes,
        **fields,
    )
    return StreamLoader(stream, workers)


def read(loaders: list[StreamLoader], steps: int) -> tuple[Keys, torch.Tensor]:
    """Return the samples and pixels of the pairs of some steps, in the order of the processes."""
    keys, pixels = [], []
    for batches in islice(zip(*loaders, strict=True), steps):
        keys += [each for batch in batches for each in batch["sample_keys"]]
        pixels += [batch[name] for batch in batches for name in ("pixel_values_a", "labels")]
    return keys, torch.cat([each.flatten() for each in pixels])


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    write_sets(folder, 120, files=4)
    return folder


@pytest.mark.parametrize("num_shards", [1, 4, 3])
def test_the_pairs_are_the_same_for_any_processes_and_workers(sets, num_shards):
    """Each number resumes where another one stopped."""
    steps, done, state = [3, 2, 3, 4, 2], 0, None
    expected, _ = read([make_loader(sets, num_shards=num_shards)], sum(steps))
    assert len({tuple(each) for pair in expected for each in pair}) > 100
    for (processes, workers), count in zip([(4, 0), (1, 3), (2, 1), (4, 0), (1, 1)], steps, strict=True):
        loaders = [make_loader(sets, rank, processes, workers, num_shards=num_shards) for rank in range(processes)]
        if state is not None:
            for rank, loader in enumerate(loaders):
                loader.load_state_dict(merge_states(state, rank, processes))
        keys, _ = read(loaders, count)
        state = json.loads(json.dumps([loader.state_dict() for loader in loaders]))
        assert keys == expected[done * GLOBAL_BATCH : (done + count) * GLOBAL_BATCH]
        done += count


def test_the_pixels_are_the_same_and_one_state_suffices(sets):
    keys, pixels = read([make_loader(sets)], 2)
    loaders = [make_loader(sets, rank, 2) for rank in range(2)]
    first = read(loaders, 1)
    half = len(first[1])
    state = loaders[1].state_dict()  # without the shards that only the other process has read
    resumed = [make_loader(sets, rank, 4) for rank in range(4)]
    for loader in resumed:
        loader.load_state_dict(state)
    second = read(resumed, 1)
    assert [*first[0], *second[0]] == keys
    # the labels of a process follow its pixels
    assert half * 2 == len(pixels)
    assert torch.equal(torch.cat([first[1], second[1]]).sort().values, pixels.sort().values)


def test_shards_are_chosen_by_files(sets):
    assert make_loader(sets).stream.num_shards == 4
    with pytest.raises(ValueError, match="num_shards must be at least 1, got 0"):
        make_loader(sets, num_shards=0)


def test_invalid_samples_do_not_change_the_others(sets, tmp_path):
    """Others of the group take the place of an invalid sample, in every process in the same way."""
    rows = cutout_rows(60)
    for number in range(0, 60, 3):
        rows[number]["image"]["bytes"] = b"no image"
    write_parquet(tmp_path / "parquet", rows)
    for name in ("webdataset", "backgrounds"):
        (tmp_path / name).symlink_to(sets / name)
    keys, _ = read([make_loader(tmp_path)], 8)
    assert not [key for pair in keys for _, key in pair if "parquet" in key and int(key.rpartition(":")[2]) % 3 == 0]
    loaders = [make_loader(tmp_path, rank, 4) for rank in range(4)]
    assert read(loaders, 8)[0] == keys
    skipped = sum(loader.invalid_samples.skipped for loader in loaders)
    whole = make_loader(tmp_path)
    read([whole], 8)
    assert skipped == whole.invalid_samples.skipped > 5


def log_pairs(folder: Path, out: Path, rank: int, processes: int, workers: int, step: int) -> None:
    """One process of a run, which appends the samples of each step to a file and saves its state after each fifth."""
    torch.set_num_threads(1)
    loader = make_loader(folder, rank, processes, workers)
    if step:
        states = [json.loads(path.read_text()) for path in sorted(out.glob(f"state-{step:05d}-*.json"))]
        loader.load_state_dict(merge_states(states, rank, processes))
    with (out / f"log-{step:05d}-{rank}.jsonl").open("w") as log:
        for batch in loader:
            step += 1
            log.write(json.dumps([step, batch["sample_keys"]]) + "\n")
            if step % 5 == 0:
                log.flush()
                temporary = out / f"unfinished-{rank}"
                temporary.write_text(json.dumps(loader.state_dict()))
                temporary.replace(out / f"state-{step:05d}-{rank}-of-{processes}.json")


def find_step(out: Path) -> int:
    """Return the last step that all processes have saved."""
    saved: dict[int, list[str]] = {}
    for path in out.glob("state-*.json"):
        _, step, _, _, processes = path.stem.split("-")
        saved.setdefault(int(step), []).append(processes)
    return max((step for step, found in saved.items() if len(found) == int(found[0])), default=0)


@pytest.mark.slow
def test_ten_thousand_rows_once_in_order_through_kills(tmp_path):
    """Runs of 1, 2 or 4 processes with 0, 1 or 3 workers each, killed at any moment, continue each other exactly."""
    write_sets(tmp_path, ROWS, files=8)
    out = tmp_path / "out"
    out.mkdir()
    rng, context, step, pairs, kills = random.Random(0), multiprocessing.get_context("fork"), 0, {}, 0
    shapes = [(processes, workers) for processes in (1, 2, 4) for workers in (0, 1, 3)]
    rng.shuffle(shapes)
    last = 0
    while last == 0 or step < last:
        shape = shapes[kills % len(shapes)]
        group = [
            context.Process(target=log_pairs, args=(tmp_path, out, rank, *shape, step)) for rank in range(shape[0])
        ]
        for process in group:
            process.start()
        goal = step + rng.randint(60, 120)
        while find_step(out) < goal:
            assert all(process.is_alive() for process in group)
            time.sleep(rng.uniform(0.01, 0.05))
        for process in group:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        end = find_step(out)
        for rank in range(shape[0]):
            for line in (out / f"log-{step:05d}-{rank}.jsonl").read_text().splitlines():
                if line.endswith("]]]]") and (number := json.loads(line)[0]) <= end:
                    pairs.setdefault(number, {})[rank] = json.loads(line)[1]
        for path in out.glob("state-*.json"):
            if int(path.stem.split("-")[1]) != end:
                path.unlink()
        step, kills = end, kills + 1
        epochs = [epoch for each in pairs[step].values() for pair in each for epoch, key in pair if "plant" not in key]
        last = last or (step + 60 if min(epochs) > 0 else 0)
    found = [pair for number in range(1, step + 1) for rank in sorted(pairs[number]) for pair in pairs[number][rank]]
    expected, _ = read([make_loader(tmp_path)], step)
    assert found == [[list(each) for each in pair] for pair in expected]
    rows = [int(key.rpartition(":")[2]) for pair in found for epoch, key in pair if epoch == 0 and "plant" not in key]
    assert sorted(rows) == list(range(ROWS))
    assert kills >= len(shapes)
