"""Batches of real photos, composites of cutouts and windows of these, for train_real.py."""

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from cutout_samples import Cutouts, MixedBackgrounds, TrueSampler, ZoomSampler
from photo_samples import PhotoSampler, PhotoTable
from torch.utils.data import IterableDataset, get_worker_info

from fclm_hf.data import CompositionSettings, PromptSettings, collate_prompts
from fclm_hf.data.synthesis.spoiled_masks import spoil_mask


def add_masks(sample: dict, rng: np.random.Generator, share: float, trimaps: float) -> None:
    """Give a share of the prompts a spoiled mask of their target, and most of these nothing else."""
    for prompt, target, valid in zip(sample["prompts"], sample["labels"], sample["valid"], strict=True):
        if rng.random() >= share or not prompt or target.max() < 0.3:
            continue
        height, width = sample["size"]
        unsure = ~valid[:height, :width]
        mask = spoil_mask(target[:height, :width], rng, unsure if unsure.any() else None, trimaps)
        if rng.random() < 0.7:
            prompt.clear()
        prompt["mask"] = np.pad(mask, ((0, len(target) - height), (0, len(target) - width)), constant_values=-1)


def stack_masks(samples: list[dict]) -> dict[str, torch.Tensor]:
    """Stack the mask prompts of samples, if there are any."""
    if not any("mask" in prompt for s in samples for prompt in s["prompts"]):
        return {}
    absent = np.full(samples[0]["labels"].shape[1:], -1, np.float32)
    masks = np.stack([np.stack([prompt.get("mask", absent) for prompt in s["prompts"]]) for s in samples])
    return {"input_masks": torch.from_numpy(masks.astype(np.float32))}


def collate(samples: list[dict], tokenizer) -> dict:
    """Collate samples to the inputs and targets of the model."""
    size = samples[0]["image"].shape[0]
    masks = np.zeros((len(samples), size, size), np.int64)
    for mask, sample in zip(masks, samples, strict=True):
        mask[: sample["size"][0], : sample["size"][1]] = 1
    pixel_mask = torch.from_numpy(masks)
    pixels = torch.from_numpy(np.stack([s["image"] for s in samples]).astype(np.float32) / 127.5 - 1)
    pixels = (pixels.permute(0, 3, 1, 2) * pixel_mask[:, None]).contiguous(memory_format=torch.channels_last)
    regions = [(i, name, region) for i, s in enumerate(samples) for name, region in s["regions"]]
    grids = [cv2.resize(r.astype(np.float32), (24, 24), interpolation=cv2.INTER_AREA) for *_, r in regions]
    return {
        "inputs": {
            "pixel_values": pixels,
            "pixel_mask": pixel_mask,
            **collate_prompts([s["prompts"] for s in samples], tokenizer),
            **stack_masks(samples),
        },
        "labels": torch.from_numpy(np.stack([s["labels"] for s in samples])),
        "valid": torch.from_numpy(np.stack([s["valid"] for s in samples])) & pixel_mask[:, None].bool(),
        "region_images": torch.tensor([i for i, *_ in regions], dtype=torch.long),
        "region_names": [name for _, name, _ in regions],
        "region_grids": torch.from_numpy(np.stack(grids)) if grids else torch.zeros(0, 24, 24),
    }


class MixedBatches(IterableDataset):
    """Yields pairs of a step and its batches by kind without end; the same seed and step give the same batches."""

    def __init__(
        self, photos: PhotoSampler, cutouts: TrueSampler, tokenizer, counts: tuple[int, int, int], seed: int,
        start: int, masks: float = 0.0, trimaps: float = 0.3, zooms: ZoomSampler | None = None,
    ):  # fmt: skip
        self.zooms = zooms
        self.masks, self.trimaps = masks, trimaps
        self.photos, self.cutouts, self.tokenizer = photos, cutouts, tokenizer
        self.counts, self.seed, self.start = counts, seed, start

    def make(self, step: int) -> dict:
        """Make the batches of a step."""
        rng = np.random.default_rng([self.seed, step])
        batch = {}
        for kind, draw, count in (
            ("photos", self.photos, self.counts[0]), ("cutouts", self.cutouts, self.counts[1]),
            ("zooms", self.zooms, self.counts[2]),
        ):  # fmt: skip
            if count:
                samples = [draw(rng) for _ in range(count)]
                if self.masks and kind != "zooms":
                    for sample in samples:
                        add_masks(sample, rng, self.masks, self.trimaps)
                batch[kind] = collate(samples, self.tokenizer)
        return batch

    def __iter__(self) -> Iterator[tuple[int, dict]]:
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        info = get_worker_info()
        step, stride = (self.start + info.id, info.num_workers) if info else (self.start, 1)
        while True:
            yield step, self.make(step)
            step += stride


def build_batches(args, tokenizer, general_names: dict, start: int) -> MixedBatches:
    """Build the stream of batches from the arguments."""
    templates = ("{}", "{}", "{}", "a {}", "the {}", "a photo of a {}.")
    kinds = {"box": 4, "point": 4, "text": args.text_weight, "box+point": 0.7, "text+box": 0.3, "text+point": 0.3}
    prompts = PromptSettings(kinds=kinds, templates=templates)
    table = PhotoTable(args.data / "real")
    cutouts = Cutouts(args.data / "train", args.data / "cutouts", general_names, tuple(args.shares))
    backgrounds = MixedBackgrounds([args.data / "train", args.data / "cutouts"])
    rng = np.random.default_rng(0)
    cutouts.textures = [cv2.resize(backgrounds.sample(rng), (256, 256)) for _ in range(40)]
    settings = CompositionSettings(
        size=args.cutout_size,
        plant_prob=args.plants,
        single_scale=(0.4, 1.6),
        soft_edge_prob=args.soft_edge,
        hair_prob=args.strands,
    )
    photos = PhotoSampler(table, args.photo_size, prompts, args.photo_prompts, 0.2, args.absent)
    varied = (*templates * 3, "{}s", "the {}s", "{} toy", "toy {}", "some {}s")
    named = PromptSettings(kinds={**kinds, "text": 2 * args.text_weight}, templates=varied)
    composites = TrueSampler(
        cutouts, backgrounds, settings, table, named, args.cutout_prompts, 0.22, args.absent, args.on_photos
    )
    close = CompositionSettings(
        size=args.zoom_size, plant_prob=args.zoom_plants, single_scale=(1.0, 3.2), soft_edge_prob=0.1, hair_prob=0.3,
        cluster_prob=0.05, lattice_prob=0.05, shadow_prob=0.15, letterbox_prob=0.0, min_visible=0.02, min_area=0.02,
        photo_texture_prob=0.1, translucency_prob=0.04,
    )  # fmt: skip
    people = Cutouts(args.data / "train", args.data / "cutouts", general_names, (0.2, 0.55, 0.25))
    people.textures = cutouts.textures
    zooms = ZoomSampler(people, backgrounds, close, 1)
    counts = (args.photos, args.cutouts, args.zooms)
    return MixedBatches(photos, composites, tokenizer, counts, args.seed, start, args.masks, args.trimaps, zooms)
