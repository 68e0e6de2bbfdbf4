"""Composition of training images, simulated prompts and data sources."""

from .batches import ComposedBatches, collate_prompts
from .composition import Composition, CompositionSettings, composite_objects
from .foregrounds import Backgrounds, Foreground, Foregrounds
from .prompts import PromptSettings, sample_prompt
from .strands import add_strands


__all__ = [
    "Backgrounds",
    "ComposedBatches",
    "Composition",
    "CompositionSettings",
    "Foreground",
    "Foregrounds",
    "PromptSettings",
    "add_strands",
    "collate_prompts",
    "composite_objects",
    "sample_prompt",
]
