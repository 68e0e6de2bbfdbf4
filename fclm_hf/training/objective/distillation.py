"""Depth-Aware Distillation (Eq. 1-3)."""

import torch
from torch import nn


# option -> images whose features are distilled, one option for each row of Table 4
DISTILLATION_IMAGES = {
    "none": "",
    "vanilla": "ab",
    "foreground_a": "a",
    "foreground_b": "b",
    "foreground": "ab",
    "full": "ab",
}


def normalise_depth(depth: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Depth (batch, height, width) of any range to [0, 1] by each image's minimum and maximum over `valid` (bool)."""
    depth = depth.float()
    inside = torch.ones_like(depth, dtype=torch.bool) if valid is None else valid
    low = depth.masked_fill(~inside, torch.inf).amin((1, 2), keepdim=True)
    high = depth.masked_fill(~inside, -torch.inf).amax((1, 2), keepdim=True)
    return ((depth - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)


def depth_weights(depth: torch.Tensor, threshold: float = 0.25) -> tuple[torch.Tensor, torch.Tensor]:
    """`d+` and `d-` of Eq. 2, both of the shape of `depth` (batch, height, width) in [0, 1], and in [0, 1]."""
    near = depth > threshold
    maximum = depth.amax((1, 2), keepdim=True).clamp(min=1e-6)
    return torch.where(near, depth / maximum, 0.0), torch.where(near, 0.0, (threshold - depth) / threshold)


def channel_divergence(student: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """`KL(softmax(target) || softmax(student))` over the last axis (channels), in fp32: (..., channels) -> (...)."""
    student, target = student.float().log_softmax(-1), target.float().log_softmax(-1)
    return nn.functional.kl_div(student, target, log_target=True, reduction="none").sum(-1)


class MetaNet(nn.Module):
    """`tau(F + epsilon)`: Linear-ReLU-Linear on tokens (..., inputs) to which a learned context token is added."""

    def __init__(self, inputs: int, outputs: int, hidden_size: int, context: bool = True):
        super().__init__()
        self.context = nn.Parameter(0.02 * torch.randn(inputs)) if context else None
        self.layers = nn.Sequential(nn.Linear(inputs, hidden_size), nn.ReLU(), nn.Linear(hidden_size, outputs))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens.to(self.layers[0].weight.dtype)  # the teacher may be kept in another precision
        return self.layers(tokens if self.context is None else tokens + self.context)


class DepthAwareDistillation(nn.Module):
    """Eq. 3 for one image: KL from the student's tokens to the teacher's, apart for what is near and what is far.

    Args:
        student_channels, teacher_channels: widths of the features.
        mode: "full" (Eq. 3), "foreground", "foreground_a" or "foreground_b" (its first term; which images it is for is
            up to the caller), or "vanilla" (Eq. 1: one projection, no depth).
        threshold: delta of Eq. 2, on depth in [0, 1].
        hidden_size: of the meta-nets, default that of the student.

    Raises:
        ValueError: unknown `mode`, or `threshold` outside ]0, 1[.
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
        """Args:
            student_features: (batch, student_channels, height, width): the grid on which all meet.
            teacher_features: (batch, teacher_channels, h, w), any grid over the same picture.
            depth: (batch, H, W), unbounded, larger is nearer; any size, over the same picture.
            valid: bool (batch, 1, height, width), tokens inside the image; default all.

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
            depth = _resize(normalise_depth(depth, inside)[:, None], grid)[:, 0]
            if valid is not None:
                depth = depth * valid[:, 0]
            near, far = (weight.flatten(1)[..., None] for weight in depth_weights(depth, self.threshold))
            divergence = channel_divergence(near * student, near * self.foreground(teacher))
            if self.background is not None:
                divergence = divergence + channel_divergence(far * student, far * self.background(teacher))
        if valid is None:
            return divergence.mean()
        weight = valid.flatten(1).float()
        return (divergence * weight).sum() / weight.sum().clamp(min=1)


def _resize(maps: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    if maps.shape[-2:] == grid:
        return maps
    return nn.functional.interpolate(maps.float(), size=grid, mode="bilinear", antialias=True)


__all__ = [
    "DISTILLATION_IMAGES",
    "DepthAwareDistillation",
    "MetaNet",
    "channel_divergence",
    "depth_weights",
    "normalise_depth",
]
