"""Streamed data sources, composition of training images and pairs, simulated prompts."""

from .batches import ComposedBatches, collate_prompts
from .composition import Composition, CompositionSettings, composite_objects
from .connections import Backoff, LostConnectionError
from .faults import FaultCounter, FaultReason, FaultySampleError, StreamError, TooManyFaultsError
from .foregrounds import Backgrounds, Foreground, Foregrounds
from .pair_stream import PairSettings, PairStream
from .paired_samples import Pair, PairComposition
from .prompts import PAPER_TEMPLATE, PromptSettings, sample_prompt, sample_prompts
from .samples import Photo, Sample
from .sources import Source, SourceConfig, open_source
from .strands import add_strands
from .stream_loader import StreamLoader
from .training_stream import BatchSettings, TrainingStream


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
