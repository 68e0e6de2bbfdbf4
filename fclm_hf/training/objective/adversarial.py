"""Adversarial alignment (Eq. 4): a domain discriminator behind a gradient-reversal layer."""

from typing import Any

import torch
from torch import nn


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(strength)
        return states.view_as(states)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (strength,) = ctx.saved_tensors
        return -strength.to(gradient.dtype) * gradient, None


def gradient_reversal(states: torch.Tensor, strength: float | torch.Tensor = 1.0) -> torch.Tensor:
    """Identity whose gradient is `-strength` times the plain one (Ganin and Lempitsky, 2015).

    Args:
        states: any shape.
        strength: lambda, a number or a scalar tensor.
    """
    if not isinstance(strength, torch.Tensor):
        strength = torch.full((), strength, device=states.device)
    return _Reversal.apply(states, strength)


def dann_lambda(progress: torch.Tensor, gamma: float = 10.0) -> torch.Tensor:
    """Strength of the reversal after a share `progress` in [0, 1] of the training: `2 / (1 + exp(-gamma p)) - 1`."""
    return 2 / (1 + (-gamma * progress.float()).exp()) - 1


class DomainDiscriminator(nn.Module):
    """MLP `channels -> hidden -> hidden -> 1` on tokens (..., channels): logits (...) of "this is image B"."""

    def __init__(self, channels: int, hidden_size: int = 256):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, 1),
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.layers(tokens.to(self.layers[0].weight.dtype))[..., 0]


def _mean(values: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    return values.mean() if weights is None else (values * weights).sum() / weights.sum().clamp(min=1)


def adversarial_loss(logits_a: torch.Tensor, logits_b: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """BCE of the discriminator with labels A = 0 and B = 1: `E_A[-log(1 - p)] + E_B[-log p]`, p its word for B.

    It is Eq. 4 with `h = 1 - p` and the sign turned: `max_h` of the bracket is `min` of this, which the optimiser does,
    and `min` over the encoder is `max` of this, which the reversal layer between the two does.

    Args:
        logits_a, logits_b: (batch, tokens), one per token, or any other shape, the same for both.
        mask: same shape, the tokens that count; default all.

    Returns:
        A scalar in fp32; 2 log 2 when the discriminator cannot tell.
    """
    weights = None if mask is None else mask.float()
    softplus = nn.functional.softplus
    return _mean(softplus(logits_a.float()), weights) + _mean(softplus(-logits_b.float()), weights)


@torch.no_grad()
def domain_accuracy(logits_a: torch.Tensor, logits_b: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Share in [0, 1] of tokens whose image the discriminator finds; arguments as in [`adversarial_loss`]."""
    weights = None if mask is None else mask.float()
    return (_mean((logits_a < 0).float(), weights) + _mean((logits_b > 0).float(), weights)) / 2


__all__ = ["DomainDiscriminator", "adversarial_loss", "dann_lambda", "domain_accuracy", "gradient_reversal"]
