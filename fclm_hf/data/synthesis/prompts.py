"""Simulated prompts: jittered boxes, clicks on and beside the object, texts; and their tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch

from ...prompts_fclm import Prompts, pad_prompts
from ...utils.renaming import rename_arguments
from .spoiled_masks import spoil_mask


MASK_ALONE_PROB = 0.7  # probability that a prompt with a mask has nothing else
PAPER_TEMPLATE = "a photo of {}."


@dataclass
class PromptSettings:
    """Settings of simulated prompts.

    Args:
        kinds: Relative frequency of each kind of prompt: "box", "point", "text", or several joined by "+". Kinds with
            text are left out for objects without names and texts. Objects that no kind can mean are left out; if there
            is no other, the prompt is empty.
        box_jitter: Standard deviation of the sides of a jittered box, as a fraction of its width or height. Half of the
            boxes are exact.
        max_points: Largest number of clicks on the object, at least 2.
        max_negative_points: Largest number of clicks beside the object, at least 0; three prompts in ten have some.
        templates: Templates of texts, each with one `{}` for a name.
        absent_prob: Probability that a prompt names what is not in the photo, where such names are known; its target is
            empty.
        mask_prob: Probability that a prompt for an object has a mask, see [`spoil_mask`]; most of these have nothing
            else.

    Example:
        >>> from fclm_hf.data import PromptSettings
        >>> PromptSettings(kinds={"box": 3, "text+point": 1}, templates=("the {}",)).max_points
        3
    """

    kinds: dict[str, float] = field(
        default_factory=lambda: {"box": 4, "point": 4, "text": 2, "box+point": 1, "text+box": 0.5, "text+point": 0.5}
    )
    box_jitter: float = 0.04
    max_points: int = 3
    max_negative_points: int = 2
    templates: tuple[str, ...] = ("{}", "a {}", "the {}", "a photo of a {}.")
    absent_prob: float = 0.0
    mask_prob: float = 0.0


def bounding_box(alpha: np.ndarray, threshold: float = 0.1) -> tuple[float, float, float, float]:
    """Return the box (x0, y0, x1, y1) around an object in pixels; x1 and y1 are exclusive.

    Args:
        alpha: `(height, width)` in [0, 1].
        threshold: Alpha above which a pixel belongs to the object; at most half of the largest alpha.

    Raises:
        ValueError: If `alpha` is 0 everywhere.
    """
    threshold = min(threshold, float(alpha.max()) / 2)
    rows = np.flatnonzero((alpha > threshold).any(1))
    columns = np.flatnonzero((alpha > threshold).any(0))
    if not len(rows):
        raise ValueError("alpha must not be 0 everywhere: there is nothing to put a box around.")
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def sample_box(alpha: np.ndarray, rng: np.random.Generator, jitter: float) -> list[float]:
    """Draw a box [x0, y0, x1, y1] around `alpha` `(height, width)`, jittered half of the time.

    `jitter` is the standard deviation of each side, as a fraction of the box's width or height.
    """
    x0, y0, x1, y1 = bounding_box(alpha)
    height, width = alpha.shape
    if rng.random() < 0.5:
        shifts = rng.normal(size=4) * jitter * np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0])
        x0, x1 = np.clip([x0 + shifts[0], x1 + shifts[2]], 0, width)
        y0, y1 = np.clip([y0 + shifts[1], y1 + shifts[3]], 0, height)
    return [float(x0), float(y0), float(max(x1, x0 + 1)), float(max(y1, y0 + 1))]


def _draw_pixels(mask: np.ndarray, rng: np.random.Generator, count: int) -> list[list[float]]:
    """Draw `count` pixels [x, y] of a mask `(height, width)`; none if it is empty."""
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return []
    chosen = rng.integers(len(rows), size=count)
    return [[float(columns[i]), float(rows[i])] for i in chosen]


def sample_points(
    alpha: np.ndarray, rng: np.random.Generator, settings: PromptSettings
) -> tuple[list[list[float]], list[int]]:
    """Draw clicks inside an object, half of the time deep inside, and sometimes some beside it.

    Depth is measured from the border of the image, too, or at times as if the object went on behind it.

    Args:
        alpha: `(height, width)` float32 in [0, 1]; -1 where it is unknown.
        rng: Source of randomness.
        settings: Largest numbers of clicks.

    Returns:
        The clicks [x, y] in pixels, and their labels: 1 on the object, 0 beside it.
    """
    inside = (alpha > 0.7).astype(np.uint8)
    if not inside.any():
        inside = (alpha >= alpha.max() * 0.9).astype(np.uint8)
    border = cv2.BORDER_CONSTANT if rng.random() < 0.6 else cv2.BORDER_REPLICATE
    bordered = cv2.copyMakeBorder(inside, 1, 1, 1, 1, border)
    depth = cv2.distanceTransform(bordered, cv2.DIST_L2, 3)[1:-1, 1:-1]
    if rng.random() < 0.5:
        inside = depth > 0.6 * depth.max()
    count = 1 if rng.random() < 0.6 else int(rng.integers(2, settings.max_points + 1))
    points = _draw_pixels(inside, rng, count)
    labels = [1] * len(points)
    if settings.max_negative_points and rng.random() < 0.3:
        near = cv2.dilate((alpha > 0.1).astype(np.uint8), np.ones((3, 3), np.uint8), iterations=25)
        outside = (alpha >= 0) & (alpha < 0.05) & (near > 0 if rng.random() < 0.6 else True)
        negatives = _draw_pixels(outside, rng, int(rng.integers(1, settings.max_negative_points + 1)))
        points, labels = points + negatives, labels + [0] * len(negatives)
    return points, labels


def sample_prompt(
    alpha: np.ndarray,
    names: Sequence[str],
    rng: np.random.Generator,
    settings: PromptSettings,
    texts: Sequence[str] = (),
    is_instance: bool = True,
) -> dict[str, Any]:
    """Draw a prompt for one object.

    Args:
        alpha: `(height, width)` float32 in [0, 1], the visible part of the object; -1 where it is unknown.
        names: Names of the object, for the templates.
        rng: Source of randomness.
        settings: Settings of the prompts.
        texts: Expressions that are used verbatim. Without names and texts there are no text prompts.
        is_instance: Whether it is a single object. If not, only a text can mean it.

    Returns:
        Any of `box` ([x0, y0, x1, y1] in pixels), `points` ([x, y] in pixels each) with `labels` (1 on the object, 0
        beside it), `text`, and `mask` (`(height, width)` float32 in [0, 1]).

    Raises:
        ValueError: If `alpha` is 0 everywhere, or what is not a single object has neither names nor texts.

    Example:
        >>> import numpy as np
        >>> from fclm_hf.data import PromptSettings, sample_prompt
        >>> alpha = np.zeros((40, 60), np.float32)
        >>> alpha[10:30, 20:50] = 1
        >>> settings = PromptSettings(kinds={"text+box": 1}, box_jitter=0, templates=("the {}",))
        >>> sample_prompt(alpha, ["cat"], np.random.default_rng(0), settings)
        {'box': [20.0, 10.0, 50.0, 30.0], 'text': 'the cat'}
    """
    kinds = {kind: weight for kind, weight in settings.kinds.items() if names or texts or "text" not in kind}
    if not is_instance:
        if not (names or texts):
            raise ValueError("names or texts must be given for what is not a single object, got neither.")
        kinds = {"text": 1.0}
    weights = np.array(list(kinds.values()))
    kind = str(rng.choice(list(kinds), p=weights / weights.sum())).split("+")
    prompt: dict[str, Any] = {}
    if "box" in kind:
        prompt["box"] = sample_box(alpha, rng, settings.box_jitter)
    if "point" in kind:
        prompt["points"], prompt["labels"] = sample_points(alpha, rng, settings)
    if "text" in kind:
        if texts and (not names or rng.random() < 0.5):
            prompt["text"] = str(rng.choice(texts))
        else:
            prompt["text"] = _fill_template(names, rng, settings)
    if settings.mask_prob and rng.random() < settings.mask_prob:
        if rng.random() < MASK_ALONE_PROB:
            prompt.clear()
        unknown = alpha < 0
        prompt["mask"] = spoil_mask(np.maximum(alpha, 0), rng, unknown if unknown.any() else None)
    return prompt


def _can_mean(settings: PromptSettings, has_text: bool, is_instance: bool) -> bool:
    """Return whether prompts of any kind of the settings can mean an object."""
    kinds = [kind for kind, weight in settings.kinds.items() if weight > 0]
    if not is_instance:
        return has_text and any("text" in kind for kind in kinds)
    return any(has_text or "text" not in kind for kind in kinds)


def _fill_template(names: Sequence[str], rng: np.random.Generator, settings: PromptSettings) -> str:
    """Draw a text with one of the names."""
    return str(rng.choice(settings.templates)).format(str(rng.choice(names)))


@rename_arguments({"automatic": "empty_prompt_prob"})
def sample_prompts(
    alphas: np.ndarray,
    names: Sequence[Sequence[str]],
    rng: np.random.Generator,
    settings: PromptSettings,
    count: int,
    empty_prompt_prob: float,
    texts: Sequence[Sequence[str]] | None = None,
    foreground: np.ndarray | None = None,
    instance: Sequence[bool] | None = None,
    absent_names: Sequence[str] = (),
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Draw prompts for an image. Each object gets one before any gets a second.

    Args:
        alphas: `(objects, height, width)` float32 in [0, 1], the visible part of each object; -1 where it is unknown.
        names: Names of each object, see [`sample_prompt`].
        rng: Source of randomness.
        settings: Settings of the prompts.
        count: Number of prompts.
        empty_prompt_prob: Probability that a prompt is empty, in [0, 1]. Its target is the whole foreground.
        texts: Expressions for each object, see [`sample_prompt`].
        foreground: `(height, width)` float32 in [0, 1], the target of empty prompts. Default: the union of the alphas.
        instance: Whether each alpha is a single object, see [`sample_prompt`]. Default: all are.
        absent_names: Names of what is not in the image.

    Returns:
        The prompts as [`sample_prompt`] returns them, and their targets `(count, height, width)` float32 in [0, 1].

    Example:
        >>> import numpy as np
        >>> from fclm_hf.data import PromptSettings, sample_prompts
        >>> alphas = np.zeros((2, 40, 60), np.float32)
        >>> alphas[0, :, :30], alphas[1, :, 30:] = 1, 1
        >>> rng = np.random.default_rng(0)
        >>> prompts, targets = sample_prompts(alphas, [["cat"], ["dog"]], rng, PromptSettings(), 2, 0.0)
        >>> len(prompts), targets.shape
        (2, (2, 40, 60))
    """
    prompts, targets = [], []
    order = [
        index
        for index in rng.permutation(len(alphas))
        if _can_mean(settings, bool(names[index] or (texts and texts[index])), instance is None or instance[index])
    ]
    for slot in range(count):
        if rng.random() < empty_prompt_prob or not order:
            prompts.append({})
            targets.append(1 - np.prod(1 - alphas, axis=0) if foreground is None else foreground)
            continue
        if settings.absent_prob and absent_names and rng.random() < settings.absent_prob:
            prompts.append({"text": _fill_template(absent_names, rng, settings)})
            targets.append(np.zeros_like(alphas[0]))
            continue
        chosen = order[slot % len(order)]
        own_texts = texts[chosen] if texts else ()
        is_instance = instance is None or instance[chosen]
        prompts.append(sample_prompt(alphas[chosen], names[chosen], rng, settings, own_texts, is_instance))
        targets.append(alphas[chosen])
    return prompts, np.stack(targets)


def collate_prompts(prompts: Sequence[Sequence[dict[str, Any]]], tokenizer: Any) -> dict[str, torch.Tensor]:
    """Pad the prompts of a batch to tensors.

    Args:
        prompts: Image > object > prompt as [`sample_prompt`] returns it, with the same number of objects per image.
        tokenizer: CLIP tokenizer for the texts.

    Returns:
        `input_points` float32 `(batch, objects, points, 2)`, `input_labels` int64 `(batch, objects, points)` with -10
        for padding, `input_boxes` float32 `(batch, objects, 4)` with -10 for absent boxes, and `input_ids` and
        `attention_mask` int64 `(batch, objects, length)`, the mask 0 where there is no text. If any prompt has a mask
        also `input_masks` float32 `(batch, objects, height, width)`, -1 where there is none.

    Example:
        >>> from transformers import AutoTokenizer
        >>> from fclm_hf import LITE_CHECKPOINT
        >>> from fclm_hf.data import collate_prompts
        >>> prompts = [[{"box": [0.0, 0.0, 8.0, 8.0]}, {"text": "the cat"}]]
        >>> batch = collate_prompts(prompts, AutoTokenizer.from_pretrained(LITE_CHECKPOINT))
        >>> batch["input_boxes"].tolist()
        [[[0.0, 0.0, 8.0, 8.0], [-10.0, -10.0, -10.0, -10.0]]]
        >>> batch["attention_mask"].any(-1).tolist()
        [[False, True]]
    """

    def gather(name: str) -> list[list[Any]]:
        return [[prompt.get(name) for prompt in image] for image in prompts]

    objects = [len(image) for image in prompts]
    masks = [[None if mask is None else torch.from_numpy(mask) for mask in image] for image in gather("mask")]
    visual = {"points": gather("points"), "labels": gather("labels"), "boxes": gather("box"), "masks": masks}
    padded = pad_prompts(Prompts(objects, **visual))
    texts = [text for image in gather("text") for text in image]
    tokens = tokenizer([text or "" for text in texts], padding=True, truncation=True, return_tensors="pt")
    is_given = torch.tensor([text is not None for text in texts])
    shape = len(prompts), objects[0], -1
    return {
        **padded,
        "input_ids": tokens["input_ids"].view(shape),
        "attention_mask": (tokens["attention_mask"] * is_given[:, None]).view(shape),
    }
