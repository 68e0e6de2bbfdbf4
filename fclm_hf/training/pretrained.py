"""Starting points of training: the paper's models, the lite model, or a checkpoint of FCLM."""

from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    CLIPTextModelWithProjection,
    DepthAnythingForDepthEstimation,
    Dinov2Backbone,
    PreTrainedConfig,
)
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME, has_file

from ..auto import FCLMImageProcessor
from ..checkpoints import LITE_CHECKPOINT
from ..configuration_fclm import FCLMConfig
from ..hub.checkpoints import fetch_checkpoint, load_complete
from ..modeling_fclm import FCLMForImageMatting
from ..processing_fclm import FCLMProcessor
from .imagenet import load_imagenet_weights
from .objective.looks import check_closer_looks
from .objective.settings import TrainingSettings


if TYPE_CHECKING:
    from .arguments import ModelArguments

BACKBONES = {"matting-small": "facebook/dinov2-small", "dis-base": "facebook/dinov2-base"}
TEXT_ENCODER = "openai/clip-vit-base-patch32"
TEACHER = "depth-anything/Depth-Anything-V2-Large-hf"
SEEDS = (0, 1, 2)

_WEIGHT_FILES = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json")


@dataclass
class TrainingPreset:
    """Everything that training starts from, as [`load_preset`] returns it.

    Args:
        student (`FCLMForImageMatting`): Model to train.
        teacher (`DepthAnythingForDepthEstimation`, *optional*): Teacher, `None` without distillation.
        settings (`TrainingSettings`): Settings of the training objective.
        processor (`FCLMProcessor`): Processor to save with the student.
        semantic_teacher (`FCLMForImageMatting`, *optional*): Model whose semantic map the student is held to; `None`
            for the student as it starts.

    Example:
        >>> from fclm_hf.training import ForegroundConsistentLearner, load_preset
        >>> preset = load_preset("matting-small")  # doctest: +SKIP
        >>> learner = ForegroundConsistentLearner(
        ...     preset.student, preset.teacher, preset.settings
        ... )  # doctest: +SKIP
    """

    student: FCLMForImageMatting
    teacher: DepthAnythingForDepthEstimation | None
    settings: TrainingSettings
    processor: FCLMProcessor
    semantic_teacher: FCLMForImageMatting | None = None


def load_preset(
    name: str,
    backbone: str | Path | None = None,
    text_encoder: str | Path = TEXT_ENCODER,
    teacher: str | Path = TEACHER,
    settings: TrainingSettings | None = None,
    **overrides: Any,
) -> TrainingPreset:
    """Load the student, teacher, settings and processor of one of the paper's models, ready to train.

    The backbone of the student starts from the weights of DINOv2 and its text encoder from those of CLIP, which stay
    frozen; everything else is initialized from scratch. All checkpoints are checked before any of them is loaded.

    Args:
        name: `"matting-small"` (DINOv2-Small) or `"dis-base"` (DINOv2-Base, for dichotomous image segmentation).
        backbone: Hub id or folder of a DINOv2 model of any size. Default: the official one of the preset.
        text_encoder: Hub id or folder of a CLIP model or its text tower, with its tokenizer.
        teacher: Hub id or folder of a Depth Anything model; not loaded if `settings.distillation` is `"none"`. The
            default, V2 Large, is licensed under CC-BY-NC-4.0; depth-anything/Depth-Anything-V2-Small-hf is under
            Apache-2.0.
        settings: Settings of the training objective. Default: the paper's. `image_mean` and `image_std` become those of
            the processor.
        **overrides: Fields of [`FCLMConfig`].

    Returns:
        The parts.

    Raises:
        ValueError: If `name` is unknown, or a checkpoint does not exist, is of another model type, or has no weights,
            unreadable weights or incomplete weights. The message names the argument.

    Example:
        >>> from fclm_hf.training import TrainingSettings, load_preset
        >>> settings = TrainingSettings(distillation="none")
        >>> preset = load_preset("matting-small", settings=settings)  # doctest: +SKIP
        >>> preset.student.config.task  # doctest: +SKIP
        'matting'
    """
    if name not in BACKBONES:
        raise ValueError(f"name must be one of {sorted(BACKBONES)}, got {name!r}.")
    settings = replace(
        settings or TrainingSettings(), image_mean=tuple(IMAGENET_DEFAULT_MEAN), image_std=tuple(IMAGENET_DEFAULT_STD)
    )
    backbone, text_encoder, teacher = str(backbone or BACKBONES[name]), str(text_encoder), str(teacher)
    backbone_config = _read_config("backbone", backbone, ("dinov2",))
    clip_config = _read_config("text_encoder", text_encoder, ("clip", "clip_text_model"))
    # without these files, transformers would create a tokenizer with a few tokens
    _check_files("text_encoder", text_encoder, "tokenizer", _TOKENIZER_FILES)
    if settings.distillation != "none":
        _read_config("teacher", teacher, ("depth_anything",))

    tokenizer = AutoTokenizer.from_pretrained(text_encoder)
    config = _make_config(name, backbone_config, clip_config, tokenizer, overrides)
    encoder = _load_weights("backbone", backbone, Dinov2Backbone, config=config.backbone_config)
    tower = _load_weights("text_encoder", text_encoder, CLIPTextModelWithProjection, config=config.text_config)
    depth_model = _load_teacher(teacher, settings)
    student = FCLMForImageMatting(config)
    student.model.backbone.load_state_dict(encoder.state_dict())
    student.model.text_model.load_state_dict(tower.state_dict())
    image_processor = FCLMImageProcessor(image_mean=list(settings.image_mean), image_std=list(settings.image_std))
    return TrainingPreset(student, depth_model, settings, FCLMProcessor(image_processor, tokenizer))


def build_lite(
    tokenizer: str | None = None, pretrained: bool = True, **overrides: object
) -> tuple[FCLMForImageMatting, FCLMProcessor]:
    """Build a lite model and its processor.

    Args:
        tokenizer: Folder or Hub id of a CLIP tokenizer. Default: the one of the embedded checkpoint.
        pretrained: Whether the backbone starts from ImageNet weights; everything else is initialized from scratch.
        **overrides: Fields of [`FCLMConfig`].

    Returns:
        The model and the processor.

    Raises:
        ValueError: If the tokenizer has more tokens than the text tower.
        OSError: If the tokenizer or the weights are unavailable.
    """
    config = FCLMConfig.from_preset("lite", **overrides)
    tokens = AutoTokenizer.from_pretrained(tokenizer or LITE_CHECKPOINT)
    if len(tokens) > config.text_config.vocab_size:
        raise ValueError(f"tokenizer must have at most {config.text_config.vocab_size} tokens, got {len(tokens)}.")
    student = FCLMForImageMatting(config)
    if pretrained:
        load_imagenet_weights(student)
    return student, FCLMProcessor(FCLMImageProcessor(), tokens)


def build_starting_point(arguments: "ModelArguments") -> TrainingPreset:
    """Build the student, teacher, settings and processor that the arguments of a run ask for.

    Args:
        arguments: Model arguments of the run.

    Raises:
        ValueError: If an argument does not apply to the model, or a checkpoint is incomplete or of another model type.
        OSError: If a checkpoint is unavailable.
    """
    settings, teacher = arguments.settings, arguments.teacher or TEACHER
    if settings.look_share or settings.tile_share:
        check_closer_looks(_make_student_config(arguments), settings)
    if arguments.model in BACKBONES:
        text_encoder = arguments.text_encoder or TEXT_ENCODER
        parts = load_preset(arguments.model, arguments.backbone, text_encoder, teacher, settings, **arguments.config)
    else:
        if arguments.backbone or arguments.text_encoder:
            raise ValueError(f"backbone and text_encoder apply only to the models {' and '.join(BACKBONES)}.")
        if settings.distillation != "none":
            _read_config("teacher", teacher, ("depth_anything",))
        depth_model = _load_teacher(teacher, settings)
        if arguments.model == "lite":
            student, processor = build_lite(arguments.tokenizer, arguments.pretrained, **arguments.config)
        else:
            folder = str(fetch_checkpoint(arguments.model))
            student = _load_weights("model", folder, FCLMForImageMatting, **arguments.config)
            processor = FCLMProcessor.from_pretrained(folder)
        images = processor.image_processor
        settings = replace(settings, image_mean=tuple(images.image_mean), image_std=tuple(images.image_std))
        parts = TrainingPreset(student, depth_model, settings, processor)
    if arguments.semantic_teacher is not None:
        taught = _load_weights(
            "semantic_teacher", str(fetch_checkpoint(arguments.semantic_teacher)), FCLMForImageMatting
        )
        parts = replace(parts, semantic_teacher=taught)
    freeze_early_stages(parts.student, arguments.freeze_stages)
    multiple = parts.student.config.encoder_multiple
    if wrong := [size for size in arguments.encoder_sizes if size % multiple]:
        raise ValueError(f"encoder_sizes must be multiples of {multiple} for this backbone, got {wrong}.")
    return parts


def freeze_early_stages(model: FCLMForImageMatting, stages: int) -> None:
    """Freeze the stem and the first stages of the backbone, for cheaper steps and less overfitting.

    Args:
        model: A lite model.
        stages: Number of stages; 0 freezes nothing, not even the stem.

    Raises:
        ValueError: If the backbone is not an EfficientNet or has fewer stages.
    """
    if not stages:
        return
    backbone: nn.Module = getattr(model.model.backbone, "_backbone", None)
    if not hasattr(backbone, "conv_stem"):
        raise ValueError("freeze_stages applies only to the backbone of the lite model.")
    if stages > len(backbone.blocks):
        raise ValueError(f"freeze_stages must be at most {len(backbone.blocks)} for this backbone, got {stages}.")
    for module in (backbone.conv_stem, backbone.bn1, *backbone.blocks[:stages]):
        module.requires_grad_(False)


def _make_student_config(arguments: "ModelArguments") -> FCLMConfig:
    """Return the config of the student without loading weights; sizes of the paper's encoders may differ."""
    if arguments.model in (*BACKBONES, "lite"):
        return FCLMConfig.from_preset(arguments.model, **arguments.config)
    return FCLMConfig.from_pretrained(fetch_checkpoint(arguments.model), **arguments.config)


def _check_files(argument: str, source: str, content: str, names: tuple[str, ...]) -> None:
    """Raise a `ValueError` if a checkpoint has none of the files."""
    if not any(has_file(source, name) for name in names):
        raise ValueError(f"{argument}: {source!r} holds no {content} ({', '.join(names)}).")


def _read_config(argument: str, source: str, model_types: tuple[str, ...]) -> PreTrainedConfig:
    """Return the config of a checkpoint, after checking that it is of the right model type and has weights."""
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ValueError(f"{argument}: {source!r} cannot be read as a checkpoint: {error}") from error
    if config.model_type not in model_types:
        raise ValueError(
            f"{argument} must be a checkpoint of model type {' or '.join(model_types)}; {source!r} is a "
            f"{config.model_type}."
        )
    _check_files(argument, source, "weights", _WEIGHT_FILES)
    return config


def _load_weights(argument: str, source: str, model_class: type, **kwargs: Any) -> nn.Module:
    """Load a model in float32, with errors that name the argument."""
    try:
        return load_complete(model_class, source, argument, dtype=torch.float32, **kwargs)
    except (OSError, EOFError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise ValueError(f"{argument}: the weights of {source!r} cannot be read: {error}") from error


def _load_teacher(source: str, settings: TrainingSettings) -> nn.Module | None:
    """Load the teacher if the settings need one."""
    return (
        None if settings.distillation == "none" else _load_weights("teacher", source, DepthAnythingForDepthEstimation)
    )


def _make_config(
    name: str, backbone: PreTrainedConfig, clip: PreTrainedConfig, tokenizer: Any, overrides: dict[str, Any]
) -> FCLMConfig:
    """Return the config of a preset with the sizes of the checkpoints, and four feature maps at even depths."""
    preset = FCLMConfig.from_preset(name).backbone_config
    layers = backbone.num_hidden_layers
    outputs = sorted({max(1, layers * quarter // 4) for quarter in (1, 2, 3, 4)})
    text = {**getattr(clip, "text_config", clip).to_dict(), "projection_dim": clip.projection_dim}
    # the official config says eos_token_id=2, which is not the tokenizer's
    tokens = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    fields = {
        "backbone_config": {
            **backbone.to_dict(),
            "_name_or_path": "",
            "out_indices": outputs,
            "out_features": None,
            "apply_layernorm": preset.apply_layernorm,
            "reshape_hidden_states": preset.reshape_hidden_states,
        },
        "text_config": {**text, "_name_or_path": "", "model_type": "clip_text_model", **tokens},
    }
    return FCLMConfig.from_preset(name, **{**fields, **overrides})


__all__ = [
    "SEEDS",
    "TrainingPreset",
    "build_lite",
    "build_starting_point",
    "freeze_early_stages",
    "load_preset",
]
