"""Plans of pairs: which samples each of them is made of. Planning reads rows and decodes nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from ..sources.invalid_samples import InvalidReason, InvalidSampleError
from ..sources.retry import RetryPolicy
from ..sources.rows import Shard
from ..sources.source import Source
from ..synthesis.composition import CompositionSettings
from ..types import Foreground, Sample
from .mixture import Mixture, ProceduralStream, SampleStream, StreamedSample


GROUP = 8  # pairs that lend clutter and textures to each other
Content = TypeVar("Content")


@dataclass
class PairPlan:
    """Samples of a pair: a photo or cut-out objects, and backgrounds.

    Args:
        samples: The photo, or the objects, the rearmost first.
        backgrounds: One background for a photo, two for objects and for photos whose backgrounds are all replaced.
        rng: Source of randomness for everything else about the pair.
        copies: Number of times that the object is shown.
    """

    samples: list[StreamedSample]
    backgrounds: list[StreamedSample]
    rng: np.random.Generator
    copies: int = 1


@dataclass
class PlannedGroup:
    """Plans of `GROUP` consecutive pairs, and the state of the planner before them."""

    start: dict[str, Any]
    plans: list[PairPlan]


class PairPlanner:
    """Plans the pairs of one shard, in groups.

    What it plans depends on the seed, the shard and the cells of the rows alone, never on pixels: whoever makes some of
    the pairs can skip the others without decoding them.

    Args:
        foregrounds: Sources of any kind but "background".
        backgrounds: Sources of kind "background".
        shard: The part of every source to read.
        composition: Size of the images, probabilities and ranges.
        seed: Seed of the run.
        retry: Policy for lost connections.
    """

    def __init__(
        self,
        foregrounds: Sequence[Source],
        backgrounds: Sequence[Source],
        shard: Shard,
        composition: CompositionSettings,
        seed: int,
        retry: RetryPolicy,
    ) -> None:
        self._composition = composition
        self._seed = [seed, shard.index, shard.count]
        objects: list[SampleStream | ProceduralStream] = [
            SampleStream(source, shard, seed, retry) for source in foregrounds
        ]
        plant_prob = composition.plant_prob
        weight = plant_prob / (1 - plant_prob) * sum(stream.weight for stream in objects if stream.kind == "rgba")
        if weight:
            objects.append(ProceduralStream(composition.size, weight, seed, shard))
        self._foregrounds = Mixture(objects, seed, shard)
        behind = [SampleStream(source, shard, seed, retry) for source in backgrounds]
        self._backgrounds = Mixture(behind, seed, shard)
        self._planned = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the number of pairs so far and the positions in all sources."""
        return {
            "planned": self._planned,
            "foregrounds": self._foregrounds.state_dict(),
            "backgrounds": self._backgrounds.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at positions that [`state_dict`] returned."""
        self._planned = state["planned"]
        self._foregrounds.load_state_dict(state["foregrounds"])
        self._backgrounds.load_state_dict(state["backgrounds"])

    def plan_group(self) -> PlannedGroup:
        """Return the plans of the next group.

        Raises:
            StreamError: If a source has no rows, or the connection stays down.
        """
        return PlannedGroup(self.state_dict(), [self._plan() for _ in range(GROUP)])

    def _plan(self) -> PairPlan:
        """Take the samples of the next pair from the sources."""
        rng = np.random.default_rng([*self._seed, self._planned])
        self._planned += 1
        first = self._foregrounds.choose().take()
        if first.kind != "rgba":
            count = 2 if self._composition.photo_backgrounds == "replaced" else 1
            return PairPlan([first], [self._backgrounds.choose().take() for _ in range(count)], rng)
        plan = PairPlan([first], [], rng)
        count = 1 + int(rng.choice(3, p=self._composition.object_counts))
        if count > 1 and rng.random() < self._composition.duplicate_prob:
            plan.copies = int(rng.integers(2, self._composition.max_duplicates + 1))
        else:
            self._add_objects(plan, count - 1)
        plan.backgrounds = [self._backgrounds.choose().take() for _ in range(2)]
        return plan

    def _add_objects(self, plan: PairPlan, count: int) -> None:
        """Take up to `count` more objects whose names are not taken yet."""
        taken = set(plan.samples[0].names)
        for _ in range(count):
            stream = self._foregrounds.choose(kinds=["rgba"])
            names = stream.peek().names
            if not taken.intersection(names):
                taken.update(names)
                plan.samples.append(stream.take())


def load_valid(samples: Sequence[StreamedSample]) -> Iterator[Sample]:
    """Yield the samples that can be used, each decoded when it is asked for."""
    return (sample.load() for sample in samples if sample.is_valid())


class LazyContents(Sequence[Content], Generic[Content]):
    """Contents of samples, each decoded when it is asked for. In place of an invalid one stands the next valid one.

    Args:
        samples: The samples.
    """

    def __init__(self, samples: Sequence[StreamedSample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Content:
        """Return the content at an index.

        Raises:
            InvalidSampleError: If no sample is valid.
        """
        for sample in load_valid([*self.samples[index:], *self.samples[:index]]):
            return sample.content
        raise InvalidSampleError(InvalidReason.MISSING, "no sample can be used")


def select_clutter(plan: PairPlan, plans: Sequence[PairPlan]) -> LazyContents[Foreground]:
    """Return the cut-out objects of the other `plans` whose names those of `plan` do not share."""
    taken = {name for sample in plan.samples for name in sample.names}
    others = (sample for other in plans if other is not plan for sample in other.samples if sample.kind == "rgba")
    return LazyContents([sample for sample in others if not taken.intersection(sample.names)])


def select_textures(plan: PairPlan, plans: Sequence[PairPlan]) -> LazyContents[np.ndarray]:
    """Return the backgrounds of all `plans`, those of `plan` first."""
    others = (sample for other in plans if other is not plan for sample in other.backgrounds)
    return LazyContents([*plan.backgrounds, *others])
