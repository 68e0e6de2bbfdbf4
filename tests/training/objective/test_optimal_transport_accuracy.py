"""The transport loss against fully converged entropic transport in float64, on easy and on hard tokens."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from fclm_hf.training.objective.optimal_transport import foreground_transport_loss
from fclm_hf.training.objective.settings import MIN_EPSILON
from fclm_hf.training.objective.sinkhorn import iterate_plan, sinkhorn_plan


EPSILONS = (MIN_EPSILON, 0.02, 0.05, 0.2, 1.0)
RELATIVE, ROUNDING = 1e-4, 3e-7  # of the cost, and of 1 - cosine in fp32


def converged_cost(a: torch.Tensor, b: torch.Tensor, epsilon: float) -> float:
    """Of tokens (K, channels), by Newton's method with a dense matrix. The marginals prove that it has converged."""
    a, b = (x.double() / x.double().norm(dim=1, keepdim=True) for x in (a, b))
    cost, count = (1 - a @ b.T).numpy(), len(a)
    potentials = np.zeros(count)
    for stage in [*np.geomspace(max(1, epsilon), epsilon, 24), *[epsilon] * 60]:
        plan = softmax((potentials - cost) / stage, axis=1)
        columns = plan.sum(0)
        if stage == epsilon and np.abs(columns - 1).max() < 1e-11:
            break
        scale = np.sqrt(np.maximum(columns, 1e-200))
        hessian = (np.diag(columns) - plan.T @ plan) / np.outer(scale, scale)
        values, vectors = np.linalg.eigh(hessian)
        step = vectors @ ((vectors.T @ ((1 - columns) / scale)) / np.maximum(values, 1e-14)) / scale
        potentials = potentials + stage * step * min(1, 3 / max(np.ptp(step), 1e-9))
    assert np.abs(plan.sum(0) - 1).max() < 1e-10  # the rows are exact
    return (plan * cost).sum() / count


def make_tokens(kind: str, count: int, channels: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    first, second = noise(count, channels), noise(count, channels)
    if kind.startswith("clusters"):
        centers, spread = int(kind[9]), float(kind[11:])
        places = torch.randint(centers, (2, count), generator=generator)
        centers = noise(centers, channels)
        return centers[places[0]] + spread * first, centers[places[1]] + spread * second
    if kind == "shuffled copies":
        return first, first.flip(0) + 0.3 * second
    if kind == "near copies":
        return first, first + 0.01 * second
    if kind == "one outlier":
        return torch.cat([-10 * first[:1], 1 + 0.1 * first[1:]]), 1 + 0.1 * second
    if kind == "nearly tied":
        return 1 + 0.01 * first, 1 + 0.01 * second
    if kind == "one token too many":  # the plan hangs on the mass of that token alone
        center, places = first[:1], torch.arange(count)[:, None]
        return tuple(torch.where(places < count // 2 + more, -center, center) for more in (0, 1))
    return first, second


KINDS = (
    "unrelated",
    "shuffled copies",
    "near copies",
    "one outlier",
    "nearly tied",
    "one token too many",
    *("clusters-1-0.1", "clusters-2-0.1", "clusters-3-0.3", "clusters-4-0.1", "clusters-4-0.6"),
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [2, *(pytest.param(count, marks=pytest.mark.slow) for count in (3, 20)), 7, 50])
def test_equals_converged_transport(kind, count):
    generator = torch.Generator().manual_seed(count)
    for channels, scale in ((16, 1e-3), (64, 1.0), (384, 1e3)):
        a, b = make_tokens(kind, count, channels, generator)
        places = torch.randperm(count + 9, generator=generator)[:count]
        mask = torch.zeros(1, count + 9).index_fill(1, places, 1)
        scattered = torch.randn(2, 1, count + 9, channels, generator=generator)
        scattered[:, 0, places] = scale * torch.stack([a, b])
        for epsilon in EPSILONS:
            result = foreground_transport_loss(*scattered, mask, epsilon).item()
            assert result == pytest.approx(converged_cost(a, b, epsilon), rel=RELATIVE, abs=ROUNDING), (
                channels,
                epsilon,
            )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unrelated", "clusters-4-0.1", "clusters-4-0.6"])
def test_equals_converged_transport_of_many_tokens(kind):
    a, b = make_tokens(kind, 700, 64, torch.Generator().manual_seed(0))
    for epsilon in (MIN_EPSILON, 0.05):
        result = foreground_transport_loss(a[None], b[None], torch.ones(1, 700), epsilon).item()
        assert result == pytest.approx(converged_cost(a, b, epsilon), rel=RELATIVE), epsilon


def test_equal_tokens_give_no_nan():
    """Exact duplicates: whole blocks of the plan are free to move without any change."""
    tokens = torch.eye(5)[torch.arange(40) % 5][None]
    other = torch.eye(5)[(torch.arange(40) ** 2 // 3) % 5][None]
    cost = 1 - tokens @ other.mT
    for epsilon in EPSILONS:
        plan = sinkhorn_plan(cost, torch.ones(1, 40, dtype=torch.bool), epsilon)
        torch.testing.assert_close(plan.sum(1), torch.full((1, 40), 1 / 40), rtol=1e-4, atol=0)


def test_every_operation_of_the_plan_runs_on_the_meta_device():
    """So no shape and no branch hangs on a value; torch.compile and the meta device themselves see one operation."""
    cost, mask = torch.empty(2, 9, 9, device="meta"), torch.empty(2, 9, dtype=torch.bool, device="meta")
    plan, described = (make(cost, mask, 0.05, 100) for make in (iterate_plan, sinkhorn_plan))
    assert (plan.shape, plan.dtype, plan.device) == (described.shape, described.dtype, described.device)
    torch.library.opcheck(torch.ops.fclm_hf.sinkhorn_plan, (torch.rand(2, 4, 4), torch.ones(2, 4).bool(), 0.1, 12))
