"""Checkpoints for bit-exact resumption, and weights for `from_pretrained`; both are written atomically."""

import json
import math
import pickle
import random
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from ..modeling_fclm import FCLMForImageMatting
from ..processing_fclm import FCLMProcessor
from ..utils.files import UNFINISHED, flush_to_disk, write_atomically
from ..utils.settings import find_changes
from .arguments import NESTED_FIELDS, RESERVED_SETTINGS, Arguments
from .command_line import rename_all_fields
from .objective.learner import ForegroundConsistentLearner
from .sharding import gather_tensors, shard_optimizer_state, shard_tensors


# may differ in a resumed run, because they have no influence on the trained weights
FREE_ARGUMENTS = (
    "output_dir",
    "resume_from_checkpoint",
    "dataloader_num_workers",
    "dataloader_prefetch_factor",
    "fsdp",
    "threads",
    "logging_steps",
    "eval_steps",
    "save_steps",
    "save_total_limit",
    "save_dtype",
    "report_to",
    "push_to_hub",
    "push_steps",
    "hub_model_id",
    "hub_private_repo",
)
_BATCH_SIZES = ("per_device_train_batch_size", "gradient_accumulation_steps")  # times the number of processes
_FILE_NAME = re.compile(r"step-(\d+)\.pt")


class SaveError(RuntimeError):
    """Raised when a checkpoint cannot be written."""


class Stateful(Protocol):
    """A part of a run that has a state."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Restore a state."""


class Mergeable(Stateful, Protocol):
    """A part of a run that has a state in each process."""

    def merge(self, states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the state of this process from those of all processes, whose number may have been another."""


class AuxiliaryState:
    """State of a learner without its student and teacher.

    Args:
        learner: The learner.
    """

    def __init__(self, learner: ForegroundConsistentLearner) -> None:
        self.state_dict = learner.auxiliary_state_dict
        self.load_state_dict = learner.load_auxiliary_state_dict


class CheckpointFolder:
    """Folder of the checkpoints of a run, `step-<number>.pt` each.

    Args:
        path: The folder.
        limit: Number of checkpoints to keep. Once a new one is complete, older ones are deleted, and so are those of
            later steps, which remain when a run is resumed from an earlier step.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path, self.limit = path, limit

    def list_steps(self) -> list[int]:
        """Return the steps that have a checkpoint, in ascending order."""
        names = self.path.iterdir() if self.path.is_dir() else ()
        return sorted(int(match[1]) for each in names if (match := _FILE_NAME.fullmatch(each.name)))

    def find(self, name: str) -> Path | None:
        """Return the file that `--resume_from_checkpoint` names, or `None` for "latest" if there is none.

        Raises:
            ValueError: If the file does not exist.
        """
        if name == "latest":
            steps = self.list_steps()
            return self._make_path(steps[-1]) if steps else None
        if not Path(name).is_file():
            raise ValueError(f"resume_from_checkpoint must be 'latest' or a file in {self.path}, got {name}.")
        return Path(name)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a checkpoint, then delete those that are no longer kept.

        Args:
            step: Number of the step.
            state: Tensors and plain values, which `torch.load(weights_only=True)` can read.

        Raises:
            OSError: If it cannot be written. Earlier checkpoints remain.
        """
        with write_atomically(self._make_path(step)) as path:
            _save_state(state, path)
        steps = self.list_steps()
        kept = [each for each in steps if each <= step][-self.limit :]
        for each in set(steps) - set(kept):
            self._make_path(each).unlink()

    def _make_path(self, step: int) -> Path:
        """Return the path of the checkpoint of a step."""
        return self.path / f"step-{step:08d}.pt"


def _save_state(state: dict[str, Any], path: Path) -> None:
    """Save with `torch.save`, but raise the error of the file system that its own errors hide."""
    try:
        with path.open("wb") as file:
            torch.save(state, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def save_weights(
    model: FCLMForImageMatting,
    processor: FCLMProcessor,
    folder: Path,
    dtype: torch.dtype,
    state: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Save a checkpoint for `from_pretrained`; each of its files is replaced atomically.

    In float16 the file is half as large. The matrix that encodes coordinates stays in float32, and since the config
    says float32, the weights load as float32.

    Args:
        model: The model.
        processor: Its processor.
        folder: Folder of the checkpoint.
        dtype: Data type of the weights in the file.
        state: Its weights by name. Default: as they are in the model.
    """
    weights = {
        name: value.to(dtype) if value.is_floating_point() and "fourier_matrix" not in name else value
        for name, value in (model.state_dict() if state is None else state).items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{UNFINISHED}{folder.name}-") as temporary:
        model.save_pretrained(temporary, state_dict=weights)
        processor.save_pretrained(temporary)
        for path in Path(temporary).iterdir():
            flush_to_disk(path)
            path.replace(folder / path.name)
    flush_to_disk(folder)


def capture_rng() -> dict[str, Any]:
    """Return the states of the random number generators of this process, as plain values and tensors."""
    name, keys, *rest = np.random.get_state()
    state = {"python": random.getstate(), "numpy": (name, keys.tolist(), *rest), "torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_rng(state: dict[str, Any]) -> None:
    """Restore the states that [`capture_rng`] returned."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


def gather_state(shared: Mapping[str, Stateful | None], own: Mapping[str, Stateful]) -> dict[str, Any]:
    """Gather the state of a run. Every process must call it.

    Args:
        shared: Parts that are the same in all processes; `None` for those that the run does not have.
        own: Parts that differ between processes. The states of the random number generators are saved with them.

    Returns:
        The state of each shared part by name, and under "processes" a list with the other states of each process.
    """
    process = {"rng": capture_rng(), **{name: part.state_dict() for name, part in own.items()}}
    states = {name: None if part is None else gather_tensors(part.state_dict()) for name, part in shared.items()}
    return {**states, "processes": gather_object([process])}


def restore_state(
    state: Mapping[str, Any],
    shared: Mapping[str, Stateful | None],
    own: Mapping[str, Mergeable],
    accelerator: Accelerator,
) -> None:
    """Restore the state of a run, which may have had another number of processes.

    With another number, the random number generators of processes that did not exist keep the states that they have.

    Args:
        state: State that [`gather_state`] returned.
        shared: The same parts as there.
        own: The same parts as there.
        accelerator: Accelerator of this process.

    Raises:
        ValueError: If the order of samples cannot be continued, as the checkpoint is of an earlier release.
    """
    processes, rank = state["processes"], accelerator.process_index
    is_same = len(processes) == accelerator.num_processes
    for name, part in own.items():
        states = [process[name] for process in processes]
        part.load_state_dict(states[rank] if is_same and name != "stream" else part.merge(states))
    for name, part in shared.items():
        if part is not None:
            part.load_state_dict(_shard_state(part, state[name]))
    if rank < len(processes):
        restore_rng(processes[rank]["rng"])


def _shard_state(part: Stateful, state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a part, with its tensors sharded as the weights of the part are."""
    if isinstance(part, torch.optim.Optimizer):
        return shard_optimizer_state(state, part)
    if isinstance(part, (nn.Module, AuxiliaryState)):
        return shard_tensors(state, part.state_dict())
    return state


def choose_checkpoint(checkpoints: CheckpointFolder, arguments: Arguments, num_processes: int = 1) -> Path | None:
    """Return the checkpoint that a run resumes from, or `None` if it starts from scratch.

    Args:
        checkpoints: Checkpoints of the output folder.
        arguments: Arguments of the run.
        num_processes: Number of processes of the run.

    Raises:
        ValueError: If the folder holds a run that is not to be resumed, if the checkpoint does not exist, or if it
            belongs to a run with other arguments.
    """
    name = arguments.run.resume_from_checkpoint
    if name is None:
        if checkpoints.list_steps():
            raise ValueError(
                f"{checkpoints.path.parent} already holds a run: add --resume_from_checkpoint latest, or choose another"
                " output_dir."
            )
        return None
    path = checkpoints.find(name)
    if path is not None:
        state = read_checkpoint(path, mmap=True)
        _check_processes(state, arguments, num_processes, path)
    return path


def _check_processes(state: Mapping[str, Any], arguments: Arguments, num_processes: int, path: Path) -> None:
    """Check that a run continues with the arguments of its checkpoint, with as many pairs in a step."""
    before = rename_all_fields(state.get("arguments", {}), str(path), warn=False)
    processes, now = state["processes"], select_fixed(arguments)
    pairs = count_pairs(before, len(processes))
    is_same_step = count_pairs(now, num_processes) == pairs
    if is_same_step:
        before |= {name: now[name] for name in _BATCH_SIZES}
    check_same_arguments(before, now, path, state["step"])
    if not is_same_step:
        raise ValueError(
            f"A step must have {pairs} pairs, as in {path}, which {len(processes)} processes saved, got"
            f" {count_pairs(now, num_processes)} with {num_processes}: change per_device_train_batch_size or"
            " gradient_accumulation_steps."
        )
    if not all("shards" in process["stream"] for process in processes):
        raise ValueError(
            f"{path} is of an earlier release, whose order of samples depended on the numbers of processes and workers:"
            f" resume it with that release, or start a new run with --model {path.parents[1] / 'last'} and another"
            " output_dir."
        )


def count_pairs(arguments: Mapping[str, Any], num_processes: int) -> int:
    """Return the number of pairs in an optimizer step, over all processes."""
    return num_processes * math.prod(arguments.get(name, 1) for name in _BATCH_SIZES)


def read_checkpoint(path: Path, mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint; no code in it is executed.

    Args:
        path: The file.
        mmap: Whether to read tensors only when they are accessed.

    Raises:
        ValueError: If the file is not a checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        return {**state, "step": int(state["step"])}
    except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise ValueError(f"resume_from_checkpoint must be a checkpoint of fclm train, got {path}.") from error


def select_fixed(arguments: Arguments) -> dict[str, Any]:
    """Return the arguments that a resumed run must keep, as plain values by name."""
    return {name: value for name, value in arguments.to_dict().items() if name not in FREE_ARGUMENTS}


def _add_new_fields(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with the fields that an earlier release did not know in their mappings, at their defaults."""

    def complete(values: Any, kind: type) -> Any:
        if isinstance(values, list):
            return [complete(each, kind) for each in values]
        known = {}
        for each in fields(kind):
            if each.name not in values and each.name not in RESERVED_SETTINGS:
                default = each.default_factory() if each.default is MISSING else each.default
                known[each.name] = json.loads(json.dumps(default))
        return {**known, **values}

    return {
        name: complete(values, NESTED_FIELDS[name]) if name in NESTED_FIELDS else values
        for name, values in arguments.items()
    }


def check_same_arguments(before: Mapping[str, Any], now: Mapping[str, Any], path: Path, step: int) -> None:
    """Check that a resumed run has the arguments that it started with, as far as they change the result.

    A field that the release of the checkpoint did not know must have its default. With a constant learning rate
    `max_steps` may differ. It sets the schedule of the gradient reversal: from the checkpoint on, the run trains like
    one of the new length.

    Args:
        before: Arguments that [`select_fixed`] returned when the checkpoint was saved.
        now: Arguments that it returns now.
        path: The checkpoint.
        step: Its step.

    Raises:
        ValueError: If arguments differ. The message names them with both values.
    """
    before = _add_new_fields(before)
    free = ["max_steps"] if now["lr_scheduler_type"] == "constant" else []
    kept = [name for name in now if name in before and name not in free]
    changes = [text for name in kept for text in find_changes(before[name], now[name], name)]
    if changes:
        raise ValueError(
            f"{path} can only be resumed with the arguments of its run, but {'; '.join(changes)}. To use its weights in"
            f" another run, start one with --model {path.parents[1] / 'last'} and another output_dir."
        )
    if now["max_steps"] < step:
        raise ValueError(f"max_steps must be at least {step}, the step of {path}, got {now['max_steps']}.")


__all__ = [
    "AuxiliaryState",
    "CheckpointFolder",
    "Mergeable",
    "SaveError",
    "Stateful",
    "capture_rng",
    "check_same_arguments",
    "choose_checkpoint",
    "count_pairs",
    "gather_state",
    "read_checkpoint",
    "restore_rng",
    "restore_state",
    "save_weights",
    "select_fixed",
]
