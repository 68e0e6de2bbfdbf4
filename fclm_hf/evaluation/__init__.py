"""`fclm evaluate`: benchmarks, prompts, protocols and summaries, one idea per file."""

from .options import EvaluationOptions
from .runner import evaluate


__all__ = ["EvaluationOptions", "evaluate"]
