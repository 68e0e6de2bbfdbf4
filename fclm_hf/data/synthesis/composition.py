"""Composites of cut-out objects over photos: several objects, occlusion, augmentation of both layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from ...utils.renaming import accept_renamed
from ..types import Foreground
from .augmentation import (
    add_relief,
    cast_shadow,
    crop_to_aspect_ratio,
    degrade_image,
    harmonize_colors,
    jitter_colors,
    vary_background,
    warp_foreground,
)
from .procedural import add_hair, cut_lattice, make_cluster


PHOTO_BACKGROUNDS = ("pair", "own", "replaced")
MAX_ATTEMPTS = 8  # number of placements after which objects are given up as too small


@accept_renamed
@dataclass
class CompositionSettings:
    """Probabilities and ranges of composites. All fields that end in `_prob` are in [0, 1].

    Args:
        size: Side of the square images, in pixels.
        object_counts: Probabilities of one, two and three objects in an image; they sum to 1.
        single_scale: Range of the longer side of a single object, as a fraction of `size`.
        shared_scale: The same for each of several objects.
        duplicate_prob: Probability that an image with several objects shows copies of one object. As their names are
            the same, copies are prompted only by boxes and points.
        max_duplicates: Largest number of copies, at least 2.
        plant_prob: Probability that an object is a procedural plant, in [0, 1).
        cluster_prob: Probability that an object becomes a cluster of copies of itself, such as a bouquet or a flock.
        lattice_prob: Probability that a regular lattice of holes is cut into an object, as in lace or a fence.
        occlusion_prob: Probability that the rearmost of several objects is drawn from `single_scale`, so that the
            others lie on it.
        distractor_prob: Probability that a background shows one to four small objects without prompts.
        hair_prob: Probability that hair or fur is grown from an object's contour.
        photo_texture_prob: Probability that a photo replaces most of an object's surface. The object loses its name.
        surface_texture_prob: Probability that an object gets the relief of a photo, unless its surface is replaced.
        translucency_prob: Probability that an object is translucent: its alpha is multiplied by 0.4 to 0.95.
        soft_edge_prob: Probability that an object's alpha is blurred.
        shadow_prob: Probability that an object casts a shadow on the background.
        harmonize_prob: Probability that an object takes on the colors of its background. Pairs do not use it: objects
            are harmonized always in B and never in A.
        defocus_prob: Probability that a background is blurred.
        degradation_prob: Probability that blur, color cast, noise and JPEG artifacts are added to the composite.
        letterbox_prob: Probability that a composite is cut to another aspect ratio and padded.
        min_visible: Smallest visible fraction of an object's area, in [0, 1]; objects below it get no prompt.
        min_area: Smallest visible area of an object, as a fraction of the image.
        photo_backgrounds: Backgrounds of a pair of a photo: "pair" (A gets another one, B is the photo, as in the
            paper), "own" (both are the photo) or "replaced" (each gets another one).

    Raises:
        ValueError: If `photo_backgrounds` is unknown.

    Example:
        >>> from fclm_hf.data import CompositionSettings
        >>> settings = CompositionSettings(size=512, plant_prob=0.0)
        >>> settings.size, settings.letterbox_prob
        (512, 0.15)
    """

    size: int = 320
    object_counts: tuple[float, float, float] = (0.5, 0.3, 0.2)
    single_scale: tuple[float, float] = (0.35, 1.35)
    shared_scale: tuple[float, float] = (0.22, 0.85)
    duplicate_prob: float = 0.4
    max_duplicates: int = 6
    plant_prob: float = 0.1
    cluster_prob: float = 0.08
    lattice_prob: float = 0.05
    occlusion_prob: float = 0.3
    distractor_prob: float = 0.35
    hair_prob: float = 0.2
    photo_texture_prob: float = 0.2
    surface_texture_prob: float = 0.4
    translucency_prob: float = 0.06
    soft_edge_prob: float = 0.25
    shadow_prob: float = 0.35
    harmonize_prob: float = 0.5
    defocus_prob: float = 0.4
    degradation_prob: float = 0.6
    letterbox_prob: float = 0.15
    min_visible: float = 0.3
    min_area: float = 0.003
    photo_backgrounds: str = "pair"

    RENAMED: ClassVar[dict[str, str]] = {
        "twins": "duplicate_prob",
        "most_twins": "max_duplicates",
        "plants": "plant_prob",
        "bunches": "cluster_prob",
        "meshes": "lattice_prob",
        "overlaid": "occlusion_prob",
        "distractors": "distractor_prob",
        "strands": "hair_prob",
        "photo_texture": "photo_texture_prob",
        "surface_texture": "surface_texture_prob",
        "translucent": "translucency_prob",
        "soft_edge": "soft_edge_prob",
        "shadow": "shadow_prob",
        "harmonise": "harmonize_prob",  # codespell:ignore harmonise
        "defocus": "defocus_prob",
        "degrade": "degradation_prob",
        "letterbox": "letterbox_prob",
    }

    def __post_init__(self) -> None:
        if self.photo_backgrounds not in PHOTO_BACKGROUNDS:
            raise ValueError(
                f"photo_backgrounds must be one of {', '.join(PHOTO_BACKGROUNDS)}, got {self.photo_backgrounds!r}."
            )


def composite_objects(
    background: np.ndarray, layers: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Composite objects over a background, the first at the back: `C = a F + (1 - a) C'` for each.

    Args:
        background: `(height, width, 3)` float32.
        layers: Colors `(height, width, 3)` float32 and alpha `(height, width)` float32 in [0, 1] of each object.

    Returns:
        The image `(height, width, 3)`, and the visible alpha `(height, width)` of each object. Later objects reduce the
        visible alphas of those they cover, so that all alphas and the weight of the background sum to 1.

    Example:
        >>> import numpy as np
        >>> from fclm_hf.data import composite_objects
        >>> black, white = np.zeros((1, 1, 3), np.float32), np.full((1, 1, 3), 100, np.float32)
        >>> half = np.full((1, 1), 0.5, np.float32)
        >>> image, visible = composite_objects(black, [(white, half), (black, half)])
        >>> float(image[0, 0, 0]), [float(alpha[0, 0]) for alpha in visible]
        (25.0, [0.25, 0.5])
    """
    image, visible = background, []
    for colors, alpha in layers:
        rest = 1 - alpha
        image = colors * alpha[..., None] + image * rest[..., None]
        visible = [lower * rest for lower in visible] + [alpha]
    return image, visible


def stack_alphas(alphas: Sequence[np.ndarray]) -> np.ndarray:
    """Return the alphas of several objects as one array `(objects, height, width)`, float32 in [0, 1]."""
    return np.clip(np.stack(alphas), 0, 1).astype(np.float32)


@dataclass
class Composite:
    """One image of several objects.

    Args:
        image: `(size, size, 3)` uint8.
        alphas: `(objects, size, size)` float32 in [0, 1], the visible part of each object.
        names: Names of each object; empty if they do not identify it.
        texts: Expressions for each object; empty if they do not identify it.
        valid: Height and width of the content; the rest, at the right and below, is zero padding.

    Example:
        >>> import numpy as np
        >>> from fclm_hf.data import Composite
        >>> image, alphas = np.zeros((8, 8, 3), np.uint8), np.ones((1, 8, 8), np.float32)
        >>> Composite(image, alphas, names=[("cat",)], texts=[()], valid=(6, 8)).valid
        (6, 8)
    """

    image: np.ndarray
    alphas: np.ndarray
    names: list[tuple[str, ...]]
    texts: list[tuple[str, ...]]
    valid: tuple[int, int]


@dataclass
class PlacedObject:
    """Layer of a composite: colors and alpha of an object, and the names and texts that identify it."""

    colors: np.ndarray
    alpha: np.ndarray
    names: tuple[str, ...]
    texts: tuple[str, ...]


class Composition:
    """Composes images from cut-out objects and a photo. The same `rng` state gives the same image.

    Args:
        clutter: Cut-out objects that may appear in the background, small and without prompts.
        textures: Photos `(height, width, 3)` uint8, at least one, that may replace an object's surface.
        settings: Probabilities and ranges. Default: those of [`CompositionSettings`].

    Example:
        >>> import numpy as np
        >>> from fclm_hf.data import Composition, CompositionSettings, Foreground
        >>> photo = np.full((40, 60, 3), 90, np.uint8)
        >>> square = Foreground(np.full((20, 20, 3), 200, np.uint8), np.ones((20, 20), np.float32), ("square",))
        >>> composition = Composition([], [photo], CompositionSettings(size=32))
        >>> composite = composition.compose([square], photo, np.random.default_rng(0))
        >>> composite.image.shape, composite.alphas.shape
        ((32, 32, 3), (1, 32, 32))
    """

    def __init__(
        self,
        clutter: Sequence[Foreground],
        textures: Sequence[np.ndarray],
        settings: CompositionSettings | None = None,
    ):
        self.clutter, self.textures = clutter, textures
        self.settings = settings or CompositionSettings()

    def compose(
        self, foregrounds: Sequence[Foreground], background: np.ndarray, rng: np.random.Generator, copies: int = 1
    ) -> Composite | None:
        """Composite objects over a photo.

        Args:
            foregrounds: The objects, with different names, the rearmost first.
            background: Photo `(height, width, 3)` uint8.
            rng: Source of randomness.
            copies: Number of times that each object is shown.

        Returns:
            The composite, or None if every placement leaves too little of all objects visible.
        """
        varied = self._vary_foregrounds(foregrounds, rng) * copies
        attempts = (self._try_compose(varied, background, rng, copies > 1) for _ in range(MAX_ATTEMPTS))
        return next((composite for composite in attempts if composite is not None), None)

    def _try_compose(
        self, foregrounds: list[Foreground], background: np.ndarray, rng: np.random.Generator, are_copies: bool
    ) -> Composite | None:
        """Return one composite, or None if it shows too little of the objects."""
        settings = self.settings
        behind = self._draw_background(background, rng)
        objects = self._place_objects(foregrounds, rng, are_copies)
        layers = []
        for each in objects:
            colors = each.colors
            if rng.random() < settings.harmonize_prob:
                colors = harmonize_colors(colors, each.alpha, behind, rng)
            if rng.random() < settings.shadow_prob:
                behind = cast_shadow(behind, each.alpha, rng)
            layers.append((colors, each.alpha))
        image, visible = composite_objects(behind, layers)
        image, alphas, valid = self._letterbox(self._finish(image, rng), stack_alphas(visible), rng)
        kept = self._select_visible(alphas, np.array([each.alpha.sum() for each in objects]))
        if not len(kept):
            return None
        names, texts = [objects[index].names for index in kept], [objects[index].texts for index in kept]
        return Composite(image, alphas[kept], names, texts, valid)

    def _vary_foregrounds(self, foregrounds: Sequence[Foreground], rng: np.random.Generator) -> list[Foreground]:
        """Return the objects, some of them as a cluster or a lattice."""
        settings = self.settings
        rest = 1 - settings.plant_prob  # plants become neither a cluster nor a lattice
        varied = []
        for foreground in foregrounds:
            kind = rest * rng.random()
            if kind < settings.cluster_prob:
                foreground = make_cluster(foreground, rng, settings.size)
            elif kind < settings.cluster_prob + settings.lattice_prob:
                foreground = cut_lattice(foreground, rng)
            varied.append(foreground)
        return varied

    def _draw_scales(self, count: int, rng: np.random.Generator) -> list[tuple[float, float]]:
        """Return the range of sizes of each of `count` objects, the rearmost first."""
        settings = self.settings
        if count == 1:
            return [settings.single_scale]
        rearmost = settings.single_scale if rng.random() < settings.occlusion_prob else settings.shared_scale
        return [rearmost] + [settings.shared_scale] * (count - 1)

    def _draw_background(self, photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a part of a photo, sometimes with small objects without prompts."""
        behind = vary_background(photo, rng, self.settings.size, self.settings.defocus_prob)
        if self.clutter and rng.random() < self.settings.distractor_prob:
            behind = self._add_distractors(behind, rng)
        return behind

    def _add_distractors(self, background: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Put one to four small objects on a background, out of focus sometimes."""
        for _ in range(int(rng.integers(1, 5))):
            distractor = self.clutter[int(rng.integers(len(self.clutter)))]
            colors, alpha = warp_foreground(distractor, rng, (0.06, 0.25), self.settings.size)
            background = colors.astype(np.float32) * alpha[..., None] + background * (1 - alpha[..., None])
        if rng.random() < 0.5:
            background = cv2.GaussianBlur(background, (0, 0), float(rng.uniform(0.5, 2.5)))
        return background

    def _place_objects(
        self, foregrounds: list[Foreground], rng: np.random.Generator, are_copies: bool
    ) -> list[PlacedObject]:
        """Return the layers of a composite; copies of one object have no names."""
        objects = []
        for foreground, scale in zip(foregrounds, self._draw_scales(len(foregrounds), rng), strict=True):
            colors, alpha = warp_foreground(foreground, rng, scale, self.settings.size)
            colors, alpha, is_replaced = self._vary_appearance(colors, alpha, rng)
            is_nameless = is_replaced or are_copies
            names, texts = ((), ()) if is_nameless else (foreground.names, foreground.texts)
            objects.append(PlacedObject(colors, alpha, names, texts))
        return objects

    def _vary_appearance(
        self, colors: np.ndarray, alpha: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, bool]:
        """Return colors and alpha with hair, another surface or softer edges, and whether the surface was replaced."""
        settings = self.settings
        if rng.random() < settings.hair_prob:
            colors, alpha = add_hair(colors, alpha, rng)
        colors = jitter_colors(colors.astype(np.float32), rng)
        is_replaced = rng.random() < settings.photo_texture_prob
        if is_replaced:
            texture = self._draw_texture(rng)
            opacity = np.float32(rng.uniform(0.6, 1.0))
            colors = texture * opacity + colors * (1 - opacity)
        elif rng.random() < settings.surface_texture_prob:
            colors = add_relief(colors, self._draw_texture(rng), rng)
        if rng.random() < settings.soft_edge_prob:
            alpha = cv2.GaussianBlur(alpha, (0, 0), float(np.exp(rng.uniform(np.log(0.4), np.log(3)))))
        if rng.random() < settings.translucency_prob:
            alpha = alpha * np.float32(rng.uniform(0.4, 0.95))
        return np.clip(colors, 0, 255), alpha, bool(is_replaced)

    def _draw_texture(self, rng: np.random.Generator) -> np.ndarray:
        """Return a part of one of the textures."""
        photo = self.textures[int(rng.integers(len(self.textures)))]
        return vary_background(photo, rng, self.settings.size, self.settings.defocus_prob)

    def _finish(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return an image as uint8, degraded sometimes."""
        if rng.random() < self.settings.degradation_prob:
            image = degrade_image(image, rng)
        return np.clip(np.rint(image), 0, 255).astype(np.uint8)

    def _letterbox(
        self, image: np.ndarray, alphas: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
        """Return an image, its alphas and the size of their content, sometimes cut to another aspect ratio."""
        if rng.random() < self.settings.letterbox_prob:
            return crop_to_aspect_ratio(image, alphas, rng)
        return image, alphas, (self.settings.size, self.settings.size)

    def _select_visible(self, alphas: np.ndarray, areas: np.ndarray) -> np.ndarray:
        """Return the indices of sufficiently visible objects; `areas` are those of the whole objects in pixels."""
        settings = self.settings
        smallest = np.maximum(settings.min_visible * areas, settings.min_area * settings.size**2)
        return np.flatnonzero(alphas.sum((1, 2)) >= smallest)
