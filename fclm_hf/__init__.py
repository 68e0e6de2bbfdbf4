"""FCLM: cut any object out of a photo by its name, a click or a box. Importing it registers all classes."""

from pathlib import Path

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageMatting, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils import is_torchvision_available

from .configuration_fclm import FCLMConfig
from .image_processing_pil_fclm import FCLMImageProcessorPil
from .modeling_fclm import FCLMForImageMatting, FCLMModel, FCLMPreTrainedModel
from .pipeline_fclm import ReferringMattingPipeline
from .processing_fclm import FCLMProcessor


__version__ = "0.1.0"
LITE_CHECKPOINT = str(Path(__file__).parent / "checkpoints" / "fclm-lite")

_IMAGE_PROCESSORS = {"pil": FCLMImageProcessorPil}
if is_torchvision_available():
    from .image_processing_fclm import FCLMImageProcessor

    _IMAGE_PROCESSORS["torchvision"] = FCLMImageProcessor
else:
    FCLMImageProcessor = FCLMImageProcessorPil


def _register() -> None:
    AutoConfig.register(FCLMConfig.model_type, FCLMConfig, exist_ok=True)
    AutoModel.register(FCLMConfig, FCLMModel, exist_ok=True)
    AutoModelForImageMatting.register(FCLMConfig, FCLMForImageMatting, exist_ok=True)
    AutoImageProcessor.register(FCLMConfig, image_processor_classes=_IMAGE_PROCESSORS, exist_ok=True)
    AutoProcessor.register(FCLMConfig, FCLMProcessor, exist_ok=True)
    if "referring-matting" not in PIPELINE_REGISTRY.get_supported_tasks():
        PIPELINE_REGISTRY.register_pipeline(
            "referring-matting",
            pipeline_class=ReferringMattingPipeline,
            pt_model=AutoModelForImageMatting,
            default={"model": (LITE_CHECKPOINT, "main")},
            type="multimodal",
        )


_register()

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
