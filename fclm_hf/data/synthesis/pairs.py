"""Pairs (A, B) of images that share their objects on different backgrounds: the paper's training input."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ...foreground_fclm import estimate_foreground
from ...utils.renaming import rename_arguments
from ..sources.decoding import COARSE_UNKNOWN
from ..types import Foreground, Photo
from .augmentation import cast_shadow, harmonize_colors, jitter_colors, vary_background
from .coarse_masks import crop_coarse_mask, mark_edges, unite_coarse_masks
from .composition import MAX_ATTEMPTS, Composition, CompositionSettings, composite_objects, stack_alphas


@dataclass
class Pair:
    """Two images of the same objects in the same places.

    Args:
        image_a: `(size, size, 3)` uint8, composited without regard to the background.
        image_b: `(size, size, 3)` uint8, the natural one: a photo, or a composite in harmony with its background.
        alphas: `(objects, size, size)` float32 in [0, 1], the visible part of each object; -1 where it is unknown.
        foreground: `(size, size)` float32 in [0, 1], the whole foreground, including objects that are not in `alphas`;
            -1 where it is unknown.
        names: Names of each object; empty if they do not identify it.
        texts: Expressions for each object; empty if they do not identify it.
        valid: Height and width of the content; the rest, at the right and below, is zero padding.
        instance: Whether each alpha is a single object, which boxes and clicks can mean. Default: all are.
        is_complete: Whether `foreground` is the target of an empty prompt.
        absent_names: Names of what is not in the images.
        region_names: Names of each object, also of those that `names` leaves out because they mean others as well.
            Default: `names`.

    Example:
        >>> import numpy as np
        >>> from fclm_hf.data import Pair
        >>> image, alpha = np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), np.float32)
        >>> Pair(image, image, alpha[None], alpha, names=[("cat",)], texts=[()], valid=(8, 8)).alphas.shape
        (1, 8, 8)
    """

    image_a: np.ndarray
    image_b: np.ndarray
    alphas: np.ndarray
    foreground: np.ndarray
    names: list[tuple[str, ...]]
    texts: list[tuple[str, ...]]
    valid: tuple[int, int]
    instance: list[bool] | None = None
    is_complete: bool = True
    absent_names: tuple[str, ...] = ()
    region_names: list[tuple[str, ...]] | None = None


@dataclass(frozen=True)
class Window:
    """A rectangle of a photo, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def crop(self, pixels: np.ndarray, size: int) -> np.ndarray:
        """Return this part of `pixels` (uint8, channels last or none), its longer side scaled to `size`."""
        part = pixels[self.top : self.top + self.height, self.left : self.left + self.width]
        scale = size / max(self.height, self.width)
        target = max(1, round(self.width * scale)), max(1, round(self.height * scale))
        mode = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        return cv2.resize(np.ascontiguousarray(part), target, interpolation=mode)


def draw_window(alpha: np.ndarray, rng: np.random.Generator) -> Window:
    """Draw a square window around the objects, tight or wide; it may cut them off.

    Args:
        alpha: `(height, width)` uint8, not 0 everywhere.
        rng: Source of randomness.
    """
    height, width = alpha.shape
    left, top, box_width, box_height = cv2.boundingRect((alpha > min(25, alpha.max() / 2)).astype(np.uint8))
    longest, limit = max(box_width, box_height), min(height, width)
    zoom = float(np.exp(rng.uniform(np.log(0.8), np.log(2.5))))
    side = max(1, int(np.clip(longest * zoom, 0.3 * limit, limit)))
    across = left + box_width * rng.uniform(0.3, 0.7) - side * rng.uniform(0.3, 0.7)
    down = top + box_height * rng.uniform(0.3, 0.7) - side * rng.uniform(0.3, 0.7)
    corner_top, corner_left = np.clip([down, across], 0, [height - side, width - side]).astype(int)
    return Window(int(corner_top), int(corner_left), side, side)


class PairComposition(Composition):
    """Makes pairs from cut-out objects or from photos with alphas. The same `rng` state gives the same pair.

    Args:
        clutter: Cut-out objects that may appear in the background, small and without prompts.
        textures: Photos `(height, width, 3)` uint8, at least one, that may replace an object's surface.
        settings: Probabilities and ranges. Default: those of [`CompositionSettings`].
        whole_photo_prob: Probability that a photo is shown in full instead of a random crop of it, in [0, 1].

    Example:
        >>> import numpy as np
        >>> from fclm_hf.data import CompositionSettings, Foreground, PairComposition
        >>> photos = [np.full((40, 60, 3), value, np.uint8) for value in (60, 180)]
        >>> square = Foreground(np.full((20, 20, 3), 200, np.uint8), np.ones((20, 20), np.float32), ("square",))
        >>> composition = PairComposition([], photos, CompositionSettings(size=32))
        >>> pair = composition.compose_cutouts([square], photos, np.random.default_rng(0))
        >>> pair.image_a.shape, pair.image_b.shape, pair.alphas.shape
        ((32, 32, 3), (32, 32, 3), (1, 32, 32))
    """

    @rename_arguments({"whole_photo": "whole_photo_prob"}, prefix="PairComposition.")
    def __init__(
        self,
        clutter: Sequence[Foreground],
        textures: Sequence[np.ndarray],
        settings: CompositionSettings | None = None,
        whole_photo_prob: float = 0.3,
    ):
        super().__init__(clutter, textures, settings)
        self.whole_photo_prob = whole_photo_prob

    def compose_cutouts(
        self,
        foregrounds: Sequence[Foreground],
        backgrounds: Sequence[np.ndarray],
        rng: np.random.Generator,
        copies: int = 1,
    ) -> Pair | None:
        """Composite objects over two photos; they are in harmony with the second one only.

        Args:
            foregrounds: The objects, with different names, the rearmost first.
            backgrounds: Photos `(height, width, 3)` uint8 of A and B.
            rng: Source of randomness.
            copies: Number of times that each object is shown. Copies have no names, which would be ambiguous.

        Returns:
            The pair, or None if every placement leaves too little of all objects visible.
        """
        varied = self._vary_foregrounds(foregrounds, rng) * copies
        attempts = (self._try_cutouts(varied, backgrounds, rng, copies > 1) for _ in range(MAX_ATTEMPTS))
        return next((pair for pair in attempts if pair is not None), None)

    def compose_photo(
        self, photo: Photo, background: np.ndarray, rng: np.random.Generator, other: np.ndarray | None = None
    ) -> Pair | None:
        """Make a pair of a photo (B) and its foreground on another background (A), see `settings.photo_backgrounds`.

        The colors of the foreground are estimated first, so that A shows no halo; that of a coarse mask lies in the
        band along its edges, which does not count. A photo with texts is neither cropped nor mirrored: they may refer
        to left and right.

        Args:
            photo: The photo and its objects.
            background: `(height, width, 3)` uint8, for A.
            rng: Source of randomness.
            other: `(height, width, 3)` uint8, for B if all backgrounds are replaced. Default: `background`.

        Returns:
            The pair, or None if too little of all objects is visible.
        """
        backgrounds = background, background if other is None else other
        attempts = (self._try_photo(photo, backgrounds, rng) for _ in range(MAX_ATTEMPTS))
        return next((pair for pair in attempts if pair is not None), None)

    def _try_cutouts(
        self,
        foregrounds: list[Foreground],
        backgrounds: Sequence[np.ndarray],
        rng: np.random.Generator,
        are_copies: bool,
    ) -> Pair | None:
        """Return one pair of composites, or None if it shows too little of the objects."""
        behind_a, behind_b = (self._draw_background(photo, rng) for photo in backgrounds)
        objects = self._place_objects(foregrounds, rng, are_copies)
        image_a, visible = composite_objects(behind_a, [(each.colors, each.alpha) for each in objects])
        harmonized = []
        for each in objects:
            harmonized.append((harmonize_colors(each.colors, each.alpha, behind_b, rng), each.alpha))
            if rng.random() < self.settings.shadow_prob:
                behind_b = cast_shadow(behind_b, each.alpha, rng)
        image_b, _ = composite_objects(behind_b, harmonized)
        images = np.concatenate([self._finish(image_a, rng), self._finish(image_b, rng)], axis=-1)
        images, alphas, valid = self._letterbox(images, stack_alphas(visible), rng)
        foreground = np.clip(alphas.sum(0), 0, 1)
        areas = np.array([each.alpha.sum() for each in objects])
        names, texts = [each.names for each in objects], [each.texts for each in objects]
        return self._make_pair(images, alphas, foreground, areas, names, texts, valid)

    def _try_photo(self, photo: Photo, backgrounds: Sequence[np.ndarray], rng: np.random.Generator) -> Pair | None:
        """Return a pair of one part of the photo, or None if it shows too little of the objects."""
        size = self.settings.size
        image, alphas, foreground, scale = self._crop_photo(photo, rng)
        height, width = valid = foreground.shape
        image_a, image_b = self._choose_images(image, foreground, photo.is_coarse, backgrounds, rng)
        if photo.is_coarse:
            foreground, alphas = mark_edges(foreground), np.stack([mark_edges(alpha) for alpha in alphas])
        images = np.concatenate([self._finish(image_a, rng), self._finish(image_b, rng)], axis=-1)
        padding = ((0, size - height), (0, size - width))
        images, foreground = np.pad(images, (*padding, (0, 0))), np.pad(foreground, padding)
        alphas = np.pad(alphas, ((0, 0), *padding))
        areas = np.array([alpha.sum(dtype=np.float64) / 255 for alpha in _get_solid_alphas(photo)]) * scale**2
        all_names = [name for names in photo.names for name in names]
        names = [tuple(name for name in names if all_names.count(name) == 1) for names in photo.names]
        pair = self._make_pair(
            images, alphas, foreground, areas, names, photo.texts, valid, photo.instance, photo.region_names
        )
        return pair and replace(pair, is_complete=photo.is_complete, absent_names=photo.absent_names)

    def _choose_images(
        self,
        image: np.ndarray,
        foreground: np.ndarray,
        is_coarse: bool,
        backgrounds: Sequence[np.ndarray],
        rng: np.random.Generator,
    ) -> list[np.ndarray]:
        """Return A and B `(height, width, 3)` float32: the photo, or its foreground on another background."""
        count = {"own": 0, "pair": 1, "replaced": 2}[self.settings.photo_backgrounds]
        height, width = foreground.shape
        settings = self.settings
        behind = [
            vary_background(each, rng, settings.size, settings.defocus_prob)[:height, :width]
            for each in backgrounds[:count]
        ]
        colors, alpha = image, np.maximum(foreground, 0)
        if behind and not is_coarse:
            colors = 255 * estimate_foreground(np.ascontiguousarray(image) / 255, foreground, alpha_tolerance=0)
        composites = [composite_objects(each, [(colors, alpha)])[0] for each in behind]
        return composites + [image] * (2 - count)

    def _crop_photo(self, photo: Photo, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Return a part of a photo, sometimes mirrored.

        Returns:
            The image `(height, width, 3)` float32 in [0, 255], the alphas `(objects, height, width)` float32 in [0, 1],
            their sum `(height, width)`, both -1 where a coarse mask is unknown, and the factor by which the photo was
            scaled.
        """
        size = self.settings.size
        has_texts = any(photo.texts)
        total = np.minimum(np.sum(_get_solid_alphas(photo), axis=0, dtype=np.uint16), 255).astype(np.uint8)
        is_whole = has_texts or rng.random() < self.whole_photo_prob
        window = Window(0, 0, *total.shape) if is_whole else draw_window(total, rng)
        image = jitter_colors(window.crop(photo.image, size).astype(np.float32), rng)
        if photo.is_coarse:
            alphas = np.stack([crop_coarse_mask(alpha, window.crop, size) for alpha in photo.alphas])
            foreground = unite_coarse_masks(alphas)
        else:
            alphas = np.stack([window.crop(alpha, size) for alpha in photo.alphas]).astype(np.float32) / 255
            foreground = window.crop(total, size).astype(np.float32) / 255
        if not has_texts and rng.random() < 0.5:
            image, alphas, foreground = image[:, ::-1], alphas[..., ::-1], foreground[:, ::-1]
        return image, alphas, foreground, size / max(window.height, window.width)

    def _make_pair(
        self,
        images: np.ndarray,
        alphas: np.ndarray,
        foreground: np.ndarray,
        areas: np.ndarray,
        names: list[tuple[str, ...]],
        texts: list[tuple[str, ...]],
        valid: tuple[int, int],
        instance: list[bool] | None = None,
        region_names: list[tuple[str, ...]] | None = None,
    ) -> Pair | None:
        """Return a pair of the sufficiently visible objects that prompts can mean, or None if there are none.

        Args:
            images: `(size, size, 6)` uint8, A and B.
            alphas: As in [`Pair`], for all objects.
            foreground: As in [`Pair`].
            areas: Area of each whole object, in pixels.
            names: As in [`Pair`], for all objects.
            texts: As in [`Pair`], for all objects.
            valid: As in [`Pair`].
            instance: As in [`Pair`], for all objects.
            region_names: As in [`Pair`], for all objects.
        """
        instance = instance or [True] * len(alphas)
        kept = self._select_visible(np.maximum(alphas, 0), areas)
        kept = [index for index in kept if instance[index] or names[index] or texts[index]]
        if not kept:
            return None
        names, texts, instance, region_names = (
            [values[index] for index in kept] for values in (names, texts, instance, region_names or names)
        )
        image_a, image_b = images[..., :3], images[..., 3:]
        return Pair(
            image_a, image_b, alphas[kept], foreground, names, texts, valid, instance, region_names=region_names
        )


def _get_solid_alphas(photo: Photo) -> list[np.ndarray]:
    """Return the alphas of a photo, or what is certain of its coarse masks, `(height, width)` uint8."""
    if not photo.is_coarse:
        return photo.alphas
    return [np.where(alpha > COARSE_UNKNOWN, np.uint8(255), np.uint8(0)) for alpha in photo.alphas]
