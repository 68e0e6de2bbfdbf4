"""Procedural plants as if they were a source of cut-out objects."""

from typing import Any

import numpy as np

from ..sources.rows import Share
from ..sources.samples import Sample
from ..synthesis.plants import grow_plant


class PlantStream:
    """Endless plants; how many there have been is the position.

    Args:
        size: side of the canvas they grow on, in pixels.
        weight: how often they are drawn, relative to the sources.
        seed: the same seed gives the same plants.
        share: no two shares have a plant in common.
    """

    kind = "rgba"

    def __init__(self, size: int, weight: float, seed: int, share: Share):
        self.weight = weight
        self._size, self._seed, self._share = size, seed, share
        self._grown = 0

    def state_dict(self) -> dict[str, Any]:
        return {"grown": self._grown}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._grown = state["grown"]

    def peek(self) -> Sample:
        number = self._grown * self._share.count + self._share.index
        plant = grow_plant(np.random.default_rng([self._seed, number]), self._size)
        return Sample(plant, f"plant:{number}", epoch=0, checksum=number)

    def take(self) -> Sample:
        sample = self.peek()
        self._grown += 1
        return sample
