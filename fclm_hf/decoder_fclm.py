"""Object-Oriented Decoder: prompts and image attend to each other, then each object's map climbs the detail path."""

from collections.abc import Callable

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from .configuration_fclm import FCLMConfig
from .image_maps_fclm import FCLMConvBlock, FCLMImageEmbeddings
from .resampling_fclm import resample


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor]:
    weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = nn.functional.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class FCLMAttention(nn.Module):
    """Attention whose queries, keys and values are `downsample_rate` times narrower than the model, as in SAM."""

    def __init__(self, config: FCLMConfig, downsample_rate: int = 1):
        super().__init__()
        self.config = config
        inner_size = config.hidden_size // downsample_rate
        self.head_dim = inner_size // config.decoder_attention_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.dropout
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, inner_size)
        self.k_proj = nn.Linear(config.hidden_size, inner_size)
        self.v_proj = nn.Linear(config.hidden_size, inner_size)
        self.o_proj = nn.Linear(inner_size, config.hidden_size)

    def forward(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        def split_heads(states: torch.Tensor) -> torch.Tensor:
            return states.view(*states.shape[:-1], -1, self.head_dim).transpose(1, 2)

        implementation = self.config._attn_implementation
        if attention_mask is not None and queries.shape[1] != keys.shape[1] and "flash" in implementation:
            implementation = "sdpa"  # flash attention cannot mask the keys of a cross-attention
            attention_mask = attention_mask[:, None, None, :].bool()
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        output, _ = attention_interface(
            self,
            split_heads(self.q_proj(queries)),
            split_heads(self.k_proj(keys)),
            split_heads(self.v_proj(values)),
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.o_proj(output.reshape(*queries.shape[:-1], -1).contiguous())


class FCLMMlp(nn.Module):
    def __init__(self, hidden_size: int, intermediate_size: int, hidden_act: str):
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, intermediate_size)
        self.fc2 = nn.Linear(intermediate_size, hidden_size)
        self.activation_fn = ACT2FN[hidden_act]

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation_fn(self.fc1(states)))


class FCLMDecoderLayer(GradientCheckpointingLayer):
    """Prompt tokens attend to each other and to the image; the image attends to the tokens, then mixes spatially."""

    def __init__(self, config: FCLMConfig):
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.self_attn = FCLMAttention(config)
        self.self_attn_norm = nn.LayerNorm(width, eps=eps)
        self.token_to_image_attn = FCLMAttention(config, config.attention_downsample_rate)
        self.token_norm = nn.LayerNorm(width, eps=eps)
        self.image_norm = nn.LayerNorm(width, eps=eps)
        self.token_mlp = FCLMMlp(width, config.decoder_ffn_dim, config.hidden_act)
        self.token_mlp_norm = nn.LayerNorm(width, eps=eps)
        self.image_to_token_attn = FCLMAttention(config, config.attention_downsample_rate)
        self.prompt_norm = nn.LayerNorm(width, eps=eps)
        self.spatial_mixer = nn.Conv2d(width, width, kernel_size=7, padding=3, groups=width)
        self.image_mlp_norm = nn.LayerNorm(width, eps=eps)
        self.image_mlp = FCLMMlp(width, config.image_ffn_dim, config.hidden_act)

    def forward(
        self,
        tokens: torch.Tensor,
        image: torch.Tensor,
        token_positions: torch.Tensor,
        image_positions: torch.Tensor,
        grid: tuple[int, int],
        self_mask: torch.Tensor | None = None,
        cross_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        states = self.self_attn_norm(tokens)
        placed = states + token_positions
        tokens = tokens + self.self_attn(placed, placed, states, self_mask, **kwargs)
        memory = self.image_norm(image)
        placed_memory = memory + image_positions
        tokens = tokens + self.token_to_image_attn(
            self.token_norm(tokens) + token_positions, placed_memory, memory, **kwargs
        )
        tokens = tokens + self.token_mlp(self.token_mlp_norm(tokens))
        states = self.prompt_norm(tokens)
        image = image + self.image_to_token_attn(placed_memory, states + token_positions, states, cross_mask, **kwargs)
        plane = image.transpose(1, 2).reshape(image.shape[0], -1, *grid)
        mixed = self.spatial_mixer(plane).flatten(2).transpose(1, 2)
        return tokens, image + self.image_mlp(self.image_mlp_norm(mixed))


class FCLMUpsampler(nn.Module):
    """One step up: the object's map, enlarged, meets the detail map of that stride."""

    def __init__(self, inputs: int, outputs: int, scale: int):
        super().__init__()
        self.scale = scale
        self.reduce = nn.Conv2d(inputs, outputs, kernel_size=1)
        self.conv = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1)

    def forward(self, maps: torch.Tensor, detail: torch.Tensor) -> torch.Tensor:
        """maps (batch * objects, inputs, h, w), detail (batch, outputs, H, W), hugely negative outside the image."""
        batch, _, height, width = detail.shape
        maps = self.reduce(maps)
        if self.scale > 1:
            maps = nn.functional.interpolate(maps, scale_factor=self.scale, mode="bilinear", align_corners=False)
        maps = maps[..., :height, :width].unflatten(0, (batch, -1)).add_(detail[:, None])
        maps = nn.functional.relu(maps, inplace=True).flatten(0, 1)
        return maps + nn.functional.relu(self.conv(maps), inplace=True)


class FCLMMatteHead(nn.Module):
    """Full-size logits `sum_c a_c f_c + b`: features `f` of the image, coefficients `a` and `b` of the object.

    Closed-form matting's colour line model (Levin et al. 2008, alpha is linear in the colours of a small window) with
    learnt features for colours and predicted coefficients for solved ones: an object costs little at full size.
    """

    def __init__(self, config: FCLMConfig):
        super().__init__()
        features, width = config.detail_hidden_sizes[0], config.detail_hidden_sizes[2]
        self.coefficients = nn.Conv2d(width, features + 1, kernel_size=1)

    def forward(self, object_features: torch.Tensor, basis: torch.Tensor, coarse_logits: torch.Tensor) -> torch.Tensor:
        """object_features (batch, objects, channels, h, w), basis (batch, 4 * features, 2 h, 2 w) and coarse_logits
        (batch, objects, ~h / 2, ~w / 2) -> logits (batch, objects, 4 h, 4 w)."""

        def enlarge(maps: torch.Tensor, scale: int) -> torch.Tensor:
            return nn.functional.interpolate(maps, scale_factor=scale, mode="bilinear", align_corners=False)

        batch, objects, _, height, width = object_features.shape
        coefficients = self.coefficients(object_features.flatten(0, 1))
        coarse = enlarge(coarse_logits.flatten(0, 1)[:, None], 2)[..., :height, :width]
        offset = enlarge(coefficients[:, -1:] + coarse, 4)
        # feature by feature: slopes or products of all at once would be the largest tensors of the model
        slopes = (enlarge(slope, 2).unflatten(0, (batch, objects)) for slope in coefficients[:, :-1].split(1, dim=1))
        features = basis.unflatten(1, (-1, 4)).unsqueeze(1).unbind(2)
        logits = next(slopes) * features[0]
        for slope, feature in zip(slopes, features[1:], strict=True):
            logits = logits.addcmul_(slope, feature)
        logits = nn.functional.pixel_shuffle(logits.flatten(0, 1), 2).add_(offset)
        return logits.view(batch, objects, *logits.shape[-2:])


class FCLMObjectDecoder(nn.Module):
    """Object-Oriented Decoder: prompts and coarse map attend to each other, then the map climbs the detail path."""

    def __init__(self, config: FCLMConfig):
        super().__init__()
        self.config = config
        width, fine = config.hidden_size, config.fine_hidden_size
        _, _, d4, d8 = config.detail_hidden_sizes
        self.layers = nn.ModuleList([FCLMDecoderLayer(config) for _ in range(config.decoder_layers)])
        self.token_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.image_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.fine_projection = nn.Conv2d(width, fine, kernel_size=1)
        self.fine_block = FCLMConvBlock(fine, config)
        self.mask_embedding = nn.Linear(width, fine)
        self.coarse_head = nn.Conv2d(fine, 1, kernel_size=1)
        self.upsamplers = nn.ModuleList([FCLMUpsampler(fine + 1, d8, scale=1), FCLMUpsampler(d8, d4, scale=2)])

    def forward(
        self,
        embeddings: FCLMImageEmbeddings,
        tokens: torch.Tensor,
        token_positions: torch.Tensor,
        attended: torch.Tensor,
        image_positions: torch.Tensor,
        coarse_paint: torch.Tensor | None,
        fine_paint: torch.Tensor | None,
        weights: tuple[torch.Tensor, torch.Tensor],
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`tokens` are (batch * objects, tokens, hidden_size); `weights` resample the fine grid onto stride 8.

        Returns:
            object features at stride 4 (batch * objects, d4, ~height / 4, ~width / 4), coarse logits at stride 8 and
            the context query (batch * objects, hidden_size).
        """
        objects = tokens.shape[0] // embeddings.coarse_map.shape[0]
        image = embeddings.coarse_map.repeat_interleave(objects, dim=0)
        grid = image.shape[-2:]
        if coarse_paint is not None:
            image = image + coarse_paint
        image = image.flatten(2).transpose(1, 2)
        self_mask = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=tokens,
            attention_mask=attended,
            allow_is_bidirectional_skip=False,  # deciding to skip reads the mask: a host synchronisation
        )
        cross_mask = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=image,
            attention_mask=attended,
            encoder_hidden_states=tokens,
            allow_is_bidirectional_skip=False,
        )
        for layer in self.layers:
            tokens, image = layer(
                tokens, image, token_positions, image_positions, grid, self_mask, cross_mask, **kwargs
            )
        context = self.token_norm(tokens)[:, 0]
        image = self.image_norm(image).transpose(1, 2).reshape(image.shape[0], -1, *grid)
        fine = nn.functional.interpolate(
            self.fine_projection(image), scale_factor=2, mode="bilinear", align_corners=False
        )
        if embeddings.fine_map is not None:
            fine = fine + embeddings.fine_map.repeat_interleave(objects, dim=0)
        if fine_paint is not None:
            fine = fine + fine_paint
        fine = self.fine_block(fine)
        similarity = torch.einsum("bchw,bc->bhw", fine, self.mask_embedding(context)) * fine.shape[1] ** -0.5
        coarse_logits = similarity[:, None] + self.coarse_head(fine)
        maps = resample(torch.cat([fine, coarse_logits], dim=1), *weights)
        coarse_logits = maps[:, -1]
        maps = maps.contiguous(memory_format=torch.channels_last)
        for upsampler, detail in zip(self.upsamplers, reversed(embeddings.detail_maps), strict=True):
            maps = upsampler(maps, detail)
        return maps, coarse_logits, context


__all__ = ["FCLMMatteHead", "FCLMObjectDecoder"]
