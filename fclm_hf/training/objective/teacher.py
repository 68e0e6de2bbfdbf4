"""The frozen teacher of Depth-Aware Distillation: Depth-Anything's features and depth from one run."""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import DepthAnythingForDepthEstimation
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD


class DepthTeacher(nn.Module):
    """Runs Depth-Anything on the student's images, in evaluation mode and without gradients.

    Args:
        model: Depth-Anything V1 or V2 of any size.
        image_mean, image_std: of the student's image processor; the teacher gets ImageNet's.
        size: side in pixels of what the teacher sees, a multiple of its patch size; `None` for the multiple nearest to
            the student's.

    Raises:
        ValueError: `size` is no multiple of the patch size.
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
        return self.model.config.backbone_config.hidden_size

    def train(self, mode: bool = True) -> "DepthTeacher":
        return super().train(False)

    def _fit(self, side: int) -> int:
        return self.size or max(1, round(side / self.patch_size)) * self.patch_size

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (batch, 3, height, width) as the student's encoder sees them.

        Returns:
            features (batch, channels, h, w) of the encoder's last layer, after its final norm, and depth (batch, H, W):
            relative inverse depth, larger is nearer.
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
