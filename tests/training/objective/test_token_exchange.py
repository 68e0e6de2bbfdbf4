"""Token exchange: the same places in A and B and on every level, in an exact share."""

import pytest
import torch

from fclm_hf.training import exchange_tokens


def make_maps(*sizes: tuple[int, int], batch: int = 3) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Maps of A are 0, those of B are 1, so that what comes back shows where it came from."""
    shapes = [(batch, 4 + level, *size) for level, size in enumerate(sizes)]
    return tuple(torch.zeros(shape) for shape in shapes), tuple(torch.ones(shape) for shape in shapes)


def test_the_same_places_swap_on_every_level():
    a, b = exchange_tokens(*make_maps((16, 24), (8, 12), (4, 6)))
    for level, (from_a, from_b) in enumerate(zip(a, b, strict=True)):
        assert torch.equal(from_a, 1 - from_b)
        assert (from_a == from_a[:, :1]).all()
        assert (from_a[:, 0].mean((1, 2)) == 0.25).all()
        enlarged = a[2][:, 0].repeat_interleave(2 ** (2 - level), 1).repeat_interleave(2 ** (2 - level), 2)
        assert torch.equal(from_a[:, 0], enlarged)
    assert not torch.equal(a[2][0, 0], a[2][1, 0])


@pytest.mark.parametrize(("ratio", "count"), [(0.0, 0), (0.25, 12), (0.5, 24), (1.0, 49)])
def test_ratio_of_exchanged_tokens(ratio, count):
    (a,), _ = exchange_tokens(*make_maps((7, 7)), ratio)
    assert (a[:, 0].sum((1, 2)) == count).all()


def test_values_and_gradients_move_with_the_tokens():
    first, second = (torch.randn(2, 5, 6, 6, requires_grad=True) for _ in range(2))
    (a,), (b,) = exchange_tokens((first,), (second,))
    swapped = (a != first).any(1, keepdim=True)
    assert swapped.sum() == 18
    assert torch.equal(a, torch.where(swapped, second, first))
    assert torch.equal(b, torch.where(swapped, first, second))
    a.sum().backward()
    assert torch.equal(first.grad, (~swapped).expand_as(first).float())
    assert torch.equal(second.grad, swapped.expand_as(second).float())


def test_only_valid_tokens_swap():
    valid = torch.zeros(3, 1, 4, 6, dtype=torch.bool)
    valid[0, :, :2], valid[1, :, :, :2] = True, True
    a, _ = exchange_tokens(*make_maps((8, 12), (4, 6)), 0.5, valid=valid)
    assert a[1][:, 0].sum((1, 2)).tolist() == [6, 4, 0]
    assert a[1].masked_select(~valid.expand_as(a[1])).max() == 0


def test_randomness_comes_from_the_generator():
    maps = make_maps((8, 8))
    first, again, other = (
        exchange_tokens(*maps, generator=torch.Generator().manual_seed(seed))[0][0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_levels_that_are_no_multiple_still_swap_about_the_same_places():
    a, _ = exchange_tokens(*make_maps((13, 13), (7, 7)))
    assert a[0][:, 0].mean().item() == pytest.approx(0.25, abs=0.08)


def test_bad_arguments():
    a, b = make_maps((4, 4))
    with pytest.raises(ValueError, match="same shapes"):
        exchange_tokens(a, make_maps((4, 5))[1])
    with pytest.raises(ValueError, match="ratio must be in"):
        exchange_tokens(a, b, ratio=1.5)
