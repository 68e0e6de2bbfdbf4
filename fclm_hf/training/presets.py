"""The paper's two models, built from official checkpoints or from local folders of the same kinds."""

from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

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
from ..configuration_fclm import FCLMConfig
from ..modeling_fclm import FCLMForImageMatting
from ..processing_fclm import FCLMProcessor
from .objective.settings import TrainingSettings


BACKBONES = {"matting-small": "facebook/dinov2-small", "dis-base": "facebook/dinov2-base"}
TEXT_ENCODER = "openai/clip-vit-base-patch32"
TEACHER = "depth-anything/Depth-Anything-V2-Large-hf"
LEARNING_RATE = 1e-5
SEEDS = (0, 1, 2)

_WEIGHT_FILES = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)


@dataclass
class TrainingPreset:
    """What [`load_preset`] builds: the parts of a [`ForegroundConsistentLearner`], and the processor to ship."""

    student: FCLMForImageMatting
    teacher: DepthAnythingForDepthEstimation | None
    settings: TrainingSettings
    processor: FCLMProcessor


def _require_file(argument: str, source: str, what: str, names: tuple[str, ...]) -> None:
    if not any(has_file(source, name) for name in names):
        raise ValueError(f"{argument}: {source!r} holds no {what} ({', '.join(names)}).")


def read_config(argument: str, source: str, model_types: tuple[str, ...]) -> PreTrainedConfig:
    """The checkpoint's config, once it is sure that it is of the right kind and that its weights are there."""
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ValueError(f"{argument}: {source!r} cannot be read as a checkpoint: {error}") from error
    if config.model_type not in model_types:
        raise ValueError(
            f"{argument} must be a checkpoint of model type {' or '.join(model_types)}; {source!r} is a "
            f"{config.model_type}."
        )
    _require_file(argument, source, "weights", _WEIGHT_FILES)
    return config


def load_weights(argument: str, source: str, model_class: type, **kwargs: Any) -> nn.Module:
    try:
        model, info = model_class.from_pretrained(source, output_loading_info=True, dtype=torch.float32, **kwargs)
    except (OSError, EOFError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise ValueError(f"{argument}: the weights of {source!r} cannot be read: {error}") from error
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"{argument}: the weights of {source!r} lack {len(missing)} tensors, the first {missing[0]}.")
    return model


def load_preset(
    name: str,
    backbone: str | Path | None = None,
    text_encoder: str | Path = TEXT_ENCODER,
    teacher: str | Path = TEACHER,
    settings: TrainingSettings | None = None,
    **overrides: Any,
) -> TrainingPreset:
    """Student, teacher, settings and processor of one of the paper's models, ready to train.

    The student's encoder starts from DINOv2's weights, its text tower from CLIP's, which stay frozen; the rest is new.
    All checkpoints are looked at before any is loaded.

    Args:
        name: "matting-small" (DINOv2-Small) or "dis-base" (DINOv2-Base, for dichotomous segmentation).
        backbone: Hub id or folder of a DINOv2 model of any size; default the official one of the preset.
        text_encoder: of a CLIP model or its text tower, with its tokenizer.
        teacher: of a Depth-Anything model; not loaded if `settings.distillation` is "none". The default, V2 Large, is
            under CC-BY-NC-4.0; depth-anything/Depth-Anything-V2-Small-hf is under Apache-2.0.
        settings: default the paper's. `image_mean` and `image_std` become those of the processor.
        overrides: fields of [`FCLMConfig`].

    Raises:
        ValueError: unknown `name`, or a checkpoint that is missing, of another kind, or without weights that can be
            read and are whole, by argument.
    """
    if name not in BACKBONES:
        raise ValueError(f"name must be one of {sorted(BACKBONES)}, got {name!r}.")
    settings = replace(
        settings or TrainingSettings(), image_mean=tuple(IMAGENET_DEFAULT_MEAN), image_std=tuple(IMAGENET_DEFAULT_STD)
    )
    backbone, text_encoder, teacher = str(backbone or BACKBONES[name]), str(text_encoder), str(teacher)
    backbone_config = read_config("backbone", backbone, ("dinov2",))
    clip_config = read_config("text_encoder", text_encoder, ("clip", "clip_text_model"))
    # without these transformers makes up a tokenizer of a few words
    _require_file("text_encoder", text_encoder, "tokenizer", ("tokenizer.json", "vocab.json"))
    distils = settings.distillation != "none"
    if distils:
        read_config("teacher", teacher, ("depth_anything",))

    tokenizer = AutoTokenizer.from_pretrained(text_encoder)
    config = _make_config(name, backbone_config, clip_config, tokenizer, overrides)
    encoder = load_weights("backbone", backbone, Dinov2Backbone, config=config.backbone_config)
    tower = load_weights("text_encoder", text_encoder, CLIPTextModelWithProjection, config=config.text_config)
    model = load_weights("teacher", teacher, DepthAnythingForDepthEstimation) if distils else None
    student = FCLMForImageMatting(config)
    student.model.backbone.load_state_dict(encoder.state_dict())
    student.model.text_model.load_state_dict(tower.state_dict())
    image_processor = FCLMImageProcessor(image_mean=list(settings.image_mean), image_std=list(settings.image_std))
    return TrainingPreset(student, model, settings, FCLMProcessor(image_processor, tokenizer))


def _make_config(
    name: str, backbone: PreTrainedConfig, clip: PreTrainedConfig, tokenizer: Any, overrides: dict[str, Any]
) -> FCLMConfig:
    """The preset's config with the sizes of the checkpoints, four feature maps at even depths as in the preset."""
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


def make_optimizer(model: nn.Module, learning_rate: float = LEARNING_RATE) -> torch.optim.AdamW:
    """The paper's: AdamW at a constant 1e-5, on what is not frozen."""
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)


__all__ = ["SEEDS", "TrainingPreset", "load_preset", "make_optimizer"]
