"""A run that is killed at any moment of training resumes bit-exactly."""

import json
import random
import signal
import time
from pathlib import Path

import pytest
from run_results import assert_same_runs
from training_runs import Run, wait_until, write_run


KILLS, STEPS = 20, 100


def read_step(out: Path) -> int:
    """The last step that is in the history."""
    lines = (out / "history.jsonl").read_text().splitlines() if (out / "history.jsonl").exists() else []
    steps = [json.loads(line)["step"] for line in lines if line.endswith("}")]
    return max(steps, default=0)


def find_resumed(out: Path) -> int:
    """The step of the latest checkpoint."""
    return max((int(path.stem.removeprefix("step-")) for path in (out / "checkpoints").glob("step-*.pt")), default=0)


def kill_while_training(run: Run, rng: random.Random) -> bool:
    """Some steps after it went on, at any moment of a step."""
    begun, steps = find_resumed(run.out), rng.randint(1, 4)
    wait_until(lambda: begun + steps <= read_step(run.out) <= STEPS, run)
    time.sleep(rng.uniform(0, 0.3))
    assert run.is_alive, run.output
    assert read_step(run.out) < STEPS, run.output
    assert -signal.SIGKILL in run.end(signal.SIGKILL)
    return read_step(run.out) >= begun + steps


def kill_while_saving(run: Run, rng: random.Random) -> bool:
    """While a checkpoint is half written; False if it was complete by then."""
    folder = run.out / "checkpoints"
    wait_until(lambda: list(folder.glob(".unfinished-*")), run)
    time.sleep(rng.uniform(0, 0.01))
    assert -signal.SIGKILL in run.end(signal.SIGKILL)
    return bool(list(folder.glob(".unfinished-*")))


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "workers"), [(1, 0), (2, 2)])
def test_resume_after_twenty_kills(tmp_path, processes, workers):
    config = write_run(
        tmp_path, dataloader_num_workers=workers, max_steps=STEPS, save_steps=2, logging_steps=1, eval_steps=10
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    Run(config, whole, processes=processes).finish()
    rng, kills = random.Random(0), {kill_while_training: 0, kill_while_saving: 0}
    while sum(kills.values()) < KILLS:
        kill = rng.choice([kill_while_training, kill_while_training, kill_while_saving])
        run = Run(config, killed, processes=processes)
        kills[kill] += kill(run, rng)
        assert find_resumed(killed) < STEPS
    assert min(kills.values()) >= KILLS // 5, kills
    Run(config, killed, processes=processes).finish()
    assert_same_runs(whole, killed, step=STEPS)
