"""Procedural objects and structures: plants, clusters, lattices and hair.

They have many thin parts and gaps, which collections of cut-out objects lack.
"""

import cv2
import numpy as np

from ...utils.renaming import rename_arguments
from ..types import Foreground


SUBPIXEL_BITS = 3  # binary digits of OpenCV's fixed-point coordinates
PLANT_NAMES = ("plant",)


class _Painter:
    """Fills outlines on an initially transparent square image.

    Args:
        size: Side of the image in pixels.
    """

    def __init__(self, size: int):
        self.colors = np.zeros((size, size, 3), np.uint8)
        self.alpha = np.zeros((size, size), np.uint8)

    def fill(self, outline: np.ndarray, hue: float, saturation: float, value: float) -> None:
        """Fill a polygon `(points, 2)` with a color: hue modulo 180, saturation and value clipped to [0, 255]."""
        points = [np.round(outline * 2**SUBPIXEL_BITS).astype(np.int32)]
        hsv = np.uint8([[[hue % 180, np.clip(saturation, 0, 255), np.clip(value, 0, 255)]]])
        color = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].tolist()
        cv2.fillPoly(self.colors, points, color, cv2.LINE_AA, SUBPIXEL_BITS)
        cv2.fillPoly(self.alpha, points, 255, cv2.LINE_AA, SUBPIXEL_BITS)


def _outline_leaf(tip: np.ndarray, base: np.ndarray, width: float, bend: float) -> np.ndarray:
    """Return the outline `(points, 2)` of a pointed leaf from `base` to `tip`."""
    along = tip - base
    across = np.array([-along[1], along[0]])
    steps = np.linspace(0, 1, 9)[:, None]
    spine = base + steps * along + bend * (steps * (1 - steps)) * across
    half = width * np.sin(np.pi * steps**0.8) * across
    return np.concatenate([spine + half, (spine - half)[::-1]])


def grow_plant(rng: np.random.Generator, size: int = 320) -> Foreground:
    """Draw a plant of 20 to 700 leaves on stems that start at the bottom, sometimes with blossoms or in a pot.

    Args:
        rng: Source of randomness.
        size: Side of the image in pixels.

    Returns:
        The plant, named "plant" and cut off at the bottom.
    """
    painter = _Painter(size)
    root = np.array([size * 0.5, size * rng.uniform(0.8, 1.0)])
    hue = rng.uniform(35, 70) if rng.random() < 0.75 else rng.uniform(0, 180)
    saturation, width = rng.uniform(60, 220), rng.uniform(0.04, 0.22)
    reach, fan = size * rng.uniform(0.35, 0.85), rng.uniform(0.5, 1.9)
    length = size * rng.uniform(0.06, 0.3)
    stems = int(rng.integers(3, 14))
    leaves = int(np.exp(rng.uniform(np.log(20), np.log(700))))
    angles = rng.normal(size=stems) * fan / 2
    tips = root + reach * rng.uniform(0.5, 1.0, (stems, 1)) * np.stack([np.sin(angles), -np.cos(angles)], axis=1)
    for tip in tips:
        painter.fill(_outline_leaf(tip, root, rng.uniform(0.004, 0.012), rng.normal() * 0.2), hue - 5, saturation, 90)
    _paint_leaves(painter, rng, root, tips, leaves, width, length, (hue, saturation))
    if rng.random() < 0.4:
        _paint_blossoms(painter, rng, tips, length)
    if rng.random() < 0.3:
        pot = size * rng.uniform(0.12, 0.3), size * rng.uniform(0.1, 0.2), rng.uniform(0.6, 1.0)
        _paint_pot(painter, rng, root, *pot)
    alpha, colors = painter.alpha, painter.colors
    colors = np.where(alpha[..., None] > 0, colors, colors[alpha > 0].mean(0).astype(np.uint8))
    return Foreground(colors, alpha.astype(np.float32) / 255, PLANT_NAMES, (False, False, False, True))


def _paint_leaves(
    painter: _Painter,
    rng: np.random.Generator,
    root: np.ndarray,
    tips: np.ndarray,
    count: int,
    width: float,
    length: float,
    tone: tuple[float, float],
) -> None:
    """Paint `count` leaves along the stems from `root` to `tips`; `tone` is their mean hue and saturation."""
    shade, light = rng.uniform(10, 80), rng.uniform(60, 150)
    gloss = rng.uniform(0, 40)
    for depth in np.sort(rng.random(count)):  # leaves in front are lighter
        stem = tips[rng.integers(len(tips))] - root
        base = root + stem * rng.uniform(0.15, 1.0)
        angle = np.arctan2(stem[1], stem[0]) + rng.normal() * 0.9
        tip = base + length * rng.uniform(0.4, 1.3) * np.array([np.cos(angle), np.sin(angle)])
        hue, saturation = tone[0] + rng.normal() * 4, tone[1] + rng.normal() * 20
        value = shade + light * depth + rng.normal() * 20
        outline = _outline_leaf(tip, base, width * rng.uniform(0.6, 1.4), rng.normal() * 0.4)
        painter.fill(outline, hue, saturation, value)
        half = len(outline) // 2  # one side of the midrib catches more light
        midrib = (outline[:half] + outline[: half - 1 : -1]) / 2
        painter.fill(np.concatenate([outline[:half], midrib[::-1]]), hue, saturation, value + gloss)


def _paint_blossoms(painter: _Painter, rng: np.random.Generator, tips: np.ndarray, length: float) -> None:
    """Paint a blossom of 4 to 8 petals at each of `tips`."""
    hue, petals = rng.uniform(0, 180), int(rng.integers(4, 9))
    for tip in tips:
        turn, petal = rng.uniform(0, 2 * np.pi), length * rng.uniform(0.3, 0.8)
        for angle in turn + 2 * np.pi * np.arange(petals) / petals:
            outline = _outline_leaf(tip + petal * np.array([np.cos(angle), np.sin(angle)]), tip, 0.3, 0.0)
            painter.fill(outline, hue + rng.normal() * 4, 200, 190 + rng.normal() * 30)


def _paint_pot(
    painter: _Painter, rng: np.random.Generator, root: np.ndarray, half: float, height: float, taper: float
) -> None:
    """Paint a pot in vertical stripes, lit from one side.

    Args:
        painter: Painter of the plant.
        rng: Source of randomness.
        root: (x, y) where the plant starts.
        half: Half of the width at the top, in pixels.
        height: Height in pixels.
        taper: Width at the bottom over that at the top.
    """
    hue, saturation, value = rng.uniform(0, 180), rng.uniform(0, 200), rng.uniform(60, 220)
    slope = rng.normal() * 0.4
    top = root[1] - height * 0.7
    for left in np.linspace(-1, 1, 13)[:-1]:
        right = left + 1 / 6
        corners = [(left, top), (right, top), (right * taper, top + height), (left * taper, top + height)]
        outline = np.array([[root[0] + across * half, down] for across, down in corners])
        painter.fill(outline, hue, saturation, value * (1 + slope * left) * (1 - 0.3 * left**2))


def make_cluster(foreground: Foreground, rng: np.random.Generator, size: int = 320) -> Foreground:
    """Return 4 to 15 rotated and scaled copies of an object as one object: a bouquet, a pile, a flock.

    Args:
        foreground: The object that is repeated.
        rng: Source of randomness.
        size: Side of the result in pixels.
    """
    colors = np.zeros((size, size, 3), np.float32)
    alpha = np.zeros((size, size), np.float32)
    height, width = foreground.alpha.shape
    for _ in range(int(rng.integers(4, 16))):
        zoom = size * rng.uniform(0.2, 0.45) / max(height, width)
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), float(rng.normal() * 35), zoom)
        matrix[:, 2] += size * np.clip(0.5 + rng.normal(size=2) * 0.16, 0.2, 0.8) - [width / 2, height / 2]
        layer = cv2.warpAffine(foreground.alpha, matrix, (size, size))[..., None]
        copy = cv2.warpAffine(foreground.colors, matrix, (size, size)) * np.float32(rng.uniform(0.75, 1.15))
        colors = copy * layer + colors * (1 - layer)
        alpha = layer[..., 0] + alpha * (1 - layer[..., 0])
    colors = np.clip(colors / np.maximum(alpha, 1e-3)[..., None], 0, 255).astype(np.uint8)
    return Foreground(colors, np.clip(alpha, 0, 1), foreground.names)


def cut_lattice(foreground: Foreground, rng: np.random.Generator) -> Foreground:
    """Cut a regular lattice of holes into an object: a mesh, lace, a fence, a basket."""
    height, width = foreground.alpha.shape
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    period = max(height, width) * rng.uniform(0.04, 0.16)
    angle, skew = rng.uniform(0, np.pi), rng.uniform(0.8, 1.3)
    turned = [columns * np.cos(a) + rows * np.sin(a) for a in (angle, angle + skew)]
    wave = np.minimum(*(np.abs(((t / period) % 1) * 2 - 1) for t in turned))
    wire = np.clip((rng.uniform(0.15, 0.5) - wave) * period / 2 + 0.5, 0, 1)
    if rng.random() < 0.5:  # a solid part remains
        solid = columns / width * np.cos(angle) + rows / height * np.sin(angle)
        wire = np.maximum(wire, (solid > np.quantile(solid, rng.uniform(0.4, 0.8))).astype(np.float32))
    return Foreground(foreground.colors, foreground.alpha * wire, foreground.names, foreground.cut_sides)


def extend_colors(colors: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Continue the colors of an object beyond its silhouette.

    Args:
        colors: `(height, width, 3)` float32.
        alpha: `(height, width)` float32 in [0, 1].

    Returns:
        Colors `(height, width, 3)` float32, unchanged where alpha is above 0.5.
    """
    weight = alpha[..., None]
    result, filled = colors * weight, weight.copy()
    for radius in (3, 9, 27):
        size = (2 * radius + 1, 2 * radius + 1)
        blurred = cv2.blur(result, size) / np.maximum(cv2.blur(filled, size), 1e-4)[..., None]
        reached = (cv2.blur(filled, size) > 1e-3).astype(np.float32)[..., None]
        result = np.where(filled > 0.05, result, blurred * reached)
        filled = np.maximum(filled.reshape(*alpha.shape, 1), reached)
    return np.where(alpha[..., None] > 0.5, colors, result).astype(np.float32)


@rename_arguments({"colours": "colors"})  # codespell:ignore colours
def add_hair(colors: np.ndarray, alpha: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Grow hair or fur outwards from a stretch of an object's contour: thin curved strands.

    Args:
        colors: `(height, width, 3)` uint8.
        alpha: `(height, width)` float32 in [0, 1]. Strands end at the border of the image.
        rng: Source of randomness.

    Returns:
        Colors `(height, width, 3)` uint8 and alpha `(height, width)` float32 in [0, 1] with the strands.

    Example:
        >>> import numpy as np
        >>> from fclm_hf.data import add_hair
        >>> colors, alpha = np.full((60, 60, 3), 90, np.uint8), np.zeros((60, 60), np.float32)
        >>> alpha[20:40, 20:40] = 1
        >>> _, hairy = add_hair(colors, alpha, np.random.default_rng(0))
        >>> bool((hairy >= alpha).all()), bool((hairy > alpha).any())
        (True, True)
    """
    contours, _ = cv2.findContours((alpha > 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contours = [contour[:, 0] for contour in contours if len(contour) > 40]
    if not contours:
        return colors, alpha
    strands = _draw_strands(max(contours, key=len).astype(np.float32), alpha.shape, rng)
    if rng.random() < 0.5:
        strands = cv2.GaussianBlur(strands, (0, 0), float(rng.uniform(0.4, 0.9)))
    extended = extend_colors(colors.astype(np.float32), alpha)
    alpha = np.maximum(alpha, np.clip(strands, 0, 1))
    return np.clip(extended, 0, 255).astype(np.uint8), alpha


def _draw_strands(contour: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return the alpha `(height, width)` float32 in [0, 1] of strands that start on a contour `(points, 2)`."""
    length = len(contour)
    stretch = int(length * rng.uniform(0.15, 1.0))
    count = int(stretch * rng.uniform(0.3, 1.2))
    starts = (rng.integers(length) + rng.integers(0, max(stretch, 1), size=count)) % length
    normal = _find_normals(contour)
    reach = rng.uniform(0.02, 0.18) * max(shape)
    comb = rng.normal(size=2) * 0.6  # strands lie in a common direction
    steps = np.linspace(-0.15, 1, 9)[:, None]
    strands = np.zeros(shape, np.uint8)
    for start in starts:
        direction = normal[start] + comb + rng.normal(size=2) * 0.35
        bend = rng.normal(size=2) * 0.5
        span = reach * rng.uniform(0.3, 1.0)
        curve = contour[start] + span * (steps * direction + steps**2 * bend)
        points = np.round(curve * 2**SUBPIXEL_BITS).astype(np.int32)
        cv2.polylines(strands, [points], False, int(rng.uniform(60, 255)), 1, cv2.LINE_AA, SUBPIXEL_BITS)
    return strands.astype(np.float32) / 255


def _find_normals(contour: np.ndarray) -> np.ndarray:
    """Return the outward normals `(points, 2)` of a closed contour."""
    tangent = np.roll(contour, -3, axis=0) - np.roll(contour, 3, axis=0)
    normal = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
    return normal if ((contour - contour.mean(0)) * normal).sum() >= 0 else -normal
