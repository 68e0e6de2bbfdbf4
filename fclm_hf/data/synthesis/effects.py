"""Photometric effects on images: color jitter, harmonization, shadows, defocus, and what a camera does.

Images are float32 arrays `(height, width, 3)` in [0, 255] unless noted otherwise.
"""

import cv2
import numpy as np


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
    """Darken a square background by the soft shadow of an object with this `alpha`, displaced at random."""
    size = alpha.shape[0]
    shift = rng.normal(size=2) * 0.05 * size
    matrix = np.array([[1, 0, shift[0]], [0, 1, abs(shift[1])]], np.float32)
    shadow = cv2.warpAffine(alpha, matrix, (size, size))
    shadow = cv2.GaussianBlur(shadow, (0, 0), float(rng.uniform(0.01, 0.05)) * size)
    return background * (1 - np.float32(rng.uniform(0.2, 0.7)) * shadow[..., None])


def degrade_image(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply what a camera and a file format do to a picture: blur, color cast, noise and JPEG artifacts, at random."""
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
        The image and the alphas, 0 in the padding, and the height and width of what is not padding.
    """
    size = image.shape[0]
    short = int(size * rng.uniform(0.55, 0.9))
    height, width = (short, size) if rng.random() < 0.5 else (size, short)
    top, left = rng.integers(size - height + 1), rng.integers(size - width + 1)
    image = image[top : top + height, left : left + width]
    alphas = alphas[:, top : top + height, left : left + width]
    below = ((0, size - height), (0, size - width))
    return np.pad(image, (*below, (0, 0))), np.pad(alphas, ((0, 0), *below)), (height, width)
