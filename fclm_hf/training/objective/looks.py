"""Closer looks in training, as inference takes them: prompts of second looks, and windows at full size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch

from ...configuration_fclm import PROMPT_PADDING, FCLMConfig
from ...modeling_fclm import FCLMForImageMatting, FCLMImageEmbeddings, pad_masks
from ...refinement_fclm import find_box, find_given_mask, find_tiles
from .processes import find_rank
from .settings import TrainingSettings


BOX_PROB = 0.7  # of the box of the first matte, where none was given
DROP_PROB = 0.2  # of a second look without clicks and text
WINDOW_PROMPTS = {"matte": 0.3, "trimap": 0.4, "alpha": 0.3}  # an earlier matte, a trimap, or a blurred alpha
MAX_ERROR = 0.1  # mean of an earlier matte in a window; with more it may show another object

_PROMPTS = ("input_points", "input_labels", "input_boxes", "input_masks")


def check_closer_looks(config: FCLMConfig, settings: TrainingSettings) -> None:
    """Check that a model takes the closer looks that it is to be trained for.

    Args:
        config: Config of the model.
        settings: Settings of the objective.

    Raises:
        ValueError: If it does not.
    """
    needed = {"look_share": ("dense_prompts", "refinement_size")}
    needed["tile_share"] = (*needed["look_share"], "tile_size")
    for name, fields in needed.items():
        missing = [field for field in fields if not getattr(config, field)]
        if missing and (share := getattr(settings, name)):
            lacks = " and ".join(f"config.{field}" for field in missing)
            raise ValueError(f"{name} must be 0 for a model without {lacks}, got {share}.")


def make_generators(seed: int, count: int) -> list[np.random.Generator]:
    """Make a generator of random numbers for each pair, the same in whatever process it is.

    Args:
        seed: Seed of this step, the same in all processes.
        count: Number of pairs in this process.
    """
    return [np.random.default_rng([seed, find_rank() * count + pair]) for pair in range(count)]


@torch.no_grad()
def look_again(
    alphas: torch.Tensor, inputs: Mapping[str, torch.Tensor], rngs: Sequence[np.random.Generator]
) -> dict[str, torch.Tensor]:
    """Make the prompts of a second look at objects.

    Each object has its matte as a mask prompt, or the mask that was given if no click was to mend it. With them comes
    the box that was given or, mostly, that of the mask. Some objects keep neither their clicks nor their text.

    Args:
        alphas: Mattes of the first look at A and B, of shape (2 * batch_size, num_objects, height, width).
        inputs: Prompts as [`FCLMForImageMatting.forward`] takes them, and `object_mask`. Other keys stay as they are.
        rngs: Source of randomness of each pair.

    Returns:
        The inputs with other prompts. `object_mask` is False for objects without a matte, which inference does not look
        at again.
    """
    inputs, shape = dict(inputs), alphas.shape[:2]
    prompts = {name: inputs[name] for name in _PROMPTS if name in inputs}
    masks = alphas.clone()
    boxes = inputs.get("input_boxes", alphas.new_zeros(*shape, 4)).clone()
    is_seen = torch.zeros(shape, dtype=torch.bool)
    drawn = torch.from_numpy(np.stack([rng.random((2, 2, shape[1])) for rng in rngs], axis=2)).flatten(1, 2)
    takes_box, drops = drawn[0] < BOX_PROB, drawn[1] < DROP_PROB
    for i, j in product(*map(range, shape)):
        own = {name: values[i : i + 1, j : j + 1] for name, values in prompts.items()}
        given = find_given_mask(own, *alphas.shape[-2:])
        if given is not None:
            masks[i, j] = pad_masks(given, *alphas.shape[-2:])
        box = find_box(masks[i, j], own)
        if box is not None:
            is_seen[i, j] = True
            if takes_box[i, j]:
                boxes[i, j] = box
    is_seen, drops = is_seen.to(alphas.device), drops.to(alphas.device)
    inputs |= {"input_masks": masks, "input_boxes": boxes}
    if "input_points" in inputs:
        labels = inputs.get("input_labels")
        labels = torch.ones_like(inputs["input_points"][..., 0], dtype=torch.long) if labels is None else labels
        inputs["input_labels"] = labels.masked_fill(drops[..., None], PROMPT_PADDING)
    if "input_ids" in inputs:
        attention_mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
        inputs["attention_mask"] = attention_mask.masked_fill(drops[..., None], 0)
    object_mask = inputs.get("object_mask")
    inputs["object_mask"] = is_seen if object_mask is None else is_seen & object_mask.bool()
    return inputs


@dataclass(frozen=True)
class Window:
    """A part of an image at full size.

    Args:
        image: Number of the image in the batch.
        object: Number of an object whose edge is soft there.
        region: Part (x0, y0, x1, y1) of the image.
    """

    image: int
    object: int
    region: tuple[int, int, int, int]


def find_true_edges(
    batch: Mapping[str, torch.Tensor], inputs: Mapping[str, torch.Tensor], pixel_mask: torch.Tensor
) -> torch.Tensor:
    """Tell the objects whose labels have edges to teach.

    Args:
        batch: Batch of pairs, see [`~ForegroundConsistentLearner.forward`].
        inputs: Labels and masks of A and B.
        pixel_mask: Mask of shape (2 * batch_size, 1, height, width), 0 on padding.

    Returns:
        Bool of shape (2 * batch_size, num_objects): False for padding objects, coarse masks, and pairs without edges to
        learn.
    """
    has_edges = torch.ones(inputs["labels"].shape[:2], dtype=torch.bool, device=pixel_mask.device)
    if (object_mask := inputs.get("object_mask")) is not None:
        has_edges = has_edges & object_mask.bool()
    if (label_mask := inputs.get("label_mask")) is not None:
        has_edges = has_edges & (label_mask | ~pixel_mask.bool()).flatten(2).all(2)
    if (learns_edges := batch.get("learns_edges")) is not None:
        has_edges = has_edges & torch.cat([learns_edges] * 2)[:, None]
    return has_edges


def find_windows(
    labels: torch.Tensor,
    has_edges: torch.Tensor,
    image_sizes: torch.Tensor,
    size: int,
    rngs: Sequence[np.random.Generator],
) -> list[Window]:
    """Draw a window for each pair, among the tiles of inference around the soft edges of one of its objects.

    Args:
        labels: True alphas of A and B, of shape (2 * batch_size, num_objects, height, width).
        has_edges: Bool of shape (2 * batch_size, num_objects), False for objects whose edges are not known.
        image_sizes: Heights and widths of A and B, of shape (2 * batch_size, 2).
        size: Side of a tile in pixels.
        rngs: Source of randomness of each pair.

    Returns:
        At most `batch_size` windows, in A or B: none for pairs that are not larger than a tile or have no soft edge.
    """
    windows, count = [], len(rngs)
    for pair, (rng, (height, width)) in enumerate(zip(rngs, image_sizes[:count].tolist(), strict=True)):
        image = pair + count * int(rng.integers(2))
        for number in rng.permutation(labels.shape[1]).tolist():
            if max(height, width) <= size or not has_edges[pair, number]:
                continue
            if tiles := list(find_tiles(labels[pair, number, :height, :width], size)):
                windows.append(Window(image, number, tiles[int(rng.integers(len(tiles)))]))
                break
    return windows


def make_window_inputs(
    windows: Sequence[Window],
    labels: torch.Tensor,
    alphas: torch.Tensor,
    shape: tuple[int, int],
    rngs: Sequence[np.random.Generator],
) -> dict[str, torch.Tensor]:
    """Make the labels and the only prompts of windows: an earlier matte, a trimap, or a blurred alpha.

    Args:
        windows: The windows.
        labels: True alphas of A and B, of shape (2 * batch_size, num_objects, height, width).
        alphas: Earlier mattes of the same shape.
        shape: Height and width of the windows, with what lies outside of smaller images.
        rngs: Source of randomness of each pair.

    Returns:
        `labels` and `input_masks`, of shape (num_windows, 1, window_height, window_width).
    """
    from ...data.synthesis.spoiled_masks import blur_alpha, make_random_trimap  # takes seconds to import

    targets, masks = [], []
    for window in windows:
        rng, (x0, y0, x1, y1) = rngs[window.image % len(rngs)], window.region
        target, matte = (maps[window.image, window.object, y0:y1, x0:x1].float() for maps in (labels, alphas))
        kind = rng.choice(list(WINDOW_PROMPTS), p=list(WINDOW_PROMPTS.values()))
        if kind == "matte" and (matte - target).abs().mean() <= MAX_ERROR:
            mask = matte
        else:
            make = make_random_trimap if kind == "trimap" else blur_alpha
            mask = torch.from_numpy(make(target.cpu().numpy(), rng)).to(target)
        targets.append(pad_masks(target, *shape).clamp(min=0))
        masks.append(pad_masks(mask, *shape))
    return {"labels": torch.stack(targets)[:, None], "input_masks": torch.stack(masks)[:, None]}


def encode_windows(
    student: FCLMForImageMatting,
    pixel_values: torch.Tensor,
    image_embeddings: FCLMImageEmbeddings,
    windows: Sequence[Window],
    size: int,
) -> FCLMImageEmbeddings:
    """Encode windows at full size, with the detail maps of their images.

    Args:
        student: The model.
        pixel_values: Images of shape (num_images, 3, height, width).
        image_embeddings: Embeddings of the images.
        windows: The windows.
        size: Side of a tile in pixels.

    Returns:
        Embeddings of images of a tile's height and width, or of those of `pixel_values` where they are smaller.
    """
    height, width = (min(size, side) for side in pixel_values.shape[-2:])
    parts, masks, details = [], [], []
    for window in windows:
        image, (left, top) = slice(window.image, window.image + 1), window.region[:2]
        rows, columns = slice(top, top + height), slice(left, left + width)
        parts.append(pixel_values[image, :, rows, columns])
        masks.append(image_embeddings.pixel_mask[image, 0, rows, columns])
        own = replace(
            image_embeddings,
            detail_basis=image_embeddings.detail_basis[image],
            detail_maps=tuple(maps[image] for maps in image_embeddings.detail_maps),
        )
        details.append(own.crop_details(left, top, left + width, top + height))
    return student.get_image_embeddings(
        torch.cat(parts),
        torch.cat(masks).long(),
        encoder_size=size,
        detail_maps=tuple(torch.cat(maps) for maps in zip(*details, strict=True)),
    )


__all__ = [
    "Window",
    "check_closer_looks",
    "encode_windows",
    "find_true_edges",
    "find_windows",
    "look_again",
    "make_generators",
    "make_window_inputs",
]
