"""FCLM: backbone + prompt encoder + Object-Oriented Decoder -> a full-resolution alpha matte per prompted object."""

import itertools
from dataclasses import dataclass

import torch
from torch import nn
from transformers import CLIPTextModelWithProjection, PreTrainedModel
from transformers import initialization as init
from transformers.backbone_utils import load_backbone
from transformers.modeling_outputs import BackboneOutput
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_fclm import FCLMConfig
from .decoder_fclm import FCLMMatteHead, FCLMObjectDecoder
from .image_maps_fclm import FCLMDetailPath, FCLMImageEmbeddings, FCLMPixelDecoder, FCLMSemanticHead
from .loss_fclm import matting_loss, segmentation_loss
from .prompt_encoder_fclm import FCLMPromptEncoder
from .prompt_shapes_fclm import count_objects
from .resampling_fclm import find_image_sizes, interpolation_weights, resample, valid_pixels


TENSOR_ALIGNMENT = 64  # bytes


@dataclass
class FCLMModelOutput(ModelOutput):
    """object_features (batch, objects, channels, ~height / 4, ~width / 4): features of each object at stride 4.
    detail_basis, pixel_mask: what the image contributes at full size, see [`FCLMImageEmbeddings`].
    coarse_logits (batch, objects, ~height / 8, ~width / 8), stride 8: what the encoder alone makes of it.
    prompt_embeds (batch, objects, hidden_size): the context query after the decoder.
    image_sizes (batch, 2), object_mask (batch, objects): as given to the model.
    """

    object_features: torch.FloatTensor | None = None
    detail_basis: torch.FloatTensor | None = None
    pixel_mask: torch.ByteTensor | None = None
    coarse_logits: torch.FloatTensor | None = None
    prompt_embeds: torch.FloatTensor | None = None
    image_sizes: torch.LongTensor | None = None
    object_mask: torch.BoolTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class FCLMImageMattingOutput(ModelOutput):
    """loss: scalar, when `labels` are given.
    logits (batch, objects, height, width): before the sigmoid, at the size of `pixel_values`.
    alphas (batch, objects, height, width): mattes in [0, 1]; 0 on padding.
    coarse_logits, image_sizes, object_mask: see [`FCLMModelOutput`].
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    alphas: torch.FloatTensor | None = None
    coarse_logits: torch.FloatTensor | None = None
    image_sizes: torch.LongTensor | None = None
    object_mask: torch.BoolTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


def align_tensors(model: nn.Module) -> None:
    """Moves weights on the CPU that lie as in their file to memory of their own, aligned as torch's allocator does.

    Vectorised kernels add in another order where a tensor is aligned otherwise; so a reloaded model gives the same
    mattes as the saved one to the bit.
    """
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        is_plain = type(tensor.data) is torch.Tensor and tensor.device.type == "cpu"
        if is_plain and tensor.data_ptr() % TENSOR_ALIGNMENT:
            tensor.data = tensor.data.clone()


class FCLMPreTrainedModel(PreTrainedModel):
    config: FCLMConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["FCLMDecoderLayer", "FCLMPromptEncoder", "FCLMPixelDecoder", "FCLMDetailPath", "TimmBackbone"]
    _keep_in_fp32_modules_strict = ["fourier_matrix"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return True  # transformers looks for the attention interface in this file only; it is in decoder_fclm.py

    @classmethod
    def from_pretrained(cls, *args, **kwargs) -> "FCLMPreTrainedModel":
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        align_tensors(model)
        if model.config.freeze_text_encoder:  # loading makes parameters learn again
            model.base_model.freeze_text_encoder()
        return loaded

    @classmethod
    def is_custom_code(cls) -> bool:
        # For custom code transformers skips modules that own no tensor, and with them CLIP's own initialisation.
        # `_init_weights` below uses the guarded helpers only, so the library's path is the right one.
        return False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)
        if isinstance(module, FCLMPromptEncoder):
            init.normal_(module.fourier_matrix, mean=0.0, std=1.0)
        elif isinstance(module, FCLMMatteHead):  # a matte starts as what the coarse logits make of it
            init.normal_(module.coefficients.weight, mean=0.0, std=self.config.initializer_range)


class FCLMModel(FCLMPreTrainedModel):
    """Backbone, prompt encoder and Object-Oriented Decoder, without the alpha head."""

    def __init__(self, config: FCLMConfig):
        super().__init__(config)
        self.backbone = load_backbone(config)
        self.text_model = CLIPTextModelWithProjection._from_config(config.text_config)
        self.pixel_decoder = FCLMPixelDecoder(config, list(self.backbone.channels))
        self.semantic_head = None
        if config.semantic_head_size is not None:
            self.semantic_head = FCLMSemanticHead(config, self.backbone.channels[-1])
        self.detail_path = FCLMDetailPath(config)
        self.prompt_encoder = FCLMPromptEncoder(config)
        self.decoder = FCLMObjectDecoder(config)
        self.post_init()
        if config.freeze_text_encoder:
            self.freeze_text_encoder()

    def freeze_text_encoder(self) -> None:
        """No gradient for the text tower, nor for the semantic head, which speaks its language."""
        self.text_model.requires_grad_(False)
        if self.semantic_head is not None:
            self.semantic_head.requires_grad_(False)

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_model.set_input_embeddings(value)

    def _canvas_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the image that the backbone sees, for `pixel_values` of this size."""
        if self.config.encoder_size is not None:
            return self.config.encoder_size, self.config.encoder_size
        multiple = self.config.encoder_multiple
        return -(-height // multiple) * multiple, -(-width // multiple) * multiple

    def _canvas_scale(self, image_sizes: torch.Tensor) -> torch.Tensor:
        """Canvas pixels per pixel of `pixel_values`, fp32 (batch,)."""
        if self.config.encoder_size is None:
            return torch.ones_like(image_sizes[:, 0], dtype=torch.float32)
        return self.config.encoder_size / image_sizes.amax(1).float()

    def draw_canvas(self, pixel_values: torch.Tensor, image_sizes: torch.Tensor) -> torch.Tensor:
        """Maps (batch, channels, height, width) of any kind, scaled onto the canvas that the backbone sees.

        `image_sizes` (batch, 2) are the valid heights and widths; the rest of the canvas is 0.
        """
        height, width = pixel_values.shape[-2:]
        canvas_height, canvas_width = self._canvas_size(height, width)
        if self.config.encoder_size is None:
            pixel_values = pixel_values * valid_pixels(image_sizes, height, width)
            return nn.functional.pad(pixel_values, (0, canvas_width - width, 0, canvas_height - height))
        scale = self._canvas_scale(image_sizes)
        sizes = image_sizes.float()
        rows = interpolation_weights(canvas_height, height, 1 / scale, sizes[:, 0])
        columns = interpolation_weights(canvas_width, width, 1 / scale, sizes[:, 1])
        canvas = resample(pixel_values, rows, columns)
        return canvas * valid_pixels(sizes * scale[:, None], canvas_height, canvas_width)

    def get_feature_maps(
        self,
        pixel_values: torch.FloatTensor,
        pixel_mask: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BackboneOutput:
        """The backbone's `feature_maps` of the images, drawn onto its canvas; training aligns these between images.

        Args:
            pixel_values: (batch, 3, height, width), normalised, padded at the bottom and right.
            pixel_mask: (batch, height, width), 1 on the image and 0 on padding; `None` for no padding.
        """
        image_sizes = find_image_sizes(pixel_values, pixel_mask)
        canvas = self.draw_canvas(pixel_values.to(self.detail_path.basis.weight.dtype), image_sizes)
        return self.encode_canvas(canvas, **kwargs)

    def encode_canvas(self, canvas: torch.FloatTensor, **kwargs: Unpack[TransformersKwargs]) -> BackboneOutput:
        """The backbone's `feature_maps` of images that [`~FCLMModel.draw_canvas`] has drawn."""
        if self.config.backbone_config.model_type == "timm_backbone":  # records neither, and fails on anything else
            kwargs = {"output_hidden_states": False, "output_attentions": False}
        return self.backbone(canvas.to(self.detail_path.basis.weight.dtype), return_dict=True, **kwargs)

    def get_image_embeddings(
        self,
        pixel_values: torch.FloatTensor,
        pixel_mask: torch.LongTensor | None = None,
        feature_maps: tuple[torch.FloatTensor, ...] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> FCLMImageEmbeddings:
        """Encodes images once; pass the result as `image_embeddings` for any number of prompts.

        Args:
            pixel_values: (batch, 3, height, width), normalised, padded at the bottom and right.
            pixel_mask: (batch, height, width), 1 on the image and 0 on padding; `None` for no padding.
            feature_maps: those of [`FCLMModel.get_feature_maps`], where they are at hand already.
        """
        height, width = pixel_values.shape[-2:]
        image_sizes = find_image_sizes(pixel_values, pixel_mask)
        pixel_values = pixel_values.to(self.detail_path.basis.weight.dtype)
        if feature_maps is None:
            outputs = self.get_feature_maps(pixel_values, pixel_mask, **kwargs)
        else:
            outputs = BackboneOutput(feature_maps=feature_maps)
        valid = valid_pixels(image_sizes, height, width)
        coarse_map, fine_map = self.pixel_decoder(outputs.feature_maps)
        semantic_map = None
        if self.semantic_head is not None:
            semantic_map = self.semantic_head(outputs.feature_maps[-1])
        # one cell more than the image needs: what lies behind its border is then the same in every batch
        pixel_values = nn.functional.pad(pixel_values * valid, (0, -width % 8 + 8, 0, -height % 8 + 8))
        detail_basis, *detail_maps = self.detail_path(pixel_values, image_sizes)
        return FCLMImageEmbeddings(
            coarse_map=coarse_map,
            fine_map=fine_map,
            semantic_map=semantic_map,
            detail_maps=tuple(detail_maps),
            detail_basis=detail_basis.contiguous(),
            pixel_mask=valid.to(torch.uint8),
            image_sizes=image_sizes,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    @can_return_tuple
    def get_text_features(
        self, input_ids: torch.LongTensor, attention_mask: torch.LongTensor | None = None, **kwargs
    ) -> ModelOutput:
        """CLIP text embeddings: `pooler_output` (batch, projection_dim) of `input_ids` (batch, length)."""
        outputs = self.text_model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **kwargs)
        outputs.pooler_output = outputs.text_embeds
        return outputs

    def _embed_text(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        text_embeds: torch.Tensor | None,
        batch: int,
        objects: int,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        if input_ids is None:
            if text_embeds is not None:
                raise ValueError("text_embeds were given without input_ids.")
            return None, None
        given_batch, length = input_ids.shape[0], input_ids.shape[-1]
        if text_embeds is None:
            # CLIP's attention is causal and pools at the end token, so padding behind it needs no mask
            text_embeds = self.text_model(input_ids=input_ids.reshape(-1, length), return_dict=True).text_embeds
        given = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        given = given.view(given_batch, -1, length).any(-1).expand(batch, objects)
        width = text_embeds.shape[-1]
        text_embeds = text_embeds.reshape(given_batch, -1, width).expand(batch, objects, width)
        return text_embeds.reshape(-1, width), given.reshape(-1)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        pixel_mask: torch.LongTensor | None = None,
        input_points: torch.FloatTensor | None = None,
        input_labels: torch.LongTensor | None = None,
        input_boxes: torch.FloatTensor | None = None,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        object_mask: torch.BoolTensor | None = None,
        image_embeddings: FCLMImageEmbeddings | None = None,
        text_embeds: torch.FloatTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> FCLMModelOutput:
        """See [`FCLMForImageMatting.forward`] for the arguments."""
        if (pixel_values is None) == (image_embeddings is None):
            raise ValueError("Exactly one of pixel_values and image_embeddings is needed.")
        batch = len(pixel_values if image_embeddings is None else image_embeddings.coarse_map)
        objects = count_objects(batch, input_points, input_labels, input_boxes, input_ids, attention_mask, object_mask)
        if image_embeddings is None:
            image_embeddings = self.get_image_embeddings(pixel_values, pixel_mask, **kwargs)
        device = image_embeddings.coarse_map.device
        if input_points is None:
            input_points = torch.zeros(batch, objects, 1, 2, device=device)
            input_labels = torch.full((batch, objects, 1), FCLMPromptEncoder.point_padding, device=device)
        elif input_labels is None:
            input_labels = torch.ones_like(input_points[..., 0], dtype=torch.long)
        if input_boxes is None:
            input_boxes = torch.zeros(batch, objects, 4, device=device)

        canvas_height, canvas_width = self._canvas_size(*image_embeddings.pixel_mask.shape[-2:])
        scale = self._canvas_scale(image_embeddings.image_sizes)
        to_canvas = scale.view(-1, 1, 1) / torch.tensor(
            [canvas_width, canvas_height], device=device, dtype=torch.float32
        )
        # a click on pixel (x, y) means its centre
        points = (input_points.float() + 0.5) * to_canvas[:, None]
        boxes = input_boxes.float() * to_canvas.repeat(1, 1, 2)
        points = points.expand(batch, objects, -1, 2).flatten(0, 1)
        labels = input_labels.expand(batch, objects, -1).flatten(0, 1)
        boxes = boxes.expand(batch, objects, 4).flatten(0, 1)
        text_embeds, text_given = self._embed_text(input_ids, attention_mask, text_embeds, batch, objects)

        encoder = self.prompt_encoder
        tokens, token_positions, attended = encoder(points, labels, boxes, text_embeds, text_given)
        height, width = image_embeddings.coarse_map.shape[-2:]
        dtype = image_embeddings.coarse_map.dtype
        coarse_paint = fine_paint = None
        if encoder.dense_prompts:
            maps = encoder.paint(points, labels, boxes, 2 * height, 2 * width)
            semantic_map = image_embeddings.semantic_map
            if semantic_map is not None:
                rows, columns = semantic_map.shape[-2:]
                sizes = image_embeddings.image_sizes * scale[:, None]
                valid = valid_pixels(sizes, rows, columns, stride=canvas_height / rows)
                semantic_map, valid = (x.repeat_interleave(objects, dim=0) for x in (semantic_map, valid))
                text_maps = encoder.paint_text(semantic_map, valid, text_embeds, text_given, 2 * height, 2 * width)
                maps = torch.cat([maps, text_maps], dim=1)
            maps = maps.to(dtype)
            coarse_paint, fine_paint = encoder.coarse_paint(maps), encoder.fine_paint(maps)
        whole = torch.full_like(scale, 2 * height), torch.full_like(scale, 2 * width)
        out_height, out_width = image_embeddings.detail_maps[-1].shape[-2:]
        rows = interpolation_weights(out_height, 2 * height, 16 * height / canvas_height * scale, whole[0])
        columns = interpolation_weights(out_width, 2 * width, 16 * width / canvas_width * scale, whole[1])
        weights = tuple(w.repeat_interleave(objects, dim=0) for w in (rows, columns))
        layer_kwargs = {key: value for key, value in kwargs.items() if not key.startswith("output_")}
        features, coarse_logits, context = self.decoder(
            image_embeddings,
            tokens.to(dtype),
            token_positions.to(dtype),
            attended,
            encoder.encode_grid(height, width).to(dtype),
            coarse_paint,
            fine_paint,
            weights,
            **layer_kwargs,
        )
        return FCLMModelOutput(
            object_features=features.view(batch, objects, *features.shape[1:]),
            detail_basis=image_embeddings.detail_basis,
            pixel_mask=image_embeddings.pixel_mask,
            coarse_logits=coarse_logits.view(batch, objects, *coarse_logits.shape[1:]),
            prompt_embeds=context.view(batch, objects, -1),
            image_sizes=image_embeddings.image_sizes,
            object_mask=object_mask,
            hidden_states=image_embeddings.hidden_states,
            attentions=image_embeddings.attentions,
        )


class FCLMForImageMatting(FCLMPreTrainedModel):
    """FCLM with an alpha head: cuts out what is named, clicked, boxed, or, without a prompt, what stands out."""

    def __init__(self, config: FCLMConfig):
        super().__init__(config)
        self.model = FCLMModel(config)
        self.head = FCLMMatteHead(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_image_embeddings(self, pixel_values: torch.FloatTensor, *args, **kwargs) -> FCLMImageEmbeddings:
        """See [`FCLMModel.get_image_embeddings`]."""
        return self.model.get_image_embeddings(pixel_values, *args, **kwargs)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        pixel_mask: torch.LongTensor | None = None,
        input_points: torch.FloatTensor | None = None,
        input_labels: torch.LongTensor | None = None,
        input_boxes: torch.FloatTensor | None = None,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        object_mask: torch.BoolTensor | None = None,
        image_embeddings: FCLMImageEmbeddings | None = None,
        labels: torch.FloatTensor | None = None,
        text_embeds: torch.FloatTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> FCLMImageMattingOutput:
        """Any mix of prompts, or none. Coordinates are in pixels of `pixel_values`; the processor converts them.

        Args:
            pixel_values: (batch, 3, height, width), normalised, padded at the bottom and right; of any float type.
            pixel_mask: (batch, height, width), 1 on the image and 0 on padding.
            input_points: (batch, objects, points, 2) as x, y.
            input_labels: (batch, objects, points): 1 foreground, 0 background, -10 padding. Default: all 1.
            input_boxes: (batch, objects, 4) as x0, y0, x1, y1; a box without area means none.
            input_ids: (batch, length) or (batch, objects, length) CLIP tokens.
            attention_mask: same shape; a row of zeros means that the object has no text.
            object_mask: bool (batch, objects), False for padding objects: their alphas are 0 and they have no loss.
            image_embeddings: from [`FCLMModel.get_image_embeddings`], instead of `pixel_values`.
            labels: true alphas (batch, objects, height, width) in [0, 1].
            text_embeds: what [`FCLMModel.get_text_features`] gives for the texts of `input_ids`, (..., projection_dim);
                the text tower then does not run.

        Raises:
            ValueError: neither or both of `pixel_values` and `image_embeddings`; an argument of the wrong shape;
                prompts that disagree on the number of objects; labels of another shape than the alphas.
        """
        outputs: FCLMModelOutput = self.model(
            pixel_values,
            pixel_mask=pixel_mask,
            input_points=input_points,
            input_labels=input_labels,
            input_boxes=input_boxes,
            input_ids=input_ids,
            attention_mask=attention_mask,
            object_mask=object_mask,
            image_embeddings=image_embeddings,
            text_embeds=text_embeds,
            return_dict=True,
            **kwargs,
        )
        valid = outputs.pixel_mask
        logits = self.head(outputs.object_features, outputs.detail_basis, outputs.coarse_logits)
        logits = logits[..., : valid.shape[-2], : valid.shape[-1]]
        if object_mask is not None:
            valid = valid * object_mask[..., None, None].to(valid.dtype)
        alphas = logits.float().sigmoid() * valid
        loss = None
        if labels is not None:
            loss = self._compute_loss(logits, alphas, labels, outputs.coarse_logits, valid.bool())
        return FCLMImageMattingOutput(
            loss=loss,
            logits=logits,
            alphas=alphas,
            coarse_logits=outputs.coarse_logits,
            image_sizes=outputs.image_sizes,
            object_mask=outputs.object_mask,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _compute_loss(
        self,
        logits: torch.Tensor,
        alphas: torch.Tensor,
        labels: torch.Tensor,
        coarse_logits: torch.Tensor,
        valid: torch.Tensor,
    ) -> torch.Tensor:
        if labels.shape != alphas.shape:
            raise ValueError(
                f"labels must have the shape of the alphas, {tuple(alphas.shape)}, got {tuple(labels.shape)}."
            )
        if self.config.task == "matting":
            loss = matting_loss(alphas, labels, valid)
        else:
            loss = segmentation_loss(logits, labels, valid)
        if self.config.coarse_loss_weight:
            height, width = coarse_logits.shape[-2:]
            padding = (0, 8 * width - labels.shape[-1], 0, 8 * height - labels.shape[-2])
            labels, valid = (nn.functional.pad(x.float(), padding) for x in (labels, valid.expand_as(labels)))
            labels, valid = (nn.functional.avg_pool2d(x, 8) for x in (labels, valid))
            loss = loss + self.config.coarse_loss_weight * segmentation_loss(coarse_logits, labels, valid)
        return loss


__all__ = [
    "FCLMForImageMatting",
    "FCLMImageEmbeddings",
    "FCLMImageMattingOutput",
    "FCLMModel",
    "FCLMModelOutput",
    "FCLMPreTrainedModel",
]
