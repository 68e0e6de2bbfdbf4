"""Endless pairs from streamed sources, for one worker of one process."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..sources.folders import Foreground
from ..sources.invalid_samples import FaultCounter, FaultReason, FaultySampleError
from ..sources.retry import Backoff
from ..sources.rows import Share
from ..sources.samples import Photo, Sample
from ..sources.source import Source
from ..synthesis.composition import CompositionSettings
from ..synthesis.pairs import Pair, PairComposition
from .mixture import Mixture, SampleStream
from .plant_stream import PlantStream


@dataclass
class PairSettings:
    """How pairs are drawn.

    Args:
        composition: size of the images, probabilities and ranges.
        whole_photo: how often a photo is shown whole instead of a part of it.
        seed: the same seed gives the same pairs, at least 0.
        max_fault_share: largest accepted share of faulty samples, in [0, 1].
        min_fault_count: number of samples from which on the share is looked at.
        backoff: pauses between tries when a connection fails.
    """

    composition: CompositionSettings = field(default_factory=CompositionSettings)
    whole_photo: float = 0.3
    seed: int = 0
    max_fault_share: float = 0.05
    min_fault_count: int = 200
    backoff: Backoff = field(default_factory=Backoff)


@dataclass
class _Plan:
    """What a pair is made of: a photo or cut-out objects, how often each of them is shown, and backgrounds."""

    samples: list[Sample]
    backgrounds: list[Sample]
    rng: np.random.Generator
    copies: int = 1

    @property
    def foregrounds(self) -> list[Foreground]:
        return [sample.content for sample in self.samples if isinstance(sample.content, Foreground)]


@dataclass
class DrawnPair:
    """A pair, the epoch and key of each sample in front, and the randomness that is left for its prompts."""

    pair: Pair
    keys: list[tuple[int, str]]
    rng: np.random.Generator


class PairStream:
    """Draws the samples of several pairs, then composes each of them.

    A photo with alphas makes a pair of its own. A cut-out object is joined by up to two others of different names; one
    whose names are taken waits for a later pair. Where there are sources of cut-out objects, `composition.plants` of
    the objects are procedural plants. All that is random in a pair starts from (seed, epoch, checksum of its first
    sample's image). Clutter and textures come from the other pairs that are drawn together with it, so that nothing is
    read for them and the position in the sources says it all.

    Args:
        foregrounds: sources of any kind but "background".
        backgrounds: sources of kind "background".
        share: part of every source to read.
        settings: how pairs are drawn.

    Raises:
        ValueError: no source, one of the wrong kind, or nothing but plants.
        StreamError: too many faults, a connection that stays down, or a source without rows; while drawing.
    """

    def __init__(self, foregrounds: list[Source], backgrounds: list[Source], share: Share, settings: PairSettings):
        self.settings = settings
        self.faults = FaultCounter()
        for name, sources, is_background in (("foregrounds", foregrounds, False), ("backgrounds", backgrounds, True)):
            kinds = [source.config.kind for source in sources]
            if not kinds or any((kind == "background") != is_background for kind in kinds):
                wanted = "background" if is_background else "any other than background"
                raise ValueError(f"{name} needs sources of kind {wanted}, got {', '.join(kinds) or 'none'}.")

        plants = settings.composition.plants
        if not 0 <= plants < 1:
            raise ValueError(f"composition.plants must be at least 0 and below 1, got {plants}.")
        limits = settings.max_fault_share, settings.min_fault_count

        def open_streams(sources: list[Source]) -> list[SampleStream]:
            return [
                SampleStream(source, share, settings.seed, settings.backoff, self.faults, *limits) for source in sources
            ]

        objects = open_streams(foregrounds)
        weight = plants / (1 - plants) * sum(stream.weight for stream in objects if stream.kind == "rgba")
        if weight:
            objects.append(PlantStream(settings.composition.size, weight, settings.seed, share))
        self._foregrounds = Mixture(objects, settings.seed, share)
        self._backgrounds = Mixture(open_streams(backgrounds), settings.seed, share)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts."""
        return {
            "foregrounds": self._foregrounds.state_dict(),
            "backgrounds": self._backgrounds.state_dict(),
            "faults": self.faults.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._foregrounds.load_state_dict(state["foregrounds"])
        self._backgrounds.load_state_dict(state["backgrounds"])
        self.faults.load_state_dict(state["faults"])

    def draw(self, count: int) -> list[DrawnPair]:
        """The next `count` pairs."""
        plans = [self._plan() for _ in range(count)]
        drawn: list[DrawnPair] = []
        while len(drawn) < count:
            plan = plans[len(drawn)]
            pair = self._compose(plan, plans)
            if pair is None:
                error = FaultySampleError(FaultReason.TOO_SMALL)
                self.faults.count_fault(error, plan.samples[0].key, was_used=True)
                self.faults.check(self.settings.max_fault_share, self.settings.min_fault_count)
                plans[len(drawn)] = self._plan()
                continue
            keys = [(sample.epoch, sample.key) for sample in plan.samples]
            drawn.append(DrawnPair(pair, keys, plan.rng))
        return drawn

    def _plan(self) -> _Plan:
        first = self._foregrounds.choose().take()
        rng = np.random.default_rng([self.settings.seed, first.epoch, first.checksum])
        if isinstance(first.content, Photo):
            return _Plan([first], [self._backgrounds.choose().take()], rng)
        plan = _Plan([first], [], rng)
        composition = self.settings.composition
        count = 1 + int(rng.choice(3, p=composition.object_counts))
        if count > 1 and rng.random() < composition.twins:
            plan.copies = int(rng.integers(2, composition.most_twins + 1))
        else:
            self._add_others(plan, count - 1)
        plan.backgrounds = [self._backgrounds.choose().take() for _ in range(2)]
        return plan

    def _add_others(self, plan: _Plan, count: int) -> None:
        taken = set(plan.samples[0].content.names)
        for _ in range(count):
            stream = self._foregrounds.choose(kinds=["rgba"])
            names = stream.peek().content.names
            if not taken.intersection(names):
                taken.update(names)
                plan.samples.append(stream.take())

    def _compose(self, plan: _Plan, plans: list[_Plan]) -> Pair | None:
        photos = [sample.content for sample in plan.backgrounds]
        textures = [sample.content for other in plans for sample in other.backgrounds]
        first = plan.samples[0].content
        taken = {name for foreground in plan.foregrounds for name in foreground.names}
        clutter = [
            foreground
            for other in plans
            if other is not plan
            for foreground in other.foregrounds
            if not taken.intersection(foreground.names)
        ]
        composition = PairComposition(clutter, textures, self.settings.composition, self.settings.whole_photo)
        if isinstance(first, Photo):
            return composition.compose_photo(first, photos[0], plan.rng)
        return composition.compose_cutouts(plan.foregrounds, (photos[0], photos[1]), plan.rng, plan.copies)
