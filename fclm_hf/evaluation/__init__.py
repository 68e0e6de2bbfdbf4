"""Evaluation on benchmarks: their layouts, prompts, protocols, methods, results and summaries."""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .evaluator import evaluate
    from .options import EvaluationOptions

_MODULES = {"EvaluationOptions": ".options", "evaluate": ".evaluator"}


def __getattr__(name: str) -> Any:
    """Import on first use, because the modules behind these names import datasets and torch, which takes seconds."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)


__all__ = ["EvaluationOptions", "evaluate"]
