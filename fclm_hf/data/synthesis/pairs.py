"""Pairs (A, B) that share their foreground and its alpha, on different backgrounds (the paper's training input)."""

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from ...foreground_fclm import estimate_foreground_multiscale
from ..sources.decoding import COARSE_UNKNOWN
from ..sources.folders import Foreground
from ..sources.samples import Photo
from .coarse_masks import cut_coarse_mask, leave_out_edges, unite_coarse_masks
from .composition import Composition, CompositionSettings, composite_objects, jitter_colours
from .photo_windows import Window, draw_window


Item = TypeVar("Item")
_TRIES = 8


@dataclass
class Pool(Generic[Item]):
    """Things to draw from, each as likely as the other."""

    items: list[Item]

    def sample(self, rng: np.random.Generator) -> Item:
        return self.items[int(rng.integers(len(self.items)))]


@dataclass
class Pair:
    """Two images of the same objects in the same places.

    Attributes:
        image_a: (size, size, 3) uint8, composited without regard to the background.
        image_b: (size, size, 3) uint8, vanilla: the photo itself, or a composite in harmony with its background.
        alphas: (objects, size, size) float32 in [0, 1], what is visible of each object; -1 where that is unknown.
        foreground: (size, size) float32 in [0, 1], what is in front, asked for or not; -1 where that is unknown.
        names, texts: per object; empty where they do not tell it from the others.
        valid: height and width of the images' content; the rest at the right and below is padding, 0.
        instance: per object, whether it is one object, which boxes and clicks can mean.
        complete: whether `foreground` holds all that an empty prompt asks for.
        absent: names of what is in neither image.
    """

    image_a: np.ndarray
    image_b: np.ndarray
    alphas: np.ndarray
    foreground: np.ndarray
    names: list[tuple[str, ...]]
    texts: list[tuple[str, ...]]
    valid: tuple[int, int]
    instance: list[bool]
    complete: bool = True
    absent: tuple[str, ...] = ()


class PairComposition(Composition):
    """Makes pairs from cut-out objects or from photos with alphas. The same `rng` state gives the same pair.

    Args:
        clutter: cut-out objects that may lie about in the background, small.
        textures: photos that may replace an object's surface.
        settings: probabilities and ranges; objects are harmonised in B always, in A never.
        whole_photo: how often a photo is shown whole instead of a part of it.
    """

    def __init__(
        self,
        clutter: list[Foreground],
        textures: list[np.ndarray],
        settings: CompositionSettings | None = None,
        whole_photo: float = 0.3,
    ):
        super().__init__(Pool(clutter), Pool(textures), settings)
        self.whole_photo = whole_photo

    def compose_cutouts(
        self,
        foregrounds: list[Foreground],
        backgrounds: tuple[np.ndarray, np.ndarray],
        rng: np.random.Generator,
        copies: int = 1,
    ) -> Pair | None:
        """Lays objects over two photos, the first at the back.

        Args:
            foregrounds: the objects, of different names.
            backgrounds: photos (H, W, 3) uint8 of A and B.
            rng: source of randomness.
            copies: how often each object is there; names do not tell several apart.

        Returns:
            None if, wherever they are placed, too little of the objects can be seen.
        """
        rest = 1 - self.settings.plants  # which are a source of their own
        varied = [self._vary_foreground(foreground, rng, rest * rng.random()) for foreground in foregrounds]
        pairs = (self._try_cutouts(varied * copies, backgrounds, rng, copies > 1) for _ in range(_TRIES))
        return next((pair for pair in pairs if pair is not None), None)

    def compose_photo(self, photo: Photo, background: np.ndarray, rng: np.random.Generator) -> Pair | None:
        """B is (a part of) the photo, A its foreground over `background` (H, W, 3) uint8. The foreground's colours are
        estimated first, so that A shows no halo; not so for coarse masks, where the halo lies in the band along the
        edges that does not count. A photo with texts is neither cut nor mirrored: they may speak of left and right.

        Returns:
            None if too little of the objects can be seen.
        """
        pairs = (self._try_photo(photo, background, rng) for _ in range(_TRIES))
        return next((pair for pair in pairs if pair is not None), None)

    def _try_cutouts(
        self,
        foregrounds: list[Foreground],
        backgrounds: tuple[np.ndarray, np.ndarray],
        rng: np.random.Generator,
        twins: bool,
    ) -> Pair | None:
        settings, size = self.settings, self.settings.size
        behind_a, behind_b = (self._draw_behind(photo, rng) for photo in backgrounds)
        layers, names, texts = [], [], []
        for foreground, scale in zip(foregrounds, self._draw_scales(len(foregrounds), rng), strict=True):
            colours, alpha, is_replaced = self._place(foreground, rng, scale)
            layers.append((colours, alpha))
            names.append(() if is_replaced or twins else foreground.names)
            texts.append(() if is_replaced or twins else foreground.texts)
        image_a, visible = composite_objects(behind_a, layers)
        harmonised = []
        for colours, alpha in layers:
            harmonised.append((self._harmonise(colours, alpha, behind_b, rng), alpha))
            if rng.random() < settings.shadow:
                behind_b = self._cast_shadow(behind_b, alpha, rng)
        image_b, _ = composite_objects(behind_b, harmonised)
        images = np.concatenate([self._finish(image_a, rng), self._finish(image_b, rng)], axis=-1)
        alphas = np.clip(np.stack(visible), 0, 1).astype(np.float32)
        valid = (size, size)
        if rng.random() < settings.letterbox:
            images, alphas, valid = self._letterbox(images, alphas, rng)
        whole = np.array([alpha.sum() for _, alpha in layers])
        return self._make_pair(images, alphas, np.clip(alphas.sum(0), 0, 1), whole, names, texts, valid)

    def _try_photo(self, photo: Photo, background: np.ndarray, rng: np.random.Generator) -> Pair | None:
        size = self.settings.size
        has_texts = any(photo.texts)
        parts = [(alpha > COARSE_UNKNOWN) * np.uint8(255) if photo.coarse else alpha for alpha in photo.alphas]
        total = np.minimum(np.sum(parts, axis=0, dtype=np.uint16), 255).astype(np.uint8)
        is_whole = has_texts or rng.random() < self.whole_photo
        window = Window(0, 0, *total.shape) if is_whole else draw_window(total, rng)
        image = jitter_colours(window.cut(photo.image, size).astype(np.float32), rng)
        if photo.coarse:
            alphas = np.stack([cut_coarse_mask(alpha, window, size) for alpha in photo.alphas])
            foreground = unite_coarse_masks(alphas)
        else:
            alphas = np.stack([window.cut(alpha, size) for alpha in photo.alphas]).astype(np.float32) / 255
            foreground = window.cut(total, size).astype(np.float32) / 255
        if not has_texts and rng.random() < 0.5:
            image, alphas, foreground = image[:, ::-1], alphas[..., ::-1], foreground[:, ::-1]
        height, width = valid = foreground.shape
        behind = self._vary_background(background, rng, size)[:height, :width]
        if photo.coarse:
            image_a, _ = composite_objects(behind, [(image, np.maximum(foreground, 0))])
            foreground, alphas = leave_out_edges(foreground), np.stack([leave_out_edges(each) for each in alphas])
        else:
            colours = 255 * estimate_foreground_multiscale(np.ascontiguousarray(image) / 255, foreground)
            image_a, _ = composite_objects(behind, [(colours, foreground)])
        images = np.concatenate([self._finish(image_a, rng), self._finish(image, rng)], axis=-1)
        below = ((0, size - height), (0, size - width))
        images, foreground = np.pad(images, (*below, (0, 0))), np.pad(foreground, below)
        alphas = np.pad(alphas, ((0, 0), *below))
        scale = (size / max(window.height, window.width)) ** 2
        whole = np.array([part.sum(dtype=np.float64) / 255 for part in parts]) * scale
        all_names = [name for names in photo.names for name in names]
        names = [tuple(name for name in names if all_names.count(name) == 1) for names in photo.names]
        pair = self._make_pair(images, alphas, foreground, whole, names, photo.texts, valid, photo.instance)
        return pair and replace(pair, complete=photo.complete, absent=photo.absent)

    def _draw_behind(self, photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        behind = self._vary_background(photo, rng, self.settings.size)
        if self.foregrounds.items and rng.random() < self.settings.distractors:
            behind = self._draw_distractors(behind, rng)
        return behind

    def _finish(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if rng.random() < self.settings.degrade:
            image = self._degrade(image, rng)
        return np.clip(np.rint(image), 0, 255).astype(np.uint8)

    def _make_pair(
        self,
        images: np.ndarray,
        alphas: np.ndarray,
        foreground: np.ndarray,
        whole: np.ndarray,
        names: list[tuple[str, ...]],
        texts: list[tuple[str, ...]],
        valid: tuple[int, int],
        instance: list[bool] | None = None,
    ) -> Pair | None:
        """Leaves out objects of which too little can be seen, and those that no prompt can mean; `whole` is how much
        there would be of each, in pixels.
        """
        settings = self.settings
        instance = instance or [True] * len(alphas)
        least = np.maximum(settings.min_visible * whole, settings.min_area * settings.size**2)
        is_shown = (alphas * (alphas > 0)).sum((1, 2)) >= least
        can_be_meant = [any(ways) for ways in zip(instance, names, texts, strict=True)]
        kept = np.flatnonzero(is_shown & can_be_meant)
        if not len(kept):
            return None
        names, texts, instance = ([values[index] for index in kept] for values in (names, texts, instance))
        image_a, image_b = images[..., :3], images[..., 3:]
        return Pair(image_a, image_b, alphas[kept], foreground, names, texts, valid, instance)
