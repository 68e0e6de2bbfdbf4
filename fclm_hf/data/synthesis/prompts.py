"""Simulated prompts: boxes with jitter, clicks on and beside the object, names."""

from dataclasses import dataclass, field

import cv2
import numpy as np

from .spoiled_masks import spoil_mask


MASK_ALONE = 0.7  # of the mask prompts
PAPER_TEMPLATE = "a photo of {}."


@dataclass
class PromptSettings:
    """How prompts are drawn. `kinds` maps a "+"-joined mix of box, point and text to its weight; `absent` is the share of
    prompts that name what is not in the photo, where such names are known: their target is empty. `masks` is the share
    of the others that are a spoiled mask of their target, see [`spoil_mask`], most of these nothing else.
    """

    kinds: dict[str, float] = field(
        default_factory=lambda: {"box": 4, "point": 4, "text": 2, "box+point": 1, "text+box": 0.5, "text+point": 0.5}
    )
    box_jitter: float = 0.04
    max_points: int = 3
    max_negative_points: int = 2
    templates: tuple[str, ...] = ("{}", "a {}", "the {}", "a photo of a {}.")
    absent: float = 0.0
    masks: float = 0.0


def bounding_box(alpha: np.ndarray, threshold: float = 0.1) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 (exclusive) around `alpha` (H, W) > `threshold` (half the maximum if that is lower).

    Raises:
        ValueError: `alpha` is 0 everywhere.
    """
    threshold = min(threshold, float(alpha.max()) / 2)
    rows = np.flatnonzero((alpha > threshold).any(1))
    columns = np.flatnonzero((alpha > threshold).any(0))
    if not len(rows):
        raise ValueError("alpha is 0 everywhere: there is nothing to put a box around.")
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def sample_box(alpha: np.ndarray, rng: np.random.Generator, jitter: float) -> list[float]:
    """x0, y0, x1, y1 around `alpha` (H, W), half of the time moved by `jitter` (deviation, share of a side)."""
    x0, y0, x1, y1 = bounding_box(alpha)
    height, width = alpha.shape
    if rng.random() < 0.5:
        shifts = rng.normal(size=4) * jitter * np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0])
        x0, x1 = np.clip([x0 + shifts[0], x1 + shifts[2]], 0, width)
        y0, y1 = np.clip([y0 + shifts[1], y1 + shifts[3]], 0, height)
    return [float(x0), float(y0), float(max(x1, x0 + 1)), float(max(y1, y0 + 1))]


def _pick(mask: np.ndarray, rng: np.random.Generator, count: int) -> list[list[float]]:
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return []
    chosen = rng.integers(len(rows), size=count)
    return [[float(columns[i]), float(rows[i])] for i in chosen]


def sample_points(
    alpha: np.ndarray, rng: np.random.Generator, settings: PromptSettings
) -> tuple[list[list[float]], list[int]]:
    """Clicks inside the object (half of the time deep inside) and, at times, on what is not the object.

    How deep a pixel lies is measured from the border of the image too, or, at times, as if the object went on behind it.
    """
    inside = (alpha > 0.7).astype(np.uint8)
    if not inside.any():
        inside = (alpha >= alpha.max() * 0.9).astype(np.uint8)
    border = cv2.BORDER_CONSTANT if rng.random() < 0.6 else cv2.BORDER_REPLICATE
    depth = cv2.distanceTransform(cv2.copyMakeBorder(inside, 1, 1, 1, 1, border), cv2.DIST_L2, 3)[1:-1, 1:-1]
    if rng.random() < 0.5:
        inside = depth > rng.choice([0.6, 0.8]) * depth.max()
    count = 1 if rng.random() < 0.6 else int(rng.integers(2, settings.max_points + 1))
    points = _pick(inside, rng, count)
    labels = [1] * len(points)
    if settings.max_negative_points and rng.random() < 0.3:
        near = cv2.dilate((alpha > 0.1).astype(np.uint8), np.ones((3, 3), np.uint8), iterations=25)
        outside = (alpha >= 0) & (alpha < 0.05) & (near > 0 if rng.random() < 0.6 else True)
        negatives = _pick(outside, rng, int(rng.integers(1, settings.max_negative_points + 1)))
        points, labels = points + negatives, labels + [0] * len(negatives)
    return points, labels


def sample_prompt(
    alpha: np.ndarray,
    names: tuple[str, ...],
    rng: np.random.Generator,
    settings: PromptSettings,
    texts: tuple[str, ...] = (),
    instance: bool = True,
) -> dict[str, object]:
    """A prompt for one object: any of `box`, `points` + `labels`, `text`, `mask`.

    Args:
        alpha: (H, W) float32 in [0, 1], the visible part of the object; -1 where that is unknown.
        names: what it may be called, for the templates.
        rng: source of randomness.
        settings: kinds and their weights.
        texts: expressions that are used as they are; without any and without names there is no text.
        instance: whether it is one object; if not, only a text can mean it.

    Raises:
        ValueError: it is not one object and there is no text for it.
    """
    kinds = {kind: weight for kind, weight in settings.kinds.items() if names or texts or "text" not in kind}
    if not instance:
        if not (names or texts):
            raise ValueError("names or texts must be given for what is not one object.")
        kinds = {"text": 1.0}
    weights = np.array(list(kinds.values()))
    kind = str(rng.choice(list(kinds), p=weights / weights.sum())).split("+")
    prompt: dict[str, object] = {}
    if "box" in kind:
        prompt["box"] = sample_box(alpha, rng, settings.box_jitter)
    if "point" in kind:
        prompt["points"], prompt["labels"] = sample_points(alpha, rng, settings)
    if "text" in kind:
        if texts and (not names or rng.random() < 0.5):
            prompt["text"] = str(rng.choice(texts))
        else:
            prompt["text"] = str(rng.choice(settings.templates)).format(str(rng.choice(names)))
    if settings.masks and rng.random() < settings.masks:
        if rng.random() < MASK_ALONE:
            prompt.clear()
        unknown = alpha < 0
        prompt["mask"] = spoil_mask(np.maximum(alpha, 0), rng, unknown if unknown.any() else None)
    return prompt


def sample_prompts(
    alphas: np.ndarray,
    names: list[tuple[str, ...]],
    rng: np.random.Generator,
    settings: PromptSettings,
    count: int,
    automatic: float,
    texts: list[tuple[str, ...]] | None = None,
    foreground: np.ndarray | None = None,
    instance: list[bool] | None = None,
    absent: tuple[str, ...] = (),
) -> tuple[list[dict[str, object]], np.ndarray]:
    """`count` prompts for an image and their targets; each object gets one before any gets a second.

    Args:
        alphas: (objects, H, W) float32 in [0, 1], the visible part of each object; -1 where that is unknown.
        names, texts: per object, see [`sample_prompt`].
        rng: source of randomness.
        settings: kinds and their weights.
        count: number of prompts.
        automatic: share of prompts that are empty.
        foreground: (H, W) float32, the target of an empty prompt; by default what the alphas cover together.
        instance: per object, see [`sample_prompt`]; by default each is one object.
        absent: names of what is not in the photo.

    Returns:
        The prompts and (count, H, W) float32 targets.
    """
    prompts, targets = [], []
    order = rng.permutation(len(alphas))
    for slot in range(count):
        if rng.random() < automatic:
            prompts.append({})
            targets.append(1 - np.prod(1 - alphas, axis=0) if foreground is None else foreground)
            continue
        if settings.absent and absent and rng.random() < settings.absent:
            prompts.append({"text": str(rng.choice(settings.templates)).format(str(rng.choice(absent)))})
            targets.append(np.zeros_like(alphas[0]))
            continue
        chosen = order[slot % len(order)]
        own_texts = texts[chosen] if texts else ()
        is_one = instance is None or instance[chosen]
        prompts.append(sample_prompt(alphas[chosen], names[chosen], rng, settings, own_texts, is_one))
        targets.append(alphas[chosen])
    return prompts, np.stack(targets)
