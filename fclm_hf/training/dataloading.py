"""Batches for the learner, and the position in the stream after the last finished step."""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from transformers import CLIPTokenizer

from ..data import SourceConfig, StreamLoader, TrainingStream, open_source
from ..data.streaming.dataloader import merge_states
from .arguments import Arguments


def open_batches(
    foregrounds: Sequence[SourceConfig],
    backgrounds: Sequence[SourceConfig],
    arguments: Arguments,
    accelerator: Accelerator,
    num_workers: int,
    num_shards: int | None = None,
) -> "BatchReader":
    """Open the data sources of this process.

    [`BatchReader.set_processor`] must be called before the first batch is read. The processor comes with the model, and
    a wrong source should be reported before a model is loaded.

    Args:
        foregrounds: Sources of objects and photos.
        backgrounds: Sources of backgrounds.
        arguments: Arguments of the run.
        accelerator: Accelerator of this process.
        num_workers: Worker processes; 0 loads the data in this process.
        num_shards: Parts that the sources are split into, see [`TrainingStream`].

    Returns:
        The reader.

    Raises:
        ValueError: If a source does not exist or lacks a column, see [`open_source`].
        LostConnectionError: If the Hub cannot be reached.
    """
    data, run = arguments.data, arguments.run
    stream = TrainingStream(
        [open_source(config) for config in foregrounds],
        [open_source(config) for config in backgrounds],
        tokenizer=None,
        pairs=data.make_pair_settings(run.seed),
        batches=data.make_batch_settings(
            run.per_device_train_batch_size, has_regions=arguments.model.settings.name_weight > 0
        ),
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        num_shards=num_shards,
    )
    return BatchReader(StreamLoader(stream, num_workers, data.dataloader_prefetch_factor), accelerator.device)


class BatchReader:
    """Reads the batches of each step. Its state is the position after the last finished step.

    Args:
        loader: Loader of this process.
        device: Device of the tensors.
    """

    def __init__(self, loader: StreamLoader, device: torch.device | str) -> None:
        self.loader, self.device = loader, device
        self._batches: Any = None
        self._position = loader.state_dict()

    def set_processor(self, tokenizer: CLIPTokenizer, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set how texts are tokenized and images normalized.

        Args:
            tokenizer: Tokenizer of the model.
            mean: Mean of each channel, for pixels in [0, 1].
            std: Standard deviation of each channel.
        """
        stream = self.loader.stream
        stream.tokenizer, stream.image_mean, stream.image_std = tokenizer, mean, std

    def read(self, count: int) -> list[dict[str, Any]]:
        """Return the next batches.

        Args:
            count: Number of batches.

        Returns:
            The batches, on the device and normalized.

        Raises:
            StreamError: If the data becomes unavailable, see [`StreamLoader`].
        """
        if self._batches is None:
            self._batches = iter(self.loader)
        return [self._prepare(next(self._batches)) for _ in range(count)]

    def close(self) -> None:
        """Stop the workers and the prefetching. An Arrow thread that outlives the interpreter aborts the process."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def finish_step(self) -> None:
        """Mark the batches read so far as consumed."""
        self._position = self.loader.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last finished step."""
        return self._position

    def merge(self, states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the state of this process from those of all processes, whose number may have been another."""
        stream = self.loader.stream
        return merge_states(states, stream.rank, stream.world_size)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a position that [`~BatchReader.state_dict`] returned."""
        self.loader.load_state_dict(state)
        self._position = state

    def _prepare(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Move a batch to the device."""
        return {
            name: value.to(self.device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()
        }


__all__ = ["BatchReader", "open_batches"]
