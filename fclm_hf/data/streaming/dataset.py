"""Batches of pairs with prompts, composed in the worker processes of a DataLoader."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import cv2
import fsspec.asyn
import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from ...utils.renaming import accept_renamed
from ..sources.invalid_samples import StreamError
from ..sources.rows import Shard
from ..sources.source import Source
from ..synthesis.pairs import Pair
from ..synthesis.prompts import PAPER_TEMPLATE, PromptSettings, collate_prompts, sample_prompts
from .pair_stream import DrawnPair, PairSettings, PairStream


@accept_renamed
@dataclass
class BatchSettings:
    """Settings of a batch.

    Args:
        batch_size: Number of pairs, at least 1.
        prompts_per_image: Number of prompts for each pair, at least 1.
        empty_prompt_prob: Probability that a prompt is empty, in [0, 1]. Its target is the whole foreground.
        prompts: Settings of the other prompts. Default: [`PromptSettings`] with the paper's template.
        has_regions: Whether batches hold the named objects of each pair, for the contrast of names.
        contrast_names: Names that these are contrasted with, besides all names in the batch.

    Example:
        >>> from fclm_hf.data import BatchSettings
        >>> BatchSettings(batch_size=4).prompts.templates
        ('a photo of {}.',)
    """

    batch_size: int = 8
    prompts_per_image: int = 3
    empty_prompt_prob: float = 0.2
    prompts: PromptSettings = field(default_factory=lambda: PromptSettings(templates=(PAPER_TEMPLATE,)))
    has_regions: bool = False
    contrast_names: Sequence[str] = ()

    RENAMED: ClassVar[dict[str, str]] = {"automatic": "empty_prompt_prob"}


@dataclass
class StreamItem:
    """Item that a worker yields: a batch and the position after it, or the error that ended the stream."""

    worker: int
    batch: dict[str, Any] | None = None
    state: dict[str, Any] | None = None
    error: StreamError | None = None


class TrainingStream(IterableDataset):
    """Endless batches of pairs for training; read them through [`StreamLoader`].

    Every process of a run makes one with its `rank` over the same sources, and does not let Accelerate prepare its
    loader: the rows are split here, among all workers of all processes, each to exactly one (see [`Shard`]).

    Args:
        foregrounds: Sources of any kind but "background".
        backgrounds: Sources of kind "background".
        tokenizer: CLIP tokenizer of the model. It may be set later, as the attribute, but before the first batch.
        pairs: Settings of the pairs. Default: [`PairSettings`].
        batches: Settings of the batches. Default: [`BatchSettings`].
        rank: Number of this process, from 0 and below `world_size`.
        world_size: Number of processes.
        image_mean: Mean of each channel that is subtracted from pixels in [0, 1], as in the model's image processor.
        image_std: Standard deviation of each channel that they are divided by. The default mean and standard deviation
            give pixels in [-1, 1].

    Raises:
        ValueError: If a source is of the wrong kind, there is none, or `rank` is not below `world_size`.

    Example:
        >>> import json, pathlib
        >>> from PIL import Image
        >>> from transformers import AutoTokenizer
        >>> from fclm_hf import LITE_CHECKPOINT
        >>> from fclm_hf.data import BatchSettings, CompositionSettings, PairSettings, SourceConfig
        >>> from fclm_hf.data import StreamLoader, TrainingStream, open_source
        >>> for kind, mode in (("foregrounds", "RGBA"), ("backgrounds", "RGB")):
        ...     Image.new(mode, (16, 16), (200, 90, 40, 128)[: len(mode)]).save(f"{kind}.png")
        ...     _ = pathlib.Path(f"{kind}.json").write_text(json.dumps([{"file": f"{kind}.png", "name": "a square"}]))
        >>> objects, photos = (open_source(SourceConfig(".", kind)) for kind in ("rgba", "background"))
        >>> tokenizer = AutoTokenizer.from_pretrained(LITE_CHECKPOINT)
        >>> pairs, batches = PairSettings(CompositionSettings(size=32)), BatchSettings(2, prompts_per_image=1)
        >>> stream = TrainingStream([objects], [photos], tokenizer, pairs, batches)
        >>> next(iter(StreamLoader(stream, num_workers=0)))["pixel_values_a"].shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        foregrounds: Sequence[Source],
        backgrounds: Sequence[Source],
        tokenizer: Any,
        pairs: PairSettings | None = None,
        batches: BatchSettings | None = None,
        rank: int = 0,
        world_size: int = 1,
        image_mean: Sequence[float] = (0.5, 0.5, 0.5),
        image_std: Sequence[float] = (0.5, 0.5, 0.5),
    ):
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in 0..{world_size - 1} for world_size {world_size}, got {rank}.")
        self.foregrounds, self.backgrounds = foregrounds, backgrounds
        self.tokenizer = tokenizer
        self.pairs = pairs or PairSettings()
        self.batches = batches or BatchSettings()
        self.rank, self.world_size = rank, world_size
        self.image_mean, self.image_std = image_mean, image_std
        self.selects_edges = any(source.config.learn_edges is not None for source in foregrounds)
        self.has_coarse_masks = any(source.config.mask_quality == "coarse" for source in foregrounds)
        self.consumed = 0
        self.states: dict[int, dict[str, Any]] = {}
        self._open_pairs(Shard())  # raises for sources of the wrong kind

    def _open_pairs(self, shard: Shard) -> PairStream:
        """Return the pairs of one shard."""
        return PairStream(self.foregrounds, self.backgrounds, shard, self.pairs)

    def __iter__(self) -> Iterator[StreamItem]:
        info = get_worker_info()
        workers, number = (info.num_workers, info.id) if info else (1, 0)
        if info:
            cv2.setNumThreads(1)
            fsspec.asyn.reset_lock()  # the thread behind it does not survive a fork
        # a DataLoader always begins with worker 0, which therefore takes the place of the worker whose turn it was
        worker = (number + self.consumed) % workers
        stream = self._open_pairs(Shard(self.rank * workers + worker, self.world_size * workers))
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
        """Draw the prompts of each pair, and return the batch."""
        pairs = [each.pair for each in drawn]
        settings = self.batches
        prompts, labels = [], []
        for each, pair in zip(drawn, pairs, strict=True):
            image_prompts, targets = sample_prompts(
                pair.alphas,
                pair.names,
                each.rng,
                settings.prompts,
                settings.prompts_per_image,
                settings.empty_prompt_prob if pair.is_complete else 0.0,
                texts=pair.texts,
                foreground=pair.foreground,
                instance=pair.instance,
                absent_names=pair.absent_names,
            )
            prompts.append(image_prompts)
            labels.append(targets)
        pixel_mask = _make_pixel_mask([pair.valid for pair in pairs], self.pairs.composition.size)
        labels = torch.from_numpy(np.stack(labels).astype(np.float32))
        foreground = torch.from_numpy(np.stack([pair.foreground[None] for pair in pairs]).astype(np.float32))
        table = make_pixel_table(self.image_mean, self.image_std)
        return {
            "pixel_values_a": _normalize([pair.image_a for pair in pairs], pixel_mask, table),
            "pixel_values_b": _normalize([pair.image_b for pair in pairs], pixel_mask, table),
            "pixel_mask": pixel_mask,
            "labels": labels.clamp(min=0),
            **({"label_mask": labels >= 0} if self.has_coarse_masks else {}),
            "foreground": foreground.clamp(min=0),
            "object_mask": torch.ones(len(drawn), settings.prompts_per_image, dtype=torch.bool),
            **collate_prompts(prompts, self.tokenizer),
            **({"learns_edges": torch.tensor([each.learns_edges for each in drawn])} if self.selects_edges else {}),
            **(self._collate_regions(pairs) if settings.has_regions else {}),
            "sample_keys": [each.keys for each in drawn],
        }

    def _collate_regions(self, pairs: list[Pair]) -> dict[str, torch.Tensor]:
        """Return the alphas and names of the objects of each pair, and the tokens of all names."""
        names = [pair.names if pair.region_names is None else pair.region_names for pair in pairs]
        present = {name for own in names for each in own for name in each}
        places = {name: place for place, name in enumerate(sorted(present.union(self.batches.contrast_names)))}
        shape = len(pairs), max(len(pair.alphas) for pair in pairs)
        side = self.pairs.composition.size
        alphas = torch.zeros(*shape, side, side, dtype=torch.uint8)
        matches = torch.zeros(*shape, max(1, len(places)), dtype=torch.bool)
        for index, (pair, own) in enumerate(zip(pairs, names, strict=True)):
            scaled = np.rint(255 * np.clip(pair.alphas, 0, 1)).astype(np.uint8)
            alphas[index, : len(scaled)] = torch.from_numpy(scaled)
            for number, fitting in enumerate(own):
                matches[index, number, [places[name] for name in fitting]] = True
        tokens = self.tokenizer(list(places) or [""], padding=True, truncation=True, return_tensors="pt")
        return {"region_alphas": alphas, "region_names": matches, "name_ids": tokens["input_ids"]}


def _make_pixel_mask(sizes: list[tuple[int, int]], side: int) -> torch.Tensor:
    """Return a mask `(batch, side, side)` int64 that is 1 within each height and width at the top left."""
    mask = torch.zeros(len(sizes), side, side, dtype=torch.int64)
    for each, (height, width) in zip(mask, sizes, strict=True):
        each[:height, :width] = 1
    return mask


def make_pixel_table(mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Return the normalized value of each 8-bit value in each channel, `(256, 3)` float32."""
    levels = torch.arange(256, dtype=torch.float32)[:, None]
    # by way of [-1, 1], not levels / 255: rounded as in release 0.1, whose runs resume bit-exactly
    values = ((levels / 127.5 - 1) + 1) / 2
    return ((values - torch.tensor(mean)) / torch.tensor(std)).numpy()


def _normalize(images: list[np.ndarray], pixel_mask: torch.Tensor, table: np.ndarray) -> torch.Tensor:
    """Look up the pixels of uint8 images in `table`; padding becomes 0."""
    values = torch.from_numpy(table[np.stack(images), np.arange(3)]).permute(0, 3, 1, 2)
    return (values * pixel_mask[:, None]).contiguous(memory_format=torch.channels_last)
