"""Image processor of FCLM on torchvision, for tensors on any device."""

from typing import Any

import torch
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_utils import SizeDict
from transformers.utils import is_torchvision_available

from .image_processing_base_fclm import FCLMImageProcessorBase, FCLMImageProcessorKwargs


if is_torchvision_available():  # as remote code, this file is fetched and saved even where it cannot be used
    from torchvision.transforms.v2 import functional


class FCLMImageProcessor(FCLMImageProcessorBase, TorchvisionBackend):
    """Image processor of FCLM on torchvision.

    Its `pixel_values` differ from those of [`FCLMImageProcessorPil`] by at most one gray level in 255. Without
    torchvision, `fclm_hf.FCLMImageProcessor` is [`FCLMImageProcessorPil`]. The arguments are defaults that each call
    can change; a call also accepts `device="cuda"` to process images there, see [`preprocess`].

    Args:
        do_resize (`bool`, *optional*, defaults to `True`): Whether to resize images.
        size (`int` or `dict[str, int]`, *optional*, defaults to `{"longest_edge": 2048}`): Size to resize to:
            `{"longest_edge": L}` or `{"max_height": H, "max_width": W}` shrinks larger images, keeps their aspect ratio
            and never enlarges; `{"height": H, "width": W}` resizes to exactly this size. An int is the longest edge.
        resample (`PILImageResampling`, *optional*, defaults to `BILINEAR`): Filter of the antialiased resizing.
        do_rescale (`bool`, *optional*, defaults to `True`): Whether to multiply pixels by `rescale_factor`.
        rescale_factor (`float`, *optional*, defaults to 1 / 255): Factor that maps [0, 255] to [0, 1].
        do_normalize (`bool`, *optional*, defaults to `True`): Whether to normalize with `image_mean` and
            `image_std`.
        image_mean (`list[float]`, *optional*, defaults to `[0.5, 0.5, 0.5]`): Mean of each channel, in [0, 1].
        image_std (`list[float]`, *optional*, defaults to `[0.5, 0.5, 0.5]`): Standard deviation of each channel.
        do_convert_rgb (`bool`, *optional*, defaults to `True`): Whether to convert images to RGB, with transparency
            composited over a plain color that the image stands out from.
        do_pad (`bool`, *optional*, defaults to `True`): Whether to pad a batch with 0 at the bottom and right.
        size_divisor (`int`, *optional*, defaults to 32): Number that the padded height and width are multiples of.
        pad_size (`dict[str, int]`, *optional*): `{"height": H, "width": W}` to pad to instead.

    Example:
        >>> import numpy as np
        >>> from fclm_hf import FCLMImageProcessor
        >>> image_processor = FCLMImageProcessor(size={"longest_edge": 60})
        >>> inputs = image_processor(np.zeros((80, 120, 3), dtype=np.uint8), return_tensors="pt")
        >>> inputs["pixel_values"].shape
        torch.Size([1, 3, 64, 64])
        >>> inputs["pixel_mask"].sum()  # 40 x 60 pixels of the image, the others are padding
        tensor(2400)
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
        if tuple(image.shape[-2:]) != tuple(new_size):
            if tuple(new_size) == (1, 1):  # torch's kernel needs channels that are last in memory
                image = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
            image = self.resize(image, SizeDict(height=new_size[0], width=new_size[1]), resample=resample)
        if do_normalize:
            return self.rescale_and_normalize(image, do_rescale, rescale_factor, True, image_mean, image_std)
        image = functional.to_dtype(image, torch.float32, scale=False)
        return self.rescale(image, rescale_factor) if do_rescale else image


__all__ = ["FCLMImageProcessor"]
