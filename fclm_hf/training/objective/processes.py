"""What all processes of a run must do alike, as they wait for each other in every pass."""

import torch


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def share_choice(choice: int) -> int:
    """Return the random choice of the first process, so that all take equally many passes. Every process must call it.

    Args:
        choice: Number that this process has drawn.
    """
    if not _is_distributed():
        return choice
    choices = [choice]
    torch.distributed.broadcast_object_list(choices, src=0)
    return choices[0]


def any_process(flag: bool) -> bool:
    """Return whether a flag is set in any process. Every process must call it.

    Args:
        flag: Flag of this process.
    """
    if not _is_distributed():
        return flag
    flags = [flag] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(flags, flag)
    return any(flags)


def find_rank() -> int:
    """Return the number of this process, from 0."""
    return torch.distributed.get_rank() if _is_distributed() else 0


__all__ = ["any_process", "find_rank", "share_choice"]
