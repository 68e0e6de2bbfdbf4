"""Broken prompts and checkpoint files give a result or a documented error; `fuzz_checkpoints.py` tries thousands."""

import collections
import os
import random
from pathlib import Path

import pytest
from checkpoint_mutations import KINDS, PROMPTS, HostileCheckpoint
from limits import SECONDS, find_time


RUNS = int(os.environ.get("FCLM_FUZZ_RUNS", "16"))  # of each kind


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> HostileCheckpoint:
    return HostileCheckpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_broken_does_no_harm(checkpoint: HostileCheckpoint, kind: str) -> None:
    outcomes: collections.Counter[str] = collections.Counter()
    for seed in range(RUNS):
        start = find_time()
        outcomes[checkpoint.try_one(kind, random.Random(seed))] += 1
        assert find_time() - start < SECONDS
    assert outcomes.keys() <= {"result", "not finite", "ValueError", "TypeError", "OSError"}
    assert outcomes["result"] < RUNS  # or nothing is broken


def test_a_checkpoint_is_whole_before_it_is_broken(checkpoint: HostileCheckpoint) -> None:
    for kind in KINDS:
        if kind != PROMPTS:
            assert Path(checkpoint.folder / kind).read_bytes() == checkpoint.files[kind]
            model, processor = checkpoint.load(kind)
            assert checkpoint.run(model, processor, {"text": "low"}) == "result"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        ("config.json", 115),
        ("config.json", 1042),
        ("config.json", 1121),
        ("config.json", 2424),
        ("config.json", 2553),
        ("config.json", 3026),
        ("config.json", 3189),
        ("processor_config.json", 7),
        ("processor_config.json", 680),
        ("processor_config.json", 1292),
        ("processor_config.json", 1370),
        ("processor_config.json", 2569),
        ("tokenizer.json", 3148),
        ("tokenizer_config.json", 22),
        ("tokenizer_config.json", 124),
    ],
)
def test_what_did_harm_once(checkpoint: HostileCheckpoint, kind: str, seed: int) -> None:
    assert checkpoint.try_one(kind, random.Random(seed)) in ("result", "ValueError", "TypeError", "OSError")
