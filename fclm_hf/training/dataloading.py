"""Batches of a stream for the learner, and the position behind the last step."""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from transformers import CLIPTokenizer

from ..data import SourceConfig, StreamLoader, TrainingStream, open_source
from .arguments import Arguments


def open_feed(
    foregrounds: Sequence[SourceConfig],
    backgrounds: Sequence[SourceConfig],
    arguments: Arguments,
    accelerator: Accelerator,
    num_workers: int,
) -> "BatchFeed":
    """The batches of this process. They need [`BatchFeed.set_processor`] before they are read: a processor comes with the
    model, which takes longer to load than a wrong source takes to find.

    Raises:
        ValueError, LostConnectionError: see [`open_source`].
    """
    data, run = arguments.data, arguments.run
    stream = TrainingStream(
        [open_source(config) for config in foregrounds],
        [open_source(config) for config in backgrounds],
        tokenizer=None,
        pairs=data.make_pair_settings(run.seed),
        batches=data.make_batch_settings(run.batch_size),
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )
    return BatchFeed(StreamLoader(stream, num_workers, data.prefetch_factor), accelerator.device)


class BatchFeed:
    """Reads what a step needs. Batches of a step that is given up do not count as read.

    Args:
        loader: this process's.
        device: where the tensors go.
    """

    def __init__(self, loader: StreamLoader, device: torch.device | str) -> None:
        self.loader, self.device = loader, device
        self._batches: Any = None
        self._position = loader.state_dict()

    def set_processor(self, tokenizer: CLIPTokenizer, mean: Sequence[float], std: Sequence[float]) -> None:
        """Tokenizer, and mean and standard deviation of the pixels."""
        stream = self.loader.stream
        stream.tokenizer, stream.image_mean, stream.image_std = tokenizer, mean, std

    def read(self, count: int) -> list[dict[str, Any]]:
        """Raises:
        StreamError: see [`StreamLoader`].
        """
        if self._batches is None:
            self._batches = iter(self.loader)
        return [self._prepare(next(self._batches)) for _ in range(count)]

    def close(self) -> None:
        """Ends the workers, and reading ahead: a thread of Arrow that outlives the interpreter aborts the process."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def finish_step(self) -> None:
        """What has been read was used."""
        self._position = self.loader.state_dict()

    def state_dict(self) -> dict[str, Any]:
        return self._position

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loader.load_state_dict(state)
        self._position = state

    def _prepare(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {
            name: value.to(self.device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()
        }


__all__ = ["BatchFeed", "open_feed"]
