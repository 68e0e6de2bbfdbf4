"""Batches of a stream for the learner, the time spent waiting for them, and the position behind the last step."""

import time
from collections.abc import Sequence
from typing import Any

import torch

from ..data import StreamLoader


class BatchFeed:
    """
    Reads what a step needs. Batches of a step that is given up do not count as read.

    Args:
        loader: this process's.
        device: where the tensors go.

    Attributes:
        waited: seconds spent waiting.
    """

    def __init__(self, loader: StreamLoader, device: torch.device | str) -> None:
        self.loader, self.device = loader, device
        self.set_normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        self.waited = 0.0
        self._batches: Any = None
        self._position = loader.state_dict()

    def set_normalisation(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Those of the image processor; the stream's images are in [-1, 1]."""
        self.mean, self.std = (torch.tensor(x, device=self.device).view(3, 1, 1) for x in (mean, std))

    def read(self, count: int) -> list[dict[str, Any]]:
        """
        Raises:
            StreamError: see [`StreamLoader`].
        """
        if self._batches is None:
            self._batches = iter(self.loader)
        begun = time.perf_counter()
        try:
            read = [next(self._batches) for _ in range(count)]
        finally:
            self.waited += time.perf_counter() - begun
        return [self._prepare(batch) for batch in read]

    def finish_step(self) -> None:
        """What has been read was used."""
        self._position = self.loader.state_dict()

    def state_dict(self) -> dict[str, Any]:
        return self._position

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loader.load_state_dict(state)
        self._position = state

    def _prepare(self, batch: dict[str, Any]) -> dict[str, Any]:
        batch = {
            name: value.to(self.device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()
        }
        inside = batch["pixel_mask"][:, None]
        for name in ("pixel_values_a", "pixel_values_b"):
            batch[name] = ((batch[name] + 1) / 2 - self.mean) / self.std * inside
        return batch


__all__ = ["BatchFeed"]
