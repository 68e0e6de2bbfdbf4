"""Image processor of FCLM on torchvision: works on tensors, on any device."""

from typing import Any

import torch
from torchvision.transforms.v2 import functional as tvF
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_utils import SizeDict

from .image_processing_base_fclm import FCLMImageProcessorBase, FCLMImageProcessorKwargs


class FCLMImageProcessor(FCLMImageProcessorBase, TorchvisionBackend):
    """Image processor of FCLM on torchvision; `device="cuda"` in a call does the work there.

    Gives the same `pixel_values` as [`FCLMImageProcessorPil`] to one grey level in 255.
    """

    valid_kwargs = FCLMImageProcessorKwargs

    def transform_image(
        self,
        image: torch.Tensor,
        new_size: tuple[int, int],
        resample: Any,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: Any,
        image_std: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        """See [`FCLMImageProcessorBase.transform_image`]."""
        if tuple(image.shape[-2:]) != tuple(new_size):
            image = self.resize(image, SizeDict(height=new_size[0], width=new_size[1]), resample=resample)
        if do_normalize:
            return self.rescale_and_normalize(image, do_rescale, rescale_factor, True, image_mean, image_std)
        image = tvF.to_dtype(image, torch.float32, scale=False)
        return self.rescale(image, rescale_factor) if do_rescale else image


__all__ = ["FCLMImageProcessor"]
