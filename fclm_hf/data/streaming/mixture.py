"""Decoded samples of several sources, mixed by weight, faulty ones left out."""

from collections.abc import Collection
from typing import Any

import numpy as np

from ..sources.invalid_samples import FaultCounter, FaultySampleError
from ..sources.retry import Backoff
from ..sources.rows import Share, ShuffledRows
from ..sources.samples import Sample, decode_row, name_row
from ..sources.source import Source
from .plant_stream import PlantStream


class SampleStream:
    """Endless samples of one source. Faulty ones are counted and skipped.

    Args:
        source: where they come from.
        share: part of the source to read.
        seed: the same seed gives the same order.
        backoff: pauses between tries when the connection fails.
        faults: counter of used and skipped samples.
        max_fault_share, min_fault_count: see [`FaultCounter.check`].
    """

    def __init__(
        self,
        source: Source,
        share: Share,
        seed: int,
        backoff: Backoff,
        faults: FaultCounter,
        max_fault_share: float,
        min_fault_count: int,
    ):
        self.source = source
        self.kind, self.weight = source.config.kind, source.config.weight
        self.faults = faults
        self._rows = ShuffledRows(source, share, seed, backoff)
        self._backoff = backoff
        self._limits = max_fault_share, min_fault_count
        self._sample: Sample | None = None

    def state_dict(self) -> dict[str, Any]:
        return self._rows.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rows.load_state_dict(state)
        self._sample = None

    def peek(self) -> Sample:
        """The sample that comes next; it stays the next one until it is taken."""
        while self._sample is None:
            epoch, values = self._rows.peek()
            try:
                self._sample = decode_row(self.source, values, epoch, self._backoff)
            except FaultySampleError as error:
                self.faults.count_fault(error, name_row(self.source, values))
                self.faults.check(*self._limits)
                self._rows.advance()
        return self._sample

    def take(self) -> Sample:
        sample = self.peek()
        self._sample = None
        self._rows.advance()
        self.faults.count_use()
        return sample


class Mixture:
    """Draws from streams by weight: of all draws a stream gets the share that is its weight over their sum.

    `datasets.interleave_datasets` would split the mixture by the smallest number of files among its sources, so that
    one source in a single file makes every process read all of the others.
    """

    def __init__(self, streams: list[SampleStream | PlantStream], seed: int, share: Share):
        self._streams = streams
        self._weights = np.array([stream.weight for stream in streams])
        self._seed = [seed, share.index]
        self._draws = 0

    def state_dict(self) -> dict[str, Any]:
        return {"draws": self._draws, "streams": [stream.state_dict() for stream in self._streams]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._draws = state["draws"]
        for stream, stream_state in zip(self._streams, state["streams"], strict=True):
            stream.load_state_dict(stream_state)

    def choose(self, kinds: Collection[str] | None = None) -> SampleStream | PlantStream:
        """Draws a stream, of one of the `kinds` if they are given."""
        allowed = [kinds is None or stream.kind in kinds for stream in self._streams]
        weights = self._weights * allowed
        chosen = np.random.default_rng([*self._seed, self._draws]).choice(len(weights), p=weights / weights.sum())
        self._draws += 1
        return self._streams[chosen]
