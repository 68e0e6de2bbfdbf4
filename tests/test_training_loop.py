"""The training loop: resumed equals never stopped, signals, faults, several processes."""

import contextlib
import json
import random
import signal
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from training_runs import finish, start, write_run


TIMES = ("samples_per_second", "data_wait")


def read_curve(out: Path) -> list[dict]:
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def read_state(out: Path, step: int = 12) -> dict:
    state = torch.load(out / "checkpoints" / f"step-{step:08d}.pt", weights_only=True)
    for process in state["processes"]:
        # the end of a file and the beginning of the next one are the same position
        process["stream"] = process["stream"]["consumed"]
    return state


def assert_same(one, two, place: str = "") -> None:
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
    assert_same(read_state(one, step), read_state(two, step))
    for name in ("best", "last"):
        assert_same(*(load_file(out / name / "model.safetensors") for out in (one, two)), name)
    assert read_curve(one) == read_curve(two)


def wait_for(path: Path, process) -> None:
    while not path.exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)


def end(process, number: int) -> None:
    """Sends a signal to a run and all its processes, of which torchrun gives each a group of its own."""
    if process.poll() is None:
        launched = psutil.Process(process.pid)
        for each in [launched, *launched.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(number)
    process.communicate(timeout=300)


def test_a_killed_run_goes_on_to_the_bit(tmp_path):
    config = write_run(tmp_path)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    output = finish(start(config, whole))
    assert "Data wait: " in output and len(read_curve(whole)) == 8
    assert (whole / "validation.png").is_file()

    process = start(config, killed)
    wait_for(killed / "checkpoints" / "step-00000004.pt", process)
    end(process, signal.SIGKILL)
    (killed / "checkpoints" / ".unfinished-step-00000099.pt").write_bytes(b"half")
    with (killed / "history.jsonl").open("a") as file:
        file.write('{"step": 4, "tr')
    finish(start(config, killed))
    assert not list(killed.rglob(".unfinished-*"))
    assert_same_runs(whole, killed)
    assert sorted(path.name for path in (killed / "checkpoints").iterdir()) == ["step-00000010.pt", "step-00000012.pt"]


def test_two_processes_end_with_equal_weights(tmp_path):
    config = write_run(tmp_path, max_steps=3, gradient_accumulation_steps=2)
    script = Path(__file__).with_name("two_processes.py")
    output = finish(start(config, tmp_path / "out", processes=2, script=script))
    one, two = (torch.load(tmp_path / "out" / f"weights-{rank}.pt", weights_only=True) for rank in range(2))
    assert (one.pop("rank"), two.pop("rank")) == (0, 1)
    assert_same(one, two)
    assert any(not torch.equal(value, one["student"][name]) for name, value in one["begun"].items())
    assert read_curve(tmp_path / "out")[0]["step"] == 2
    # neither Arrow's generators nor DistributedDataParallel have anything to say
    assert "Exception ignored" not in output and "Warning" not in output


@pytest.mark.slow
def test_sigterm_saves_and_the_run_goes_on(tmp_path):
    config = write_run(tmp_path, num_workers=2)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    finish(start(config, whole))
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        (stopped / "history.jsonl").unlink(missing_ok=True)  # its first line says that the loop runs
        process = start(config, stopped, "--save_steps", "1000")
        wait_for(stopped / "history.jsonl", process)
        end(process, number)
        assert process.returncode == code
        assert list((stopped / "checkpoints").iterdir())
    finish(start(config, stopped))
    assert_same(read_state(whole), read_state(stopped))


@pytest.mark.slow
def test_twenty_kills_of_two_processes_with_two_workers(tmp_path):
    config = write_run(tmp_path, num_workers=2, save_steps=1, max_steps=60)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    begun = time.monotonic()
    finish(start(config, whole, processes=2))
    duration = time.monotonic() - begun
    rng = random.Random(0)
    for _ in range(20):
        process = start(config, killed, processes=2)
        time.sleep(rng.uniform(0.4, 0.8) * duration)
        end(process, signal.SIGKILL)
    finish(start(config, killed, processes=2))
    assert_same_runs(whole, killed, step=60)


@pytest.mark.slow
def test_a_kill_while_a_checkpoint_is_written(tmp_path):
    config = write_run(tmp_path, save_steps=1)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(config, whole))
    for step in (3, 6, 9):
        process = start(config, killed)
        wait_for(killed / "checkpoints" / f".unfinished-step-{step:08d}.pt", process)
        end(process, signal.SIGKILL)
    finish(start(config, killed))
    assert_same_runs(whole, killed)
