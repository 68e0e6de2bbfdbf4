"""Batches of pairs with prompts, composed in the worker processes of a DataLoader."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import cv2
import fsspec.asyn
import numpy as np
import pyarrow
import torch
from torch.utils.data import IterableDataset, get_worker_info

from ...utils.renaming import accept_renamed
from ..sources.invalid_samples import InvalidSampleCounter, StreamError
from ..sources.rows import Shard
from ..sources.source import Source
from ..synthesis.pairs import Pair
from ..synthesis.prompts import PAPER_TEMPLATE, PromptSettings, collate_prompts, sample_prompts
from .pair_stream import DrawnPair, PairSettings, PairStream
from .planning import GROUP


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
    """Item that a worker yields: a batch and the states of the shards it was read from, or the error that ended it.

    `invalid_samples` counts those of the batch.
    """

    worker: int
    batch: dict[str, Any] | None = None
    shards: dict[int, dict[str, Any]] | None = None
    invalid_samples: dict[str, Any] | None = None
    error: StreamError | None = None


class TrainingStream(IterableDataset):
    """Endless batches of pairs for training; read them through [`StreamLoader`].

    The pairs are numbered, and what pair n is follows from the seed, the sources and `num_shards` alone. Every process
    of a run makes a stream with its `rank` over the same sources, and does not let Accelerate prepare its loader:
    of the next `world_size * batch_size` pairs, each process makes its own `batch_size`, the first process the first
    ones. So a run trains on the same pairs in the same order with any number of processes and workers.

    Groups of eight pairs come from the shards in turn, and a worker reads the rows, though not the pixels, of every
    shard that its pairs come from. It reads no more than that where `num_shards` is a multiple of `world_size` times
    the number of workers and `batch_size` is one of 8. With 1 shard, every worker reads all rows.

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
        num_shards: Number of parts that the sources are split into. It decides the order of the pairs. Each part needs
            a row of every source. Default: 8, 4, 2 or 1, but not more than the files of any source.

    Raises:
        ValueError: If a source is of the wrong kind, there is none, `rank` is not below `world_size`, or `num_shards`
            is not positive.

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
        num_shards: int | None = None,
    ):
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in 0..{world_size - 1} for world_size {world_size}, got {rank}.")
        if num_shards is not None and num_shards < 1:
            raise ValueError(f"num_shards must be at least 1, got {num_shards}.")
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
        self._open_pairs(0, 1)  # raises for sources of the wrong kind
        self.num_shards = num_shards or _choose_num_shards([*foregrounds, *backgrounds])

    def _open_pairs(self, index: int, count: int) -> PairStream:
        """Return the pairs of one shard."""
        return PairStream(self.foregrounds, self.backgrounds, Shard(index, count), self.pairs)

    def __iter__(self) -> Iterator[StreamItem]:
        info = get_worker_info()
        workers, worker = (info.num_workers, info.id) if info else (1, 0)
        if info:
            _stop_thread_pools()
            fsspec.asyn.reset_lock()  # the thread behind it does not survive a fork
        shards: dict[int, PairStream] = {}
        size, start = self.batches.batch_size, self.consumed  # which the loader changes, here too without workers
        for turn in itertools.count(worker, workers):
            first = start + (turn * self.world_size + self.rank) * size
            counter = InvalidSampleCounter()
            try:
                drawn = [self._draw(number, shards, counter) for number in range(first, first + size)]
            except StreamError as error:
                yield StreamItem(worker, error=error)
                return
            touched = sorted({self._find_shard(number)[0] for number in range(first, first + size)})
            states = {index: shards[index].get_position() for index in touched}
            yield StreamItem(worker, self._collate(drawn), states, counter.state_dict())

    def _find_shard(self, number: int) -> tuple[int, int]:
        """Return the shard of a pair, and its number there."""
        group, place = divmod(number, GROUP)
        turn, index = divmod(group, self.num_shards)
        return index, turn * GROUP + place

    def _draw(self, number: int, shards: dict[int, PairStream], counter: InvalidSampleCounter) -> DrawnPair:
        """Return the pair of a number. Shards are opened where they are needed first, at their last known position."""
        index, place = self._find_shard(number)
        if index not in shards:
            shards[index] = self._open_pairs(index, self.num_shards)
            if index in self.states:
                shards[index].set_position(self.states[index])
        shards[index].invalid_samples = counter
        shards[index].skip(place - shards[index].pairs)
        return shards[index].draw(1)[0]

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


def _stop_thread_pools() -> None:
    """Let libraries compute in the thread of this worker; Arrow needs one that reads and one that decompresses."""
    cv2.setNumThreads(1)
    pyarrow.set_cpu_count(1)
    pyarrow.set_io_thread_count(1)


def _choose_num_shards(sources: Sequence[Source]) -> int:
    """Return the largest of 8, 4, 2 and 1 that leaves each shard a file of every source, none of which may be empty."""
    files = min(1 if source.config.keep else source.dataset.num_shards for source in sources)
    return next(count for count in (8, 4, 2, 1) if count <= max(files, 1))


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
