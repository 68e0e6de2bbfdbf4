"""Random inputs of the model: sizes, padding, and every kind of prompt, each of which may be absent."""

from typing import Any

import numpy as np
import torch

from fclm_hf import FCLMConfig


def draw_inputs(rng: np.random.Generator, config: FCLMConfig, longest: int, masks: bool = True) -> dict[str, Any]:
    """Return tensors for `FCLMForImageMatting.forward`, for images with sides of 64 to `longest` pixels.

    Args:
        rng: Source of the numbers.
        config: Config of the model, for the range of tokens.
        longest: Longest side.
        masks: Whether mask prompts may be among them.
    """
    batch, objects, points = (int(each) for each in rng.integers(1, (3, 4, 4)))
    height, width = (int(each) for each in rng.integers(64, longest + 1, 2))
    coarse = torch.from_numpy(rng.uniform(-1, 1, (batch, 3, 8, 8)).astype(np.float32))
    pixels = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    inputs = {"pixel_values": pixels + 0.1 * torch.from_numpy(rng.normal(size=pixels.shape).astype(np.float32))}
    if batch > 1 or rng.random() < 0.5:
        mask = torch.zeros(batch, height, width, dtype=torch.long)
        mask[0] = 1
        for each in mask:  # the first fills the batch in height or width
            each[: int(rng.integers(height // 2, height + 1)), : int(rng.integers(width // 2, width + 1))] = 1
        inputs["pixel_mask"] = mask
    corners = np.sort(rng.random((batch, objects, 2, 2)), axis=2) * [width, height]
    boxes = torch.from_numpy(corners.reshape(batch, objects, 4).astype(np.float32))
    boxes[torch.from_numpy(rng.random((batch, objects)) < 0.3)] = -10
    places = rng.random((batch, objects, points, 2)) * [width, height]
    ids = rng.integers(3, config.text_config.vocab_size - 2, (batch, objects, int(rng.integers(2, 12))))
    ids[..., -1] = config.text_config.eos_token_id
    attended = np.broadcast_to(rng.integers(0, 2, (batch, objects, 1)), ids.shape)
    kinds = {
        "input_boxes": {"input_boxes": boxes},
        "input_points": {
            "input_points": torch.from_numpy(places.astype(np.float32)),
            "input_labels": torch.from_numpy(rng.choice([1, 0, -10], (batch, objects, points))),
        },
        "text": {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(attended.copy())},
        "object_mask": {"object_mask": torch.from_numpy(rng.random((batch, objects)) < 0.8)},
    }
    if masks:
        levels = rng.integers(0, 3, (batch, objects, height, width)) / 2
        rough = torch.from_numpy(levels.astype(np.float32)[..., : height - 3, : width - 5])
        rough[torch.from_numpy(rng.random((batch, objects)) < 0.3)] = -1
        kinds["input_masks"] = {"input_masks": rough}
    for values in kinds.values():
        if rng.random() < 0.6:
            inputs |= values
    return inputs
