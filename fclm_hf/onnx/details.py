"""Parts of the maps of the detail path, which closer looks share with the first."""

from collections.abc import Mapping

import numpy as np


STRIDE = 8  # the coarsest of the detail path, that of `fclm_hf.modeling_fclm`, which imports torch
BASIS, MAPS = "detail_basis_", "detail_map_"  # outputs of the image encoder; the stride of a map ends its name
BASIS_STRIDE = 2


def crop_details(
    embeddings: Mapping[str, np.ndarray], left: int, top: int, right: int, bottom: int
) -> dict[str, np.ndarray]:
    """Return the maps of the detail path of a part of the images, see [`FCLMImageEmbeddings.crop_details`].

    Args:
        embeddings: Outputs of the image encoder by name.
        left: Left border in pixels, a multiple of 8.
        top: Upper border in pixels, a multiple of 8.
        right: Right border in pixels, inside the images.
        bottom: Lower border in pixels, inside the images.
    """
    cropped = {}
    for name, maps in embeddings.items():
        if not name.startswith((BASIS, MAPS)):
            continue
        stride = BASIS_STRIDE if name.startswith(BASIS) else int(name.removeprefix(MAPS))
        rows, columns = (STRIDE // stride * (-(-size // STRIDE) + 1) for size in (bottom - top, right - left))
        part = maps[..., top // stride : top // stride + rows, left // stride : left // stride + columns].copy()
        if stride != BASIS_STRIDE:  # the lowest value outside the image
            part[..., -(-(bottom - top) // stride) :, :] = np.finfo(part.dtype).min
            part[..., -(-(right - left) // stride) :] = np.finfo(part.dtype).min
        cropped[name] = part
    return cropped
