"""Configuration of FCLM: a vision backbone, a CLIP text tower, a prompt encoder and an Object-Oriented Decoder."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, CLIPTextConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME
from transformers.utils.versions import require_version


# nobody else asks where this file comes from the Hub; older releases fail later, with errors that do not tell why
require_version("transformers>=5.23", 'FCLM needs it: pip install -U "transformers>=5.23,<6"')

_DINOV2_SMALL = {"hidden_size": 384, "num_attention_heads": 6}
_DINOV2_BASE = {"hidden_size": 768, "num_attention_heads": 12}
_DINOV2_LAYERS = {
    "image_size": 518,
    "out_indices": [3, 6, 9, 12],
    "apply_layernorm": True,
    "reshape_hidden_states": True,
}
_CLIP_BASE_TEXT = {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}


def _dinov2_preset(size: dict[str, int], task: str) -> dict[str, Any]:
    return {
        "backbone_config": {"model_type": "dinov2", **_DINOV2_LAYERS, **size},
        "text_config": {"model_type": "clip_text_model", **_CLIP_BASE_TEXT},
        "task": task,
        "freeze_text_encoder": True,
    }


PRESETS: dict[str, dict[str, Any]] = {
    "matting-small": _dinov2_preset(_DINOV2_SMALL, "matting"),
    "dis-base": _dinov2_preset(_DINOV2_BASE, "segmentation"),
    "lite": {
        "backbone_config": {
            "model_type": "timm_backbone",
            "backbone": "tf_efficientnet_lite0",
            "out_indices": [2, 3, 4],
            "freeze_batch_norm_2d": True,
        },
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": 2560,
            "hidden_size": 128,
            "intermediate_size": 384,
            "projection_dim": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 32,
            "bos_token_id": 2558,
            "eos_token_id": 2559,
            "pad_token_id": 2559,
        },
        "encoder_size": 320,
        "coarse_level": 1,
        "hidden_size": 128,
        "decoder_layers": 3,
        "decoder_attention_heads": 4,
        "attention_downsample_rate": 1,
        "detail_hidden_sizes": (6, 16, 24, 48),
        "decoder_ffn_dim": 512,
        "coarse_loss_weight": 1.0,
        "semantic_head_size": 1280,
    },
}


@strict
class FCLMConfig(PreTrainedConfig):
    r"""Configuration of [`FCLMModel`] and [`FCLMForImageMatting`].

    Args:
        backbone_config (`dict` or `PreTrainedConfig`, *optional*):
            Any backbone of `AutoBackbone`. Default: DINOv2-Small with four feature maps, the paper's matting student.
        text_config (`dict` or `CLIPTextConfig`, *optional*):
            CLIP's text tower. Default: that of openai/clip-vit-base-patch32.
        encoder_size (`int` or `None`, defaults to 518):
            Side in pixels of the square canvas on which the backbone sees the image: the image is scaled, its aspect
            ratio kept, until its longer side fills the canvas. `None` runs the backbone on `pixel_values` themselves,
            as the paper does. Must be a multiple of the backbone's patch size or total stride.
        coarse_level (`int`, defaults to 0):
            Index of the feature map on which prompts and image attend to each other. Later maps are merged into it from
            the top down; with 1, the map before it refines the result. 0 suits plain ViTs, 1 pyramids that start at
            stride 8.
        hidden_size (`int`, defaults to 256): width of the prompt tokens and of the coarse map.
        fine_hidden_size (`int`, defaults to 64): width of the map at twice the coarse resolution.
        detail_hidden_sizes (`list[int]`, defaults to `[6, 16, 16, 32]`):
            Widths of the detail path at strides 1, 2, 4 and 8 of `pixel_values`; the first is the number of full-size
            features in which mattes are locally linear.
        decoder_layers (`int`, defaults to 2): number of transformer decoder layers.
        decoder_attention_heads (`int`, defaults to 8): attention heads of a decoder layer.
        attention_downsample_rate (`int`, defaults to 4):
            Attention between tokens and image runs in `hidden_size / attention_downsample_rate` channels, as in SAM.
        decoder_ffn_dim (`int`, defaults to 1024): width of the feed-forward block on a decoder layer's tokens.
        image_ffn_dim (`int`, defaults to 256): width of the feed-forward block on a decoder layer's image.
        hidden_act (`str`, defaults to `"gelu"`): activation of the decoder.
        dropout (`float`, defaults to 0.0): dropout on attention weights of the decoder.
        layer_norm_eps (`float`, defaults to 1e-6): epsilon of the decoder's layer norms.
        dense_prompts (`bool`, defaults to `True`):
            Paint boxes and clicks as soft maps onto the coarse features, beside the paper's sparse embeddings.
        semantic_head_size (`int`, *optional*):
            Hidden width of a head that takes the backbone's last map to the space of the text embeddings; how well each
            place matches a text is then painted too. Needs `dense_prompts`. `None`: a text is a sparse token only, as
            in the paper.
        task (`"matting"` or `"segmentation"`, defaults to `"matting"`): picks the head loss of Eq. 9.
        coarse_loss_weight (`float`, defaults to 0.0):
            Weight of BCE + IoU on the coarse logits (deep supervision, not in the paper) in the loss.
        freeze_text_encoder (`bool`, defaults to `False`):
            The text tower gets no gradient, nor does the semantic head, which speaks its language.
        initializer_range (`float`, defaults to 0.02): standard deviation of embeddings at initialisation.
    """

    model_type = "fclm"
    sub_configs_defaults = {
        "backbone_config": SubConfigSpec(
            config_class=AutoConfig, model_type="dinov2", init_kwargs={**_DINOV2_LAYERS, **_DINOV2_SMALL}
        ),
        "text_config": SubConfigSpec(config_class=CLIPTextConfig, init_kwargs=_CLIP_BASE_TEXT),
    }

    backbone_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    encoder_size: int | None = 518
    coarse_level: int = 0
    hidden_size: int = 256
    fine_hidden_size: int = 64
    detail_hidden_sizes: list[int] | tuple[int, ...] = (6, 16, 16, 32)
    decoder_layers: int = 2
    decoder_attention_heads: int = 8
    attention_downsample_rate: int = 4
    decoder_ffn_dim: int = 1024
    image_ffn_dim: int = 256
    hidden_act: str = "gelu"
    dropout: float | int = 0.0
    layer_norm_eps: float = 1e-6
    dense_prompts: bool = True
    semantic_head_size: int | None = None
    task: str = "matting"
    coarse_loss_weight: float | int = 0.0
    freeze_text_encoder: bool = False
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        if not __name__.startswith(TRANSFORMERS_DYNAMIC_MODULE_NAME):
            # Here this package is installed, and registered its pipeline. `transformers.pipeline` would ask for
            # trust_remote_code to take the one that the checkpoint names.
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        if self.hidden_size % (self.decoder_attention_heads * self.attention_downsample_rate) != 0:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of decoder_attention_heads "
                f"({self.decoder_attention_heads}) x attention_downsample_rate ({self.attention_downsample_rate})."
            )
        if self.hidden_size % 2 != 0:
            raise ValueError(f"hidden_size ({self.hidden_size}) must be even: one half is sines, the other cosines.")
        if self.task not in ("matting", "segmentation"):
            raise ValueError(f'task must be "matting" or "segmentation", got {self.task!r}.')
        if self.coarse_level not in (0, 1):
            raise ValueError(f"coarse_level must be 0 or 1, got {self.coarse_level}.")
        if self.semantic_head_size is not None and (self.semantic_head_size <= 0 or not self.dense_prompts):
            raise ValueError(
                f"semantic_head_size must be None or positive, and needs dense_prompts, got {self.semantic_head_size} "
                f"with dense_prompts={self.dense_prompts}."
            )
        if len(self.detail_hidden_sizes) != 4:
            raise ValueError(
                f"detail_hidden_sizes must hold 4 widths (strides 1, 2, 4, 8), got {list(self.detail_hidden_sizes)}."
            )
        if self.encoder_size is not None:
            multiple = self.encoder_multiple
            if self.encoder_size <= 0 or self.encoder_size % multiple != 0:
                raise ValueError(
                    f"encoder_size ({self.encoder_size}) must be a positive multiple of {multiple}, the backbone's "
                    "patch size or total stride, or None."
                )

    @property
    def encoder_multiple(self) -> int:
        """Sides of the backbone's input must be a multiple of this: its patch size, or 32 for a pyramid."""
        patch_size = getattr(self.backbone_config, "patch_size", 32)
        if hasattr(self.backbone_config, "depths"):  # hierarchical: patch_size is only the first stride
            return 32
        return patch_size if isinstance(patch_size, int) else max(patch_size)

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> "FCLMConfig":
        """Config of a named preset.

        Args:
            name: `"matting-small"` (DINOv2-Small, the paper's matting model), `"dis-base"` (DINOv2-Base, the paper's
                segmentation model) or `"lite"` (EfficientNet-Lite0, about 6 M parameters).
            overrides: fields that replace the preset's.

        Raises:
            ValueError: unknown `name`.
        """
        if name not in PRESETS:
            raise ValueError(f"name must be one of {sorted(PRESETS)}, got {name!r}.")
        fields = {key: dict(value) if isinstance(value, dict) else value for key, value in PRESETS[name].items()}
        return cls(**{**fields, **overrides})


__all__ = ["FCLMConfig"]
