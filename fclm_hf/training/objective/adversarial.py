"""Adversarial alignment (Eq. 4): a domain discriminator behind a gradient reversal layer."""

from typing import Any

import torch
from torch import nn

from ...loss_fclm import mean_over_count


class _Reversal(torch.autograd.Function):
    """Identity that reverses and scales the gradient."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(strength)
        return states.view_as(states)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (strength,) = ctx.saved_tensors
        return -strength.to(gradient.dtype) * gradient, None


def gradient_reversal(states: torch.Tensor, strength: float | torch.Tensor = 1.0) -> torch.Tensor:
    """Return the input unchanged, with its gradient multiplied by `-strength` (Ganin and Lempitsky, 2015).

    Args:
        states: Tensor of any shape.
        strength: Factor lambda, a number or a scalar tensor.

    Returns:
        A tensor equal to `states`.

    Example:
        >>> import torch
        >>> from fclm_hf.training import gradient_reversal
        >>> states = torch.ones(2, requires_grad=True)
        >>> gradient_reversal(states, 0.5).sum().backward()
        >>> states.grad
        tensor([-0.5000, -0.5000])
    """
    if not isinstance(strength, torch.Tensor):
        strength = torch.full((), strength, device=states.device)
    return _Reversal.apply(states, strength)


def dann_lambda(progress: torch.Tensor, gamma: float = 10.0) -> torch.Tensor:
    """Compute the strength of the gradient reversal, `2 / (1 + exp(-gamma progress)) - 1`.

    Args:
        progress: Completed fraction of the training in [0, 1], a tensor.
        gamma: How fast the strength rises from 0 to nearly 1.

    Returns:
        A tensor of the shape of `progress`.

    Example:
        >>> import torch
        >>> from fclm_hf.training import dann_lambda
        >>> dann_lambda(torch.tensor([0.0, 0.1, 1.0]))
        tensor([0.0000, 0.4621, 0.9999])
    """
    return 2 / (1 + (-gamma * progress.float()).exp()) - 1


class DomainDiscriminator(nn.Module):
    """Multilayer perceptron that tells the tokens of image A from those of image B.

    Args:
        channels: Channels of a token.
        hidden_size: Width of its two hidden layers.

    Example:
        >>> import torch
        >>> from fclm_hf.training import DomainDiscriminator
        >>> DomainDiscriminator(channels=8)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 5])
    """

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
        """Return logits of shape `(...)` that tokens of shape `(..., channels)` are from image B."""
        return self.layers(tokens.to(self.layers[0].weight.dtype))[..., 0]


def _mean(values: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Return the weighted mean, 0 if all weights are 0."""
    return values.mean() if weights is None else mean_over_count((values * weights).sum(), weights.sum())


def adversarial_loss(logits_a: torch.Tensor, logits_b: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Compute the binary cross-entropy of the discriminator, `E_A[-log(1 - p)] + E_B[-log p]`.

    p is the predicted probability of B. This is Eq. 4 with `h = 1 - p` and the opposite sign: the discriminator
    minimizes it, and the encoder maximizes it through the gradient reversal layer between the two.

    Args:
        logits_a: Logits of the tokens of A, of any shape.
        logits_b: Logits of the tokens of B, of the same shape.
        mask: Mask of that shape, nonzero for tokens that count. Default: all.

    Returns:
        A scalar in fp32; `2 log 2` if the discriminator cannot tell the images apart.

    Example:
        >>> import torch
        >>> from fclm_hf.training import adversarial_loss
        >>> adversarial_loss(torch.zeros(2, 5), torch.zeros(2, 5))
        tensor(1.3863)
    """
    weights = None if mask is None else mask.float()
    softplus = nn.functional.softplus
    return _mean(softplus(logits_a.float()), weights) + _mean(softplus(-logits_b.float()), weights)


@torch.no_grad()
def domain_accuracy(logits_a: torch.Tensor, logits_b: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Compute the fraction of tokens that the discriminator assigns to the right image, in [0, 1].

    Args:
        logits_a: See [`adversarial_loss`].
        logits_b: See [`adversarial_loss`].
        mask: See [`adversarial_loss`].
    """
    weights = None if mask is None else mask.float()
    return (_mean((logits_a < 0).float(), weights) + _mean((logits_b > 0).float(), weights)) / 2


__all__ = ["DomainDiscriminator", "adversarial_loss", "dann_lambda", "domain_accuracy", "gradient_reversal"]
