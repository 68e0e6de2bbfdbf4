"""The whole stream: batches from worker processes that resume bit-exactly and divide the data among processes."""

import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from PIL import Image
from tiny_model import tiny_tokenizer
from training_sets import background_rows, cutout_rows, encode, make_background, write_parquet

from fclm_hf.data import (
    BatchSettings,
    CompositionSettings,
    InvalidSampleCounter,
    PairSettings,
    RetryPolicy,
    SourceConfig,
    StreamError,
    StreamLoader,
    TooManyInvalidSamplesError,
    TrainingStream,
    open_source,
)


SIZE = 32


def photo_rows(count: int) -> list[dict]:
    alpha = np.zeros((24, 24), np.uint8)
    alpha[4:20, 6:18] = 255
    cell = {"bytes": encode(Image.fromarray(alpha)), "path": None}
    return [
        {"image": {"bytes": encode(make_background(number)), "path": None}, "alpha": cell, "name": "a", "id": number}
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Cut-outs in two files and photos in one, with a few invalid rows, and backgrounds."""
    folder = tmp_path_factory.mktemp("sets")
    cutouts, photos = cutout_rows(40), photo_rows(15)
    for number in (3, 17, 30):
        cutouts[number]["image"]["bytes"] = cutouts[number]["image"]["bytes"][:90]
    photos[4]["image"]["bytes"] = b""
    write_parquet(folder / "cutouts", cutouts, files=2)
    write_parquet(folder / "photos", photos)
    write_parquet(folder / "backgrounds", background_rows(20))
    return folder


def open_sets(folder, photo_weight: float = 1.0) -> dict:
    configs = [
        SourceConfig(str(folder / "cutouts"), "rgba", weight=3.0, shuffle_rows=16),
        SourceConfig(str(folder / "photos"), "image_alpha", weight=photo_weight, shuffle_rows=5),
    ]
    return {
        "foregrounds": [open_source(config) for config in configs],
        "backgrounds": [open_source(SourceConfig(str(folder / "backgrounds"), "background"))],
    }


def make_loader(
    sources: dict,
    workers: int = 0,
    batch_size: int = 3,
    rank: int = 0,
    world_size: int = 1,
    plant_prob: float = 0.0,
    num_shards: int | None = None,
    **pairs,
):
    settings = PairSettings(
        CompositionSettings(size=SIZE, plant_prob=plant_prob), **{"max_invalid_fraction": 0.5, **pairs}
    )
    batches = BatchSettings(batch_size, prompts_per_image=2)
    stream = TrainingStream(
        **sources,
        tokenizer=tiny_tokenizer(),
        pairs=settings,
        batches=batches,
        rank=rank,
        world_size=world_size,
        num_shards=num_shards,
    )
    return StreamLoader(stream, num_workers=workers)


def take(loader: StreamLoader, count: int) -> list[dict]:
    return [batch for _, batch in zip(range(count), loader, strict=False)]


def assert_same(one: list[dict], two: list[dict]) -> None:
    assert len(one) == len(two)
    for first, second in zip(one, two, strict=True):
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert torch.equal(value, second[key]) if isinstance(value, torch.Tensor) else value == second[key], key


def test_a_batch_holds_what_training_needs(sets):
    (batch,) = take(make_loader(open_sets(sets)), 1)
    image, mask = (3, 3, SIZE, SIZE), (3, SIZE, SIZE)
    assert batch["pixel_values_a"].shape == batch["pixel_values_b"].shape == image
    assert batch["pixel_values_a"].abs().max() <= 1
    assert batch["pixel_values_a"].dtype == torch.float32
    assert not torch.equal(batch["pixel_values_a"], batch["pixel_values_b"])
    assert batch["pixel_mask"].shape == batch["foreground"][:, 0].shape == mask
    assert batch["labels"].shape == (3, 2, SIZE, SIZE)
    assert batch["object_mask"].all()
    assert batch["labels"].min() >= 0
    assert (batch["labels"] <= batch["foreground"] + 1e-5).all()
    assert batch["input_points"].shape[:2] == batch["input_boxes"].shape[:2] == batch["input_ids"].shape[:2] == (3, 2)
    padding = batch["pixel_mask"] == 0
    assert not batch["pixel_values_b"].permute(0, 2, 3, 1)[padding].any()
    assert not batch["foreground"][:, 0][padding].any()
    for keys in batch["sample_keys"]:
        assert all(epoch == 0 and ":" in key for epoch, key in keys)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_resume_is_bit_exact(sets, workers):
    sources = open_sets(sets)
    loader = make_loader(sources, workers, plant_prob=0.1)
    expected, states = [], []
    for batch in loader:
        expected.append(batch)
        states.append(json.loads(json.dumps(loader.state_dict())))
        if len(expected) == 30:
            break
    # in the second epoch, with invalid samples behind it
    assert {epoch for batch in expected for keys in batch["sample_keys"] for epoch, _ in keys} >= {0, 1}
    counter = loader.invalid_samples
    assert counter.skipped >= 4
    assert counter.reasons.keys() == {"broken or truncated image", "file of zero bytes"}
    # from states of the first run, then from a state of the resumed one
    state, done = states[0], 1
    for end in (14, 30):
        resumed = make_loader(sources, workers, plant_prob=0.1)
        resumed.load_state_dict(state)
        assert_same(take(resumed, end - done), expected[done:end])
        state, done = json.loads(json.dumps(resumed.state_dict())), end
    assert resumed.invalid_samples == counter
    last = make_loader(sources, workers, plant_prob=0.1)
    last.load_state_dict(states[26])
    assert_same(take(last, 3), expected[27:])


def test_one_loader_resumes_after_a_break(sets):
    sources = open_sets(sets)
    expected = take(make_loader(sources, 2), 7)
    loader = make_loader(sources, 2)
    assert_same(take(loader, 3) + take(loader, 4), expected)


def test_another_seed_gives_other_batches(sets):
    sources = open_sets(sets)
    (one,), (other,) = take(make_loader(sources), 1), take(make_loader(sources, seed=1), 1)
    assert not torch.equal(one["pixel_values_a"], other["pixel_values_a"])


def test_a_stream_can_be_sent_to_another_process(sets):
    """Where processes are not forked, it is pickled."""
    loader = make_loader(open_sets(sets))
    copy = StreamLoader(pickle.loads(pickle.dumps(loader.stream)), num_workers=0)
    assert_same(take(copy, 2), take(loader, 2))


def test_resume_refuses_the_state_of_another_run(sets):
    sources = open_sets(sets)
    loader = make_loader(sources)
    take(loader, 1)
    state = loader.state_dict()
    for changes, message in (
        ({"seed": 5}, "seed must be 0, as when the state was saved, got 5"),
        ({"num_shards": 2}, "num_shards must be 1, as when the state was saved, got 2"),
    ):
        with pytest.raises(ValueError, match=message):
            make_loader(sources, **changes).load_state_dict(state)
    with pytest.raises(ValueError, match=r"state must be one of this release, .*start a new run from its weights"):
        loader.load_state_dict({"seed": 0, "rank": 0, "world_size": 1, "workers": 1, "consumed": 1, "states": {}})


def test_sources_are_mixed_by_their_weights(sets):
    """The first sample of each pair comes from the cut-outs with weight 3 or from the photos with weight 6."""
    loader = make_loader(open_sets(sets, photo_weight=6.0), batch_size=60)
    firsts = [keys[0][1] for batch in take(loader, 4) for keys in batch["sample_keys"]]
    share, expected = np.mean(["/photos:" in key for key in firsts]), 6 / 9
    assert abs(share - expected) < 3 * np.sqrt(expected * (1 - expected) / len(firsts))


def test_plants_are_a_share_of_the_cutouts(sets):
    """Of the draws with weight 3, a quarter is plants; photos keep to their weight."""
    sources = open_sets(sets)
    for source in sources["foregrounds"]:  # without broken ones, in whose place plants may come again
        source.config.keep = {"id": [number for number in range(40) if number not in (3, 4, 17, 30)]}
    loader = make_loader(sources, batch_size=60, plant_prob=0.25)
    firsts = [keys[0][1] for batch in take(loader, 4) for keys in batch["sample_keys"]]
    for pattern, expected in (("plant:", 1 / 5), ("/photos:", 1 / 5)):
        share = np.mean([pattern in key for key in firsts])
        assert abs(share - expected) < 3 * np.sqrt(expected * (1 - expected) / len(firsts))
    grown = [key for key in firsts if "plant:" in key]
    assert len(set(grown)) == len(grown)
    with pytest.raises(ValueError, match=r"composition.plant_prob must be in \[0, 1\), got 1"):
        make_loader(open_sets(sets), plant_prob=1.0)


def test_pairs_hold_one_to_three_objects_of_different_names(sets):
    sources = open_sets(sets)
    sources["foregrounds"] = sources["foregrounds"][:1]
    keys = [keys for batch in take(make_loader(sources, batch_size=40), 3) for keys in batch["sample_keys"]]
    counts = Counter(map(len, keys))
    assert set(counts) == {1, 2, 3}
    assert min(counts.values()) > 5
    assert all(len({key for _, key in each}) == len(each) for each in keys)


def test_objects_of_one_name_are_never_in_one_pair_and_none_is_lost(tmp_path, sets):
    rows = cutout_rows(12)
    for row in rows:
        row["name"] = f"object {row['id'] % 2}"
    sources = open_sets(sets)
    sources["foregrounds"] = [open_source(SourceConfig(str(write_parquet(tmp_path / "two", rows)), "rgba"))]
    found: list[tuple[int, int]] = []
    for batch in make_loader(sources, batch_size=2):
        for keys in batch["sample_keys"]:
            numbers = [int(key.rpartition(":")[2]) for _, key in keys]
            assert len({number % 2 for number in numbers}) == len(numbers) <= 2
            found += [(epoch, number) for (epoch, _), number in zip(keys, numbers, strict=True)]
        if len(found) > 40:
            break
    assert [sorted(n for epoch, n in found[12 * e : 12 * e + 12] if epoch == e) for e in range(3)] == [
        list(range(12))
    ] * 3


def test_errors_of_a_worker_are_raised_unchanged(sets):
    sources = open_sets(sets)
    sources["foregrounds"] = sources["foregrounds"][:1]
    with pytest.raises(
        TooManyInvalidSamplesError, match=r"^\d+ of \d+ samples skipped; \d+ x broken or truncated image"
    ):
        take(make_loader(sources, 1, max_invalid_fraction=0.01, min_sample_count=20), 40)
    sources["foregrounds"] = [
        open_source(SourceConfig(str(sets / "cutouts"), "rgba", keep={"id": [-5]})),
    ]
    with pytest.raises(StreamError, match="has no rows for one of the shards"):
        take(make_loader(sources, 2), 1)


def test_sources_of_the_wrong_kind_are_refused(sets):
    sources = open_sets(sets)
    with pytest.raises(ValueError, match="backgrounds must be sources of kind 'background', got rgba, image_alpha"):
        make_loader({"foregrounds": sources["foregrounds"], "backgrounds": sources["foregrounds"]})
    wanted = "any other than 'background' and 'photo'"
    with pytest.raises(ValueError, match=f"foregrounds must be sources of kind {wanted}, got none"):
        make_loader({"foregrounds": [], "backgrounds": sources["backgrounds"]})
    photos = [open_source(SourceConfig(str(sets / "cutouts"), "photo"))]
    with pytest.raises(ValueError, match=f"kind {wanted}, got photo"):
        make_loader({"foregrounds": photos, "backgrounds": sources["backgrounds"]})
    with pytest.raises(ValueError, match=r"rank must be in 0\.\.1 for world_size 2, got 2"):
        make_loader(sources, rank=2, world_size=2)


def test_workers_compute_in_one_thread(sets):
    """Arrow, the queue and BLAS keep threads of their own in a worker; all of its work is done in the first one."""
    loader = make_loader(open_sets(sets), workers=1, batch_size=8)
    batches = iter(loader)
    for _ in range(4):
        next(batches)
    (worker,) = (child for child in psutil.Process().children() if child.name() == "pt_data_worker")
    spent = {thread.id: thread.user_time + thread.system_time for thread in worker.threads()}
    others = sum(seconds for number, seconds in spent.items() if number != worker.pid)
    batches.close()
    assert spent[worker.pid] > 0.1
    assert others < 0.2 * spent[worker.pid]


NUMBERED = 1000
FILES = {"one": 1, "eight": 8}


def read_one_epoch(rank: int, folder: str) -> None:
    """One of two processes with two workers each: gathers what all saw in epoch 0."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    sources = {
        "foregrounds": [open_source(SourceConfig(f"{folder}/{name}", "rgba")) for name in FILES],
        "backgrounds": [open_source(SourceConfig(f"{folder}/backgrounds", "background"))],
    }
    loader = make_loader(sources, 2, batch_size=10, rank=rank, world_size=2, retry=RetryPolicy(0))
    seen, later, pairs = [], Counter(), 0
    for number, batch in enumerate(loader):
        pairs += sum(any(epoch == 0 for epoch, _ in keys) for keys in batch["sample_keys"])
        for epoch, key in (entry for keys in batch["sample_keys"] for entry in keys):
            label, _, identity = key.rpartition(":")
            seen += [int(identity)] * (epoch == 0)
            later[label, number % 2] += epoch > 0
        if len(later) == 4 and min(later.values()) > 0:
            break
    gathered = [None, None]
    torch.distributed.all_gather_object(gathered, (seen, loader.invalid_samples, pairs))
    if rank == 0:
        total = InvalidSampleCounter.merge(counter for _, counter, _ in gathered)
        ids, _, pairs = zip(*gathered, strict=True)
        result = {"shares": ids, "pairs": pairs, "used": total.used}
        (Path(folder) / "result.json").write_text(json.dumps(result))
    torch.distributed.destroy_process_group()


def test_two_processes_with_two_workers_see_each_of_a_thousand_samples_once(tmp_path):
    rows = cutout_rows(NUMBERED)
    for part, (name, files) in enumerate(FILES.items()):
        write_parquet(tmp_path / name, rows[part::2], files)
    write_parquet(tmp_path / "backgrounds", background_rows(40))
    torch.multiprocessing.start_processes(read_one_epoch, args=(str(tmp_path),), nprocs=2, start_method="fork")
    result = json.loads((tmp_path / "result.json").read_text())
    assert abs(result["pairs"][0] - result["pairs"][1]) <= 10  # a batch; each of one to three objects
    assert all(abs(len(share) - NUMBERED // 2) <= 50 for share in result["shares"])
    assert sorted(result["shares"][0] + result["shares"][1]) == list(range(NUMBERED))
    assert result["used"] > NUMBERED


def make_masked_loader(folder: Path, batches: BatchSettings, **fields) -> StreamLoader:
    """Return a loader of photos with the coarse masks of a cat and of two dogs."""
    masks = [np.zeros((24, 24), np.uint8) for _ in range(3)]
    masks[0][4:20, 1:8], masks[1][4:20, 9:15], masks[2][4:20, 16:23] = 255, 255, 255
    rows = [
        {
            "image": encode(make_background(number)),
            "alphas": [encode(Image.fromarray(mask)) for mask in masks],
            "names": ["cat", "dog", "dog"],
        }
        for number in range(6)
    ]
    write_parquet(folder / "photos", rows)
    cutouts = [{**row, "name": 3 * letter} for row, letter in zip(cutout_rows(6), "abcdef", strict=True)]
    write_parquet(folder / "cutouts", cutouts)
    write_parquet(folder / "backgrounds", background_rows(4))
    photos = SourceConfig(str(folder / "photos"), "instances", mask_quality="coarse", **fields)
    stream = TrainingStream(
        [open_source(photos), open_source(SourceConfig(str(folder / "cutouts"), "rgba"))],
        [open_source(SourceConfig(str(folder / "backgrounds"), "background"))],
        tokenizer=tiny_tokenizer(),
        pairs=PairSettings(CompositionSettings(size=SIZE, photo_texture_prob=0.0, plant_prob=0.0), whole_photo_prob=1),
        batches=batches,
    )
    return StreamLoader(stream, num_workers=0)


def test_regions_come_with_all_names_that_fit(tmp_path):
    settings = BatchSettings(batch_size=8, has_regions=True, contrast_names=("cat", "zebra"))
    loader = make_masked_loader(tmp_path, settings)
    batch = next(iter(loader))
    names = tiny_tokenizer().batch_decode(batch["name_ids"], skip_special_tokens=True)
    assert {"cat", "dog", "zebra"} <= set(names)
    assert len(set(names)) == len(names)
    assert batch["region_names"].shape == (*batch["region_alphas"].shape[:2], len(names))
    is_photo = [key.startswith(str(tmp_path / "photos")) for ((_, key), *_) in batch["sample_keys"]]
    assert 0 < sum(is_photo) < 8
    for index in np.flatnonzero(is_photo):
        found = [[names[place] for place in row.nonzero()[:, 0]] for row in batch["region_names"][index]]
        assert found[:3] == [["cat"], ["dog"], ["dog"]]  # both dogs, although "dog" means neither of them alone
        assert batch["region_alphas"][index, :3].amax((1, 2)).tolist() == [255] * 3
        assert not batch["region_alphas"][index, 3:].any()
    assert not batch["region_names"][..., names.index("zebra")].any()


def test_sources_that_edges_are_learned_from(tmp_path):
    settings = BatchSettings(batch_size=8)
    plain = next(iter(make_masked_loader(tmp_path, settings)))
    assert "learns_edges" not in plain
    assert "region_alphas" not in plain
    for wish, expected in ((False, False), (True, True)):
        batch = next(iter(make_masked_loader(tmp_path, settings, learn_edges=wish)))
        is_photo = ["photos" in keys[0][1] for keys in batch["sample_keys"]]
        assert batch["learns_edges"].tolist() == [expected if photo else True for photo in is_photo]
        assert torch.equal(batch["pixel_values_a"], plain["pixel_values_a"])
    assert not SourceConfig("a", "instances", mask_quality="coarse").learns_edges


def test_coarse_masks_come_with_a_label_mask(tmp_path):
    mask = np.zeros((24, 24), np.uint8)
    mask[4:20, 6:18] = 255
    rows = [
        {"image": encode(make_background(number)), "alphas": [encode(Image.fromarray(mask))], "names": ["cat"]}
        for number in range(6)
    ]
    write_parquet(tmp_path / "photos", rows)
    write_parquet(tmp_path / "backgrounds", background_rows(4))
    sources = {
        "foregrounds": [open_source(SourceConfig(str(tmp_path / "photos"), "instances", mask_quality="coarse"))],
        "backgrounds": [open_source(SourceConfig(str(tmp_path / "backgrounds"), "background"))],
    }
    pairs, batches = PairSettings(CompositionSettings(size=SIZE)), BatchSettings(batch_size=4, prompts_per_image=2)
    stream = TrainingStream(**sources, tokenizer=tiny_tokenizer(), pairs=pairs, batches=batches)
    batch = next(iter(StreamLoader(stream, num_workers=0)))
    assert batch["label_mask"].dtype == torch.bool
    assert batch["label_mask"].shape == batch["labels"].shape
    assert 0 < (~batch["label_mask"]).float().mean() < 0.5
    assert set(batch["labels"].unique().tolist()) == set(batch["foreground"].unique().tolist()) == {0.0, 1.0}
