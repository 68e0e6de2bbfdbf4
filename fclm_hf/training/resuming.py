"""What a run needs to go on: gathered from its parts, handed back to them, and refused if the run is another one."""

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from .arguments import Arguments
from .checkpointing import CheckpointFolder, capture_rng, restore_rng
from .objective.learner import ForegroundConsistentLearner


# arguments that change where and how often things are written, not what is learnt
FREE = (
    "output_dir",
    "resume_from_checkpoint",
    "prefetch_factor",
    "threads",
    "log_steps",
    "eval_steps",
    "save_steps",
    "save_total_limit",
    "save_dtype",
    "trackers",
    "push_to_hub",
    "push_steps",
    "hub_model_id",
    "hub_private",
)


class Stateful(Protocol):
    """A part of a run that has a state."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class Auxiliary:
    """The learner without its student and teacher as a part of a run."""

    def __init__(self, learner: ForegroundConsistentLearner) -> None:
        self.state_dict = learner.auxiliary_state_dict
        self.load_state_dict = learner.load_auxiliary_state_dict


def gather_state(shared: Mapping[str, Stateful | None], own: Mapping[str, Stateful]) -> dict[str, Any]:
    """States by name; every process must take part.

    Args:
        shared: parts that are the same in all processes, or None for those that this run does without.
        own: parts that each process has for itself; the state of all that is random comes to them.
    """
    process = {"rng": capture_rng(), **{name: part.state_dict() for name, part in own.items()}}
    states = {name: None if part is None else part.state_dict() for name, part in shared.items()}
    return {**states, "processes": gather_object([process])}


def restore_state(
    state: Mapping[str, Any],
    shared: Mapping[str, Stateful | None],
    own: Mapping[str, Stateful],
    accelerator: Accelerator,
) -> None:
    """Hands the parts what [`gather_state`] took from them.

    Raises:
        ValueError: the number of processes is another one.
    """
    count = len(state["processes"])
    if count != accelerator.num_processes:
        raise ValueError(
            f"The checkpoint is of a run with {count} processes, this one has {accelerator.num_processes}."
        )
    for name, part in shared.items():
        if part is not None:
            part.load_state_dict(state[name])
    process = state["processes"][accelerator.process_index]
    for name, part in own.items():
        part.load_state_dict(process[name])
    restore_rng(process["rng"])


def choose_checkpoint(checkpoints: CheckpointFolder, arguments: Arguments) -> Path | None:
    """What the run begins with; None for anew.

    Raises:
        ValueError: the folder holds a run that is not to be resumed, there is no such checkpoint, or it is of another
            run.
    """
    name = arguments.run.resume_from_checkpoint
    if name is None:
        if checkpoints.list_steps():
            raise ValueError(
                f"{checkpoints.path.parent} holds a run: add --resume_from_checkpoint latest, or choose another."
            )
        return None
    path = checkpoints.find(name)
    if path is not None:
        state = read_checkpoint(path, mmap=True)
        refuse_other_arguments(state.get("arguments", {}), select_lasting(arguments), path, state["step"])
    return path


def read_checkpoint(path: Path, mmap: bool = False) -> dict[str, Any]:
    """The state in a file; with `mmap` tensors are only read when they are looked at.

    Raises:
        ValueError: it is no checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        return {**state, "step": int(state["step"])}
    except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise ValueError(f"resume_from_checkpoint: {path} is no checkpoint of fclm train.") from error


def select_lasting(arguments: Arguments) -> dict[str, Any]:
    """The arguments that a run must keep when it goes on, as plain values by name."""
    return {name: value for name, value in arguments.to_dict().items() if name not in FREE}


def refuse_other_arguments(before: Mapping[str, Any], now: Mapping[str, Any], path: Path, step: int) -> None:
    """Arguments that change the result must be those of the run that goes on. At a constant rate `max_steps` may differ,
    though it sets the pace of the gradient reversal: from here on the run learns as one of the new length.

    Args:
        before, now: what [`select_lasting`] gave then and gives now.
        path, step: of the checkpoint.

    Raises:
        ValueError: names those that differ, and both values.
    """
    free = ["max_steps"] if now["schedule"] == "constant" else []
    kept = [name for name in now if name in before and name not in free]
    differences = [text for name in kept for text in _compare(before[name], now[name], name)]
    if differences:
        raise ValueError(
            f"{path} goes on to the bit only with the arguments of its run, but {'; '.join(differences)}. To use its"
            f" weights in another run begin one with --model {path.parents[1] / 'last'} and another output_dir."
        )
    if now["max_steps"] < step:
        raise ValueError(f"max_steps is {now['max_steps']}, but {path} is of step {step}.")


def _compare(before: Any, now: Any, place: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from _compare(before.get(key), now.get(key), f"{place}.{key}")
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, pair in enumerate(zip(before, now, strict=True)):
            yield from _compare(*pair, f"{place}[{index}]")
    elif before != now:
        yield f"{place} was {before!r} and is {now!r}"


__all__ = [
    "Auxiliary",
    "choose_checkpoint",
    "gather_state",
    "read_checkpoint",
    "refuse_other_arguments",
    "restore_state",
    "select_lasting",
]
