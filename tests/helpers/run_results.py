"""Results of a run, and their comparison between two runs."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file


TIMES = ("samples_per_second", "data_wait")


def read_curve(out: Path) -> list[dict]:
    """Return the entries of history.jsonl without those that depend on time."""
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def read_state(out: Path, step: int = 12) -> dict:
    """Return the state of a checkpoint in a form that is comparable between runs."""
    state = torch.load(out / "checkpoints" / f"step-{step:08d}.pt", weights_only=True)
    for process in state["processes"]:
        # the end of a file and the beginning of the next one are the same position
        process["stream"] = process["stream"]["consumed"]
    return state


def assert_same(one, two, place: str = "") -> None:
    """Assert that two nested values are equal and of the same types, bit by bit."""
    assert type(one) is type(two), place
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, two), place
    elif isinstance(one, dict):
        assert one.keys() == two.keys(), place
        for key in one:
            assert_same(one[key], two[key], f"{place}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(two), place
        for index, pair in enumerate(zip(one, two, strict=True)):
            assert_same(*pair, f"{place}[{index}]")
    else:
        assert one == two, place


def assert_same_runs(one: Path, two: Path, step: int = 12) -> None:
    """Assert that two runs have the same checkpoint, weights and history."""
    assert_same(read_state(one, step), read_state(two, step))
    for name in ("best", "last"):
        assert_same(*(load_file(out / name / "model.safetensors") for out in (one, two)), name)
    assert read_curve(one) == read_curve(two)
