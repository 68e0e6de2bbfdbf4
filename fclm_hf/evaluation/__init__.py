"""`fclm evaluate`: benchmarks, prompts, protocols and summaries, one idea per file."""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .evaluator import evaluate
    from .options import EvaluationOptions

_MODULES = {"EvaluationOptions": ".options", "evaluate": ".evaluator"}


def __getattr__(name: str) -> Any:
    """Imports on first use: every command of `fclm` comes by here, and datasets takes long to import."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)


__all__ = ["EvaluationOptions", "evaluate"]
