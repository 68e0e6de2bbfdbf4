"""Checkpoints to resume from and weights to use, whole or not at all."""

import random
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..modeling_fclm import FCLMForImageMatting
from ..processing_fclm import FCLMProcessor
from ..utils.files import UNFINISHED, flush_to_disk, write_atomically


_NAME = re.compile(r"step-(\d+)\.pt")


def capture_rng() -> dict[str, Any]:
    """State of all that is random in this process, as plain numbers and tensors."""
    name, keys, *rest = np.random.get_state()
    state = {"python": random.getstate(), "numpy": (name, keys.tolist(), *rest), "torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_rng(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


def _save_state(state: dict[str, Any], path: Path) -> None:
    try:
        with path.open("wb") as file:
            torch.save(state, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):  # what the file said; torch's own words do not tell
            raise error.__context__ from None
        raise


class CheckpointFolder:
    """The states of a run, `step-<number>.pt` each.

    Args:
        path: the folder.
        limit: how many are kept; older ones go once a new one is complete, and so do those of later steps, which a run
            leaves behind that goes on from an earlier one.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path, self.limit = path, limit

    def list_steps(self) -> list[int]:
        names = self.path.iterdir() if self.path.is_dir() else ()
        return sorted(int(match[1]) for each in names if (match := _NAME.fullmatch(each.name)))

    def find(self, name: str) -> Path | None:
        """The file that `--resume_from_checkpoint` names; None for "latest" where there is none.

        Raises:
            ValueError: there is no such file.
        """
        if name == "latest":
            steps = self.list_steps()
            return self._name(steps[-1]) if steps else None
        if not Path(name).is_file():
            raise ValueError(f"resume_from_checkpoint must be latest or a file in {self.path}, got {name}.")
        return Path(name)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Raises:
        OSError: it could not be written; what was there before is untouched.
        """
        with write_atomically(self._name(step)) as path:
            _save_state(state, path)
        steps = self.list_steps()
        kept = [each for each in steps if each <= step][-self.limit :]
        for each in set(steps) - set(kept):
            self._name(each).unlink()

    def _name(self, step: int) -> Path:
        return self.path / f"step-{step:08d}.pt"


def save_weights(model: FCLMForImageMatting, processor: FCLMProcessor, folder: Path, dtype: torch.dtype) -> None:
    """What `from_pretrained` loads, each file whole at any time. With float16 the file is half as large, but for the
    matrix that encodes coordinates; the config says fp32, so the weights load as fp32.
    """
    weights = {
        name: value.to(dtype) if value.is_floating_point() and "fourier_matrix" not in name else value
        for name, value in model.state_dict().items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{UNFINISHED}{folder.name}-") as temporary:
        model.save_pretrained(temporary, state_dict=weights)
        processor.save_pretrained(temporary)
        for path in Path(temporary).iterdir():
            flush_to_disk(path)
            path.replace(folder / path.name)
    flush_to_disk(folder)


__all__ = ["CheckpointFolder", "capture_rng", "restore_rng", "save_weights"]
