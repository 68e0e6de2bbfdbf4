"""Closer looks at each object: the photo around it again, then its soft edges at full size."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from .configuration_fclm import PROMPT_PADDING
from .masks_fclm import find_trimaps


MARGIN = 0.25  # of the longer side of an object, on each side of it
WHOLE = 0.8  # an object that takes this share of the longer side of the photo is seen in the whole photo
FEWEST_PIXELS = 30  # with fewer, the first matte has found nothing
GRID = 8  # parts of a photo start at multiples of this, so that the detail path need not run again
SOFT = 0.1  # alphas within (SOFT, 1 - SOFT) are an edge
REACH = 16  # pixels from an edge up to which looks at tiles count: they see too little to judge what is farther,
FARTHEST = 48  # or what is soft at this distance from the background, such as fur out of focus
WIDE_EDGE = 3  # edges wider than twice this, in pixels, are seen in tiles
FEWEST_IN_TILE = 0.002  # share of pixels of wide edges from which on a tile is looked at
MATTE_SCALE = 5 / 6  # encoder pixels per pixel of a tile with its earlier matte; with a trimap it is 1
OVERLAP = 64  # of neighboring tiles, in pixels
TILES_PER_PASS = 4
CLEAR = 0.01  # alphas up to this become 0, as a sigmoid does not get there,
OPAQUE = 0.98  # and those from this on become 1

_PROMPTS = ("input_points", "input_labels", "input_boxes", "input_ids", "attention_mask", "input_masks")

Region = tuple[int, int, int, int]


def refine_alphas(
    model: Any,
    pixel_values: torch.Tensor,
    alphas: torch.Tensor,
    inputs: Mapping[str, Any],
    size: int | None = None,
    image_embeddings: Any = None,
) -> torch.Tensor:
    """Look at each object of an image again, closer, and return better alphas.

    A small encoder input shows the model what belongs to an object, a large one where its edge is. So the first look
    is at the whole image, and the second at the surroundings of each object alone, with all its prompts, its box and
    the first matte as a mask prompt; or with the mask that was given, if there are no clicks to mend it. For a box or
    text without clicks, the first matte is combined with that of a second look without a mask. With `config.tile_size`,
    wide soft edges, such as hair, are then seen tile by tile, at full size or nearly so. In the end, alphas next to 0
    and 1 become 0 and 1. Objects without a matte stay as they are, and so do all in an image that the first look has
    seen at full size.

    Args:
        model ([`FCLMForImageMatting`]): The model; it must have `config.dense_prompts`.
        pixel_values (`torch.FloatTensor` of shape `(1, 3, padded_height, padded_width)`): The normalized image.
        alphas (`torch.FloatTensor` of shape `(num_objects, height, width)`): Alphas of the first look, without padding.
        inputs: Outputs of the processor for this image, or of [`FCLMProcessor.encode_prompts`]; only prompts are used.
        size (`int`, *optional*): Side of the encoder input of the second look. Defaults to `config.refinement_size`;
            without that, too, there is no second look.
        image_embeddings ([`FCLMImageEmbeddings`], *optional*): Embeddings of `pixel_values`, whose detail maps then
            serve all looks.

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
    photo = _Photo(model, pixel_values[..., :height, :width], image_embeddings)
    refined = alphas.clone()
    for index, alpha in enumerate(alphas):
        prompts = {
            name: inputs[name][:, min(index, inputs[name].shape[1] - 1), None] for name in _PROMPTS if name in inputs
        }
        given = find_given_mask(prompts, height, width)
        mask = alpha if given is None else given.to(alpha)
        box = find_box(mask, prompts)
        if box is None:
            continue
        region = _find_region(box, height, width)
        moved = _move_prompts(prompts, box, region)
        if given is None and _is_described(prompts):
            mask = _combine(mask, _look_at_object(photo, alpha, None, moved, region, size), region)
        refined[index] = _look_at_object(photo, alpha, mask, moved, region, size)
        tile_size = model.config.tile_size
        if tile_size is not None and size < max(region[2] - region[0], region[3] - region[1]):
            is_trimap = given is not None and bool(find_trimaps(mask))
            refined[index] = _look_at_edges(photo, refined[index], mask if is_trimap else None, tile_size)
        refined[index] = settle(refined[index])
    return refined


class _Photo:
    """An image whose parts are encoded again, each at a size of its own."""

    def __init__(self, model: Any, pixels: torch.Tensor, embeddings: Any):
        self.model, self.pixels, self.embeddings = model, pixels, embeddings
        self.height, self.width = pixels.shape[-2:]
        self._whole: dict[int, Any] = {}
        self._latest: tuple[Any, Any] = (None, None)

    def encode(self, regions: list[Region], size: int) -> Any:
        """Encode parts of the same height and width."""
        is_whole = regions == [(0, 0, self.width, self.height)]
        if is_whole and size in self._whole:  # most objects of a portrait or product photo: one encoding serves all
            return self._whole[size]
        if self._latest[0] == (regions, size):
            return self._latest[1]
        parts = torch.cat([self.pixels[..., y0:y1, x0:x1] for x0, y0, x1, y1 in regions])
        details = None
        if self.embeddings is not None:
            details = zip(*(self.embeddings.crop_details(*region) for region in regions), strict=True)
            details = tuple(torch.cat(maps) for maps in details)
        encoded = self.model.get_image_embeddings(
            parts.to(self.model.device, self.model.dtype), encoder_size=size, detail_maps=details
        )
        self._latest = (regions, size), encoded
        if is_whole:
            self._whole[size] = encoded
        return encoded

    def decode(self, embeddings: Any, prompts: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the alphas (num_regions, height, width) of an object in parts of the image."""
        prompts = {name: values.to(self.model.device) for name, values in prompts.items()}
        return self.model(image_embeddings=embeddings, **prompts).alphas[:, 0]


def _look_at_object(
    photo: _Photo,
    alpha: torch.Tensor,
    mask: torch.Tensor | None,
    prompts: dict[str, torch.Tensor],
    region: Region,
    size: int,
) -> torch.Tensor:
    """Return the alpha (height, width) of a look at the surroundings of an object."""
    x0, y0, x1, y1 = region
    if mask is not None:
        prompts = {**prompts, "input_masks": mask[None, None, y0:y1, x0:x1]}
    closer = photo.decode(photo.encode([region], size), prompts)[0].to(alpha)
    weights = _make_feather(region, photo.height, photo.width, 0.25 * MARGIN * (y1 - y0), 0.25 * MARGIN * (x1 - x0))
    refined, crop = alpha.clone(), alpha[y0:y1, x0:x1]
    refined[y0:y1, x0:x1] = crop + weights.to(alpha) * (closer - crop)
    return refined


def _combine(alpha: torch.Tensor, closer: torch.Tensor, region: Region) -> torch.Tensor:
    """Return the mask (height, width) for the next look: the first matte and that of a closer look without a mask.

    They err in different places, so their mean is better than either. Of an object that fills the image, though, the
    closer look sees too little at once, and leaves out what differs from the rest: what either has found counts.
    """
    is_whole = region == (0, 0, alpha.shape[1], alpha.shape[0])
    return torch.maximum(alpha, closer) if is_whole else (alpha + closer) / 2


def _look_at_edges(photo: _Photo, alpha: torch.Tensor, trimap: torch.Tensor | None, size: int) -> torch.Tensor:
    """Return the alpha (height, width) of looks at wide soft edges in tiles, by their trimap or earlier alpha."""
    mask, reach, encoder_size = trimap, torch.ones_like(alpha), size
    if trimap is None:
        multiple = photo.model.config.encoder_multiple
        mask, reach, encoder_size = alpha, _find_reach(alpha), multiple * max(1, round(MATTE_SCALE * size / multiple))
    total, weights = torch.zeros_like(alpha), torch.zeros_like(alpha)
    regions = [(x0, y0, x1, y1) for x0, y0, x1, y1 in find_tiles(mask, size) if reach[y0:y1, x0:x1].any()]
    for start in range(0, len(regions), TILES_PER_PASS):
        tiles = regions[start : start + TILES_PER_PASS]
        masks = torch.stack([mask[None, y0:y1, x0:x1] for x0, y0, x1, y1 in tiles])
        closer = photo.decode(photo.encode(tiles, encoder_size), {"input_masks": masks})
        for region, part in zip(tiles, closer.to(alpha), strict=True):
            x0, y0, x1, y1 = region
            feather = _make_feather(region, photo.height, photo.width, OVERLAP / 2, OVERLAP / 2).to(alpha)
            total[y0:y1, x0:x1] += feather * part
            weights[y0:y1, x0:x1] += feather
    refined = (total + (1 - weights).clamp(min=0) * alpha) / weights.clamp(min=1)
    return torch.lerp(alpha, refined, reach)


def settle(alpha: torch.Tensor) -> torch.Tensor:
    """Return alphas that reach 0 from `CLEAR` down and 1 from `OPAQUE` up; the curve has no steps."""
    for near in (CLEAR, 1 - OPAQUE):
        alpha = 1 - torch.minimum(alpha, (1.5 * (alpha - near)).clamp(min=0))
    return alpha


def _find_reach(alpha: torch.Tensor) -> torch.Tensor:
    """Return weights (height, width) of 1 at soft edges between an object and its background and 0 far from them."""
    cells = nn.functional.max_pool2d(
        torch.stack([(alpha > SOFT) & (alpha < 1 - SOFT), alpha <= SOFT]).float()[None], GRID, ceil_mode=True
    )
    soft, background = (
        nn.functional.max_pool2d(maps, 2 * (distance // GRID) + 1, stride=1, padding=distance // GRID)
        for maps, distance in zip(cells.split(1, dim=1), (REACH, FARTHEST), strict=True)
    )
    size = tuple(GRID * side for side in cells.shape[-2:])
    weights = nn.functional.interpolate(soft * background, size, mode="bilinear", align_corners=False)
    return weights[0, 0, : alpha.shape[0], : alpha.shape[1]]


def find_tiles(mask: torch.Tensor, size: int) -> Iterator[Region]:
    """Yield the parts (x0, y0, x1, y1) of an image, of one height and width, where an alpha or trimap is unsure."""
    height, width = mask.shape
    hard = ((mask <= SOFT) | (mask >= 1 - SOFT)).float()[None, None]
    wide = nn.functional.max_pool2d(hard, 2 * WIDE_EDGE + 1, stride=1, padding=WIDE_EDGE)[0, 0] == 0
    if not wide.any():
        return
    fewest = FEWEST_IN_TILE * min(size, height) * min(size, width)
    rows, columns = (_find_starts(wide.any(axis), size) for axis in (1, 0))
    for y0 in rows:
        for x0 in columns:
            region = x0, y0, min(x0 + size, width), min(y0 + size, height)
            if wide[y0 : region[3], x0 : region[2]].sum() >= fewest:
                yield region


def _find_starts(occupied: torch.Tensor, size: int) -> list[int]:
    """Return where tiles start along an axis so that they cover what is occupied."""
    length, places = len(occupied), occupied.nonzero()
    if length <= size:
        return [0]
    last_start = (length - size) // GRID * GRID
    first = max(0, int(places[0]) - OVERLAP // 2)
    span = max(0, int(places[-1]) + 1 + OVERLAP // 2 - first)
    count = max(1, -(-(span - OVERLAP) // (size - OVERLAP)))
    first = max(0, first - (count * (size - OVERLAP) + OVERLAP - span) // 2)
    return sorted({min(last_start, (first + number * (size - OVERLAP)) // GRID * GRID) for number in range(count)})


def find_given_mask(prompts: Mapping[str, torch.Tensor], height: int, width: int) -> torch.Tensor | None:
    """Return the mask (height, width) that was given for an object, unless clicks are to mend it."""
    masks, labels = prompts.get("input_masks"), prompts.get("input_labels")
    if masks is None or (masks < 0).all() or (labels is not None and (labels >= 0).any()):
        return None
    return masks[0, 0, :height, :width]


def find_box(alpha: torch.Tensor, prompts: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    """Return the box (4,) that was given for an object or that of its matte, or None for nothing to look at."""
    found = alpha >= 0.5  # with what is unknown in a trimap
    if found.sum() < FEWEST_PIXELS:
        return None
    if _has_box(prompts):
        return prompts["input_boxes"][0, 0].float().cpu()
    rows, columns = found.any(1).nonzero(), found.any(0).nonzero()
    return torch.stack([columns[0, 0], rows[0, 0], columns[-1, 0] + 1, rows[-1, 0] + 1]).float().cpu()


def _has_box(prompts: Mapping[str, torch.Tensor]) -> bool:
    """Return whether a box was given for an object."""
    box = prompts.get("input_boxes")
    return box is not None and bool((box[0, 0, 2:] > box[0, 0, :2]).all())


def _is_described(prompts: Mapping[str, torch.Tensor]) -> bool:
    """Return whether a box or text tells what is meant, and no click, which is there to mend the first matte."""
    labels, words = prompts.get("input_labels"), prompts.get("attention_mask")
    has_clicks = "input_points" in prompts and (labels is None or bool((labels >= 0).any()))
    has_text = "input_ids" in prompts and (words is None or bool(words.any()))
    return not has_clicks and (has_text or _has_box(prompts))


def _find_region(box: torch.Tensor, height: int, width: int) -> Region:
    """Return the part (x0, y0, x1, y1) of the image to look at for an object in a box."""
    x0, y0, x1, y1 = box.tolist()
    if max(x1 - x0, y1 - y0) * (1 + 2 * MARGIN) >= WHOLE * max(height, width):
        return 0, 0, width, height
    margin = MARGIN * max(x1 - x0, y1 - y0)
    left, top = (GRID * (max(0, round(corner - margin)) // GRID) for corner in (x0, y0))
    right, bottom = min(width, round(x1 + margin)), min(height, round(y1 + margin))
    return left, top, max(right, left + 1), max(bottom, top + 1)


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


def _make_feather(region: Region, height: int, width: int, row_ramp: float, column_ramp: float) -> torch.Tensor:
    """Return weights (region_height, region_width) that fade out at the borders of a region inside the image."""
    weights = []
    for start, end, length, ramp in (
        (region[1], region[3], height, row_ramp),
        (region[0], region[2], width, column_ramp),
    ):
        steps = (torch.arange(end - start, dtype=torch.float32) + 0.5) / max(1.0, ramp)
        rise = steps if start > 0 else torch.ones_like(steps)
        fall = steps.flip(0) if end < length else torch.ones_like(steps)
        weights.append(torch.minimum(rise, fall).clamp(max=1))
    return weights[0][:, None] * weights[1]


__all__ = ["refine_alphas"]
