"""Prompts for the objects of a benchmark: those that the data set provides, or derived from the true mattes."""

from dataclasses import dataclass

import cv2
import numpy as np

from ..data.synthesis.prompts import bounding_box
from .samples import EvaluationSample, Target, join_targets, read_matte


PROMPTS = ("text", "point", "box", "mask", "trimap", "none")
POINT_RULES = ("center", "inside")
DEFAULT_TEMPLATE = "a photo of {CLS}."  # as in the paper
MASK_SIZE = 64  # pixels along the longer side of a rough mask, before it is enlarged
TRIMAP_RADIUS = 0.01  # of the longer side: half the width of the unknown band along an edge
SOLID = 127  # 8-bit alpha above which a pixel belongs to the object, as in Matting Anything (MAM)


@dataclass(frozen=True)
class PromptRules:
    """Rules by which prompts are made.

    Attributes:
        template: Text around a class name, with {CLS} in its place. Expressions of the data set are used as they are.
        point: "center" of the box (as in MAM), which can miss the object, or the point farthest "inside" it.
        vocabulary: Vocabulary of the tokenizer. If given, texts with a word that is not one of its tokens are skipped.
    """

    template: str = DEFAULT_TEMPLATE
    point: str = "center"
    vocabulary: frozenset[str] | None = None


@dataclass(frozen=True)
class PromptedTarget:
    """An object with its prompt, which is a text, a point or a box.

    Attributes:
        target: The object.
        alpha: Its true matte, uint8 of shape `(height, width)`.
        text: Its text prompt.
        point: Its click, (x, y) in pixels.
        box: Its box, (x0, y0, x1, y1) in pixels, x1 and y1 exclusive.
        mask: Its rough mask or trimap, uint8 of shape `(height, width)`.
    """

    target: Target
    alpha: np.ndarray
    text: str | None = None
    point: tuple[float, float] | None = None
    box: tuple[float, float, float, float] | None = None
    mask: np.ndarray | None = None


def prompt_targets(
    sample: EvaluationSample, mattes: list[np.ndarray], prompt: str, rules: PromptRules
) -> tuple[list[PromptedTarget], dict[str, int]]:
    """Make one kind of prompt for the objects of an image.

    Args:
        sample: The image.
        mattes: True mattes in the order of its targets, uint8 of shape `(height, width)`.
        prompt: One of PROMPTS; "none" asks for all objects as one.
        rules: Rules by which prompts are made.

    Returns:
        The prompted objects, and the number of objects without such a prompt, by reason.
    """
    if prompt == "none":
        return [PromptedTarget(*join_targets(sample, mattes))], {}
    prompted, skipped = [], {}
    for target, alpha in zip(sample.targets, mattes, strict=True):
        each, reason = _prompt_target(target, alpha, prompt, rules)
        if each is not None:
            prompted.append(each)
        else:
            skipped[reason] = skipped.get(reason, 0) + 1
    return prompted, skipped


def find_box(alpha: np.ndarray) -> tuple[float, float, float, float] | None:
    """Find the box around the pixels of a uint8 matte above 127.

    Returns:
        (x0, y0, x1, y1) in pixels, x1 and y1 exclusive; None if there is no such pixel.
    """
    solid = alpha > SOLID
    return bounding_box(solid, threshold=0) if solid.any() else None


def find_point(alpha: np.ndarray, rule: str = "center") -> tuple[float, float] | None:
    """Find a click for an object.

    Args:
        alpha: Matte, uint8 of shape `(height, width)`.
        rule: "center" of the box around the pixels above 127, or "inside" for the one of them that is farthest from all
            other pixels.

    Returns:
        (x, y) in pixels; None if no pixel is above 127.
    """
    box = find_box(alpha)
    if box is None:
        return None
    if rule == "center":
        return (box[0] + box[2] - 1) / 2, (box[1] + box[3] - 1) / 2
    # padded, because the border of the image is an edge of the object too
    solid = np.pad((alpha > SOLID).astype(np.uint8), 1)
    row, column = np.unravel_index(cv2.distanceTransform(solid, cv2.DIST_L2, 5).argmax(), solid.shape)
    return float(column - 1), float(row - 1)


def make_rough_mask(alpha: np.ndarray) -> np.ndarray:
    """Make a mask as a small segmentation model would give it: of low resolution, without soft or thin parts.

    Args:
        alpha: Matte, uint8 of shape `(height, width)`.

    Returns:
        uint8 array of 0 and 255 of the same shape.
    """
    height, width = alpha.shape
    scale = min(1.0, MASK_SIZE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize((alpha > SOLID).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    large = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.where(large > 0.5, 255, 0).astype(np.uint8)


def make_trimap(alpha: np.ndarray) -> np.ndarray:
    """Make a trimap: unknown is what is within 1% of the longer side of a fractional alpha or an edge.

    Args:
        alpha: Matte, uint8 of shape `(height, width)`.

    Returns:
        uint8 array of 0, 128 and 255 of the same shape.
    """
    radius = max(1, round(TRIMAP_RADIUS * max(alpha.shape)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    is_object = cv2.dilate((alpha > 0).astype(np.uint8), kernel) > 0
    is_solid = cv2.erode((alpha == 255).astype(np.uint8), kernel) > 0
    return np.where(is_solid, 255, np.where(is_object, 128, 0)).astype(np.uint8)


def words_in_vocabulary(text: str, vocabulary: frozenset[str] | dict[str, int]) -> bool:
    """Return whether every word of a text is a single token of a BPE vocabulary."""
    return all(f"{word}</w>" in vocabulary for word in text.lower().split())


def _prompt_target(
    target: Target, alpha: np.ndarray, prompt: str, rules: PromptRules
) -> tuple[PromptedTarget | None, str]:
    """Return the object with its prompt, or None and the reason why it has none."""
    if prompt == "text":
        if target.text is None and target.cls is None:
            return None, "no text"
        if rules.vocabulary is not None and not words_in_vocabulary(target.text or target.cls, rules.vocabulary):
            return None, "unknown word"
        return PromptedTarget(target, alpha, text=target.text or rules.template.replace("{CLS}", target.cls)), ""
    if prompt in ("mask", "trimap"):
        mask = _find_mask(target, alpha, prompt)
        return (None, "no solid pixel") if mask is None else (PromptedTarget(target, alpha, mask=mask), "")
    provided = getattr(target, prompt)
    value = provided or (find_box(alpha) if prompt == "box" else find_point(alpha, rules.point))
    return (None, "no solid pixel") if value is None else (PromptedTarget(target, alpha, **{prompt: value}), "")


def _find_mask(target: Target, alpha: np.ndarray, prompt: str) -> np.ndarray | None:
    """Return the trimap of the data set, or the mask or trimap that its matte gives; None without a solid pixel."""
    if prompt == "trimap" and target.trimap is not None:
        return read_matte(target.trimap, f"the trimap of {target.name}", alpha.shape)
    if not (alpha > SOLID).any():
        return None
    return make_trimap(alpha) if prompt == "trimap" else make_rough_mask(alpha)
