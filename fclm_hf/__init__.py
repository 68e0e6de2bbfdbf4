"""FCLM: cut any object out of a photo by its name, a click or a box. Importing it registers all classes."""

from .auto import FCLMImageProcessor, register
from .checkpoints import LITE_CHECKPOINT
from .configuration_fclm import FCLMConfig
from .image_processing_pil_fclm import FCLMImageProcessorPil
from .modeling_fclm import FCLMForImageMatting, FCLMModel, FCLMPreTrainedModel
from .pipeline_fclm import ReferringMattingPipeline
from .processing_fclm import FCLMProcessor


__version__ = "0.1.0"

register()

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
