"""Depth-Aware Distillation (Eq. 1-3)."""

import torch
from torch import nn

from ...loss_fclm import mean_over_count
from .settings import DISTILLATION_IMAGES


def normalize_depth(depth: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Scale the depth of each image to [0, 1].

    Args:
        depth: Depth of any range, of shape `(batch, height, width)`.
        valid: Boolean mask of that shape; the minimum and maximum are taken inside of it. Default: everywhere.

    Returns:
        Depth in [0, 1] of the same shape.
    """
    depth = depth.float()
    inside = torch.ones_like(depth, dtype=torch.bool) if valid is None else valid
    low = depth.masked_fill(~inside, torch.inf).amin((1, 2), keepdim=True)
    high = depth.masked_fill(~inside, -torch.inf).amax((1, 2), keepdim=True)
    return ((depth - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)


def depth_weights(depth: torch.Tensor, threshold: float = 0.25) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the weights `d+` and `d-` of Eq. 2.

    Args:
        depth: Depth in [0, 1], of shape `(batch, height, width)`.
        threshold: Threshold delta between near and far.

    Returns:
        The weights of near and of far tokens in [0, 1], both of the shape of `depth`.
    """
    near = depth > threshold
    maximum = depth.amax((1, 2), keepdim=True).clamp(min=1e-6)
    return torch.where(near, depth / maximum, 0.0), torch.where(near, 0.0, (threshold - depth) / threshold)


def channel_divergence(student: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Compute `KL(softmax(target) || softmax(student))` over the channels, in fp32.

    Args:
        student: Student tokens of shape `(..., channels)`.
        target: Target tokens of the same shape.

    Returns:
        The divergence of each token, of shape `(...)`.
    """
    student, target = student.float().log_softmax(-1), target.float().log_softmax(-1)
    return nn.functional.kl_div(student, target, log_target=True, reduction="none").sum(-1)


class MetaNet(nn.Module):
    """Meta-net `tau(F + epsilon)`: Linear, ReLU and Linear on tokens to which a learned context token is added.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        hidden_size: Channels in between.
        context: Whether to add the context token.
    """

    def __init__(self, inputs: int, outputs: int, hidden_size: int, context: bool = True):
        super().__init__()
        self.context = nn.Parameter(0.02 * torch.randn(inputs)) if context else None
        self.layers = nn.Sequential(nn.Linear(inputs, hidden_size), nn.ReLU(), nn.Linear(hidden_size, outputs))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map tokens of shape `(..., inputs)` to `(..., outputs)`."""
        tokens = tokens.to(self.layers[0].weight.dtype)  # the teacher may have another precision
        return self.layers(tokens if self.context is None else tokens + self.context)


class DepthAwareDistillation(nn.Module):
    """Distillation loss of one image (Eq. 3): divergence of student and teacher tokens, separate for near and far.

    Args:
        student_channels: Channels of the student's features.
        teacher_channels: Channels of the teacher's features.
        mode: `"full"` (Eq. 3); `"foreground"`, `"foreground_a"` or `"foreground_b"` (its first term; the caller chooses
            the images); or `"vanilla"` (Eq. 1: a single projection, no depth).
        threshold: Threshold delta of Eq. 2 on depth in [0, 1].
        hidden_size: Hidden size of the meta-nets. Default: `student_channels`.

    Raises:
        ValueError: If `mode` is unknown or `threshold` is not strictly between 0 and 1.

    Example:
        >>> import torch
        >>> from fclm_hf.training import DepthAwareDistillation
        >>> distillation = DepthAwareDistillation(student_channels=8, teacher_channels=12)
        >>> student, teacher, depth = torch.rand(2, 8, 4, 4), torch.rand(2, 12, 6, 6), torch.rand(2, 24, 24)
        >>> distillation(student, teacher, depth).shape
        torch.Size([])
    """

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        mode: str = "full",
        threshold: float = 0.25,
        hidden_size: int | None = None,
    ):
        super().__init__()
        modes = [name for name in DISTILLATION_IMAGES if name != "none"]
        if mode not in modes:
            raise ValueError(f"mode must be one of {modes}, got {mode!r}.")
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must be between 0 and 1, got {threshold}.")
        self.threshold = threshold
        widths = teacher_channels, student_channels, hidden_size or student_channels
        self.projection = MetaNet(*widths, context=False) if mode == "vanilla" else None
        self.foreground = MetaNet(*widths) if mode != "vanilla" else None
        self.background = MetaNet(*widths) if mode == "full" else None

    def forward(
        self,
        student_features: torch.Tensor,
        teacher_features: torch.Tensor,
        depth: torch.Tensor,
        valid: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compute the loss. Features and depth cover the same image; all are resized to the student's grid.

        Args:
            student_features: Features of shape `(batch, student_channels, height, width)`.
            teacher_features: Features of shape `(batch, teacher_channels, teacher_height, teacher_width)`.
            depth: Depth of any range and size, `(batch, depth_height, depth_width)`; larger is nearer.
            valid: Boolean mask of shape `(batch, 1, height, width)` of the tokens inside the image. Default: all.

        Returns:
            A scalar in fp32: the mean over valid tokens of the sum of both terms.
        """
        grid = student_features.shape[-2:]
        student = student_features.flatten(2).transpose(1, 2)
        teacher = _resize(teacher_features, grid).flatten(2).transpose(1, 2)
        if self.projection is not None:
            divergence = channel_divergence(student, self.projection(teacher))
        else:
            inside = None
            if valid is not None:
                inside = nn.functional.interpolate(valid.float(), size=depth.shape[-2:], mode="nearest")[:, 0] > 0
            depth = _resize(normalize_depth(depth, inside)[:, None], grid)[:, 0]
            if valid is not None:
                depth = depth * valid[:, 0]
            near, far = (weight.flatten(1)[..., None] for weight in depth_weights(depth, self.threshold))
            divergence = channel_divergence(near * student, near * self.foreground(teacher))
            if self.background is not None:
                divergence = divergence + channel_divergence(far * student, far * self.background(teacher))
        if valid is None:
            return divergence.mean()
        weight = valid.flatten(1).float()
        return mean_over_count((divergence * weight).sum(), weight.sum())


def _resize(maps: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Resize maps of shape `(batch, channels, h, w)` to another grid."""
    if maps.shape[-2:] == grid:
        return maps
    return nn.functional.interpolate(maps.float(), size=grid, mode="bilinear", antialias=True)


__all__ = [
    "DepthAwareDistillation",
    "MetaNet",
    "channel_divergence",
    "depth_weights",
    "normalize_depth",
]
