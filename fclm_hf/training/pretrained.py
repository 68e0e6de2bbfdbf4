"""What training starts from: one of the paper's models, lite, or a checkpoint of FCLM."""

from dataclasses import replace

from transformers import DepthAnythingForDepthEstimation

from ..hub.checkpoints import fetch_checkpoint
from ..modeling_fclm import FCLMForImageMatting
from ..processing_fclm import FCLMProcessor
from .arguments import ModelArguments
from .lite import build_lite, freeze_early_stages
from .presets import BACKBONES, TEACHER, TEXT_ENCODER, TrainingPreset, load_preset, load_weights, read_config


def build_starting_point(arguments: ModelArguments) -> TrainingPreset:
    """Student, teacher, settings and processor.

    Raises:
        ValueError: an argument that does not go with the model, a checkpoint that is none or lacks weights.
        OSError: a checkpoint cannot be had.
    """
    settings, teacher = arguments.settings, arguments.teacher or TEACHER
    if arguments.model in BACKBONES:
        text_encoder = arguments.text_encoder or TEXT_ENCODER
        parts = load_preset(arguments.model, arguments.backbone, text_encoder, teacher, settings, **arguments.config)
    else:
        if arguments.backbone or arguments.text_encoder:
            raise ValueError(f"backbone and text_encoder go with {' and '.join(BACKBONES)} only.")
        depth = None
        if settings.distillation != "none":
            read_config("teacher", teacher, ("depth_anything",))
            depth = load_weights("teacher", teacher, DepthAnythingForDepthEstimation)
        if arguments.model == "lite":
            student, processor = build_lite(arguments.tokenizer, arguments.pretrained, **arguments.config)
        else:
            folder = str(fetch_checkpoint(arguments.model))
            student = load_weights("model", folder, FCLMForImageMatting, **arguments.config)
            processor = FCLMProcessor.from_pretrained(folder)
        images = processor.image_processor
        settings = replace(settings, image_mean=tuple(images.image_mean), image_std=tuple(images.image_std))
        parts = TrainingPreset(student, depth, settings, processor)
    freeze_early_stages(parts.student, arguments.freeze_stages)
    multiple = parts.student.config.encoder_multiple
    if wrong := [size for size in arguments.encoder_sizes if size % multiple]:
        raise ValueError(f"encoder_sizes must be multiples of {multiple} for this encoder, got {wrong}.")
    return parts


__all__ = ["build_starting_point"]
