"""Batches of pairs with prompts, composed in the worker processes of a DataLoader, that resume to the bit."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import fsspec.asyn
import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from ..sources.invalid_samples import StreamError
from ..sources.rows import Share
from ..sources.source import Source
from ..synthesis.batches import collate_prompts
from ..synthesis.prompts import PAPER_TEMPLATE, PromptSettings, sample_prompts
from .pair_stream import DrawnPair, PairSettings, PairStream


@dataclass
class BatchSettings:
    """What a batch holds: images, prompts per image, the share of prompts that are empty, how the others are drawn."""

    batch_size: int = 8
    prompts_per_image: int = 3
    automatic: float = 0.2
    prompts: PromptSettings = field(default_factory=lambda: PromptSettings(templates=(PAPER_TEMPLATE,)))


@dataclass
class StreamItem:
    """What a worker hands over: a batch and the position behind it, or the error that ended the stream."""

    worker: int
    batch: dict[str, Any] | None = None
    state: dict[str, Any] | None = None
    error: StreamError | None = None


class TrainingStream(IterableDataset):
    """Endless [`StreamItem`]s for a DataLoader with `batch_size=None`; read them through [`StreamLoader`].

    Every process of a run makes one with its `rank`, over the same sources, and does not let Accelerate prepare its
    loader: the rows are split here, among all workers of all processes, each to exactly one (see [`split_rows`]).

    Args:
        foregrounds: sources of any kind but "background".
        backgrounds: sources of kind "background".
        tokenizer: CLIP tokenizer.
        pairs: how pairs are drawn.
        batches: what a batch holds.
        rank: number of this process, below `world_size`.
        world_size: number of processes.
    """

    def __init__(
        self,
        foregrounds: list[Source],
        backgrounds: list[Source],
        tokenizer,
        pairs: PairSettings | None = None,
        batches: BatchSettings | None = None,
        rank: int = 0,
        world_size: int = 1,
    ):
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in 0..{world_size - 1} for world_size {world_size}, got {rank}.")
        self.foregrounds, self.backgrounds = foregrounds, backgrounds
        self.tokenizer = tokenizer
        self.pairs = pairs or PairSettings()
        self.batches = batches or BatchSettings()
        self.rank, self.world_size = rank, world_size
        self.has_coarse_masks = any(source.config.mask_quality == "coarse" for source in foregrounds)
        self.consumed = 0
        self.states: dict[int, dict[str, Any]] = {}
        self._open_pairs(Share())  # raises for sources of the wrong kind

    def _open_pairs(self, share: Share) -> PairStream:
        return PairStream(self.foregrounds, self.backgrounds, share, self.pairs)

    def __iter__(self) -> Iterator[StreamItem]:
        info = get_worker_info()
        workers, number = (info.num_workers, info.id) if info else (1, 0)
        if info:
            cv2.setNumThreads(1)
            fsspec.asyn.reset_lock()  # its thread does not survive a fork
        # a DataLoader asks its worker 0 first: it goes on with the worker whose turn it was
        worker = (number + self.consumed) % workers
        stream = self._open_pairs(Share(self.rank * workers + worker, self.world_size * workers))
        if worker in self.states:
            stream.load_state_dict(self.states[worker])
        while True:
            try:
                drawn = stream.draw(self.batches.batch_size)
            except StreamError as error:
                yield StreamItem(worker, error=error)
                return
            yield StreamItem(worker, self._collate(drawn), stream.state_dict())

    def _collate(self, drawn: list[DrawnPair]) -> dict[str, Any]:
        prompts, labels, masks = [], [], []
        for each in drawn:
            pair = each.pair
            texts, targets = sample_prompts(
                pair.alphas,
                pair.names,
                each.rng,
                self.batches.prompts,
                self.batches.prompts_per_image,
                self.batches.automatic if pair.complete else 0.0,
                texts=pair.texts,
                foreground=pair.foreground,
                instance=pair.instance,
                absent=pair.absent,
            )
            prompts.append(texts)
            labels.append(targets)
            mask = np.zeros(pair.foreground.shape, np.int64)
            mask[: pair.valid[0], : pair.valid[1]] = 1
            masks.append(mask)
        pixel_mask = torch.from_numpy(np.stack(masks))
        labels = torch.from_numpy(np.stack(labels).astype(np.float32))
        foreground = torch.from_numpy(np.stack([each.pair.foreground[None] for each in drawn]).astype(np.float32))
        return {
            "pixel_values_a": _normalise([each.pair.image_a for each in drawn], pixel_mask),
            "pixel_values_b": _normalise([each.pair.image_b for each in drawn], pixel_mask),
            "pixel_mask": pixel_mask,
            "labels": labels.clamp(min=0),
            **({"label_mask": labels >= 0} if self.has_coarse_masks else {}),
            "foreground": foreground.clamp(min=0),
            "object_mask": torch.ones(len(drawn), self.batches.prompts_per_image, dtype=torch.bool),
            **collate_prompts(prompts, self.tokenizer),
            "sample_keys": [each.keys for each in drawn],
        }


def _normalise(images: list[np.ndarray], pixel_mask: torch.Tensor) -> torch.Tensor:
    """uint8 images to [-1, 1], 0 where there is padding."""
    values = torch.from_numpy(np.stack(images).astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
    return (values * pixel_mask[:, None]).contiguous(memory_format=torch.channels_last)
