"""Registration of FCLM with the Auto classes and pipelines of transformers."""

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageMatting, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils import is_torchvision_available

from .checkpoints import LITE_CHECKPOINT
from .configuration_fclm import FCLMConfig
from .image_processing_pil_fclm import FCLMImageProcessorPil
from .modeling_fclm import FCLMForImageMatting, FCLMModel
from .pipeline_fclm import ReferringMattingPipeline
from .processing_fclm import FCLMProcessor


_IMAGE_PROCESSORS = {"pil": FCLMImageProcessorPil}
if is_torchvision_available():
    from .image_processing_fclm import FCLMImageProcessor

    _IMAGE_PROCESSORS["torchvision"] = FCLMImageProcessor
else:
    FCLMImageProcessor = FCLMImageProcessorPil


def register() -> None:
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


__all__ = ["FCLMImageProcessor", "register"]
