"""Training data: sources on the Hub or on disk, composites and pairs with simulated prompts, resumable streams."""

from ..utils.renaming import make_getattr
from .sources.invalid_samples import (
    InvalidReason,
    InvalidSampleCounter,
    InvalidSampleError,
    StreamError,
    TooManyInvalidSamplesError,
)
from .sources.retry import LostConnectionError, RetryPolicy
from .sources.rows import Shard
from .sources.source import Source, SourceConfig, open_source
from .streaming.dataloader import StreamLoader
from .streaming.dataset import BatchSettings, TrainingStream
from .streaming.pair_stream import PairSettings, PairStream
from .synthesis.composition import Composite, Composition, CompositionSettings, composite_objects
from .synthesis.pairs import Pair, PairComposition
from .synthesis.procedural import add_hair
from .synthesis.prompts import PAPER_TEMPLATE, PromptSettings, collate_prompts, sample_prompt, sample_prompts
from .types import Foreground, Photo, Sample


__all__ = [
    "PAPER_TEMPLATE",
    "BatchSettings",
    "Composite",
    "Composition",
    "CompositionSettings",
    "Foreground",
    "InvalidReason",
    "InvalidSampleCounter",
    "InvalidSampleError",
    "LostConnectionError",
    "Pair",
    "PairComposition",
    "PairSettings",
    "PairStream",
    "Photo",
    "PromptSettings",
    "RetryPolicy",
    "Sample",
    "Shard",
    "Source",
    "SourceConfig",
    "StreamError",
    "StreamLoader",
    "TooManyInvalidSamplesError",
    "TrainingStream",
    "add_hair",
    "collate_prompts",
    "composite_objects",
    "open_source",
    "sample_prompt",
    "sample_prompts",
]

_RENAMED = {
    "Backoff": RetryPolicy,
    "FaultCounter": InvalidSampleCounter,
    "FaultReason": InvalidReason,
    "FaultySampleError": InvalidSampleError,
    "TooManyFaultsError": TooManyInvalidSamplesError,
    "add_strands": add_hair,
}
_REMOVED = {
    "Backgrounds": 'open the folder with open_source(SourceConfig(folder, "background")).',
    "ComposedBatches": "read batches through StreamLoader(TrainingStream(...)); pixel_values_b are composites.",
    "Foregrounds": 'open the folder with open_source(SourceConfig(folder, "rgba")).',
}
__getattr__ = make_getattr(__name__, _RENAMED, _REMOVED)
