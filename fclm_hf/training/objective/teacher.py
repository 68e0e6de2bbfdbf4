"""Frozen teacher of Depth-Aware Distillation: features and depth of Depth Anything from a single forward pass."""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import DepthAnythingForDepthEstimation
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD


class DepthTeacher(nn.Module):
    """Depth Anything on the images of the student, in evaluation mode and without gradients.

    Args:
        model: Depth Anything V1 or V2 of any size.
        image_mean: Mean of the student's image processor; the images are converted to ImageNet's.
        image_std: Standard deviation of the student's image processor.
        size: Side length of the teacher's input in pixels, a multiple of its patch size. Default: the multiple nearest
            to that of the student.

    Raises:
        ValueError: If `size` is not a multiple of the patch size.
    """

    def __init__(
        self,
        model: DepthAnythingForDepthEstimation,
        image_mean: Sequence[float],
        image_std: Sequence[float],
        size: int | None = None,
    ):
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.patch_size = model.config.patch_size
        if size is not None and (size < 1 or size % self.patch_size):
            raise ValueError(f"teacher_size must be a positive multiple of {self.patch_size}, got {size}.")
        self.size = size
        # student's pixel * scale + shift = teacher's pixel
        mean, std, target_mean, target_std = (
            torch.tensor(x).view(3, 1, 1) for x in (image_mean, image_std, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        )
        self.register_buffer("scale", std / target_std, persistent=False)
        self.register_buffer("shift", (mean - target_mean) / target_std, persistent=False)

    @property
    def channels(self) -> int:
        """Channels of the features."""
        return self.model.config.backbone_config.hidden_size

    def train(self, mode: bool = True) -> "DepthTeacher":
        """Stay in evaluation mode, whatever `mode` is."""
        return super().train(False)

    def _fit(self, side: int) -> int:
        """Return the side length of the teacher's input for one of the student's."""
        return self.size or max(1, round(side / self.patch_size)) * self.patch_size

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute features and depth.

        Args:
            images: Images of shape `(batch, 3, height, width)` as the student's backbone receives them.

        Returns:
            The features of the last layer of the teacher's backbone after its final norm, of shape
            `(batch, channels, teacher_height, teacher_width)`, and the relative inverse depth, of shape
            `(batch, depth_height, depth_width)`; larger is nearer.
        """
        size = tuple(self._fit(side) for side in images.shape[-2:])
        if images.shape[-2:] != size:
            images = nn.functional.interpolate(images.float(), size=size, mode="bilinear", antialias=True)
        images = (images * self.scale + self.shift).to(self.model.dtype)
        states = self.model.backbone(images).feature_maps
        height, width = (side // self.patch_size for side in size)
        depth = self.model.head(self.model.neck(states, height, width), height, width)
        features = states[-1][:, -height * width :].transpose(1, 2).unflatten(2, (height, width))
        return features, depth


__all__ = ["DepthTeacher"]
