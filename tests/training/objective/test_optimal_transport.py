"""Foreground transport (Eq. 5-8) against POT, and its gradient against finite differences."""

import numpy as np
import pytest
import torch

from fclm_hf.training.objective.optimal_transport import foreground_transport_loss
from fclm_hf.training.objective.settings import MIN_EPSILON
from fclm_hf.training.objective.sinkhorn import sinkhorn_plan


ot = pytest.importorskip("ot", reason="POT is the reference")


def make_tokens(kind: str, count: int = 40, channels: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """(2, count, channels) of A and B: unrelated, noisy copies, or noisy copies that lie in a few clusters."""
    first = torch.randn(2, count, channels)
    if kind == "unrelated":
        return first, torch.randn(2, count, channels)
    if kind == "clustered":
        centers = torch.randn(2, 6, channels) + torch.randn(channels)
        first = centers[:, torch.arange(count) % 6] + 0.4 * first
    return first, first + 0.4 * torch.randn(2, count, channels)


def make_mask(count: int) -> torch.Tensor:
    """Three quarters of the tokens of the first image and half of the second."""
    share = torch.tensor([[0.75], [0.5]]) * count
    return torch.stack([torch.randperm(count) for _ in range(2)]) < share


def slow_cost(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 - cosine, one pair at a time."""
    cost = np.zeros((len(a), len(b)))
    for i, j in np.ndindex(cost.shape):
        cost[i, j] = 1 - a[i] @ b[j] / (np.linalg.norm(a[i]) * np.linalg.norm(b[j]))
    return cost


def cut_foreground(a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor) -> list[np.ndarray]:
    """Cost matrix of each image's foreground tokens (Eq. 5), in float64."""
    return [slow_cost(x[m].double().numpy(), y[m].double().numpy()) for x, y, m in zip(a, b, mask, strict=True)]


@pytest.mark.filterwarnings("ignore:Sinkhorn did not converge")  # POT's, to a threshold far below what is compared
@pytest.mark.parametrize("epsilon", [0.1, 0.05])
@pytest.mark.parametrize("kind", ["unrelated", "copies", "clustered"])
def test_equals_entropic_transport(kind, epsilon):
    a, b = make_tokens(kind, count=32)
    mask = make_mask(a.shape[1])
    expected = []
    for cost in cut_foreground(a, b, mask):
        weights = np.full(len(cost), 1 / len(cost))
        plan = ot.sinkhorn(weights, weights, cost, epsilon, method="sinkhorn_log", numItermax=4000, stopThr=1e-9)
        expected.append((plan * cost).sum())
    assert foreground_transport_loss(a, b, mask, epsilon).item() == pytest.approx(np.mean(expected), rel=1e-4)


@pytest.mark.parametrize("kind", ["unrelated", "copies", "clustered"])
def test_is_near_exact_transport_at_the_smallest_epsilon(kind):
    a, b = make_tokens(kind)
    mask = make_mask(a.shape[1])
    exact = []
    for cost in cut_foreground(a, b, mask):
        weights = np.full(len(cost), 1 / len(cost))
        exact.append(ot.emd2(weights, weights, cost))
    assert foreground_transport_loss(a, b, mask, MIN_EPSILON).item() == pytest.approx(np.mean(exact), rel=0.02)


@pytest.mark.parametrize("epsilon", [MIN_EPSILON, 0.05, 1.0])
def test_marginals_of_the_plan(epsilon):
    a, b = make_tokens("clustered")
    mask = make_mask(a.shape[1])
    cost = 1 - torch.nn.functional.normalize(a, dim=-1) @ torch.nn.functional.normalize(b, dim=-1).mT
    plan = sinkhorn_plan(cost, mask, epsilon)
    uniform = mask / mask.sum(1, keepdim=True)
    torch.testing.assert_close(plan.sum(2), uniform, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(plan.sum(1), uniform, rtol=0, atol=2e-4)
    assert (plan >= 0).all()
    assert plan[~mask].abs().max() == 0 == plan.mT[~mask].abs().max()


def test_gradient_is_that_of_the_cost_with_the_plan_fixed():
    a, b = make_tokens("copies", count=7, channels=5)
    a, b, mask = a[:1].requires_grad_(), b[:1], torch.tensor([[1, 1, 0, 1, 1, 0.01, 0]])
    foreground_transport_loss(a, b, mask).backward()
    first, second = a[0].detach().double().numpy(), b[0].double().numpy()
    plan = sinkhorn_plan(torch.tensor(slow_cost(first, second))[None], mask > 0)[0].double().numpy()
    expected = np.zeros_like(first)
    for index in np.ndindex(first.shape):
        step = np.zeros_like(first)
        step[index] = 1e-6
        higher, lower = (plan * slow_cost(first + step, second)).sum(), (plan * slow_cost(first - step, second)).sum()
        expected[index] = (higher - lower) / 2e-6
    np.testing.assert_allclose(a.grad[0].numpy(), expected, atol=1e-6)
    assert np.abs(expected).max() > 0.01
    assert np.abs(a.grad[0, [2, 6]].numpy()).max() == 0


def test_without_foreground_there_is_no_loss():
    a, b = (x.requires_grad_() for x in make_tokens("copies", count=9))
    mask = torch.zeros(2, 9)
    mask[1, 4] = 1
    loss = foreground_transport_loss(a, b, mask)
    loss.backward()
    assert loss.item() == 0
    assert a.grad.abs().max() == 0 == b.grad.abs().max()
    mask[1, 5] = 1
    assert 0 < foreground_transport_loss(a, b, mask).item() < 1


@pytest.mark.parametrize("epsilon", [MIN_EPSILON, 0.05])
def test_extreme_tokens_give_finite_results(epsilon):
    one = torch.randn(1, 1, 6)
    same = one.expand(1, 8, 6)
    half = torch.cat([same[:, :4], -same[:, 4:]], dim=1)
    mask = torch.ones(1, 8)
    assert foreground_transport_loss(same, same, mask, epsilon).item() == pytest.approx(0, abs=1e-6)
    assert foreground_transport_loss(same, -same, mask, epsilon).item() == pytest.approx(2, rel=1e-5)
    assert foreground_transport_loss(same, half, mask, epsilon).item() == pytest.approx(1, rel=1e-5)
    zeros = torch.zeros(1, 8, 6, requires_grad=True)
    loss = foreground_transport_loss(zeros, same, mask, epsilon)
    loss.backward()
    assert loss.item() == pytest.approx(1)
    assert torch.isfinite(zeros.grad).all()


def test_capped_tokens():
    a, b = make_tokens("copies", count=60)
    few = torch.zeros(2, 60)
    few[:, 10:22] = 1
    whole = foreground_transport_loss(a, b, few)
    torch.testing.assert_close(foreground_transport_loss(a, b, few, max_tokens=16), whole, rtol=1e-4, atol=0)

    def cap(seed: int) -> float:
        generator = torch.Generator().manual_seed(seed)
        return foreground_transport_loss(a, b, torch.ones(2, 60), max_tokens=30, generator=generator).item()

    assert cap(0) == cap(0) != cap(1)
    assert cap(0) == pytest.approx(foreground_transport_loss(a, b, torch.ones(2, 60)).item(), rel=0.3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask": torch.ones(2, 5)}, "mask"),
        ({"features_b": torch.ones(2, 4, 2)}, "features_b"),
        ({"epsilon": 0.001}, "epsilon must be at least 0.005"),
        ({"iterations": 0}, "iterations"),
        ({"max_tokens": 1}, "max_tokens"),
    ],
)
def test_bad_arguments(arguments, message):
    given = {"features_a": torch.ones(2, 4, 3), "features_b": torch.ones(2, 4, 3), "mask": torch.ones(2, 4)}
    with pytest.raises(ValueError, match=message):
        foreground_transport_loss(**{**given, **arguments})
