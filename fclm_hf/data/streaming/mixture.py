"""Streams of decoded samples, from sources or procedural, and their mixture by weight."""

from collections.abc import Collection
from typing import Any

import numpy as np

from ..sources.invalid_samples import InvalidSampleCounter, InvalidSampleError
from ..sources.retry import RetryPolicy
from ..sources.rows import Shard, ShuffledRows
from ..sources.samples import decode_row, name_row
from ..sources.source import Source
from ..synthesis.procedural import grow_plant
from ..types import Sample


class SampleStream:
    """Endless samples of one source. Invalid ones are counted and skipped.

    Args:
        source: The source.
        shard: The part of it to read.
        seed: Seed of the order of samples.
        retry: Policy for lost connections.
        invalid_samples: Counter of used and skipped samples.
        max_invalid_fraction: See [`InvalidSampleCounter.check`].
        min_sample_count: See [`InvalidSampleCounter.check`].
    """

    def __init__(
        self,
        source: Source,
        shard: Shard,
        seed: int,
        retry: RetryPolicy,
        invalid_samples: InvalidSampleCounter,
        max_invalid_fraction: float,
        min_sample_count: int,
    ):
        self.source = source
        self.kind, self.weight = source.config.kind, source.config.weight
        self.invalid_samples = invalid_samples
        self._rows = ShuffledRows(source, shard, seed, retry)
        self._retry = retry
        self._limits = max_invalid_fraction, min_sample_count
        self._sample: Sample | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the next sample."""
        return self._rows.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a position that [`state_dict`] returned."""
        self._rows.load_state_dict(state)
        self._sample = None

    def peek(self) -> Sample:
        """Return the next sample without moving on.

        Raises:
            StreamError: If too many samples are invalid, the source has no rows, or the connection stays down.
        """
        while self._sample is None:
            epoch, values = self._rows.peek()
            try:
                self._sample = decode_row(self.source, values, epoch, self._retry)
            except InvalidSampleError as error:
                self.invalid_samples.count_invalid(error, name_row(self.source, values))
                self.invalid_samples.check(*self._limits)
                self._rows.advance()
        return self._sample

    def take(self) -> Sample:
        """Return the next sample and move on."""
        sample = self.peek()
        self._sample = None
        self._rows.advance()
        self.invalid_samples.count_used()
        return sample


class ProceduralStream:
    """Endless plants. The position is the number of plants so far.

    Args:
        size: Side of their images in pixels.
        weight: Sampling weight, relative to the sources.
        seed: Seed of the run.
        shard: Shard of the stream; no two shards have a plant in common.
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


class Mixture:
    """Draws from streams by weight: the probability of a stream is its weight over the sum of all weights.

    `datasets.interleave_datasets` would split the mixture by the smallest number of files among its sources, so that
    one source in a single file makes every process read all of the others.

    Args:
        streams: The streams.
        seed: Seed of the run.
        shard: The part of every stream that this mixture reads.
    """

    def __init__(self, streams: list[SampleStream | ProceduralStream], seed: int, shard: Shard):
        self._streams = streams
        self._weights = np.array([stream.weight for stream in streams])
        self._seed = [seed, shard.index]
        self._draws = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the number of draws and the states of the streams."""
        return {"draws": self._draws, "streams": [stream.state_dict() for stream in self._streams]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a position that [`state_dict`] returned."""
        self._draws = state["draws"]
        for stream, stream_state in zip(self._streams, state["streams"], strict=True):
            stream.load_state_dict(stream_state)

    def choose(self, kinds: Collection[str] | None = None) -> SampleStream | ProceduralStream:
        """Draw a stream, one of these `kinds` if they are given."""
        allowed = [kinds is None or stream.kind in kinds for stream in self._streams]
        weights = self._weights * allowed
        chosen = np.random.default_rng([*self._seed, self._draws]).choice(len(weights), p=weights / weights.sum())
        self._draws += 1
        return self._streams[chosen]
