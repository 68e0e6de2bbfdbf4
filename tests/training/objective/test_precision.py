"""Each loss function: compiled without graph breaks, and finite under autocast whatever the scale of its inputs."""

import pytest
import torch

from fclm_hf.training import (
    DepthAwareDistillation,
    DomainDiscriminator,
    adversarial_loss,
    exchange_tokens,
    foreground_transport_loss,
    gradient_reversal,
    laplacian_loss,
    matting_loss,
    segmentation_loss,
)


VALID = torch.tensor([[1, 1, 1, 0]]).bool().expand(2, 1, 4, 4)
DISTILLATION, DISCRIMINATOR = DepthAwareDistillation(6, 6, "full"), DomainDiscriminator(6, hidden_size=8)


def distill(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return DISTILLATION(a, b, b[:, 0], VALID)


def discriminate(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    logits = [DISCRIMINATOR(gradient_reversal(x.flatten(2).mT, 0.5)) for x in (a, b)]
    return adversarial_loss(*logits, VALID.flatten(1))


def transport(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return foreground_transport_loss(a.flatten(2).mT, b.flatten(2).mT, VALID.flatten(1), iterations=20)


def transport_capped(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return foreground_transport_loss(a.flatten(2).mT, b.flatten(2).mT, VALID.flatten(1), iterations=20, max_tokens=8)


def exchange(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    (first, _), (_, second) = exchange_tokens((a, a[..., :2, :2]), (b, b[..., :2, :2]))
    return (first.float() - first.float().mean()).abs().mean() + second.float().abs().mean()


def matte(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return matting_loss(a.sigmoid(), b.sigmoid(), torch.ones(2, 6))


def segment(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return segmentation_loss(a, (b > 0).float(), torch.ones(2, 6))


LOSSES = [distill, discriminate, transport, transport_capped, exchange, laplacian_loss, matte, segment]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("loss", LOSSES)
def test_finite_under_autocast(loss, dtype, scale):
    first, second = (scale * torch.randn(2, 6, 4, 4) for _ in range(2))
    if loss is laplacian_loss:
        first, second = first.sigmoid(), second.sigmoid()
    torch.manual_seed(1)
    exact = loss(first, second)
    a, b = (x.to(dtype).requires_grad_() for x in (first, second))
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype):
        result = loss(a, b)
    result.backward()
    assert result.dtype == torch.float32
    assert torch.isfinite(result)
    assert all(x.grad is None or torch.isfinite(x.grad).all() for x in (a, b))
    torch.testing.assert_close(result, exact, rtol=0.05, atol=5e-3)


@pytest.mark.parametrize("loss", LOSSES)
def test_compiles_without_graph_breaks(loss):
    a, b = torch.rand(2, 2, 6, 4, 4)
    grown, twin = (a.clone().requires_grad_() for _ in range(2))
    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    torch.manual_seed(1)
    expected = loss(grown, b)
    torch.manual_seed(1)
    result = compiled(twin, b)
    torch.testing.assert_close(result, expected)
    expected.backward()
    result.backward()
    torch.testing.assert_close(twin.grad, grown.grad)
