"""Losses on the semantic map: contrast of named regions, and distance to the map of a frozen model."""

import copy

import torch
from torch import nn

from ...loss_fclm import mean_over_count
from ...modeling_fclm import FCLMForImageMatting


LOGIT_SCALE = 4.0  # inverse temperature of the contrast of names


def pool_regions(semantic_map: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
    """Average the semantic map over regions.

    Args:
        semantic_map: Map of shape `(batch, channels, map_height, map_width)`.
        regions: Weights in [0, 1] of shape `(batch, regions, height, width)` on the same input; they are averaged over
            the cells of the map.

    Returns:
        Means in fp32, of shape `(batch, regions, channels)`; 0 for an empty region.
    """
    weights = nn.functional.adaptive_avg_pool2d(regions.float(), tuple(semantic_map.shape[-2:]))
    sums = torch.einsum("bchw,brhw->brc", semantic_map.float(), weights)
    return sums / weights.sum((2, 3))[..., None].clamp(min=1e-3)


def name_contrast_loss(regions: torch.Tensor, name_embeds: torch.Tensor, is_match: torch.Tensor) -> torch.Tensor:
    """Compute the cross-entropy of named regions among all names.

    The logits are 4 times the inner products of regions and normalized names. Several names may fit a region ("poodle"
    and "dog"): their probabilities are summed.

    Args:
        regions: Mean of the semantic map in each region, of shape `(..., regions, channels)`.
        name_embeds: Text embeddings of shape `(names, channels)`, of any length.
        is_match: Bool of shape `(..., regions, names)`, True for the names of a region. Regions without one do not
            count.

    Returns:
        A scalar in fp32; 0 if no region is named.

    Example:
        >>> import torch
        >>> from fclm_hf.training import name_contrast_loss
        >>> names, is_match = torch.eye(3), torch.tensor([[True, False, False]])
        >>> name_contrast_loss(torch.tensor([[9.0, 0.0, 0.0]]), names, is_match) < 1e-4
        tensor(True)
        >>> name_contrast_loss(torch.zeros(1, 3), names, is_match)
        tensor(1.0986)
    """
    logits = LOGIT_SCALE * regions.float() @ nn.functional.normalize(name_embeds.float(), dim=-1).T
    # not -inf: the gradient of logsumexp would be NaN in rows without a name
    matched = logits.masked_fill(~is_match, -1e4).logsumexp(-1)
    is_named = is_match.any(-1).float()
    return mean_over_count(((logits.logsumexp(-1) - matched) * is_named).sum(), is_named.sum())


def semantic_distance(semantic_map: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Compute the mean squared difference of two semantic maps, relative to the mean square of the target.

    Args:
        semantic_map: Map of shape `(batch, channels, height, width)`.
        target: Map of the same shape.

    Returns:
        A scalar in fp32; 0 for equal maps.

    Example:
        >>> import torch
        >>> from fclm_hf.training import semantic_distance
        >>> semantic_distance(torch.full((1, 2, 3, 3), 1.5), torch.ones(1, 2, 3, 3))
        tensor(0.2500)
    """
    target = target.float()
    return (semantic_map.float() - target).square().mean() / target.square().mean().clamp(min=1e-12)


class SemanticTeacher(nn.Module):
    """Frozen copy of the backbone and semantic head of a model, in evaluation mode.

    Args:
        model: A model with a semantic head.

    Example:
        >>> import torch
        >>> from fclm_hf import LITE_CHECKPOINT, FCLMForImageMatting
        >>> from fclm_hf.training import SemanticTeacher
        >>> teacher = SemanticTeacher(FCLMForImageMatting.from_pretrained(LITE_CHECKPOINT))
        >>> teacher(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 128, 2, 2])
    """

    def __init__(self, model: FCLMForImageMatting):
        super().__init__()
        self.backbone = copy.deepcopy(model.model.backbone)
        self.semantic_head = copy.deepcopy(model.model.semantic_head)
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "SemanticTeacher":
        """Stay in evaluation mode, whatever `mode` is."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, padded: torch.Tensor) -> torch.Tensor:
        """Compute the semantic map of images of shape `(batch, 3, height, width)`, as the backbone receives them."""
        return self.semantic_head(self.backbone(padded, return_dict=True).feature_maps[-1])


__all__ = ["SemanticTeacher", "name_contrast_loss", "pool_regions", "semantic_distance"]
