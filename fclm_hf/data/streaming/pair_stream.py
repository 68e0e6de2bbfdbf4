"""Endless pairs from streamed sources, for one worker of one process."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ...utils.renaming import accept_renamed, rename_arguments, warn_renamed
from ..sources.invalid_samples import InvalidReason, InvalidSampleCounter, InvalidSampleError
from ..sources.retry import RetryPolicy
from ..sources.rows import Shard
from ..sources.source import Source
from ..synthesis.composition import CompositionSettings
from ..synthesis.pairs import Pair, PairComposition
from ..types import Foreground, Photo, Sample
from .mixture import Mixture, ProceduralStream, SampleStream


@accept_renamed
@dataclass
class PairSettings:
    """Settings of pairs.

    Args:
        composition: Size of the images, probabilities and ranges.
        whole_photo_prob: Probability that a photo is shown in full instead of a random crop of it, in [0, 1].
        seed: Seed of all random draws, at least 0. The same seed gives the same pairs.
        max_invalid_fraction: Largest accepted fraction of invalid samples, in [0, 1].
        min_sample_count: Number of samples below which any fraction of invalid ones is accepted.
        retry: Policy for lost connections.

    Example:
        >>> from fclm_hf.data import CompositionSettings, PairSettings
        >>> PairSettings(CompositionSettings(size=512), seed=1).composition.size
        512
    """

    composition: CompositionSettings = field(default_factory=CompositionSettings)
    whole_photo_prob: float = 0.3
    seed: int = 0
    max_invalid_fraction: float = 0.05
    min_sample_count: int = 200
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    RENAMED: ClassVar[dict[str, str]] = {
        "whole_photo": "whole_photo_prob",
        "max_fault_share": "max_invalid_fraction",
        "min_fault_count": "min_sample_count",
        "backoff": "retry",
    }


@dataclass
class _Plan:
    """Samples of a pair: a photo or cut-out objects, the number of copies of each, and backgrounds."""

    samples: list[Sample]
    backgrounds: list[Sample]
    rng: np.random.Generator
    copies: int = 1

    @property
    def foregrounds(self) -> list[Foreground]:
        """Cut-out objects among the samples."""
        return [sample.content for sample in self.samples if isinstance(sample.content, Foreground)]


@dataclass
class DrawnPair:
    """A pair, the epoch and key of each of its foreground samples, and the random generator for its prompts.

    `learns_edges` is whether all of these samples have edges to learn from.
    """

    pair: Pair
    keys: list[tuple[int, str]]
    rng: np.random.Generator
    learns_edges: bool = True


class PairStream:
    """Draws the samples of several pairs, then composes each of them.

    A photo with alphas makes a pair of its own. A cut-out object is joined by up to two others with different names; an
    object whose names are taken is kept for a later pair. If there are sources of cut-out objects, the fraction
    `composition.plant_prob` of the objects are procedural plants. All random draws of a pair are seeded by the seed of
    the run, the epoch, and the checksum of its first sample's image. Clutter and textures come from the other pairs
    that are drawn together with it: nothing is read for them, and the positions in the sources are the whole state.

    Args:
        foregrounds: Sources of any kind but "background".
        backgrounds: Sources of kind "background".
        shard: The part of every source to read.
        settings: Settings of the pairs.

    Raises:
        ValueError: If there is no source, one is of the wrong kind, or all objects would be plants.
        StreamError: While drawing, if too many samples are invalid, a connection stays down, or a source has no rows.

    Example:
        >>> import json, pathlib
        >>> from PIL import Image
        >>> from fclm_hf.data import CompositionSettings, PairSettings, PairStream, Shard, SourceConfig, open_source
        >>> for kind, mode in (("foregrounds", "RGBA"), ("backgrounds", "RGB")):
        ...     Image.new(mode, (16, 16), (200, 90, 40, 128)[: len(mode)]).save(f"{kind}.png")
        ...     _ = pathlib.Path(f"{kind}.json").write_text(json.dumps([{"file": f"{kind}.png", "name": "a square"}]))
        >>> objects, photos = (open_source(SourceConfig(".", kind)) for kind in ("rgba", "background"))
        >>> stream = PairStream([objects], [photos], Shard(), PairSettings(CompositionSettings(size=32)))
        >>> [drawn.pair.image_b.shape for drawn in stream.draw(2)]
        [(32, 32, 3), (32, 32, 3)]
    """

    @rename_arguments({"share": "shard"}, prefix="PairStream.")
    def __init__(
        self, foregrounds: Sequence[Source], backgrounds: Sequence[Source], shard: Shard, settings: PairSettings
    ):
        _check_kinds(foregrounds, backgrounds)
        plant_prob = settings.composition.plant_prob
        if not 0 <= plant_prob < 1:
            raise ValueError(f"composition.plant_prob must be in [0, 1), got {plant_prob}.")
        self.settings = settings
        self.invalid_samples = InvalidSampleCounter()
        limits = settings.max_invalid_fraction, settings.min_sample_count

        def open_streams(sources: Sequence[Source]) -> list[SampleStream]:
            return [
                SampleStream(source, shard, settings.seed, settings.retry, self.invalid_samples, *limits)
                for source in sources
            ]

        objects = open_streams(foregrounds)
        weight = plant_prob / (1 - plant_prob) * sum(stream.weight for stream in objects if stream.kind == "rgba")
        if weight:
            objects.append(ProceduralStream(settings.composition.size, weight, settings.seed, shard))
        self._foregrounds = Mixture(objects, settings.seed, shard)
        self._backgrounds = Mixture(open_streams(backgrounds), settings.seed, shard)

    @property
    def faults(self) -> InvalidSampleCounter:
        """Deprecated name of `invalid_samples`."""
        warn_renamed("PairStream.faults", "invalid_samples")
        return self.invalid_samples

    def state_dict(self) -> dict[str, Any]:
        """Return the positions in all sources as plain numbers, strings, lists and dicts."""
        return {
            "foregrounds": self._foregrounds.state_dict(),
            "backgrounds": self._backgrounds.state_dict(),
            "faults": self.invalid_samples.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at positions that [`state_dict`] returned."""
        self._foregrounds.load_state_dict(state["foregrounds"])
        self._backgrounds.load_state_dict(state["backgrounds"])
        self.invalid_samples.load_state_dict(state["faults"])

    def draw(self, count: int) -> list[DrawnPair]:
        """Return the next pairs.

        Args:
            count: Number of pairs. Clutter and textures of each come from the others.

        Raises:
            StreamError: See [`PairStream`].
        """
        plans = [self._plan() for _ in range(count)]
        drawn: list[DrawnPair] = []
        while len(drawn) < count:
            plan = plans[len(drawn)]
            pair = self._compose(plan, plans)
            if pair is None:
                error = InvalidSampleError(InvalidReason.TOO_SMALL)
                self.invalid_samples.count_invalid(error, plan.samples[0].key, was_used=True)
                self.invalid_samples.check(self.settings.max_invalid_fraction, self.settings.min_sample_count)
                plans[len(drawn)] = self._plan()
                continue
            keys = [(sample.epoch, sample.key) for sample in plan.samples]
            drawn.append(DrawnPair(pair, keys, plan.rng, all(sample.learns_edges for sample in plan.samples)))
        return drawn

    def _plan(self) -> _Plan:
        """Take the samples of the next pair from the sources."""
        first = self._foregrounds.choose().take()
        rng = np.random.default_rng([self.settings.seed, first.epoch, first.checksum])
        if isinstance(first.content, Photo):
            count = 2 if self.settings.composition.photo_backgrounds == "replaced" else 1
            return _Plan([first], [self._backgrounds.choose().take() for _ in range(count)], rng)
        plan = _Plan([first], [], rng)
        composition = self.settings.composition
        count = 1 + int(rng.choice(3, p=composition.object_counts))
        if count > 1 and rng.random() < composition.duplicate_prob:
            plan.copies = int(rng.integers(2, composition.max_duplicates + 1))
        else:
            self._add_objects(plan, count - 1)
        plan.backgrounds = [self._backgrounds.choose().take() for _ in range(2)]
        return plan

    def _add_objects(self, plan: _Plan, count: int) -> None:
        """Take up to `count` more objects whose names are not taken yet."""
        taken = set(plan.samples[0].content.names)
        for _ in range(count):
            stream = self._foregrounds.choose(kinds=["rgba"])
            names = stream.peek().content.names
            if not taken.intersection(names):
                taken.update(names)
                plan.samples.append(stream.take())

    def _compose(self, plan: _Plan, plans: list[_Plan]) -> Pair | None:
        """Return the pair of a plan, with clutter and textures from all `plans`."""
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
        composition = PairComposition(clutter, textures, self.settings.composition, self.settings.whole_photo_prob)
        if isinstance(first, Photo):
            return composition.compose_photo(first, photos[0], plan.rng, photos[-1])
        return composition.compose_cutouts(plan.foregrounds, (photos[0], photos[1]), plan.rng, plan.copies)


def _check_kinds(foregrounds: Sequence[Source], backgrounds: Sequence[Source]) -> None:
    """Check that there are foregrounds and backgrounds, and that all of them are of the right kind."""
    for name, sources, is_background in (("foregrounds", foregrounds, False), ("backgrounds", backgrounds, True)):
        kinds = [source.config.kind for source in sources]
        if not kinds or any((kind == "background") != is_background or kind == "photo" for kind in kinds):
            wanted = "'background'" if is_background else "any other than 'background' and 'photo'"
            raise ValueError(f"{name} must be sources of kind {wanted}, got {', '.join(kinds) or 'none'}.")
