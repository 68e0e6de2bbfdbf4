"""Prompt encoder: points, boxes and text as sparse tokens (paper) and as soft maps painted on the image."""

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.utils.generic import maybe_autocast

from .configuration_fclm import FCLMConfig


class FCLMPromptEncoder(nn.Module):
    """Prompts in two forms: sparse tokens (paper) and, with `dense_prompts`, soft maps painted on the image; texts are
    painted where there is a semantic head."""

    point_padding = -10
    match_limit = 4.0

    def __init__(self, config: FCLMConfig):
        super().__init__()
        self.dense_prompts = config.dense_prompts
        num_maps = 8 if config.semantic_head_size is None else 11
        # a parameter, though it never learns: random buffers cannot be restored on the meta device
        self.fourier_matrix = nn.Parameter(
            torch.zeros(2, config.hidden_size // 2, dtype=torch.float32), requires_grad=False
        )
        # background point, foreground point, top-left corner, bottom-right corner
        self.kind_embed = nn.Embedding(4, config.hidden_size)
        self.context_query = nn.Embedding(1, config.hidden_size)
        self.text_projection = nn.Linear(config.text_config.projection_dim, config.hidden_size)
        if config.dense_prompts:
            self.fine_paint = nn.Conv2d(num_maps, config.fine_hidden_size, kernel_size=1)
            self.coarse_paint = nn.Sequential(
                nn.Conv2d(num_maps, config.hidden_size // 2, kernel_size=2, stride=2),
                ACT2FN[config.hidden_act],
                nn.Conv2d(config.hidden_size // 2, config.hidden_size, kernel_size=1),
            )

    def encode_positions(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Random Fourier features (Tancik et al.) of coordinates (..., 2) in [0, 1], in fp32."""
        with maybe_autocast(device_type=coordinates.device.type, enabled=False):
            angles = 2 * torch.pi * ((2 * coordinates.float() - 1) @ self.fourier_matrix.float())
            return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def encode_grid(self, height: int, width: int) -> torch.Tensor:
        """Positions of the cell centres of a grid: (1, height * width, hidden_size)."""
        device = self.fourier_matrix.device
        rows = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
        columns = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
        grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
        return self.encode_positions(grid.view(1, -1, 2))

    def forward(
        self,
        points: torch.Tensor,
        labels: torch.Tensor,
        boxes: torch.Tensor,
        text_embeds: torch.Tensor | None,
        text_given: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sparse tokens [context, text, corner, corner, point...] of `objects` prompts.

        Args:
            points: (objects, points, 2) in [0, 1] of the encoder canvas. labels: (objects, points) 1 / 0 / -10.
            boxes: (objects, 4) x0 y0 x1 y1 in [0, 1]; present where x1 > x0 and y1 > y0.
            text_embeds: (objects, projection_dim). text_given: bool (objects,).

        Returns:
            tokens and their positions (objects, tokens, hidden_size), and bool (objects, tokens): those to attend to.
            A prompt that is absent is a zero embedding; all but one padded points are masked.
        """
        kinds = self.kind_embed.weight
        dtype = kinds.dtype
        context = self.context_query.weight.expand(points.shape[0], 1, -1)
        text = torch.zeros_like(context)
        if text_embeds is not None:
            text = self.text_projection(text_embeds)[:, None] * text_given[:, None, None].to(dtype)
        box_given = ((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])).to(dtype)[:, None, None]
        corner_positions = self.encode_positions(boxes.view(-1, 2, 2)).to(dtype) * box_given
        corners = corner_positions + kinds[2:] * box_given
        point_given = labels >= 0
        weight = point_given[..., None].to(dtype)
        point_positions = self.encode_positions(points).to(dtype) * weight
        sparse = point_positions + nn.functional.embedding(labels.clamp(0, 1), kinds) * weight
        tokens = torch.cat([context, text.to(dtype), corners, sparse], dim=1)
        nowhere = torch.zeros_like(context).expand(-1, 2, -1)
        positions = torch.cat([nowhere, corner_positions, point_positions], dim=1)
        always = torch.ones_like(labels[:, :1], dtype=torch.bool)
        attended = torch.cat([always.expand(-1, 5), point_given[:, 1:]], dim=1)
        return tokens, positions, attended

    def paint(
        self, points: torch.Tensor, labels: torch.Tensor, boxes: torch.Tensor, height: int, width: int
    ) -> torch.Tensor:
        """Soft maps (objects, 8, height, width) in fp32: box inside, box given, place in the box (x, y), near and
        around foreground clicks, near and around background clicks."""
        device = points.device
        rows = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
        columns = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
        boxes, points = boxes.float(), points.float()
        low, high = boxes[:, :2], boxes[:, 2:]
        given = (high > low).all(-1).float().view(-1, 1, 1)
        centre, half = (low + high) / 2, ((high - low) / 2).clamp(min=1e-3)
        place_x = ((columns - centre[:, :1]) / half[:, :1]).clamp(-2, 2)[:, None, :].expand(-1, height, -1) * given
        place_y = ((rows - centre[:, 1:]) / half[:, 1:]).clamp(-2, 2)[:, :, None].expand(-1, -1, width) * given
        inside_x = ((columns - low[:, :1]).minimum(high[:, :1] - columns) * 2 * width).sigmoid()
        inside_y = ((rows - low[:, 1:]).minimum(high[:, 1:] - rows) * 2 * height).sigmoid()
        inside = inside_y[:, :, None] * inside_x[:, None, :] * given
        maps = [inside, given.expand_as(inside), place_x, place_y]
        square = (columns - points[..., :1])[:, :, None, :] ** 2 + (rows - points[..., 1:])[..., None] ** 2
        for label in (1, 0):
            chosen = (labels == label)[..., None, None]
            for radius in (0.02, 0.1):
                maps.append(((-square / (2 * radius**2)).exp() * chosen).amax(1))
        return torch.stack(maps, dim=1)

    def paint_text(
        self,
        semantic_map: torch.Tensor,
        valid: torch.Tensor,
        text_embeds: torch.Tensor | None,
        text_given: torch.Tensor | None,
        height: int,
        width: int,
    ) -> torch.Tensor:
        """Maps (objects, 3, height, width) in fp32: how well a place matches the text, how much worse than the image's
        best place, text given. All are 0 without a text.

        `semantic_map` (objects, projection_dim, h, w) is compared where `valid` (objects, 1, h, w).
        """
        if text_embeds is None:
            return semantic_map.new_zeros(len(semantic_map), 3, height, width, dtype=torch.float32)
        device = semantic_map.device
        text_embeds, text_given = text_embeds.to(device), text_given.to(device)
        with maybe_autocast(device_type=device.type, enabled=False):
            direction = nn.functional.normalize(text_embeds.float(), dim=-1)
            match = torch.einsum("ochw,oc->ohw", semantic_map.float(), direction)[:, None]
            best = match.masked_fill(~valid, torch.finfo(match.dtype).min).amax((2, 3), keepdim=True)
            maps = torch.cat([match, match - best], dim=1).clamp(-self.match_limit, self.match_limit)
            maps = torch.cat([maps, torch.ones_like(match)], dim=1) * text_given.view(-1, 1, 1, 1)
            return nn.functional.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)


__all__ = ["FCLMPromptEncoder"]
