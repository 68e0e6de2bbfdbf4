"""Configuration of FCLM: a vision backbone, a CLIP text tower, a prompt encoder and an Object-Oriented Decoder."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, CLIPTextConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME
from transformers.utils.versions import require_version


# checked here, as nothing else does when this file is loaded from the Hub, and older releases fail with unclear errors
require_version("transformers>=5.23", 'FCLM needs it: pip install -U "transformers>=5.23,<6"')

PROMPT_PADDING = -10  # label of padding points and coordinate of padding boxes

_DINOV2_SMALL = {"hidden_size": 384, "num_attention_heads": 6}
_DINOV2_BASE = {"hidden_size": 768, "num_attention_heads": 12}
_DINOV2_LAYERS = {
    "image_size": 518,
    "out_indices": [3, 6, 9, 12],
    "apply_layernorm": True,
    "reshape_hidden_states": True,
}
_CLIP_BASE_TEXT = {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}


def _make_dinov2_preset(size: dict[str, int], task: str) -> dict[str, Any]:
    """Return the fields of a preset of the paper with a DINOv2 backbone of this size."""
    return {
        "backbone_config": {"model_type": "dinov2", **_DINOV2_LAYERS, **size},
        "text_config": {"model_type": "clip_text_model", **_CLIP_BASE_TEXT},
        "task": task,
        "freeze_text_encoder": True,
    }


PRESETS: dict[str, dict[str, Any]] = {
    "matting-small": _make_dinov2_preset(_DINOV2_SMALL, "matting"),
    "dis-base": _make_dinov2_preset(_DINOV2_BASE, "segmentation"),
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


MAX_LAYERS = 512
MAX_SIZE = 1_000_000
MAX_WEIGHTS = 2e11
_DEPTHS = ("layers", "depth", "depths")
_SIZES = ("size", "sizes", "dim", "dims", "heads", "embeddings", "channels", "features", "ratio", "factor", "width")

MODEL_CLASSES = {
    "AutoConfig": "configuration_fclm.FCLMConfig",
    "AutoModel": "modeling_fclm.FCLMModel",
    "AutoModelForImageMatting": "modeling_fclm.FCLMForImageMatting",
}
PIPELINES = {
    "referring-matting": {
        "impl": "pipeline_fclm.ReferringMattingPipeline",
        "pt": ["AutoModelForImageMatting"],
        "type": "multimodal",
    }
}
PROCESSOR_CLASSES = {"AutoProcessor": "processing_fclm.FCLMProcessor"}
IMAGE_PROCESSOR_CLASSES = {
    "AutoImageProcessor": {
        "torchvision": "image_processing_fclm.FCLMImageProcessor",
        "pil": "image_processing_pil_fclm.FCLMImageProcessorPil",
    }
}


def check_sizes(fields: dict[str, Any], name: str) -> None:
    """Check that a model with these fields can exist, as a config of others may ask for any amount of memory.

    Args:
        fields: Fields of a config.
        name: Name of the config in error messages.

    Raises:
        ValueError: If a size is absurd, or the sizes together are.
    """
    sizes, layers = [1.0, 1.0], 1.0
    for key, number in _list_numbers(fields):
        is_depth = key.endswith(_DEPTHS)
        limit = MAX_LAYERS if is_depth else MAX_SIZE
        if number > limit or number != number:
            raise ValueError(f"{name}.{key} must be at most {limit}, got {number}.")
        if number < 0:
            raise ValueError(f"{name}.{key} must not be negative, got {number}.")
        if is_depth:
            layers = max(layers, number)
        else:
            sizes.append(number)
    largest, second = sorted(sizes, reverse=True)[:2]
    if layers * largest * second > MAX_WEIGHTS:
        raise ValueError(
            f"{name} must not need more than about {MAX_WEIGHTS:.0e} weights, got {layers:.0f} layers of up to"
            f" {largest:.0f} x {second:.0f}."
        )


def _list_numbers(fields: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the fields that determine how large a model is, also of nested dicts; a list stands for its items."""
    for key, value in fields.items():
        if isinstance(value, dict):
            yield from _list_numbers(value)
        elif isinstance(key, str) and key.endswith((*_DEPTHS, *_SIZES)):
            for each in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(each, (int, float)) and not isinstance(each, bool):
                    yield key, each


def _is_token(value: Any) -> bool:
    """Return whether a value can be the number of a token, or none is set."""
    return value is None or (type(value) is int and abs(value) <= MAX_SIZE)


def _is_share(value: Any) -> bool:
    """Return whether a value is a probability, or no number."""
    return not isinstance(value, (int, float)) or 0 <= value <= 1


def _check_outputs(fields: dict[str, Any], name: str) -> None:
    """Raise ValueError for fields that make outputs of a part of the model unusable, which transformers accepts."""
    for field in ("return_dict", "reshape_hidden_states"):
        if fields.get(field, True) is not True:
            raise ValueError(f"{name}.{field} must be True, got {fields[field]!r}.")
    for key in ("output_hidden_states", "output_attentions"):
        if not isinstance(fields.get(key), (bool, type(None))):
            raise ValueError(f"{name}.{key} must be True or False, got {fields[key]!r}.")
    for key, value in fields.items():
        is_needed = (name, key) == ("text_config", "eos_token_id")  # the place of the embedding of a text
        if key.endswith("_token_id") and (not _is_token(value) or (value is None and is_needed)):
            raise ValueError(f"{name}.{key} must be an integer of at most {MAX_SIZE}, got {value!r}.")
        if key.endswith(("dropout", "_prob")) and not _is_share(value):
            raise ValueError(f"{name}.{key} must be in [0, 1], got {value!r}.")
    indices = fields.get("out_indices")
    if indices is not None and not all(type(index) is int for index in indices):
        raise ValueError(f"{name}.out_indices must be integers, got {indices!r}.")


def has_code(module: str) -> bool:
    """Return whether the file of a module is beside this one: of remote code, transformers fetches what it needs."""
    return Path(__file__).with_name(f"{module}.py").is_file()


def keep_present(classes: dict[str, str]) -> dict[str, str]:
    """Return the references, such as `"modeling_fclm.FCLMModel"`, to files that are there."""
    return {key: reference for key, reference in classes.items() if has_code(reference.split(".")[0])}


def copy_code(folder: Path) -> None:
    """Copy this file and those beside it to a folder, where a config names their classes."""
    for file in sorted(Path(__file__).parent.glob("*_fclm.py")):
        if not (folder / file.name).exists() or not (folder / file.name).samefile(file):
            shutil.copyfile(file, folder / file.name)


@strict
class FCLMConfig(PreTrainedConfig):
    r"""Configuration of [`FCLMModel`] and [`FCLMForImageMatting`].

    The defaults are those of the paper's matting model: DINOv2-Small, CLIP-Base and a decoder of two layers.

    Args:
        backbone_config (`dict` or `PreTrainedConfig`, *optional*):
            Any backbone of `AutoBackbone`. Defaults to DINOv2-Small with four feature maps.
        text_config (`dict` or `CLIPTextConfig`, *optional*):
            CLIP text tower. Defaults to that of openai/clip-vit-base-patch32.
        encoder_size (`int`, *optional*, defaults to 518):
            Side in pixels of the encoder input, the square image that the backbone sees: each image is resized until
            its longer side has this length, and padded at the bottom or right. `None` runs the backbone at the size of
            `pixel_values`, as in the paper. Must be a multiple of the patch size or total stride of the backbone.
        refinement_size (`int`, *optional*):
            Side of the encoder input for the second look that pipeline and evaluation take at each object, see
            [`~fclm_hf.refinement_fclm.refine_alphas`]. `None` takes none. Must be a multiple as that of `encoder_size`.
        tile_size (`int`, *optional*):
            Side of the square tiles in which the second look sees wide soft edges, such as hair, at full size. `None`
            leaves them as they are, as does a `refinement_size` of `None`. Must be a multiple as `encoder_size` must.
        coarse_level (`int`, defaults to 0):
            Index of the backbone's feature map that gives the coarse encoder grid, on which prompts and image attend to
            each other. Later maps are merged into it from the top down. With 1, the map before it refines the result.
            Use 0 for plain ViTs and 1 for pyramids that start at stride 8.
        hidden_size (`int`, defaults to 256):
            Width of the prompt tokens and of the coarse map.
        fine_hidden_size (`int`, defaults to 64):
            Width of the map on the fine encoder grid, at twice the resolution of the coarse one.
        detail_hidden_sizes (`list[int]`, defaults to `[6, 16, 16, 32]`):
            Widths of the detail path at strides 1, 2, 4 and 8 of `pixel_values`. The first is the number of full-size
            features in which mattes are locally linear.
        decoder_layers (`int`, defaults to 2):
            Number of two-way attention blocks of the decoder.
        decoder_attention_heads (`int`, defaults to 8):
            Number of attention heads of the decoder.
        attention_downsample_rate (`int`, defaults to 4):
            Attention between tokens and image runs in `hidden_size / attention_downsample_rate` channels, as in SAM.
        decoder_ffn_dim (`int`, defaults to 1024):
            Width of the feed-forward layer of the tokens.
        image_ffn_dim (`int`, defaults to 256):
            Width of the feed-forward layer of the image.
        hidden_act (`str`, defaults to `"gelu"`):
            Activation function of the decoder.
        dropout (`float`, defaults to 0.0):
            Dropout probability of the attention weights of the decoder.
        layer_norm_eps (`float`, defaults to 1e-6):
            Epsilon of the layer norms of the decoder.
        dense_prompts (`bool`, defaults to `True`):
            Whether boxes and clicks are also embedded as dense prompt maps, besides the sparse tokens of the paper.
        semantic_head_size (`int`, *optional*):
            Hidden width of the head that projects the last backbone map into the text embedding space; the dense prompt
            maps then also show how well each place matches a text. Requires `dense_prompts`. `None` makes a text a
            sparse token only, as in the paper.
        text_score_threshold (`float`, *optional*):
            Objects that a text alone names are taken to be absent, and get an empty matte, if the text matches no place
            in the image better than this; see `text_scores` of [`FCLMImageMattingOutput`]. `None` for no such check.
        task (`str`, defaults to `"matting"`):
            Head loss of Eq. 9 of the paper: `"matting"` (l1 + Laplacian) or `"segmentation"` (BCE + IoU).
        coarse_loss_weight (`float`, defaults to 0.0):
            Weight of BCE + IoU on the coarse logits in the loss (deep supervision, not in the paper).
        freeze_text_encoder (`bool`, defaults to `False`):
            Whether the text tower is frozen, and with it the semantic head, which shares its embedding space.
        initializer_range (`float`, defaults to 0.02):
            Standard deviation of embeddings at initialization.

    Raises:
        ValueError: If a field has an invalid value or two fields do not fit together.

    Example:
        >>> from fclm_hf import FCLMConfig

        >>> config = FCLMConfig(decoder_layers=3)
        >>> config.backbone_config.model_type, config.encoder_size
        ('dinov2', 518)
        >>> FCLMConfig.from_preset("lite").backbone_config.backbone
        'tf_efficientnet_lite0'
    """

    model_type = "fclm"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "backbone_config": SubConfigSpec(
            config_class=AutoConfig, model_type="dinov2", init_kwargs={**_DINOV2_LAYERS, **_DINOV2_SMALL}
        ),
        "text_config": SubConfigSpec(config_class=CLIPTextConfig, init_kwargs=_CLIP_BASE_TEXT),
    }

    backbone_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    encoder_size: int | None = 518
    refinement_size: int | None = None
    tile_size: int | None = None
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
    text_score_threshold: float | int | None = None
    task: str = "matting"
    coarse_loss_weight: float | int = 0.0
    freeze_text_encoder: bool = False
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        if not __name__.startswith(TRANSFORMERS_DYNAMIC_MODULE_NAME):
            # the installed package has registered its pipeline; without this `transformers.pipeline` would ask for
            # trust_remote_code to load the one that the checkpoint names
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict; those of an export name its code, wherever they were loaded from."""
        output = super().to_dict()
        if output.get("auto_map"):
            output["auto_map"] = {**output["auto_map"], **keep_present(MODEL_CLASSES)}
            if has_code("pipeline_fclm"):
                output["custom_pipelines"] = PIPELINES
        return output

    def to_json_file(self, json_file_path: str | os.PathLike, use_diff: bool = True) -> None:
        """Save to a JSON file, and the code of an export beside it."""
        super().to_json_file(json_file_path, use_diff)
        if getattr(self, "auto_map", None):
            copy_code(Path(json_file_path).parent)

    def validate_architecture(self) -> None:
        """Check that the fields fit together, and that no size is absurd, before anything is allocated."""
        own = {key: value for key, value in vars(self).items() if not isinstance(value, PreTrainedConfig)}
        check_sizes(own, "config")
        for name in ("backbone_config", "text_config"):
            part = getattr(self, name)
            fields = part.to_dict() if isinstance(part, PreTrainedConfig) else part or {}
            check_sizes(fields, name)
            _check_outputs(fields, name)
        if self.hidden_size % (self.decoder_attention_heads * self.attention_downsample_rate) != 0:
            raise ValueError(
                "hidden_size must be a multiple of decoder_attention_heads * attention_downsample_rate "
                f"({self.decoder_attention_heads} * {self.attention_downsample_rate}), got {self.hidden_size}."
            )
        if self.hidden_size % 2 != 0:
            raise ValueError(f"hidden_size must be even (half sines, half cosines), got {self.hidden_size}.")
        if self.task not in ("matting", "segmentation"):
            raise ValueError(f'task must be "matting" or "segmentation", got {self.task!r}.')
        if self.coarse_level not in (0, 1):
            raise ValueError(f"coarse_level must be 0 or 1, got {self.coarse_level}.")
        if self.semantic_head_size is not None and (self.semantic_head_size <= 0 or not self.dense_prompts):
            raise ValueError(
                "semantic_head_size must be None or positive and requires dense_prompts, "
                f"got {self.semantic_head_size} with dense_prompts={self.dense_prompts}."
            )
        if len(self.detail_hidden_sizes) != 4:
            raise ValueError(
                f"detail_hidden_sizes must hold 4 widths (strides 1, 2, 4, 8), got {list(self.detail_hidden_sizes)}."
            )
        self._check_sizes()

    def _check_sizes(self) -> None:
        multiple = self.encoder_multiple
        for name in ("encoder_size", "refinement_size", "tile_size"):
            size = getattr(self, name)
            if size is not None and (size <= 0 or size % multiple != 0):
                raise ValueError(
                    f"{name} must be None or a positive multiple of {multiple}, the patch size or total stride "
                    f"of the backbone, got {size}."
                )

    @property
    def encoder_multiple(self) -> int:
        """Number of which the sides of the encoder input must be multiples: the patch size, or 32 for a pyramid."""
        patch_size = getattr(self.backbone_config, "patch_size", 32)
        if hasattr(self.backbone_config, "depths"):  # hierarchical: patch_size is only the first stride
            return 32
        return patch_size if isinstance(patch_size, int) else max(patch_size)

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> "FCLMConfig":
        """Return the config of a named preset.

        Args:
            name (`str`):
                `"matting-small"` (DINOv2-Small, the paper's matting model), `"dis-base"` (DINOv2-Base, the paper's
                segmentation model) or `"lite"` (EfficientNet-Lite0, about 6 M parameters).
            overrides:
                Fields that replace those of the preset.

        Returns:
            [`FCLMConfig`].

        Raises:
            ValueError: If there is no preset of this name.
        """
        if name not in PRESETS:
            raise ValueError(f"name must be one of {sorted(PRESETS)}, got {name!r}.")
        fields = {key: dict(value) if isinstance(value, dict) else value for key, value in PRESETS[name].items()}
        return cls(**{**fields, **overrides})


__all__ = ["FCLMConfig"]
