"""Results of the pipeline for an image with several objects."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from .foreground_fclm import make_cutout
from .image_utils_fclm import copy_metadata
from .masks_fclm import resize_maps


_ROWS_PER_STRIP = 256
_OPACITY_REACH = 2


class MattingResults(list):
    """List of the results of many objects in one large image, each made when it is accessed.

    Mattes and cutouts of twenty objects in a photo of 24 megapixels would take 4 GB. So only the alphas that the model
    predicted are kept; `list(results)` makes and keeps all results. The pipeline returns a plain list where all
    results take less than 512 MB.

    Args:
        image (`PIL.Image.Image`): The photo.
        alphas (`torch.FloatTensor` of shape `(1, num_objects, height, width)`): Alphas of the size the model saw.
        foreground (`str`, *optional*): How to estimate the colors of cutouts; None for no cutouts.

    Example:
        >>> import torch
        >>> from PIL import Image
        >>> from fclm_hf.pipeline_results_fclm import MattingResults
        >>> results = MattingResults(Image.new("RGB", (8, 6)), torch.ones(1, 2, 3, 4))
        >>> [result["alpha"].size for result in results]
        [(8, 6), (8, 6)]
    """

    def __init__(self, image: Image.Image, alphas: torch.Tensor, foreground: str | None = None):
        super().__init__(range(alphas.shape[1]))  # the number of an object stands for its result
        self.image, self.alphas, self.foreground = image, alphas, foreground

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        return self._make(super().__getitem__(index))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self._make, super().__iter__())

    def __reversed__(self) -> Iterator[dict[str, Any]]:
        return map(self._make, super().__reversed__())

    def __add__(self, other: list[Any]) -> list[Any]:
        return [*self, *other]

    def __radd__(self, other: list[Any]) -> list[Any]:
        return [*other, *self]

    def __mul__(self, count: int) -> list[Any]:
        return list(self) * count

    __rmul__ = __mul__

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return list, (list(self),)

    def sort(self, *, key: Callable[[Any], Any], reverse: bool = False) -> None:
        """Sort the results.

        Args:
            key: Function of a result.
            reverse: Whether the largest comes first.
        """
        numbers = list(super().__iter__())
        keys = [key(self._make(number)) for number in numbers]
        self[:] = [numbers[place] for place in sorted(range(len(keys)), key=keys.__getitem__, reverse=reverse)]

    def copy(self) -> list[dict[str, Any]]:
        """Make all results and return them in a plain list."""
        return list(self)

    def pop(self, index: Any = -1) -> dict[str, Any]:
        """Remove and return the result of an object.

        Args:
            index: Place of the result.
        """
        return self._make(super().pop(index))

    def count_bytes(self) -> int:
        """Return how many bytes all results take at once: alphas of one and of four bytes a pixel, and cutouts."""
        return len(self) * self.image.width * self.image.height * (5 if self.foreground is None else 9)

    def _make(self, item: Any) -> Any:
        """Return the result of an object by its number; other items have been put into the list by a user."""
        if not isinstance(item, int):
            return item
        size = self.image.height, self.image.width
        predicted = self.alphas[0, item : item + 1].float()
        alpha = resize_maps(predicted, size)
        alpha = (alpha.clone() if alpha is predicted else alpha)[0].clamp_(0, 1)
        if self.image.mode == "RGBA":  # what is transparent in the photo is so in its cutouts
            alpha = fit_to_opacity(alpha, np.array(self.image.getchannel("A")))
        levels = quantize_alpha(alpha)
        result = {"alpha": Image.fromarray(levels), "predicted_alpha": alpha}
        copy_metadata(self.image, result["alpha"])
        if self.foreground is not None:
            result["cutout"] = make_cutout(self.image, levels, self.foreground)
        return result


def fit_to_opacity(alpha: torch.Tensor, opacity: np.ndarray) -> torch.Tensor:
    """Return an alpha that is at most the opacity of the photo.

    At the border of the visible part the model sees a mix with the color that it was put on, and gives a mix with what
    is not there. So alphas next to transparent pixels are the highest within `_OPACITY_REACH` pixels.

    Args:
        alpha: Alpha of shape `(height, width)` in [0, 1].
        opacity: uint8 array of that shape.
    """
    fitted, reach = torch.empty_like(alpha), _OPACITY_REACH
    for start in range(0, len(alpha), _ROWS_PER_STRIP):
        stop = min(start + _ROWS_PER_STRIP, len(alpha))
        rows = slice(max(start - reach, 0), min(stop + reach, len(alpha)))
        levels = torch.from_numpy(opacity[rows])
        highest, is_near = nn.functional.max_pool2d(
            torch.stack([alpha[rows], (levels < 255).to(alpha.dtype)])[None], 2 * reach + 1, stride=1, padding=reach
        )[0]
        strip = torch.where(is_near > 0, highest, alpha[rows])
        inner = slice(start - rows.start, stop - rows.start)
        fitted[start:stop] = torch.minimum(strip, levels.to(alpha.dtype) / 255)[inner]
    return fitted


def quantize_alpha(alpha: torch.Tensor) -> np.ndarray:
    """Return an alpha `(height, width)` in [0, 1] as uint8 in [0, 255], rounded a strip at a time."""
    levels = np.empty(tuple(alpha.shape), np.uint8)
    for start in range(0, len(levels), _ROWS_PER_STRIP):
        strip = slice(start, start + _ROWS_PER_STRIP)
        levels[strip] = (alpha[strip] * 255).round().to(torch.uint8).numpy()
    return levels
