"""Procedural plants as if they were a source of cut-out objects."""

from typing import Any

import numpy as np

from ..sources.rows import Shard
from ..synthesis.procedural import grow_plant
from ..types import Sample


class ProceduralStream:
    """Endless plants. The position is the number of plants so far.

    Args:
        size: Side of the images that they grow on, in pixels.
        weight: How often they are drawn, relative to the sources.
        seed: Seed of the run.
        shard: No two shards have a plant in common.
    """

    kind = "rgba"

    def __init__(self, size: int, weight: float, seed: int, shard: Shard):
        self.weight = weight
        self._size, self._seed, self._shard = size, seed, shard
        self._grown = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the number of plants so far."""
        return {"grown": self._grown}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a position that [`state_dict`] returned."""
        self._grown = state["grown"]

    def peek(self) -> Sample:
        """Return the next plant, without moving on."""
        number = self._grown * self._shard.count + self._shard.index
        plant = grow_plant(np.random.default_rng([self._seed, number]), self._size)
        return Sample(plant, f"plant:{number}", epoch=0, checksum=number)

    def take(self) -> Sample:
        """Return the next plant and move on."""
        sample = self.peek()
        self._grown += 1
        return sample
