"""Decoded training data: cut-out objects, photos with alphas, and samples that hold either of them."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..utils.renaming import accept_renamed


@accept_renamed
@dataclass
class Foreground:
    """A cut-out object.

    Args:
        colors: `np.ndarray` of shape `(height, width, 3)`, uint8. The RGB colors of the object.
        alpha: `np.ndarray` of shape `(height, width)`, float32 in [0, 1]. The opacity of the object.
        names: Names of the object, for text prompts made from a template. Empty if it has none.
        cut_sides: Whether the object is cut off at the left, top, right and bottom border of its source image.
        texts: Expressions that refer to the object; text prompts use them verbatim.

    Example:
        >>> import numpy as np
        >>> from fclm_hf.data import Foreground
        >>> red = np.full((4, 4, 3), (255, 0, 0), np.uint8)
        >>> Foreground(red, np.ones((4, 4), np.float32), names=("square", "shape")).names
        ('square', 'shape')
    """

    colors: np.ndarray
    alpha: np.ndarray
    names: tuple[str, ...]
    cut_sides: tuple[bool, bool, bool, bool] = (False, False, False, False)
    texts: tuple[str, ...] = ()

    RENAMED: ClassVar[dict[str, str]] = {"colours": "colors"}  # codespell:ignore colours


@dataclass
class Photo:
    """A photo and the objects in it.

    Args:
        image: `np.ndarray` of shape `(height, width, 3)`, uint8. The RGB photo.
        alphas: One `np.ndarray` of shape `(height, width)`, uint8, per object: the visible part of its alpha.
        names: Names of each object, one tuple per object.
        texts: Expressions that refer to each object, used verbatim, one tuple per object.
        is_coarse: Whether the alphas are coarse masks: 255 is the object, 0 is not, 128 is unknown.
        instance: Whether each alpha is that of a single object. Default: all are.
        is_complete: Whether all objects are annotated.
        absent_names: Names of what is not in the photo.
        region_names: Names of each object, also of those that `names` leaves out because they mean others as well.
            Default: `names`.

    Example:
        >>> import numpy as np
        >>> from fclm_hf.data import Photo
        >>> image, alpha = np.zeros((4, 6, 3), np.uint8), np.full((4, 6), 255, np.uint8)
        >>> Photo(image, [alpha], names=[("cat",)], texts=[("the cat on the left",)]).names
        [('cat',)]
    """

    image: np.ndarray
    alphas: list[np.ndarray]
    names: list[tuple[str, ...]]
    texts: list[tuple[str, ...]]
    is_coarse: bool = False
    instance: list[bool] | None = None
    is_complete: bool = True
    absent_names: tuple[str, ...] = ()
    region_names: list[tuple[str, ...]] | None = None


@dataclass
class Sample:
    """One decoded row of a source.

    Args:
        content: A [`Foreground`], a [`Photo`], or a background photo as a uint8 array of shape `(height, width, 3)`.
        key: Source and id of the row, for reports.
        epoch: Number of times that the source was read completely before this row.
        checksum: CRC-32 of the encoded image.
        learns_edges: Whether the alphas are good enough for the layers that draw edges, see [`SourceConfig`].

    Example:
        >>> import numpy as np
        >>> from fclm_hf.data import Sample
        >>> Sample(np.zeros((4, 6, 3), np.uint8), key="backgrounds:7", epoch=0, checksum=123).key
        'backgrounds:7'
    """

    content: Foreground | Photo | np.ndarray
    key: str
    epoch: int
    checksum: int
    learns_edges: bool = True
