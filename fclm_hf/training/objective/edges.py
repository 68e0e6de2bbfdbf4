"""What teaches edges: the loss on gradients of mattes, and layers that do not learn from images without true edges."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from ...loss_fclm import mean_over_count
from ...modeling_fclm import FCLMCoefficientConv, FCLMImageEmbeddings, FCLMMatteHead


MIN_DIFFERENCE = 0.01  # between neighbors in the true matte, from which they count as an edge


def gradient_loss(
    alphas: torch.Tensor,
    labels: torch.Tensor,
    mask: torch.Tensor | None = None,
    min_predicted_difference: float | None = None,
) -> torch.Tensor:
    """Compute the l1 distance of the horizontal and vertical differences of mattes, where the true matte is not flat.

    Args:
        alphas: Predicted alphas of shape `(batch_size, num_objects, height, width)`.
        labels: True alphas of the same shape.
        mask: 1 for pixels that count, broadcastable to that shape; a difference counts if both of its pixels do.
        min_predicted_difference: Difference between neighbors in the predicted matte, above 0 and up to 1, beyond which
            it counts where the true matte is flat, too, as an edge that is not there. None counts none of these.

    Returns:
        A scalar in fp32: the sum of the means over all differences of each direction that count; 0 if none do.

    Example:
        >>> import torch
        >>> from fclm_hf.training import gradient_loss
        >>> labels = torch.tensor([[[[0.0, 0.0, 1.0, 1.0]]]])
        >>> gradient_loss(labels, labels), gradient_loss(torch.tensor([[[[0.0, 0.25, 0.75, 1.0]]]]), labels)
        (tensor(0.), tensor(0.5000))
    """
    alphas, labels = alphas.float(), labels.float()
    known = torch.ones_like(labels) if mask is None else mask.expand_as(labels).float()
    total = alphas.new_zeros(())
    for axis in (-1, -2):
        given, wanted, count = alphas.diff(dim=axis), labels.diff(dim=axis), labels.shape[axis] - 1
        is_edge = wanted.abs() > MIN_DIFFERENCE
        if min_predicted_difference is not None:
            is_edge = is_edge | (given.detach().abs() > min_predicted_difference)
        is_active = is_edge * known.narrow(axis, 0, count) * known.narrow(axis, 1, count)
        total = total + mean_over_count(((given - wanted).abs() * is_active).sum(), is_active.sum())
    return total


def detach_details(image_embeddings: FCLMImageEmbeddings, is_coarse: torch.Tensor) -> FCLMImageEmbeddings:
    """Keep the gradient of some images from the detail path.

    Args:
        image_embeddings: Embeddings of a batch of images.
        is_coarse: Bool of shape (batch_size,), True for images whose masks have no edges to teach.

    Returns:
        Embeddings with the same values.
    """
    chosen = is_coarse[:, None, None, None]

    def stop(maps: torch.Tensor) -> torch.Tensor:
        return torch.where(chosen, maps.detach(), maps)

    detail_maps = tuple(stop(maps) for maps in image_embeddings.detail_maps)
    return replace(image_embeddings, detail_maps=detail_maps, detail_basis=stop(image_embeddings.detail_basis))


@contextmanager
def hold_coefficients(head: FCLMMatteHead, is_coarse: torch.Tensor) -> Iterator[None]:
    """Keep the gradient of some images from the layer of the matte head that predicts slopes, but not from its input.

    Args:
        head: Matte head.
        is_coarse: Bool of shape (batch_size,), see [`detach_details`].
    """

    def stop(layer: FCLMCoefficientConv, args: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        held = layer.convolve(args[0], layer.weight.detach(), layer.bias.detach())
        chosen = is_coarse.repeat_interleave(output.shape[0] // len(is_coarse))[:, None, None, None]
        return torch.where(chosen, held, output)

    handle = head.coefficients.register_forward_hook(stop)
    try:
        yield
    finally:
        handle.remove()


__all__ = ["detach_details", "gradient_loss", "hold_coefficients"]
