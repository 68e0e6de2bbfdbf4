"""Runs that several tests resume, or compare with."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from training_runs import forget_accelerator, write_run

from fclm_hf.cli.train import main


@dataclass
class Runs:
    """A run of four steps, and another that ended after two of them.

    Without the adversarial loss nothing depends on the length of a run at a constant rate.
    """

    config: Path
    whole: Path
    half: Path
    flags: tuple[str, ...] = ("--settings.alignment", "transport", "--resume_from_checkpoint", "latest")


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Train for four steps and for two."""
    folder = tmp_path_factory.mktemp("runs")
    runs = Runs(write_run(folder, validation=[]), folder / "whole", folder / "half")
    for out, steps in ((runs.whole, "4"), (runs.half, "2")):
        forget_accelerator()
        assert main([str(runs.config), *runs.flags, "--output_dir", str(out), "--max_steps", steps]) == 0
    forget_accelerator()
    return runs
