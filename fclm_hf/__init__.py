"""FCLM: full-resolution mattes of what a text, a click or a box names, in transformers.

Importing the package is cheap: each public name loads its module when it is first used, and the Auto classes and
pipelines of transformers learn about FCLM as soon as they are imported, see `fclm_hf.auto`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .auto import register_when_imported
from .checkpoints import LITE_CHECKPOINT


if TYPE_CHECKING:
    from .configuration_fclm import FCLMConfig
    from .image_processing_fclm import FCLMImageProcessor
    from .image_processing_pil_fclm import FCLMImageProcessorPil
    from .modeling_fclm import FCLMForImageMatting, FCLMModel, FCLMPreTrainedModel
    from .pipeline_fclm import ReferringMattingPipeline
    from .processing_fclm import FCLMProcessor


__version__ = "0.2.0"

__all__ = [
    "LITE_CHECKPOINT",
    "FCLMConfig",
    "FCLMForImageMatting",
    "FCLMImageProcessor",
    "FCLMImageProcessorPil",
    "FCLMModel",
    "FCLMPreTrainedModel",
    "FCLMProcessor",
    "ReferringMattingPipeline",
]

_MODULES = {
    "FCLMConfig": "configuration_fclm",
    "FCLMForImageMatting": "modeling_fclm",
    "FCLMImageProcessor": "auto",
    "FCLMImageProcessorPil": "image_processing_pil_fclm",
    "FCLMModel": "modeling_fclm",
    "FCLMPreTrainedModel": "modeling_fclm",
    "FCLMProcessor": "processing_fclm",
    "ReferringMattingPipeline": "pipeline_fclm",
}
_SUBMODULES = {
    *_MODULES.values(),
    *(
        "foreground_fclm",
        "image_processing_base_fclm",
        "image_loading_fclm",
        "image_processing_fclm",
        "image_utils_fclm",
        "loss_fclm",
    ),
    *("app", "cli", "data", "evaluation", "exporters", "hub", "metrics", "onnx", "reproduction", "training", "utils"),
}


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f".{name}", __name__)
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})


register_when_imported()
