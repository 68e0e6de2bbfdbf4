"""Parts of the model that save copies give the numbers of those that they replace."""

import copy

import pytest
import torch
from torch import nn

from fclm_hf.backbone_fclm import FCLMFrozenBatchNorm, reuse_memory
from fclm_hf.modeling_fclm import (
    BAND_ROWS,
    compute_interpolation_weights,
    multiply_band,
    resample_rows,
    transpose_channels,
)


@pytest.fixture
def layers() -> nn.Sequential:
    timm_layers = pytest.importorskip("timm.layers")
    torch.manual_seed(0)
    norm = timm_layers.FrozenBatchNormAct2d(6, act_layer="relu6")
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        tensor.normal_()
    norm.running_var.uniform_(0.5, 2)
    return nn.Sequential(nn.Conv2d(3, 6, 3), norm, nn.Conv2d(6, 2, 1))


def run(layers: nn.Sequential, images: torch.Tensor) -> list[torch.Tensor]:
    """Return the result, and the gradients of the images and of all weights."""
    images = images.clone().requires_grad_()
    layers.zero_grad()
    result = layers(images)
    result.square().sum().backward()
    return [result.detach(), images.grad, *(p.grad.clone() for p in layers.parameters())]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_frozen_batch_norms_in_place(layers, memory_format):
    images = torch.randn(2, 3, 9, 8).contiguous(memory_format=memory_format)
    ours = reuse_memory(copy.deepcopy(layers))
    assert type(ours[1]) is FCLMFrozenBatchNorm
    assert layers.state_dict().keys() == ours.state_dict().keys()
    for found, expected in zip(run(ours, images), run(layers, images), strict=True):
        assert torch.equal(found, expected)


def test_frozen_batch_norms_of_narrower_maps(layers):
    """Under autocast the maps are bf16, and the result is fp32, as in timm."""
    maps = torch.randn(2, 6, 4, 4).bfloat16()
    expected = layers[1](maps)
    found = reuse_memory(copy.deepcopy(layers))[1](maps)
    assert found.dtype == expected.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.parametrize("step", [0.3, 1.0, 4.2])
def test_products_without_zeros(step):
    count = 3 * BAND_ROWS
    valid = torch.tensor([float(count), 0.6 * count])
    weights = compute_interpolation_weights(2 * BAND_ROWS + 5, count, torch.full((2,), step), valid)
    weights[:, BAND_ROWS : 2 * BAND_ROWS] = 0  # nothing to multiply
    maps = torch.randn(2, count, 7)
    torch.testing.assert_close(multiply_band(weights, maps), weights @ maps)


@pytest.mark.parametrize("block", [14, 32])
@pytest.mark.parametrize("sizes", [((300, 211), (130, 140)), ((40, 900), (30, 5)), ((9, 7), (1, 1))])
def test_rows_of_exported_graphs(sizes, block):
    """Images of a batch have scales of their own; some are enlarged, and some are narrower than a block."""
    (height, width), num_outputs = sizes[0], 4 * block
    image_sizes = torch.tensor(sizes).float()
    step, maps = image_sizes.amax(1) / num_outputs, torch.randn(2, 3, height, width)
    weights = compute_interpolation_weights(num_outputs, height, step, image_sizes[:, 0])
    found = resample_rows(maps, num_outputs, step, image_sizes[:, 0], block)
    torch.testing.assert_close(found, weights[:, None] @ maps)


def test_transposed_channels():
    maps = torch.randn(2, 5, 70, 90).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        planes = transpose_channels(maps)
    assert planes.is_contiguous()
    assert torch.equal(planes, maps)
