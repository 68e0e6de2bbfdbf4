"""Image processor of FCLM on PIL and numpy: works without torchvision."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import PILImageResampling

from .image_processing_base_fclm import FCLMImageProcessorBase, FCLMImageProcessorKwargs


class FCLMImageProcessorPil(FCLMImageProcessorBase, PilBackend):
    """Image processor of FCLM on PIL and numpy, for a CPU without torchvision.

    Gives the same `pixel_values` as [`FCLMImageProcessor`] to one grey level in 255.
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
        pixels = image.cpu().numpy()
        if tuple(pixels.shape[-2:]) != tuple(new_size):
            pixels = _resize(pixels, new_size, PILImageResampling.BILINEAR if resample is None else resample)
        if do_rescale:
            pixels = self.rescale(pixels, rescale_factor)
        if do_normalize:
            pixels = self.normalize(pixels, image_mean, image_std)
        return torch.from_numpy(np.array(pixels, dtype=np.float32))


def _resize(pixels: np.ndarray, size: tuple[int, int], resample: int) -> np.ndarray:
    """uint8 or float32 (channels, height, width); no other kind of image goes through PIL unchanged."""
    shape = size[1], size[0]
    if pixels.dtype == np.uint8 and len(pixels) == 3:
        image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        return np.asarray(image.resize(shape, resample)).transpose(2, 0, 1)
    # one by one: PIL would multiply colours with the alpha channel, and has no float images of several channels
    return np.stack([np.asarray(Image.fromarray(channel).resize(shape, resample)) for channel in pixels])


__all__ = ["FCLMImageProcessorPil"]
