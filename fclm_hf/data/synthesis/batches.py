"""Batches of composites with simulated prompts, ready for [`FCLMForImageMatting`]."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from .composition import Composition
from .prompts import PromptSettings, sample_prompts


PADDING = -10


def collate_prompts(prompts: list[list[dict[str, object]]], tokenizer) -> dict[str, torch.Tensor]:
    """Pads prompts (image > object) to tensors.

    Args:
        prompts: dicts as [`sample_prompt`] makes them, the same number for each image.
        tokenizer: CLIP tokenizer for the texts.

    Returns:
        `input_points` (batch, objects, points, 2), `input_labels` (batch, objects, points; -10 is padding),
        `input_boxes` (batch, objects, 4; -10 is padding), `input_ids` and `attention_mask` (batch, objects, length;
        zeros where there is no text). If any prompt has a mask also `input_masks` (batch, objects, H, W; -1 for none).
    """
    batch, objects = len(prompts), len(prompts[0])
    most = max((len(prompt.get("points", ())) for image in prompts for prompt in image), default=0)
    points = torch.zeros(batch, objects, max(most, 1), 2)
    labels = torch.full((batch, objects, max(most, 1)), PADDING)
    boxes = torch.full((batch, objects, 4), float(PADDING))
    texts = []
    for i, image in enumerate(prompts):
        for j, prompt in enumerate(image):
            if count := len(prompt.get("points", ())):
                points[i, j, :count] = torch.tensor(prompt["points"])
                labels[i, j, :count] = torch.tensor(prompt["labels"])
            if "box" in prompt:
                boxes[i, j] = torch.tensor(prompt["box"])
            texts.append(prompt.get("text"))
    tokens = tokenizer([text or "" for text in texts], padding=True, truncation=True, return_tensors="pt")
    given = torch.tensor([text is not None for text in texts])
    shapes = [prompt["mask"].shape for image in prompts for prompt in image if "mask" in prompt]
    masks = {}
    if shapes:
        masks["input_masks"] = torch.full((batch, objects, *shapes[0]), -1.0)
        for i, image in enumerate(prompts):
            for j, prompt in enumerate(image):
                if "mask" in prompt:
                    masks["input_masks"][i, j] = torch.from_numpy(prompt["mask"])
    return {
        **masks,
        "input_points": points,
        "input_labels": labels,
        "input_boxes": boxes,
        "input_ids": tokens["input_ids"].view(batch, objects, -1),
        "attention_mask": (tokens["attention_mask"] * given[:, None]).view(batch, objects, -1),
    }


class ComposedBatches(IterableDataset):
    """Endless batches; worker `w` of `n` makes batches `w, w + n, ...`, each from a seed of its own.

    Args:
        composition: what draws the images.
        tokenizer: CLIP tokenizer.
        prompt_settings: how prompts are drawn.
        batch_size: images of a batch.
        prompts_per_image: objects axis of a batch.
        automatic: share of prompts that are empty; their target is everything in front.
        seed: the same seed gives the same batches.
        start: index of the first batch, to resume.
    """

    def __init__(
        self,
        composition: Composition,
        tokenizer,
        prompt_settings: PromptSettings | None = None,
        batch_size: int = 8,
        prompts_per_image: int = 3,
        automatic: float = 0.2,
        seed: int = 0,
        start: int = 0,
    ):
        self.composition = composition
        self.tokenizer = tokenizer
        self.prompt_settings = prompt_settings or PromptSettings()
        self.batch_size = batch_size
        self.prompts_per_image = prompts_per_image
        self.automatic = automatic
        self.seed = seed
        self.start = start

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        worker = get_worker_info()
        step = worker.num_workers if worker else 1
        index = self.start + (worker.id if worker else 0)
        while True:
            yield self.make_batch(index)
            index += step

    def make_batch(self, index: int) -> dict[str, torch.Tensor]:
        """`pixel_values` in [-1, 1] (batch, 3, size, size), `pixel_mask`, prompts and `labels` of batch `index`."""
        rng = np.random.default_rng([self.seed, index])
        images, masks, labels, prompts = [], [], [], []
        for _ in range(self.batch_size):
            sample = self.composition.sample(rng)
            drawn, targets = sample_prompts(
                sample["alphas"], sample["names"], rng, self.prompt_settings, self.prompts_per_image, self.automatic
            )
            height, width = sample["valid"]
            mask = np.zeros(sample["image"].shape[:2], np.int64)
            mask[:height, :width] = 1
            images.append(sample["image"].astype(np.float32) / 127.5 - 1)
            masks.append(mask)
            labels.append(targets)
            prompts.append(drawn)
        pixel_mask = torch.from_numpy(np.stack(masks))
        pixel_values = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) * pixel_mask[:, None]
        return {
            "pixel_values": pixel_values.contiguous(memory_format=torch.channels_last),
            "pixel_mask": pixel_mask,
            "labels": torch.from_numpy(np.stack(labels).astype(np.float32)),
            **collate_prompts(prompts, self.tokenizer),
        }
