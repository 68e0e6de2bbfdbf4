"""Image processor of FCLM on PIL and numpy, which does not need torchvision."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import PILImageResampling

from .image_processing_base_fclm import FCLMImageProcessorBase, FCLMImageProcessorKwargs


class FCLMImageProcessorPil(FCLMImageProcessorBase, PilBackend):
    """Image processor of FCLM on PIL and numpy.

    Its `pixel_values` differ from those of [`FCLMImageProcessor`] by at most one gray level in 255. It takes the same
    arguments and runs on the CPU.

    Example:
        >>> from PIL import Image
        >>> from fclm_hf import FCLMImageProcessorPil
        >>> image_processor = FCLMImageProcessorPil(size_divisor=16)
        >>> inputs = image_processor(Image.new("RGB", (40, 30), "white"), return_tensors="pt")
        >>> inputs["pixel_values"].shape
        torch.Size([1, 3, 32, 48])
        >>> inputs["pixel_values"][0, :, 0, 0]
        tensor([1., 1., 1.])
        >>> inputs["original_sizes"]
        tensor([[30, 40]])
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
        """Resize, rescale and normalize an image; see [`FCLMImageProcessorBase.transform_image`]."""
        pixels = image.cpu().numpy()
        if tuple(pixels.shape[-2:]) != tuple(new_size):
            pixels = _resize(pixels, new_size, PILImageResampling.BILINEAR if resample is None else resample)
        if do_rescale:
            pixels = self.rescale(pixels, rescale_factor)
        if do_normalize:
            pixels = self.normalize(pixels, image_mean, image_std)
        return torch.from_numpy(np.array(pixels, dtype=np.float32))


def _resize(pixels: np.ndarray, size: tuple[int, int], resample: int) -> np.ndarray:
    """Resize uint8 or float32 pixels of shape `(channels, height, width)`, the dtypes that PIL keeps."""
    shape = size[1], size[0]
    if pixels.dtype == np.uint8 and len(pixels) == 3:
        image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        return np.asarray(image.resize(shape, resample)).transpose(2, 0, 1)
    # one by one: PIL would multiply colors by the alpha channel, and has no float images of several channels
    return np.stack([np.asarray(Image.fromarray(channel).resize(shape, resample)) for channel in pixels])


__all__ = ["FCLMImageProcessorPil"]
