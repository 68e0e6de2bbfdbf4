"""Mattes of whole data sets: read, matted and written shard by shard, on one machine or on many."""

from .matting import PhotoMatter
from .options import BulkOptions
from .run import BulkSummary, matte_dataset


__all__ = ["BulkOptions", "BulkSummary", "PhotoMatter", "matte_dataset"]
