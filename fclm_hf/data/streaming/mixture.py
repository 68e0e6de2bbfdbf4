"""Streams of samples, from sources or procedural, and their mixture by weight. Nothing is decoded before it is used."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import numpy as np

from ..sources.invalid_samples import InvalidSampleError
from ..sources.retry import RetryPolicy
from ..sources.rows import Shard, ShuffledRows
from ..sources.samples import decode_row, list_cutout_names, name_row
from ..sources.source import Source
from ..synthesis.procedural import PLANT_NAMES, grow_plant
from ..types import Sample


class StreamedSample:
    """A sample that is decoded once, when it is first needed.

    Args:
        kind: Kind of its source.
        names: Names of the object, if it is a cut-out one.
        name: Function that returns its key in reports.
        decode: Function that returns it.

    Attributes:
        error: Why it cannot be used, once that is known.
    """

    def __init__(
        self, kind: str, names: tuple[str, ...], name: Callable[[], str], decode: Callable[[], Sample]
    ) -> None:
        self.kind, self.names = kind, names
        self._name, self._decode = name, decode
        self._sample: Sample | None = None
        self.error: InvalidSampleError | None = None

    @property
    def key(self) -> str:
        """Key in reports."""
        return self._name()

    def load(self) -> Sample:
        """Return the sample.

        Raises:
            InvalidSampleError: If it cannot be used; each time.
            LostConnectionError: If the connection stays down.
        """
        if self.error is not None:
            raise self.error
        if self._sample is None:
            try:
                self._sample = self._decode()
            except InvalidSampleError as error:
                self.error = error
                raise
        return self._sample

    def is_valid(self) -> bool:
        """Return whether the sample can be used.

        Raises:
            LostConnectionError: If the connection stays down.
        """
        try:
            self.load()
        except InvalidSampleError:
            return False
        return True


class SampleStream:
    """Endless samples of one source.

    Args:
        source: The source.
        shard: The part of it to read.
        seed: Seed of the order of samples.
        retry: Policy for lost connections.
    """

    def __init__(self, source: Source, shard: Shard, seed: int, retry: RetryPolicy):
        self.source = source
        self.kind, self.weight = source.config.kind, source.config.weight
        self._rows = ShuffledRows(source, shard, seed, retry)
        self._retry = retry

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the next sample."""
        return self._rows.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a position that [`state_dict`] returned."""
        self._rows.load_state_dict(state)

    def peek(self) -> StreamedSample:
        """Return the next sample without moving on.

        Raises:
            StreamError: If the source has no rows, or the connection stays down.
        """
        epoch, values = self._rows.peek()
        names = list_cutout_names(self.source, values) if self.kind == "rgba" else ()
        decode = partial(decode_row, self.source, values, epoch, self._retry)
        return StreamedSample(self.kind, names, partial(name_row, self.source, values), decode)

    def take(self) -> StreamedSample:
        """Return the next sample and move on."""
        sample = self.peek()
        self._rows.advance()
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

    def peek(self) -> StreamedSample:
        """Return the next plant, without moving on."""
        number = self._grown * self._shard.count + self._shard.index
        return StreamedSample(self.kind, PLANT_NAMES, lambda: f"plant:{number}", partial(self._grow, number))

    def take(self) -> StreamedSample:
        """Return the next plant and move on."""
        sample = self.peek()
        self._grown += 1
        return sample

    def _grow(self, number: int) -> Sample:
        """Return the plant of a number."""
        plant = grow_plant(np.random.default_rng([self._seed, number]), self._size)
        return Sample(plant, f"plant:{number}", epoch=0, checksum=number)


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
