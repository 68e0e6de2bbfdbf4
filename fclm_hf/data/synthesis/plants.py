"""Procedural plants and bunches: what has many thin parts and gaps, which collections of cut-outs lack."""

from collections.abc import Callable

import cv2
import numpy as np

from ..sources.folders import Foreground


SUBPIXEL = 3  # binary digits of OpenCV's fixed-point coordinates


def _leaf(tip: np.ndarray, base: np.ndarray, width: float, bend: float) -> np.ndarray:
    """Outline (points, 2) of a pointed leaf from `base` to `tip`."""
    along = tip - base
    across = np.array([-along[1], along[0]])
    steps = np.linspace(0, 1, 9)[:, None]
    spine = base + steps * along + bend * (steps * (1 - steps)) * across
    half = width * np.sin(np.pi * steps**0.8) * across
    return np.concatenate([spine + half, (spine - half)[::-1]])


def grow_plant(rng: np.random.Generator, size: int = 320) -> Foreground:
    """A plant of 20 to 700 leaves on stems that start at the bottom, some with blossoms, some in a pot.

    Args:
        rng: source of randomness.
        size: side of the canvas in pixels.
    """
    colours = np.zeros((size, size, 3), np.uint8)
    alpha = np.zeros((size, size), np.uint8)
    root = np.array([size * 0.5, size * rng.uniform(0.8, 1.0)])
    hue = rng.uniform(35, 70) if rng.random() < 0.75 else rng.uniform(0, 180)
    saturation, width = rng.uniform(60, 220), rng.uniform(0.04, 0.22)
    reach, fan = size * rng.uniform(0.35, 0.85), rng.uniform(0.5, 1.9)
    length = size * rng.uniform(0.06, 0.3)

    def paint(outline: np.ndarray, hue: float, saturation: float, value: float) -> None:
        points = [np.round(outline * 2**SUBPIXEL).astype(np.int32)]
        hsv = np.uint8([[[hue % 180, np.clip(saturation, 0, 255), np.clip(value, 0, 255)]]])
        tone = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].tolist()
        cv2.fillPoly(colours, points, tone, cv2.LINE_AA, SUBPIXEL)
        cv2.fillPoly(alpha, points, 255, cv2.LINE_AA, SUBPIXEL)

    stems = int(rng.integers(3, 14))
    leaves = int(np.exp(rng.uniform(np.log(20), np.log(700))))
    angles = rng.normal(size=stems) * fan / 2
    tips = root + reach * rng.uniform(0.5, 1.0, (stems, 1)) * np.stack([np.sin(angles), -np.cos(angles)], axis=1)
    for tip in tips:
        paint(_leaf(tip, root, rng.uniform(0.004, 0.012), rng.normal() * 0.2), hue - 5, saturation, 90)
    shade, light = rng.uniform(10, 80), rng.uniform(60, 150)
    gloss = rng.uniform(0, 40)
    for depth in np.sort(rng.random(leaves)):  # leaves in front are lighter
        stem = tips[rng.integers(stems)] - root
        base = root + stem * rng.uniform(0.15, 1.0)
        angle = np.arctan2(stem[1], stem[0]) + rng.normal() * 0.9
        tip = base + length * rng.uniform(0.4, 1.3) * np.array([np.cos(angle), np.sin(angle)])
        tone = hue + rng.normal() * 4, saturation + rng.normal() * 20, shade + light * depth + rng.normal() * 20
        outline = _leaf(tip, base, width * rng.uniform(0.6, 1.4), rng.normal() * 0.4)
        paint(outline, *tone)
        half = len(outline) // 2  # one side of the midrib catches more light
        midrib = (outline[:half] + outline[: half - 1 : -1]) / 2
        paint(np.concatenate([outline[:half], midrib[::-1]]), *tone[:2], tone[2] + gloss)
    if rng.random() < 0.4:
        blossom_hue, petals = rng.uniform(0, 180), int(rng.integers(4, 9))
        for tip in tips:
            turn, petal = rng.uniform(0, 2 * np.pi), length * rng.uniform(0.3, 0.8)
            for angle in turn + 2 * np.pi * np.arange(petals) / petals:
                outline = _leaf(tip + petal * np.array([np.cos(angle), np.sin(angle)]), tip, 0.3, 0.0)
                paint(outline, blossom_hue + rng.normal() * 4, 200, 190 + rng.normal() * 30)
    if rng.random() < 0.3:
        pot = size * rng.uniform(0.12, 0.3), size * rng.uniform(0.1, 0.2), rng.uniform(0.6, 1.0)
        _paint_pot(paint, root, *pot, rng)
    colours = np.where(alpha[..., None] > 0, colours, colours[alpha > 0].mean(0).astype(np.uint8))
    return Foreground(colours, alpha.astype(np.float32) / 255, ("plant",), (False, False, False, True))


def _paint_pot(
    paint: Callable[..., None],
    root: np.ndarray,
    half: float,
    height: float,
    taper: float,
    rng: np.random.Generator,
) -> None:
    """A pot in vertical stripes, lit from one side; `half` its width at the top, `taper` that at the bottom over it."""
    hue, saturation, value = rng.uniform(0, 180), rng.uniform(0, 200), rng.uniform(60, 220)
    slope = rng.normal() * 0.4
    top = root[1] - height * 0.7
    for left in np.linspace(-1, 1, 13)[:-1]:
        right = left + 1 / 6
        corners = [(left, top), (right, top), (right * taper, top + height), (left * taper, top + height)]
        outline = np.array([[root[0] + across * half, down] for across, down in corners])
        paint(outline, hue, saturation, value * (1 + slope * left) * (1 - 0.3 * left**2))


def bunch(foreground: Foreground, rng: np.random.Generator, size: int = 320) -> Foreground:
    """Several turned and scaled copies of one object as one: a bouquet, a pile, a flock.

    Args:
        foreground: what is repeated.
        rng: source of randomness.
        size: side of the canvas in pixels.
    """
    colours = np.zeros((size, size, 3), np.float32)
    alpha = np.zeros((size, size), np.float32)
    height, width = foreground.alpha.shape
    for _ in range(int(rng.integers(4, 16))):
        zoom = size * rng.uniform(0.2, 0.45) / max(height, width)
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), float(rng.normal() * 35), zoom)
        matrix[:, 2] += size * np.clip(0.5 + rng.normal(size=2) * 0.16, 0.2, 0.8) - [width / 2, height / 2]
        layer = cv2.warpAffine(foreground.alpha, matrix, (size, size))[..., None]
        copy = cv2.warpAffine(foreground.colours, matrix, (size, size)) * np.float32(rng.uniform(0.75, 1.15))
        colours = copy * layer + colours * (1 - layer)
        alpha = layer[..., 0] + alpha * (1 - layer[..., 0])
    colours = np.clip(colours / np.maximum(alpha, 1e-3)[..., None], 0, 255).astype(np.uint8)
    return Foreground(colours, np.clip(alpha, 0, 1), foreground.names)


def perforate(foreground: Foreground, rng: np.random.Generator) -> Foreground:
    """Cuts a regular lattice of holes into an object: mesh, lace, a fence, a basket."""
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
    return Foreground(foreground.colours, foreground.alpha * wire, foreground.names, foreground.cut_sides)
