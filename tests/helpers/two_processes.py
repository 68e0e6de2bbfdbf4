"""Script for two processes: train, save the weights of each, and check that no thread of the group remains.

A launcher sets RANK. Without one the script forks, which imports everything once; its forks end as interpreters do.
"""

import os
import signal
import socket
import sys
from pathlib import Path

import torch

from fclm_hf.training.command_line import parse_arguments
from fclm_hf.training.trainer import Trainer


def list_threads() -> list[str]:
    """Return the names of the threads of this process."""
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]


def fork() -> None:
    """Return in two processes of a group; wait for them and exit in this one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    children = []
    for rank in ("0", "1"):
        children.append(os.fork())
        if not children[-1]:
            os.environ |= {"RANK": rank, "LOCAL_RANK": rank}
            return
    while children:
        child, status = os.wait()
        children.remove(child)
        if status:
            for other in children:
                os.kill(other, signal.SIGKILL)
            sys.exit(1)
    sys.exit(0)


if "RANK" not in os.environ:
    fork()
trainer = Trainer(parse_arguments(sys.argv[1:]))
begun = {name: value.clone() for name, value in trainer.student.state_dict().items()}
assert any("gloo" in name for name in list_threads())
trainer.train()
assert not [name for name in list_threads() if "gloo" in name]
weights = {"begun": begun, "student": trainer.student.state_dict(), "averaged": trainer.averaged.state_dict()}
torch.save({**weights, "rank": trainer.reader.loader.stream.rank}, trainer.folder / f"weights-{os.environ['RANK']}.pt")
