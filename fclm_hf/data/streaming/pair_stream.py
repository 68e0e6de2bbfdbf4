"""Endless pairs from streamed sources."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ClassVar

import numpy as np

from ...utils.renaming import accept_renamed, rename_arguments, warn_renamed
from ..sources.invalid_samples import InvalidReason, InvalidSampleCounter, InvalidSampleError, StreamError
from ..sources.retry import RetryPolicy
from ..sources.rows import Shard
from ..sources.source import Source
from ..synthesis.composition import CompositionSettings
from ..synthesis.pairs import Pair, PairComposition
from ..types import Foreground, Photo, Sample
from .mixture import StreamedSample
from .planning import GROUP, PairPlan, PairPlanner, PlannedGroup, load_valid, select_clutter, select_textures


_MAX_GROUPS = 64  # groups that are searched for a pair in place of one that cannot be made


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
class DrawnPair:
    """A pair, the epoch and key of each of its foreground samples, and the random generator for its prompts.

    `learns_edges` is whether all of these samples have edges to learn from.
    """

    pair: Pair
    keys: list[tuple[int, str]]
    rng: np.random.Generator
    learns_edges: bool = True


class PairStream:
    """Draws pairs: plans which samples each is made of, then decodes and composes them.

    A photo with alphas makes a pair of its own. A cut-out object is joined by up to two others with different names; an
    object whose names are taken is kept for a later pair. If there are sources of cut-out objects, the fraction
    `composition.plant_prob` of the objects are procedural plants. Clutter and textures come from the other pairs of the
    group of eight that a pair belongs to: nothing is read for them.

    Which samples a pair has, and all its random draws, follow from the seed and its number: pairs that are skipped are
    not decoded, and change nothing about those that are drawn. Samples that turn out to be invalid are left out; where
    no object or background is left, others of the group take their place, with random draws of their own.

    Args:
        foregrounds: Sources of any kind but "background".
        backgrounds: Sources of kind "background".
        shard: The part of every source to read.
        settings: Settings of the pairs.

    Attributes:
        pairs: Number of pairs so far, drawn or skipped.
        invalid_samples: Counter of the samples of the pairs that were drawn.

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
        self._planner = PairPlanner(
            foregrounds, backgrounds, shard, settings.composition, settings.seed, settings.retry
        )
        self._groups: deque[PlannedGroup] = deque()  # that of the next pair, and later ones that had to lend samples
        self.pairs = 0

    @property
    def faults(self) -> InvalidSampleCounter:
        """Deprecated name of `invalid_samples`."""
        warn_renamed("PairStream.faults", "invalid_samples")
        return self.invalid_samples

    def state_dict(self) -> dict[str, Any]:
        """Return the position and the counts, as plain numbers, strings, lists and dicts."""
        return {**self.get_position(), "faults": self.invalid_samples.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at the pair whose state [`state_dict`] returned."""
        self.set_position(state)
        self.invalid_samples.load_state_dict(state["faults"])

    def get_position(self) -> dict[str, Any]:
        """Return the number of pairs so far, and the positions in all sources before the group of the next pair."""
        start = self._groups[0].start if self._groups else self._planner.state_dict()
        return {"pairs": self.pairs, **start}

    def set_position(self, position: dict[str, Any]) -> None:
        """Continue at a position that [`get_position`] returned."""
        self._planner.load_state_dict(position)
        self._groups.clear()
        self.pairs = position["planned"]
        self.skip(position["pairs"] - position["planned"])

    def skip(self, count: int) -> None:
        """Move on by `count` pairs without decoding or counting their samples.

        Raises:
            StreamError: If a source has no rows, or the connection stays down.
        """
        for _ in range(count):
            self._find_group(0)
            self._advance()

    def draw(self, count: int) -> list[DrawnPair]:
        """Return the next pairs.

        Args:
            count: Number of pairs.

        Raises:
            StreamError: See [`PairStream`].
        """
        return [self._draw() for _ in range(count)]

    def _draw(self) -> DrawnPair:
        """Return the next pair."""
        plan = self._find_group(0).plans[self.pairs % GROUP]
        self._count_samples(plan)
        drawn = self._compose(plan, self._find_group(0).plans, plan.rng)
        if drawn is None:
            drawn = self._replace(plan)
        self._advance()
        return drawn

    def _find_group(self, ahead: int) -> PlannedGroup:
        """Return the group of the next pair, or one that follows it."""
        while len(self._groups) <= ahead:
            self._groups.append(self._planner.plan_group())
        return self._groups[ahead]

    def _advance(self) -> None:
        """Move on to the next pair."""
        self.pairs += 1
        if self.pairs % GROUP == 0:
            self._groups.popleft()

    def _count_samples(self, plan: PairPlan) -> None:
        """Decode the samples of a plan, and count those that are used and those that are invalid."""
        for sample in (*plan.samples, *plan.backgrounds):
            if sample.is_valid():
                self.invalid_samples.count_used()
            else:
                self._count_invalid(sample.error, sample)

    def _count_invalid(self, error: InvalidSampleError, sample: StreamedSample, was_used: bool = False) -> None:
        """Count an invalid sample, and check that there are not too many."""
        self.invalid_samples.count_invalid(error, sample.key, was_used)
        self.invalid_samples.check(self.settings.max_invalid_fraction, self.settings.min_sample_count)

    def _replace(self, plan: PairPlan) -> DrawnPair:
        """Return a pair in place of one that cannot be made: of the samples of another plan that follows it."""
        valid = [sample for sample in plan.samples if sample.is_valid()]
        if valid and any(sample.is_valid() for sample in plan.backgrounds):
            self._count_invalid(InvalidSampleError(InvalidReason.TOO_SMALL), valid[0], was_used=True)
        for ahead in range(_MAX_GROUPS):
            plans = self._find_group(ahead).plans
            start = 0 if ahead else self.pairs % GROUP
            for other in (*plans[start:], *plans[:start]):
                drawn = None if other is plan else self._compose(other, plans, plan.rng)
                if drawn is not None:
                    return drawn
        for other in (each for group in self._groups for each in group.plans):
            self._count_samples(other)
        raise StreamError(f"No pair can be made of {_MAX_GROUPS * GROUP} in a row: {self.invalid_samples}.")

    def _compose(self, plan: PairPlan, plans: Sequence[PairPlan], rng: np.random.Generator) -> DrawnPair | None:
        """Return the pair of a plan, with clutter and textures from all `plans`, or None if it cannot be made."""
        samples = list(load_valid(plan.samples))
        textures = select_textures(plan, plans)
        photos = [each.content for each in islice(load_valid(textures.samples), len(plan.backgrounds))]
        if not samples or not photos:
            return None
        photos = (photos * 2)[: len(plan.backgrounds)]
        try:
            pair = self._compose_with(select_clutter(plan, plans), textures, samples, photos, rng, plan.copies)
        except InvalidSampleError:  # none of the objects that were to be clutter can be used
            pair = self._compose_with((), textures, samples, photos, rng, plan.copies)
        keys = [(each.epoch, each.key) for each in samples]
        return pair and DrawnPair(pair, keys, rng, all(each.learns_edges for each in samples))

    def _compose_with(
        self,
        clutter: Sequence[Foreground],
        textures: Sequence[np.ndarray],
        samples: Sequence[Sample],
        photos: Sequence[np.ndarray],
        rng: np.random.Generator,
        copies: int,
    ) -> Pair | None:
        """Return the pair of the samples in front and the photos behind them, or None if too little is visible."""
        composition = PairComposition(clutter, textures, self.settings.composition, self.settings.whole_photo_prob)
        first = samples[0].content
        if isinstance(first, Photo):
            return composition.compose_photo(first, photos[0], rng, photos[-1])
        return composition.compose_cutouts([each.content for each in samples], photos, rng, copies)


def _check_kinds(foregrounds: Sequence[Source], backgrounds: Sequence[Source]) -> None:
    """Check that there are foregrounds and backgrounds, and that all of them are of the right kind."""
    for name, sources, is_background in (("foregrounds", foregrounds, False), ("backgrounds", backgrounds, True)):
        kinds = [source.config.kind for source in sources]
        if not kinds or any((kind == "background") != is_background or kind == "photo" for kind in kinds):
            wanted = "'background'" if is_background else "any other than 'background' and 'photo'"
            raise ValueError(f"{name} must be sources of kind {wanted}, got {', '.join(kinds) or 'none'}.")
