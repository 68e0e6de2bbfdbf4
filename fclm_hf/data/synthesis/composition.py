"""Composites of named foregrounds over photos: 1 to 3 objects, occlusion, augmentation of both layers."""

from dataclasses import dataclass

import cv2
import numpy as np

from ..sources.folders import Backgrounds, Foreground, Foregrounds
from .plants import bunch, grow_plant, perforate
from .strands import add_strands


MOST_ATTEMPTS = 200  # only reached where no foreground can ever show enough


@dataclass
class CompositionSettings:
    """Probabilities and ranges of [`Composition`]; lengths are shares of the image's side.

    `twins` is how often all objects of an image are the same one, up to `most_twins` times; `plants` how often an
    object is a procedural plant, `bunches` several copies of one, `meshes` full of holes; `overlaid` how often the
    rearmost of several objects is as large as a single one, so that the others lie on it; `defocus` how often the
    background is blurred.
    """

    size: int = 320
    object_counts: tuple[float, float, float] = (0.5, 0.3, 0.2)
    single_scale: tuple[float, float] = (0.35, 1.35)
    shared_scale: tuple[float, float] = (0.22, 0.85)
    twins: float = 0.4
    most_twins: int = 6
    plants: float = 0.1
    bunches: float = 0.08
    meshes: float = 0.05
    overlaid: float = 0.3
    distractors: float = 0.35
    strands: float = 0.2
    photo_texture: float = 0.2
    surface_texture: float = 0.4
    translucent: float = 0.06
    soft_edge: float = 0.25
    shadow: float = 0.35
    harmonise: float = 0.5
    defocus: float = 0.4
    degrade: float = 0.6
    letterbox: float = 0.15
    min_visible: float = 0.3
    min_area: float = 0.003


def composite_objects(
    background: np.ndarray, layers: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Lays objects over a background, the first at the back.

    Args:
        background: (H, W, 3) float32. layers: pairs of colours (H, W, 3) float32 and alpha (H, W) float32 in [0, 1].

    Returns:
        The image `C = a F + (1 - a) C'` and each object's visible alpha: what later objects cover is taken off, so that
        the alphas and what is left of the background sum to 1.
    """
    image, visible = background, []
    for colours, alpha in layers:
        rest = 1 - alpha
        image = colours * alpha[..., None] + image * rest[..., None]
        visible = [lower * rest for lower in visible] + [alpha]
    return image, visible


def jitter_colours(image: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Random gain per channel, contrast, saturation and gamma of a float32 image in [0, 255]."""
    image = image * (1 + rng.uniform(-0.15, 0.15, 3) * strength).astype(np.float32)
    grey = image.mean(-1, keepdims=True)
    image = grey + (image - grey) * np.float32(1 + rng.uniform(-0.6, 0.3) * strength)
    mean = image.mean()
    image = mean + (image - mean) * np.float32(1 + rng.uniform(-0.3, 0.3) * strength)
    gamma = np.float32(np.exp(rng.uniform(-0.4, 0.4) * strength))
    return 255 * (np.clip(image, 0, 255) / 255) ** gamma


class Composition:
    """Draws training images from foregrounds and backgrounds. The same `rng` state gives the same sample."""

    def __init__(self, foregrounds: Foregrounds, backgrounds: Backgrounds, settings: CompositionSettings | None = None):
        self.foregrounds = foregrounds
        self.backgrounds = backgrounds
        self.settings = settings or CompositionSettings()

    def sample(self, rng: np.random.Generator) -> dict[str, object]:
        """One composite.

        Returns:
            `image` (size, size, 3) uint8, `alphas` (objects, size, size) float32 in [0, 1] (visible parts), `names`:
            a tuple of names per object, empty where its surface no longer fits its name, `valid` (height, width).

        Raises:
            ValueError: an image that cannot be used, or objects that never show enough of themselves.
        """
        for _ in range(MOST_ATTEMPTS):
            sample = self._try_sample(rng)
            if sample is not None:
                return sample
        raise ValueError(
            f"{MOST_ATTEMPTS} composites showed no object of at least min_area = {self.settings.min_area} of the image:"
            " the foregrounds have hardly an opaque pixel, or the settings make them too small."
        )

    def _try_sample(self, rng: np.random.Generator) -> dict[str, object] | None:
        settings = self.settings
        size = settings.size
        background = self._draw_background(rng, size)
        if rng.random() < settings.distractors:
            background = self._draw_distractors(background, rng)
        count = 1 + int(rng.choice(3, p=settings.object_counts))
        layers, names, taken = [], [], set()
        twins = count > 1 and rng.random() < settings.twins  # a name cannot tell them apart, a box or click can
        if twins:
            count = int(rng.integers(2, settings.most_twins + 1))
        foreground = None
        for scale in self._draw_scales(count, rng):
            if foreground is None or not twins:
                foreground = self._draw_foreground(rng)
                if foreground.names[0] in taken:
                    continue
                taken.update(foreground.names)
            colours, alpha, renamed = self._place(foreground, rng, scale)
            if rng.random() < settings.harmonise:
                colours = self._harmonise(colours, alpha, background, rng)
            if rng.random() < settings.shadow:
                background = self._cast_shadow(background, alpha, rng)
            layers.append((colours, alpha))
            names.append(() if renamed or twins else foreground.names)
        image, visible = composite_objects(background, layers)
        if rng.random() < settings.degrade:
            image = self._degrade(image, rng)
        image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
        alphas = np.clip(np.stack(visible), 0, 1)
        valid = (size, size)
        if rng.random() < settings.letterbox:
            image, alphas, valid = self._letterbox(image, alphas, rng)
        areas = alphas.sum((1, 2))
        whole = np.array([alpha.sum() for _, alpha in layers])
        kept = np.flatnonzero(areas >= np.maximum(settings.min_visible * whole, settings.min_area * size * size))
        if not len(kept):
            return None
        return {"image": image, "alphas": alphas[kept], "names": [names[index] for index in kept], "valid": valid}

    def _draw_scales(self, count: int, rng: np.random.Generator) -> list[tuple[float, float]]:
        """The range of sizes of each of `count` objects, the rearmost first."""
        settings = self.settings
        if count == 1:
            return [settings.single_scale]
        rearmost = settings.single_scale if rng.random() < settings.overlaid else settings.shared_scale
        return [rearmost] + [settings.shared_scale] * (count - 1)

    def _draw_foreground(self, rng: np.random.Generator) -> Foreground:
        settings = self.settings
        kind = rng.random()
        if kind < settings.plants:
            return grow_plant(rng, settings.size)
        return self._vary_foreground(self.foregrounds.sample(rng), rng, kind - settings.plants)

    def _vary_foreground(self, foreground: Foreground, rng: np.random.Generator, kind: float) -> Foreground:
        """A bunch of it, a mesh of it or the object itself, by where `kind` in [0, 1 - plants) falls."""
        settings = self.settings
        if kind < settings.bunches:
            return bunch(foreground, rng, settings.size)
        if kind < settings.bunches + settings.meshes:
            return perforate(foreground, rng)
        return foreground

    def _draw_background(self, rng: np.random.Generator, size: int) -> np.ndarray:
        return self._vary_background(self.backgrounds.sample(rng), rng, size)

    def _vary_background(self, photo: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
        height, width = photo.shape[:2]
        side = max(1, int(min(height, width) * rng.uniform(0.35, 1.0)))
        top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
        photo = cv2.resize(photo[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_AREA)
        if rng.random() < 0.5:
            photo = photo[:, ::-1]
        photo = jitter_colours(photo.astype(np.float32), rng)
        if rng.random() < self.settings.defocus:
            widest = np.log(max(0.5, 0.025 * size))
            photo = cv2.GaussianBlur(photo, (0, 0), float(np.exp(rng.uniform(np.log(0.5), widest))))
        return photo

    def _draw_distractors(self, background: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Small objects that no prompt asks for: a photo's clutter."""
        for _ in range(int(rng.integers(1, 5))):
            colours, alpha, _ = self._place(self.foregrounds.sample(rng), rng, (0.06, 0.25), plain=True)
            background = colours * alpha[..., None] + background * (1 - alpha[..., None])
        if rng.random() < 0.5:
            background = cv2.GaussianBlur(background, (0, 0), float(rng.uniform(0.5, 2.5)))
        return background

    def _place(
        self, foreground: Foreground, rng: np.random.Generator, scale: tuple[float, float], plain: bool = False
    ) -> tuple[np.ndarray, np.ndarray, bool]:
        """Turns, scales and moves an object onto the canvas: colours, alpha, and whether its look was replaced."""
        settings, size = self.settings, self.settings.size
        height, width = foreground.alpha.shape
        target = size * float(np.exp(rng.uniform(*np.log(scale))))
        zoom = target / max(height, width)
        stretch = float(np.exp(rng.uniform(-0.2, 0.2)))
        zoom_x, zoom_y = zoom * stretch, zoom / stretch
        if rng.random() < 0.5:
            zoom_x = -zoom_x
        tilt = float(rng.normal() * 12) if rng.random() < 0.9 else float(rng.uniform(-180, 180))
        if any(foreground.cut_sides):
            tilt *= 0.3
        angle = np.deg2rad(tilt)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * [[zoom_x, zoom_y]]
        place = self._choose_place(foreground, rng, target * height / max(height, width), size)
        matrix = np.hstack([turn, (place - turn @ [width / 2, height / 2])[:, None]]).astype(np.float32)
        if zoom < 0.5:  # warping does not antialias: shrink first
            small = (max(1, round(width * zoom)), max(1, round(height * zoom)))
            colours = cv2.resize(foreground.colours, small, interpolation=cv2.INTER_AREA)
            alpha = cv2.resize(foreground.alpha, small, interpolation=cv2.INTER_AREA)
            matrix[:, :2] *= np.array([width / small[0], height / small[1]], np.float32)
        else:
            colours, alpha = foreground.colours, foreground.alpha
        mode = cv2.INTER_LINEAR
        colours = cv2.warpAffine(colours, matrix, (size, size), flags=mode, borderMode=cv2.BORDER_REPLICATE)
        alpha = np.clip(cv2.warpAffine(alpha, matrix, (size, size), flags=mode), 0, 1)
        if plain:
            return colours.astype(np.float32), alpha, False
        if rng.random() < settings.strands:
            colours, alpha = add_strands(colours, alpha, rng)
        colours = jitter_colours(colours.astype(np.float32), rng)
        replaced = rng.random() < settings.photo_texture
        if replaced:
            texture = self._draw_background(rng, size)
            share = np.float32(rng.uniform(0.6, 1.0))
            colours = texture * share + colours * (1 - share)
        elif rng.random() < settings.surface_texture:
            texture = self._draw_background(rng, size).mean(-1, keepdims=True)
            relief = (texture - cv2.GaussianBlur(texture, (0, 0), size / 12)[..., None]) * np.float32(
                rng.uniform(0.3, 1.2)
            )
            colours = colours + relief
        if rng.random() < settings.soft_edge:
            alpha = cv2.GaussianBlur(alpha, (0, 0), float(np.exp(rng.uniform(np.log(0.4), np.log(3)))))
        if rng.random() < settings.translucent:
            alpha = alpha * np.float32(rng.uniform(0.4, 0.95))
        return np.clip(colours, 0, 255), alpha, bool(replaced)

    @staticmethod
    def _choose_place(foreground: Foreground, rng: np.random.Generator, height: float, size: int) -> np.ndarray:
        """Centre of the object. What its source cut off at the bottom mostly stands on the lower border."""
        spread = 0.22 if rng.random() < 0.7 else 0.4
        place = size * np.clip(0.5 + rng.normal(size=2) * spread, 0.02, 0.98)
        if foreground.cut_sides[3] and rng.random() < 0.8:
            place[1] = size - height * rng.uniform(0.3, 0.5)
        return place

    @staticmethod
    def _harmonise(
        colours: np.ndarray, alpha: np.ndarray, background: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Moves the object's mean and spread of colour towards the background's."""
        weight = alpha[..., None] / max(float(alpha.sum()), 1.0)
        mean = (colours * weight).sum((0, 1))
        spread = np.sqrt((((colours - mean) ** 2) * weight).sum((0, 1))) + 1
        goal, goal_spread = background.mean((0, 1)), background.std((0, 1)) + 1
        share = np.float32(rng.uniform(0.2, 0.9))
        ratio = np.clip(goal_spread / spread, 0.5, 2) ** share
        return np.clip((colours - mean) * ratio + mean + (goal - mean) * share, 0, 255).astype(np.float32)

    @staticmethod
    def _cast_shadow(background: np.ndarray, alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        size = alpha.shape[0]
        shift = rng.normal(size=2) * 0.05 * size
        matrix = np.array([[1, 0, shift[0]], [0, 1, abs(shift[1])]], np.float32)
        shadow = cv2.warpAffine(alpha, matrix, (size, size))
        shadow = cv2.GaussianBlur(shadow, (0, 0), float(rng.uniform(0.01, 0.05)) * size)
        return background * (1 - np.float32(rng.uniform(0.2, 0.7)) * shadow[..., None])

    @staticmethod
    def _degrade(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What a camera and a JPEG do to the whole picture."""
        if rng.random() < 0.3:
            image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 1.0)))
        if rng.random() < 0.5:
            image = jitter_colours(image, rng, strength=0.5)
        if rng.random() < 0.6:
            image = image + (rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(1, 9)))
        if rng.random() < 0.5:
            image = np.clip(image, 0, 255).astype(np.uint8)
            _, buffer = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))])
            image = cv2.imdecode(buffer, cv2.IMREAD_COLOR).astype(np.float32)
        return image

    @staticmethod
    def _letterbox(
        image: np.ndarray, alphas: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
        """Cuts the image to another aspect ratio, the rest of the square becomes padding."""
        size = image.shape[0]
        short = int(size * rng.uniform(0.55, 0.9))
        height, width = (short, size) if rng.random() < 0.5 else (size, short)
        top, left = rng.integers(size - height + 1), rng.integers(size - width + 1)
        image = image[top : top + height, left : left + width]
        alphas = alphas[:, top : top + height, left : left + width]
        below = ((0, size - height), (0, size - width))
        return np.pad(image, (*below, (0, 0))), np.pad(alphas, ((0, 0), *below)), (height, width)
