"""Weights, gradients and optimizer state divided among processes with FSDP2, in checkpoints that do not show it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer


def make_fsdp_plugin() -> FullyShardedDataParallelPlugin:
    """Return the settings of FSDP2 for Accelerate, without its own mixed precision.

    Autocast computes in half precision as it does without FSDP2; positions of prompts need their weights in fp32.
    """
    return FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        cpu_ram_efficient_loading=False,
        state_dict_type="FULL_STATE_DICT",
    )


def enable_fsdp(accelerator: Accelerator, plugin: FullyShardedDataParallelPlugin, learner: nn.Module) -> None:
    """Let `accelerator.prepare` shard a learner, each transformer layer on its own and the rest together.

    Args:
        accelerator: Accelerator that was made with the plugin.
        plugin: What [`make_fsdp_plugin`] returned.
        learner: The learner.

    Raises:
        ValueError: If there is only one process.
    """
    state = accelerator.state
    if accelerator.num_processes == 1:
        raise ValueError("fsdp requires several processes, got 1: start them with accelerate launch or torchrun.")
    if state.distributed_type == DistributedType.MULTI_CPU:  # which Accelerate does not shard by itself
        state.distributed_type = DistributedType.FSDP
        state.fsdp_plugin = plugin
    plugin.mixed_precision_policy = None
    layers = {type(module).__name__ for module in learner.modules() if isinstance(module, GradientCheckpointingLayer)}
    plugin.transformer_cls_names_to_wrap = sorted(layers)


@contextmanager
def gather_weights(learner: nn.Module) -> Iterator[None]:
    """Give modules their whole weights for calls other than that of the learner. Every process must enter it.

    The layers that are sharded on their own gather theirs when they are called.
    """
    if not isinstance(learner, FSDPModule):
        yield
        return
    learner.unshard()
    try:
        yield
    finally:
        learner.reshard()


def gather_tensors(value: Any) -> Any:
    """Return nested values with whole tensors on the CPU in place of sharded ones. Every process must call it."""
    if isinstance(value, DTensor):
        return value.full_tensor().cpu()
    if isinstance(value, Mapping):
        return type(value)((name, gather_tensors(each)) for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return type(value)(gather_tensors(each) for each in value)
    return value


def shard_tensors(values: Mapping[str, Any], references: Mapping[str, Any]) -> dict[str, Any]:
    """Return tensors by name, sharded as those of the same name in `references` are. Every process must call it."""
    return {name: _shard(value, references.get(name)) for name, value in values.items()}


def shard_optimizer_state(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the whole state of an optimizer, sharded as its parameters are. Every process must call it."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    sharded = {
        index: {
            name: _shard(value, parameters[index] if value.shape == parameters[index].shape else None)
            for name, value in values.items()
        }
        for index, values in state["state"].items()
    }
    return {**state, "state": sharded}


def _shard(value: Any, reference: Any) -> Any:
    """Return a tensor, sharded as `reference` is."""
    if not isinstance(reference, DTensor):
        return value
    return distribute_tensor(value.to(reference.device), reference.device_mesh, reference.placements)


__all__ = [
    "enable_fsdp",
    "gather_tensors",
    "gather_weights",
    "make_fsdp_plugin",
    "shard_optimizer_state",
    "shard_tensors",
]
