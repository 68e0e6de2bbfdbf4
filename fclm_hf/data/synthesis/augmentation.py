"""Random augmentation of cut-out objects and images: placement, colors, shadows, defocus and camera artifacts.

Images are float32 arrays `(height, width, 3)` in [0, 255] unless noted otherwise.
"""

import cv2
import numpy as np

from ..types import Foreground


def warp_foreground(
    foreground: Foreground, rng: np.random.Generator, scale: tuple[float, float], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scale, stretch, mirror, rotate and move an object at random.

    Args:
        foreground: The object.
        rng: Source of randomness.
        scale: Range of the object's longer side, as a fraction of `size`.
        size: Side of the result in pixels.

    Returns:
        Colors `(size, size, 3)` uint8, continued beyond the object, and alpha `(size, size)` float32 in [0, 1].
    """
    height, width = foreground.alpha.shape
    longer = size * float(np.exp(rng.uniform(*np.log(scale))))
    zoom = longer / max(height, width)
    linear = _draw_linear_map(foreground, rng, zoom)
    center = _draw_center(foreground, rng, longer * height / max(height, width), size)
    matrix = np.hstack([linear, (center - linear @ [width / 2, height / 2])[:, None]]).astype(np.float32)
    colors, alpha = foreground.colors, foreground.alpha
    if zoom < 0.5:  # warping does not antialias: shrink first
        small = (max(1, round(width * zoom)), max(1, round(height * zoom)))
        colors = cv2.resize(colors, small, interpolation=cv2.INTER_AREA)
        alpha = cv2.resize(alpha, small, interpolation=cv2.INTER_AREA)
        matrix[:, :2] *= np.array([width / small[0], height / small[1]], np.float32)
    mode = cv2.INTER_LINEAR
    colors = cv2.warpAffine(colors, matrix, (size, size), flags=mode, borderMode=cv2.BORDER_REPLICATE)
    return colors, np.clip(cv2.warpAffine(alpha, matrix, (size, size), flags=mode), 0, 1)


def _draw_linear_map(foreground: Foreground, rng: np.random.Generator, zoom: float) -> np.ndarray:
    """Return a 2 x 2 matrix that scales by about `zoom` and stretches, mirrors and rotates at random."""
    stretch = float(np.exp(rng.uniform(-0.2, 0.2)))
    zoom_x, zoom_y = zoom * stretch, zoom / stretch
    if rng.random() < 0.5:
        zoom_x = -zoom_x
    tilt = float(rng.normal() * 12) if rng.random() < 0.9 else float(rng.uniform(-180, 180))
    if any(foreground.cut_sides):
        tilt *= 0.3
    angle = np.deg2rad(tilt)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * [[zoom_x, zoom_y]]


def _draw_center(foreground: Foreground, rng: np.random.Generator, height: float, size: int) -> np.ndarray:
    """Return (x, y) of the object's center; objects cut off at the bottom are mostly put on the lower border."""
    spread = 0.22 if rng.random() < 0.7 else 0.4
    center = size * np.clip(0.5 + rng.normal(size=2) * spread, 0.02, 0.98)
    if foreground.cut_sides[3] and rng.random() < 0.8:
        center[1] = size - height * rng.uniform(0.3, 0.5)
    return center


def jitter_colors(image: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Change the gain of each channel, the saturation, the contrast and the gamma of an image at random.

    Args:
        image: The image.
        rng: Source of randomness.
        strength: Factor on all ranges.
    """
    image = image * (1 + rng.uniform(-0.15, 0.15, 3) * strength).astype(np.float32)
    gray = image.mean(-1, keepdims=True)
    image = gray + (image - gray) * np.float32(1 + rng.uniform(-0.6, 0.3) * strength)
    mean = image.mean()
    image = mean + (image - mean) * np.float32(1 + rng.uniform(-0.3, 0.3) * strength)
    gamma = np.float32(np.exp(rng.uniform(-0.4, 0.4) * strength))
    return 255 * (np.clip(image, 0, 255) / 255) ** gamma


def vary_background(photo: np.ndarray, rng: np.random.Generator, size: int, defocus_prob: float) -> np.ndarray:
    """Return a random square of a photo, mirrored, recolored and blurred at random.

    Args:
        photo: `(height, width, 3)` uint8.
        rng: Source of randomness.
        size: Side of the result in pixels.
        defocus_prob: Probability that the result is blurred.
    """
    height, width = photo.shape[:2]
    side = max(1, int(min(height, width) * rng.uniform(0.35, 1.0)))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    photo = cv2.resize(photo[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        photo = photo[:, ::-1]
    photo = jitter_colors(photo.astype(np.float32), rng)
    if rng.random() < defocus_prob:
        max_sigma = np.log(max(0.5, 0.025 * size))
        photo = cv2.GaussianBlur(photo, (0, 0), float(np.exp(rng.uniform(np.log(0.5), max_sigma))))
    return photo


def harmonize_colors(
    colors: np.ndarray, alpha: np.ndarray, background: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Move the mean and the spread of an object's colors toward those of a background, by a random amount.

    Args:
        colors: Colors of the object.
        alpha: `(height, width)` float32 in [0, 1], the weight of each pixel.
        background: The image that the object is put on.
        rng: Source of randomness.
    """
    weight = alpha[..., None] / max(float(alpha.sum()), 1.0)
    mean = (colors * weight).sum((0, 1))
    spread = np.sqrt((((colors - mean) ** 2) * weight).sum((0, 1))) + 1
    goal, goal_spread = background.mean((0, 1)), background.std((0, 1)) + 1
    amount = np.float32(rng.uniform(0.2, 0.9))
    ratio = np.clip(goal_spread / spread, 0.5, 2) ** amount
    return np.clip((colors - mean) * ratio + mean + (goal - mean) * amount, 0, 255).astype(np.float32)


def cast_shadow(background: np.ndarray, alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Darken a square background with the soft shadow of an object with this `alpha`, displaced at random."""
    size = alpha.shape[0]
    shift = rng.normal(size=2) * 0.05 * size
    matrix = np.array([[1, 0, shift[0]], [0, 1, abs(shift[1])]], np.float32)
    shadow = cv2.warpAffine(alpha, matrix, (size, size))
    shadow = cv2.GaussianBlur(shadow, (0, 0), float(rng.uniform(0.01, 0.05)) * size)
    return background * (1 - np.float32(rng.uniform(0.2, 0.7)) * shadow[..., None])


def degrade_image(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply random artifacts of cameras and file formats: blur, a color cast, noise and JPEG compression."""
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 1.0)))
    if rng.random() < 0.5:
        image = jitter_colors(image, rng, strength=0.5)
    if rng.random() < 0.6:
        image = image + (rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(1, 9)))
    if rng.random() < 0.5:
        image = np.clip(image, 0, 255).astype(np.uint8)
        _, buffer = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))])
        image = cv2.imdecode(buffer, cv2.IMREAD_COLOR).astype(np.float32)
    return image


def add_relief(colors: np.ndarray, texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add the fine brightness structure of a texture to square `colors`, with a random strength."""
    brightness = texture.mean(-1, keepdims=True)
    coarse = cv2.GaussianBlur(brightness, (0, 0), len(colors) / 12)[..., None]
    return colors + (brightness - coarse) * np.float32(rng.uniform(0.3, 1.2))


def crop_to_aspect_ratio(
    image: np.ndarray, alphas: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Cut a square image to a random aspect ratio and pad it at the right and below to a square again.

    Args:
        image: `(size, size, channels)`.
        alphas: `(objects, size, size)`, cut in the same way.
        rng: Source of randomness.

    Returns:
        The image and the alphas, 0 in the padding, and the height and width without padding.
    """
    size = image.shape[0]
    short = int(size * rng.uniform(0.55, 0.9))
    height, width = (short, size) if rng.random() < 0.5 else (size, short)
    top, left = rng.integers(size - height + 1), rng.integers(size - width + 1)
    image = image[top : top + height, left : left + width]
    alphas = alphas[:, top : top + height, left : left + width]
    below = ((0, size - height), (0, size - width))
    return np.pad(image, (*below, (0, 0))), np.pad(alphas, ((0, 0), *below)), (height, width)
