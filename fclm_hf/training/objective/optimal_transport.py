"""Optimal transport between the foreground tokens of two images (Eq. 5-8)."""

import torch
from torch import nn
from transformers.utils.generic import maybe_autocast

from .settings import MIN_EPSILON
from .sinkhorn import sinkhorn_plan


def cosine_cost(features_a: torch.Tensor, features_b: torch.Tensor) -> torch.Tensor:
    """Compute one minus the cosine similarity of all pairs of tokens, in fp32.

    Args:
        features_a: Tokens of shape `(batch, n, channels)`.
        features_b: Tokens of shape `(batch, m, channels)`.

    Returns:
        The cost in [0, 2], of shape `(batch, n, m)`.
    """
    with maybe_autocast(device_type=features_a.device.type, enabled=False):
        first, second = (nn.functional.normalize(x.float(), dim=-1, eps=1e-6) for x in (features_a, features_b))
        return 1 - first @ second.mT


def _pick_tokens(mask: torch.Tensor, count: int, generator: torch.Generator | None) -> torch.Tensor:
    """Return the indices of random tokens, of shape `(batch, count)`; tokens in the mask take precedence."""
    noise = torch.rand(mask.shape, generator=generator, device=mask.device)
    return (noise + mask).topk(count, dim=1).indices


def foreground_transport_loss(
    features_a: torch.Tensor,
    features_b: torch.Tensor,
    mask: torch.Tensor,
    epsilon: float = 0.05,
    iterations: int = 100,
    max_tokens: int | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Compute the cost of transporting the foreground tokens of image A to those of image B (Eq. 5-8).

    It is the cost of the plan that Sinkhorn-Knopp scaling converges to, averaged over the batch. Compared with that
    plan in float64, the relative error is at most 1e-4, plus an absolute 3e-7 from rounding `1 - cosine` to fp32, which
    shows where A and B nearly coincide (test_optimal_transport_accuracy.py, with the default `iterations`).

    The plan is a constant in the backward pass (envelope theorem), so that the gradient is that of `sum(plan * cost)`.
    Tokens are masked, not gathered: shapes do not depend on the data and nothing waits for the device. An image with
    fewer than two foreground tokens costs 0.

    Args:
        features_a: Tokens of A, of shape `(batch, tokens, channels)` and any dtype.
        features_b: Tokens of B, of the same shape.
        mask: Mask of shape `(batch, tokens)`; tokens where it is positive are foreground (Eq. 5).
        epsilon: Weight of the entropy, at least 0.005; at that value, the result is within 2 % of exact transport.
        iterations: See [`sinkhorn_plan`].
        max_tokens: With more tokens than this, a random subset of this size is used, the same positions in A and B;
            foreground tokens take precedence. The cost matrix has `max_tokens ** 2` entries per image. Default: no
            limit.
        generator: Source of randomness for the subset.

    Returns:
        A scalar in fp32, in [0, 2].

    Raises:
        ValueError: If the shapes do not match or a number is out of range.

    Example:
        >>> import torch
        >>> from fclm_hf.training import foreground_transport_loss
        >>> tokens = torch.eye(4)[None]
        >>> cost = foreground_transport_loss(tokens, tokens.flip(1), mask=torch.ones(1, 4))
        >>> bool(cost < 1e-5)  # the same tokens in another order
        True
    """
    if features_a.dim() != 3 or features_a.shape != features_b.shape or mask.shape != features_a.shape[:2]:
        raise ValueError(
            "features_a and features_b must have one shape (batch, tokens, channels) and mask (batch, tokens), got "
            f"{tuple(features_a.shape)}, {tuple(features_b.shape)} and {tuple(mask.shape)}."
        )
    if epsilon < MIN_EPSILON:
        raise ValueError(f"epsilon must be at least {MIN_EPSILON}, got {epsilon}.")
    if iterations < 1 or (max_tokens is not None and max_tokens < 2):
        raise ValueError(f"iterations must be at least 1 and max_tokens at least 2, got {iterations} and {max_tokens}.")
    mask = mask > 0
    if max_tokens is not None and max_tokens < mask.shape[1]:
        chosen = _pick_tokens(mask, max_tokens, generator)
        mask = mask.gather(1, chosen)
        chosen = chosen[..., None].expand(-1, -1, features_a.shape[2])
        features_a, features_b = features_a.gather(1, chosen), features_b.gather(1, chosen)
    cost = cosine_cost(features_a, features_b)
    plan = sinkhorn_plan(cost.detach(), mask, epsilon, iterations)
    return ((plan * cost).sum((1, 2)) * (mask.sum(1) > 1)).mean()


__all__ = ["cosine_cost", "foreground_transport_loss"]
