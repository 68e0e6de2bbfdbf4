"""A second look at each object: the photo around it at full size, with the first matte as a prompt."""

from collections.abc import Mapping
from typing import Any

import torch

from .configuration_fclm import PROMPT_PADDING


MARGIN = 0.25  # of the longer side of an object, on each side of it
WHOLE = 0.8  # an object that takes this share of the longer side of the photo is seen in the whole photo
FEWEST_PIXELS = 30  # with fewer, the first matte has found nothing

_PROMPTS = ("input_points", "input_labels", "input_boxes", "input_ids", "attention_mask", "input_masks")

Region = tuple[int, int, int, int]


def refine_alphas(
    model: Any, pixel_values: torch.Tensor, alphas: torch.Tensor, inputs: Mapping[str, Any], size: int | None = None
) -> torch.Tensor:
    """Look at each object of an image again, closer, and return better alphas.

    A small encoder input shows the model what belongs to an object, a large one where its edge is. So the first look
    is at the whole image, and the second at the surroundings of each object alone, with all its prompts, its box and
    the first matte as a mask prompt; or with the mask that was given, if there are no clicks to mend it. Objects
    without a matte stay as they are, and so do all in an image that the first look has seen at full size.

    Args:
        model ([`FCLMForImageMatting`]): The model; it must have `config.dense_prompts`.
        pixel_values (`torch.FloatTensor` of shape `(1, 3, padded_height, padded_width)`): The normalized image.
        alphas (`torch.FloatTensor` of shape `(num_objects, height, width)`): Alphas of the first look, without padding.
        inputs: Outputs of the processor for this image, or of [`FCLMProcessor.encode_prompts`]; only prompts are used.
        size (`int`, *optional*): Side of the encoder input of the second look. Defaults to `config.refinement_size`;
            without that, too, there is no second look.

    Returns:
        `torch.FloatTensor` of shape `(num_objects, height, width)` in [0, 1], on the device of `alphas`.

    Example:
        >>> import torch
        >>> from fclm_hf import LITE_CHECKPOINT, FCLMForImageMatting
        >>> from fclm_hf.refinement_fclm import refine_alphas

        >>> model = FCLMForImageMatting.from_pretrained(LITE_CHECKPOINT).eval()
        >>> image, prompts = torch.zeros(1, 3, 64, 96), {"input_boxes": torch.tensor([[[8.0, 8.0, 60.0, 50.0]]])}
        >>> with torch.no_grad():
        ...     alphas = model(image, **prompts).alphas[0]
        ...     refine_alphas(model, image, alphas, prompts, size=320).shape
        torch.Size([1, 64, 96])
    """
    height, width = alphas.shape[-2:]
    size = size or model.config.refinement_size
    if size is None or max(height, width) <= (model.config.encoder_size or 0):
        return alphas
    image = pixel_values[..., :height, :width]
    refined = alphas.clone()
    whole, whole_embeddings = (0, 0, width, height), None
    for index, alpha in enumerate(alphas):
        prompts = {
            name: inputs[name][:, min(index, inputs[name].shape[1] - 1), None] for name in _PROMPTS if name in inputs
        }
        given = _find_mask(prompts, height, width)
        box = _find_box(alpha if given is None else given, prompts)
        if box is None:
            continue
        region = _find_region(box, height, width)
        if region != whole:
            embeddings = _encode(model, image, region, size)
        else:  # most objects of a portrait or product photo: one encoding serves all
            embeddings = whole_embeddings = whole_embeddings or _encode(model, image, whole, size)
        x0, y0, x1, y1 = region
        crop = alpha[y0:y1, x0:x1]
        prompts = _move_prompts(prompts, box, region)
        mask = alpha if given is None else given
        prompts["input_masks"] = mask[None, None, y0:y1, x0:x1]
        prompts = {name: values.to(model.device) for name, values in prompts.items()}
        closer = model(image_embeddings=embeddings, **prompts).alphas[0, 0].to(alpha)
        weight = _make_feather(region, height, width).to(alpha)
        refined[index, y0:y1, x0:x1] = crop + weight * (closer - crop)
    return refined


def _find_mask(prompts: Mapping[str, torch.Tensor], height: int, width: int) -> torch.Tensor | None:
    """Return the mask (height, width) that was given for an object, unless clicks are to mend it."""
    masks, labels = prompts.get("input_masks"), prompts.get("input_labels")
    if masks is None or (masks < 0).all() or (labels is not None and (labels >= 0).any()):
        return None
    return masks[0, 0, :height, :width]


def _find_box(alpha: torch.Tensor, prompts: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    """Return the box (4,) that was given for an object or that of its matte, or None for nothing to look at."""
    found = alpha >= 0.5  # with what is unknown in a trimap
    if found.sum() < FEWEST_PIXELS:
        return None
    box = prompts.get("input_boxes")
    if box is not None and (box[0, 0, 2:] > box[0, 0, :2]).all():
        return box[0, 0].float().cpu()
    rows, columns = found.any(1).nonzero(), found.any(0).nonzero()
    return torch.stack([columns[0, 0], rows[0, 0], columns[-1, 0] + 1, rows[-1, 0] + 1]).float().cpu()


def _find_region(box: torch.Tensor, height: int, width: int) -> Region:
    """Return the part (x0, y0, x1, y1) of the image to look at for an object in a box."""
    x0, y0, x1, y1 = box.tolist()
    if max(x1 - x0, y1 - y0) * (1 + 2 * MARGIN) >= WHOLE * max(height, width):
        return 0, 0, width, height
    margin = MARGIN * max(x1 - x0, y1 - y0)
    left, top = max(0, round(x0 - margin)), max(0, round(y0 - margin))
    right, bottom = min(width, round(x1 + margin)), min(height, round(y1 + margin))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _encode(model: Any, image: torch.Tensor, region: Region, size: int) -> Any:
    """Encode a part of an image."""
    x0, y0, x1, y1 = region
    pixels = image[..., y0:y1, x0:x1].to(model.device, model.dtype)
    return model.get_image_embeddings(pixels, encoder_size=size)


def _move_prompts(prompts: Mapping[str, torch.Tensor], box: torch.Tensor, region: Region) -> dict[str, torch.Tensor]:
    """Return the prompts of an object in the coordinates of a part of the image; points outside are left out."""
    corner = torch.tensor(region[:2], dtype=torch.float32)
    moved = {name: prompts[name] for name in ("input_ids", "attention_mask", "text_embeds") if name in prompts}
    moved["input_boxes"] = (box - corner.repeat(2))[None, None]
    if "input_points" in prompts:
        points = prompts["input_points"].float().cpu() - corner
        size = torch.tensor([region[2] - region[0], region[3] - region[1]])
        outside = ((points < 0) | (points > size)).any(-1)
        labels = prompts.get("input_labels")
        labels = torch.ones(points.shape[:-1], dtype=torch.long) if labels is None else labels.cpu()
        moved["input_points"], moved["input_labels"] = points, labels.masked_fill(outside, PROMPT_PADDING)
    return moved


def _make_feather(region: Region, height: int, width: int) -> torch.Tensor:
    """Return weights (region_height, region_width) that fade out at the borders of a region inside the image."""
    weights = []
    for start, end, length in ((region[1], region[3], height), (region[0], region[2], width)):
        steps = torch.arange(end - start, dtype=torch.float32) + 0.5
        ramp = max(1.0, 0.25 * MARGIN * (end - start))
        rise = steps / ramp if start > 0 else torch.ones_like(steps)
        fall = steps.flip(0) / ramp if end < length else torch.ones_like(steps)
        weights.append(torch.minimum(rise, fall).clamp(max=1))
    return weights[0][:, None] * weights[1]


__all__ = ["refine_alphas"]
