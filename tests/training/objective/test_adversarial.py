"""Gradient reversal, the discriminator and its loss (Eq. 4)."""

import math

import pytest
import torch
from torch import nn

from fclm_hf.training.objective.adversarial import (
    DomainDiscriminator,
    adversarial_loss,
    dann_lambda,
    domain_accuracy,
    gradient_reversal,
)


@pytest.mark.parametrize("strength", [0.0, 0.3, torch.tensor(1.7)])
def test_the_gradient_is_minus_lambda_times_the_plain_one(strength):
    layer, inputs = nn.Linear(5, 3), torch.randn(4, 5)
    plain, turned = (inputs.clone().requires_grad_() for _ in range(2))
    layer(plain).square().sum().backward()
    reversed_ = gradient_reversal(turned, strength)
    assert torch.equal(reversed_, inputs)
    layer(reversed_).square().sum().backward()
    assert torch.equal(turned.grad, -torch.as_tensor(strength) * plain.grad)


def test_schedule():
    for progress in (0.0, 0.1, 0.5, 1.0):
        expected = 2 / (1 + math.exp(-10 * progress)) - 1
        assert dann_lambda(torch.tensor(progress)).item() == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_loss_is_the_negative_of_equation_4():
    logits = torch.randn(2, 3, 7)
    mask = torch.rand(3, 7) > 0.4
    bracket, count = [0.0, 0.0], 0
    for i in range(3):
        for j in range(7):
            if mask[i, j]:
                h_a, h_b = (1 - 1 / (1 + math.exp(-x[i, j].item())) for x in logits)
                bracket[0] += math.log(h_a)
                bracket[1] += math.log(1 - h_b)
                count += 1
    expected = -(bracket[0] / count + bracket[1] / count)
    assert adversarial_loss(*logits, mask).item() == pytest.approx(expected, rel=1e-5)
    plain = nn.functional.binary_cross_entropy_with_logits
    expected = plain(logits[0], torch.zeros(3, 7)) + plain(logits[1], torch.ones(3, 7))
    assert adversarial_loss(*logits).item() == pytest.approx(expected.item(), rel=1e-5)
    assert adversarial_loss(*logits, torch.zeros(3, 7)).item() == 0


def test_discriminator_gives_one_logit_per_token():
    discriminator = DomainDiscriminator(6, hidden_size=8)
    assert discriminator(torch.randn(2, 5, 6)).shape == (2, 5)
    assert [layer.out_features for layer in discriminator.layers if isinstance(layer, nn.Linear)] == [8, 8, 1]


@pytest.mark.parametrize("reverse", [True, False])
def test_toy_problem_of_two_domains(reverse):
    """Tokens of two domains differ in one direction: only with the reversal does the encoder learn to hide it."""
    torch.manual_seed(0)
    encoder, discriminator = nn.Linear(8, 8), DomainDiscriminator(8, hidden_size=16)
    optimizer = torch.optim.Adam([*encoder.parameters(), *discriminator.parameters()], lr=2e-3)

    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        a, b = torch.randn(2, 128, 8)
        return a, b + 4 * torch.eye(8)[0]

    def discriminate(tokens: torch.Tensor, progress: float) -> torch.Tensor:
        states = encoder(tokens)
        states = gradient_reversal(states, dann_lambda(torch.tensor(progress))) if reverse else states.detach()
        return discriminator(states)

    accuracies = []
    for step in range(200):
        optimizer.zero_grad()
        logits = [discriminate(tokens, step / 200) for tokens in draw()]
        accuracies.append(domain_accuracy(*logits).item())
        adversarial_loss(*logits).backward()
        optimizer.step()
    accuracy = sum(accuracies[-20:]) / 20
    assert accuracy < 0.65 if reverse else accuracy > 0.9
