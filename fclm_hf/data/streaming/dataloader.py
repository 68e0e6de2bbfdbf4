"""Reads a training stream through worker processes and knows which batch was the last one used."""

import logging
import signal
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from ..sources.invalid_samples import FaultCounter
from .dataset import TrainingStream


logger = logging.getLogger(__name__)


def _outlive_signals(worker: int) -> None:
    """Ctrl-C and SIGTERM reach the whole group of processes: the main one needs time to save. A second SIGTERM ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


class StreamLoader:
    """Batches of a [`TrainingStream`].

    `state_dict()` belongs to the last batch that was handed out: what workers have made ahead of it does not count.
    Save it per process. A run that loads it and has the same sources, settings, world size and number of workers gets
    exactly the batches that would have followed. With other numbers of processes or workers each sample still comes
    once per epoch and draws from the same seed, but in another order and company; a state cannot be carried over.

    A batch holds, for `size` of the composition and N prompts per image: `pixel_values_a`, `pixel_values_b` in [-1, 1]
    (batch, 3, size, size); `pixel_mask` (batch, size, size), 0 for padding; `labels` (batch, N, size, size) and
    `foreground` (batch, 1, size, size) in [0, 1]; where a source has coarse masks also `label_mask` (batch, N, size,
    size), False where a label is unknown; `object_mask` (batch, N); prompts as [`collate_prompts`] gives them;
    and `sample_keys`, per image a list of (epoch, key) of the samples in front.

    Args:
        stream: the stream of this process.
        num_workers: worker processes; 0 composes in this one and gives the same batches as 1.
        prefetch_factor: batches that each worker makes ahead.

    Raises:
        StreamError: while iterating; too many faults, a connection that stays down, or a source without rows.
    """

    def __init__(self, stream: TrainingStream, num_workers: int = 1, prefetch_factor: int = 2):
        self.stream = stream
        self.num_workers = num_workers
        self.prefetch_factor = prefetch_factor if num_workers else None
        self._reported = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        items = DataLoader(
            self.stream,
            batch_size=None,
            num_workers=self.num_workers,
            prefetch_factor=self.prefetch_factor,
            worker_init_fn=_outlive_signals,
            generator=torch.Generator(),  # else each start takes a number from the random state of training
        )
        for item in items:
            if item.error is not None:
                raise item.error
            self.stream.consumed += 1
            self.stream.states[item.worker] = item.state
            self._report()
            yield item.batch

    @property
    def faults(self) -> FaultCounter:
        """Samples used and skipped by this process up to the last batch; counters of processes can be merged."""
        return FaultCounter.merge(
            FaultCounter.from_state_dict(state["faults"]) for state in self.stream.states.values()
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts."""
        return {**self._describe(), "consumed": self.stream.consumed, "states": dict(self.stream.states)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue behind the batch that `state` belongs to.

        Raises:
            ValueError: it was saved with other sources, another seed, batch size, rank, world size or worker number.
        """
        for name, value in self._describe().items():
            if state[name] != value:
                raise ValueError(
                    f"The state was saved with {name} {state[name]!r}, now it is {value!r}: a stream goes on exactly"
                    " only with the same. Leave the state out to begin the data anew."
                )
        self.stream.consumed = state["consumed"]
        self.stream.states = {int(worker): each for worker, each in state["states"].items()}

    def _describe(self) -> dict[str, Any]:
        sources = [*self.stream.foregrounds, *self.stream.backgrounds]
        return {
            "sources": [source.config.label for source in sources],
            "seed": self.stream.pairs.seed,
            "batch_size": self.stream.batches.batch_size,
            "rank": self.stream.rank,
            "world_size": self.stream.world_size,
            "workers": max(self.num_workers, 1),
        }

    def _report(self) -> None:
        """Warns of the first fault and each time their number has doubled."""
        faults = self.faults
        if faults.skipped >= max(1, 2 * self._reported):
            self._reported = faults.skipped
            logger.warning("%s", faults)
