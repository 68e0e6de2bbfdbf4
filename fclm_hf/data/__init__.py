"""Streamed data sources, composition of training images and pairs, simulated prompts."""

from .sources.folders import Backgrounds, Foreground, Foregrounds
from .sources.invalid_samples import FaultCounter, FaultReason, FaultySampleError, StreamError, TooManyFaultsError
from .sources.retry import Backoff, LostConnectionError
from .sources.samples import Photo, Sample
from .sources.source import Source, SourceConfig, open_source
from .streaming.dataloader import StreamLoader
from .streaming.dataset import BatchSettings, TrainingStream
from .streaming.pair_stream import PairSettings, PairStream
from .synthesis.batches import ComposedBatches, collate_prompts
from .synthesis.composition import Composition, CompositionSettings, composite_objects
from .synthesis.pairs import Pair, PairComposition
from .synthesis.prompts import PAPER_TEMPLATE, PromptSettings, sample_prompt, sample_prompts
from .synthesis.strands import add_strands


__all__ = [
    "PAPER_TEMPLATE",
    "Backgrounds",
    "Backoff",
    "BatchSettings",
    "ComposedBatches",
    "Composition",
    "CompositionSettings",
    "FaultCounter",
    "FaultReason",
    "FaultySampleError",
    "Foreground",
    "Foregrounds",
    "LostConnectionError",
    "Pair",
    "PairComposition",
    "PairSettings",
    "PairStream",
    "Photo",
    "PromptSettings",
    "Sample",
    "Source",
    "SourceConfig",
    "StreamError",
    "StreamLoader",
    "TooManyFaultsError",
    "TrainingStream",
    "add_strands",
    "collate_prompts",
    "composite_objects",
    "open_source",
    "sample_prompt",
    "sample_prompts",
]
