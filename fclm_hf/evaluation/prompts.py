"""Prompts of the protocols: what a data set gives, or what its true mattes say."""

from dataclasses import dataclass

import cv2
import numpy as np

from ..data.synthesis.prompts import bounding_box
from .samples import Sample, Target, join_targets


PROMPTS = ("text", "point", "box", "none")
POINT_RULES = ("centre", "inside")
PAPER_TEMPLATE = "a photo of {CLS}."
SOLID = 127  # of 255: a pixel above it belongs to the object, as in MAM's protocol


@dataclass(frozen=True)
class PromptRules:
    """How prompts are made.

    Attributes:
        template: text around a class name, with {CLS} in its place; expressions of the data set are used as they are.
        point: "centre" of the box (MAM), which can miss the object, or the point furthest "inside" it.
        vocabulary: of the tokenizer; with it, texts with a word that is not one of its tokens are left out.
    """

    template: str = PAPER_TEMPLATE
    point: str = "centre"
    vocabulary: frozenset[str] | None = None


@dataclass(frozen=True)
class Prompted:
    """An object that a method is asked for: its true matte, uint8 (H, W), and the one prompt for it."""

    target: Target
    alpha: np.ndarray
    text: str | None = None
    point: tuple[float, float] | None = None
    box: tuple[float, float, float, float] | None = None


def ask(
    sample: Sample, mattes: list[np.ndarray], prompt: str, rules: PromptRules
) -> tuple[list[Prompted], dict[str, int]]:
    """The objects of a sample that this kind of prompt can name, and how many cannot be, by reason.

    Args:
        sample: the image.
        mattes: its true mattes, uint8 (H, W), in the order of its targets.
        prompt: one of PROMPTS; "none" asks for all objects as one.
        rules: how prompts are made.
    """
    if prompt == "none":
        return [Prompted(*join_targets(sample, mattes))], {}
    asked, skipped = [], {}
    for target, alpha in zip(sample.targets, mattes, strict=True):
        prompted, reason = _make(target, alpha, prompt, rules)
        if prompted is not None:
            asked.append(prompted)
        else:
            skipped[reason] = skipped.get(reason, 0) + 1
    return asked, skipped


def find_box(alpha: np.ndarray) -> tuple[float, float, float, float] | None:
    """(x0, y0, x1, y1) around the pixels of a uint8 matte above 127, x1 and y1 exclusive; None without such a pixel."""
    solid = alpha > SOLID
    return bounding_box(solid, threshold=0) if solid.any() else None


def find_point(alpha: np.ndarray, rule: str = "centre") -> tuple[float, float] | None:
    """(x, y): the centre of [`find_box`], or the pixel above 127 that is furthest from all others; None without one."""
    box = find_box(alpha)
    if box is None:
        return None
    if rule == "centre":
        return (box[0] + box[2] - 1) / 2, (box[1] + box[3] - 1) / 2
    # padded: the border of the image is an edge of the object too
    solid = np.pad((alpha > SOLID).astype(np.uint8), 1)
    row, column = np.unravel_index(cv2.distanceTransform(solid, cv2.DIST_L2, 5).argmax(), solid.shape)
    return float(column - 1), float(row - 1)


def words_in_vocabulary(text: str, vocabulary: frozenset[str] | dict[str, int]) -> bool:
    """Whether a BPE vocabulary holds every word of `text` as one token."""
    return all(f"{word}</w>" in vocabulary for word in text.lower().split())


def _make(target: Target, alpha: np.ndarray, prompt: str, rules: PromptRules) -> tuple[Prompted | None, str]:
    if prompt == "text":
        if target.text is None and target.cls is None:
            return None, "no text"
        if rules.vocabulary is not None and not words_in_vocabulary(target.text or target.cls, rules.vocabulary):
            return None, "unknown word"
        return Prompted(target, alpha, text=target.text or rules.template.replace("{CLS}", target.cls)), ""
    given = getattr(target, prompt)
    value = given or (find_box(alpha) if prompt == "box" else find_point(alpha, rules.point))
    return (None, "no solid pixel") if value is None else (Prompted(target, alpha, **{prompt: value}), "")
