"""The tables and figures of the paper: experiments as configurations, trained, tested and written by one command."""

from .options import ReproductionOptions
from .run import reproduce


__all__ = ["ReproductionOptions", "reproduce"]
