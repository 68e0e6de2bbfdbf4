"""Convolutions that train faster on a CPU, for train_real.py."""

import functools
import itertools

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import FrozenBatchNormAct2d
from timm.layers.padding import pad_same
from torch import nn


class DepthwiseConv(torch.autograd.Function):
    """A depthwise convolution in bf16 with its backward pass in fp32, four times faster on CPUs."""

    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding, groups):
        """Convolve."""
        ctx.save_for_backward(x, weight)
        ctx.settings = stride, padding, groups, None if bias is None else bias.shape
        weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
        return nn.functional.conv2d(x, weight, bias, stride, padding, groups=groups)

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradients, computed in fp32."""
        x, weight = ctx.saved_tensors
        stride, padding, groups, bias = ctx.settings
        gradient = gradient.float().contiguous(memory_format=torch.channels_last)
        wanted = [*ctx.needs_input_grad[:2], ctx.needs_input_grad[2] and bias is not None]
        grads = torch.ops.aten.convolution_backward(
            gradient,
            x.float(),
            weight.float(),
            bias and list(bias),
            stride,
            padding,
            (1, 1),
            False,
            (0, 0),
            groups,
            wanted,
        )
        return (*(None if g is None else g.to(x.dtype) if i == 0 else g for i, g in enumerate(grads)), None, None, None)


def is_depthwise(conv: nn.Conv2d) -> bool:
    """Return whether each channel is convolved by itself."""
    return conv.groups == conv.in_channels > 1


def convolve(conv: nn.Conv2d, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Convolve as a layer does, with other weights."""
    padding = conv.padding
    if type(conv) is Conv2dSame:
        x, padding = pad_same(x, conv.kernel_size, conv.stride, conv.dilation), (0, 0)
    if not is_depthwise(conv):
        return nn.functional.conv2d(x, weight, bias, conv.stride, padding, conv.dilation, conv.groups)
    if x.dtype == torch.float32 and torch.is_autocast_enabled("cpu"):
        x = x.to(torch.bfloat16)
    return DepthwiseConv.apply(x, weight, bias, conv.stride, padding, conv.groups)


def fold_norms(backbone: nn.Module) -> None:
    """Let convolutions apply the frozen batch norms that follow them, which saves passes over the maps.

    A norm in fp32 would also turn maps in bf16 back to fp32. The parameters and buffers stay as they are.
    """

    def forward(conv: nn.Conv2d, norm: FrozenBatchNormAct2d, x: torch.Tensor) -> torch.Tensor:
        """Convolve with scaled weights."""
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        bias = norm.bias - norm.running_mean * scale
        return convolve(conv, x, conv.weight * scale[:, None, None, None], bias)

    layers = [module for module in backbone.modules() if isinstance(module, (nn.Conv2d, FrozenBatchNormAct2d))]
    for conv, norm in itertools.pairwise(layers):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, FrozenBatchNormAct2d):
            conv.forward = functools.partial(forward, conv, norm)
            norm.forward = norm.act.forward


def speed_up_depthwise(model: nn.Module) -> None:
    """Run the backward passes of depthwise convolutions in fp32, which is faster; those with folded norms do so."""

    def forward(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        """Convolve."""
        return convolve(conv, x, conv.weight, conv.bias)

    for module in model.modules():
        if type(module) in (nn.Conv2d, Conv2dSame) and is_depthwise(module) and "forward" not in vars(module):
            module.forward = functools.partial(forward, module)
