"""Optimal transport between the foreground tokens of two images (Eq. 5-8)."""

import math

import torch
from torch import nn
from transformers.utils.generic import maybe_autocast


MIN_EPSILON = 0.005
_FIRST_EPSILON = 0.4  # the cost is at most 2: exp(-2 / 0.4) is far from underflow
_ANNEALING_ITERATIONS = 4  # on each larger epsilon on the way down
_PLAIN_ITERATIONS = 8  # of a stage, before over-relaxation: more than those of annealing
_RELAXATION = 1.9


def cosine_cost(features_a: torch.Tensor, features_b: torch.Tensor) -> torch.Tensor:
    """`1 - cosine` of all pairs, fp32 in [0, 2]: (batch, n, channels) and (batch, m, channels) -> (batch, n, m)."""
    with maybe_autocast(device_type=features_a.device.type, enabled=False):
        first, second = (nn.functional.normalize(x.float(), dim=-1, eps=1e-6) for x in (features_a, features_b))
        return 1 - first @ second.mT


def _anneal(epsilon: float, iterations: int) -> list[tuple[float, int]]:
    """Stages of (epsilon, iterations): halved from `_FIRST_EPSILON`, most iterations at the end."""
    halvings = max(0, math.ceil(math.log2(_FIRST_EPSILON / epsilon)))
    stages = [(epsilon * 2**k, _ANNEALING_ITERATIONS) for k in range(halvings, 0, -1)]
    return [*stages, (epsilon, max(iterations - _ANNEALING_ITERATIONS * halvings, 2 * _PLAIN_ITERATIONS))]


@torch.no_grad()
def sinkhorn_plan(cost: torch.Tensor, mask: torch.Tensor, epsilon: float = 0.05, iterations: int = 100) -> torch.Tensor:
    """Entropic transport plan between uniform marginals (Eq. 6 and 7), by stabilised Sinkhorn scaling in fp32.

    Scaling vectors multiply a kernel that already holds the dual potentials, so that nothing underflows and an
    iteration is two matrix-vector products. Epsilon is halved down to its value (Schmitzer, 2019), then the updates are
    over-relaxed (Thibault et al., 2021): 100 iterations come as far as 1,000 plain ones.

    Args:
        cost: (batch, n, n) in [0, 2].
        mask: bool (batch, n), the K tokens that carry mass, the same on both sides; each has 1 / K.
        epsilon: weight of the entropy.
        iterations: fixed number, over all values of epsilon.

    Returns:
        fp32 (batch, n, n), 0 outside `mask`; its rows sum to 1 / K exactly, its columns nearly.
    """
    with maybe_autocast(device_type=cost.device.type, enabled=False):
        cost = cost.float()
        marginal = mask.float() / mask.sum(1, keepdim=True).clamp(min=1)
        outside = ~(mask[:, :, None] & mask[:, None, :])
        tiny = torch.finfo(torch.float32).tiny

        def scale(masses: torch.Tensor) -> torch.Tensor:
            return torch.where(mask, marginal / masses.clamp(min=tiny), 1.0)

        potentials = [torch.zeros_like(marginal), torch.zeros_like(marginal)]
        for stage_epsilon, count in _anneal(epsilon, iterations):
            kernel = (potentials[0][:, :, None] + potentials[1][:, None, :] - cost) / stage_epsilon
            kernel = kernel.masked_fill(outside, -torch.inf).exp()
            # row vectors on the left: a product with a matrix of one column is several times slower on a CPU
            rows, columns = torch.ones_like(marginal), torch.ones_like(marginal)
            for index in range(count):
                power = _RELAXATION if index >= _PLAIN_ITERATIONS else 1.0
                rows = rows ** (1 - power) * scale((columns[:, None] @ kernel.mT)[:, 0]) ** power
                columns = columns ** (1 - power) * scale((rows[:, None] @ kernel)[:, 0]) ** power
            potentials = [p + stage_epsilon * s.log() for p, s in zip(potentials, (rows, columns), strict=True)]
        rows = scale((columns[:, None] @ kernel.mT)[:, 0])
        return rows[:, :, None] * kernel * columns[:, None, :]


def _pick_tokens(mask: torch.Tensor, count: int, generator: torch.Generator | None) -> torch.Tensor:
    """Indices (batch, count) of random tokens, those of `mask` first."""
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
    """Transport cost between the foreground tokens of images A and B (Eq. 5-8), a mean over the batch.

    The plan is a constant of the backward pass (envelope theorem), so that the gradient is that of `sum(plan * cost)`.
    Tokens are masked, not gathered: shapes do not depend on the data and nothing waits for the device. An image
    with fewer than two foreground tokens costs 0.

    Args:
        features_a, features_b: (batch, tokens, channels), any dtype.
        mask: (batch, tokens), foreground where > 0 (Eq. 5).
        epsilon: weight of the entropy, at least 0.005, where the result is within 2 % of exact transport.
        iterations: of Sinkhorn.
        max_tokens: with more tokens than this, a random subset of this size stands for them, foreground first; the
            same places in A and B. The cost matrix has max_tokens^2 entries per image.
        generator: of the random subset.

    Returns:
        A scalar in fp32, in [0, 2].

    Raises:
        ValueError: shapes that do not fit each other, or a number out of range.
    """
    if features_a.dim() != 3 or features_a.shape != features_b.shape or mask.shape != features_a.shape[:2]:
        raise ValueError(
            "features_a and features_b must be (batch, tokens, channels) of one shape and mask (batch, tokens), got "
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


__all__ = ["MIN_EPSILON", "cosine_cost", "foreground_transport_loss", "sinkhorn_plan"]
