"""Script for several processes: train, save the weights of each, and check that no thread of the group remains."""

import os
import sys
from pathlib import Path

import torch

from fclm_hf.training.command_line import parse_arguments
from fclm_hf.training.trainer import Trainer


def list_threads() -> list[str]:
    """Return the names of the threads of this process."""
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]


trainer = Trainer(parse_arguments(sys.argv[1:]))
begun = {name: value.clone() for name, value in trainer.student.state_dict().items()}
assert any("gloo" in name for name in list_threads())
trainer.train()
assert not [name for name in list_threads() if "gloo" in name]
weights = {"begun": begun, "student": trainer.student.state_dict(), "averaged": trainer.averaged.state_dict()}
torch.save({**weights, "rank": trainer.reader.loader.stream.rank}, trainer.folder / f"weights-{os.environ['RANK']}.pt")
