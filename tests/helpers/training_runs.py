"""A tiny training run: model, data, YAML file, and the processes that train."""

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import yaml
from accelerate.state import AcceleratorState, GradientState
from paths import ROOT
from tiny_model import tiny_model, tiny_processor
from training_sets import background_rows, cutout_rows, write_parquet


# imports what training needs once, for all runs
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["fclm_hf.training.trainer", "fclm_hf.cli.train"])
TIMEOUT = 900


def write_run(folder: Path, **fields) -> Path:
    """Write the model, data and YAML file of a run of a tiny model on 40 cutouts; return the YAML file."""
    write_parquet(folder / "cutouts", cutout_rows(40), files=2)
    write_parquet(folder / "backgrounds", background_rows(12))
    tiny_model().save_pretrained(folder / "start")
    tiny_processor().save_pretrained(folder / "start")
    backgrounds = [{"path": str(folder / "backgrounds"), "kind": "background"}]
    config = {
        "model": str(folder / "start"),
        "settings": {"distillation": "none", "transport_iterations": 5},
        "encoder_sizes": [28, 56],
        "sources": [{"path": str(folder / "cutouts"), "kind": "rgba", "shuffle_rows": 8}],
        "backgrounds": backgrounds,
        "validation": [{"path": str(folder / "cutouts"), "kind": "rgba"}],
        "validation_batches": 1,
        "composition": {"size": 32},
        "prompts_per_image": 2,
        "dataloader_num_workers": 0,
        "max_steps": 12,
        "per_device_train_batch_size": 2,
        "learning_rate": "1e-3",
        "ema_decay": 0.9,
        "logging_steps": 2,
        "eval_steps": 6,
        "save_steps": 2,
        "threads": 1,
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({**config, **fields}))
    return path


def forget_accelerator() -> None:
    """Reset the process-wide settings of Accelerate, so that another run in this process can have others."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


class Run:
    """Training in processes of its own, which start at once.

    Args:
        config: YAML file of the run.
        out: Output folder of the run.
        *flags: Further flags.
        processes: Number of processes that train together.
        prepare: Called in each of them first.
    """

    def __init__(
        self, config: Path, out: Path, *flags: str, processes: int = 1, prepare: Callable[[], None] | None = None
    ) -> None:
        self.out = out
        self.log = config.parent / f"{out.name}.log"
        self.log.write_text("")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = [str(config), "--output_dir", str(out), "--resume_from_checkpoint", "latest", *flags]
        self.processes: list[BaseProcess] = []
        for rank in range(processes):
            environment = {"ACCELERATE_USE_CPU": "true"}
            if processes > 1:
                environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
                environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
            self.processes.append(FORKS.Process(target=_train, args=(words, environment, self.log, prepare)))
            self.processes[-1].start()

    @property
    def is_alive(self) -> bool:
        """Whether all processes are alive."""
        return all(process.is_alive() for process in self.processes)

    @property
    def output(self) -> str:
        """The output of all processes so far."""
        return self.log.read_text()

    def finish(self) -> str:
        """Wait until it ends, which it must do without an error; return its output."""
        assert self.wait() == {0}, self.output
        return self.output

    def wait(self) -> set[int]:
        """Wait until it ends; return the exit codes."""
        for process in self.processes:
            process.join(TIMEOUT)
        return {process.exitcode for process in self.processes}

    def end(self, number: int) -> set[int]:
        """Send a signal to its processes, with SIGKILL also to their workers; return the exit codes."""
        targets = [psutil.Process(process.pid) for process in self.processes]
        if number == signal.SIGKILL:
            targets += [child for target in targets for child in target.children(recursive=True)]
        for target in targets:
            with contextlib.suppress(psutil.NoSuchProcess):
                target.send_signal(number)
        return self.wait()


def wait_until(condition: Callable[[], object], run: Run) -> None:
    """Wait until a condition holds while a run is alive."""
    while not condition():
        assert run.is_alive, run.output
        time.sleep(0.001)


def _train(words: list[str], environment: dict[str, str], log: Path, prepare: Callable[[], None] | None) -> None:
    """Run `fclm train` in a child process, with its output in a file."""
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    from fclm_hf.cli.train import main

    try:
        if prepare is not None:
            prepare()
        code = main(words)
    except BaseException:
        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    sys.exit(code)


def launch(script: Path, config: Path, out: Path, *launcher: str) -> str:
    """Run a script with a launcher, a module and its arguments, or without one; return the output."""
    command = [sys.executable, *launcher]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [*command, str(script), str(config), "--output_dir", str(out)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
    )
    assert run.returncode == 0, run.stdout
    return run.stdout
