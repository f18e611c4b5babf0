"""Sharded weights: each process holds its part of weights, gradients and AdamW's state (FSDP).

A block's weights are gathered before its forward pass and before its backward pass, and dropped
after each; its gradients are averaged and scattered. With P weights on N processes, a process holds
P / N of them, and the largest block. Sources: Zhao et al. 2023, arXiv:2304.11277; Rajbhandari et
al. 2020, arXiv:1910.02054, stage 3.
"""

import os
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only

from sd.networks.attention import SpatialTransformer
from sd.networks.blocks import Downsample, ResBlock, Upsample

__all__ = ["BLOCKS", "Blocks", "accelerator", "asked", "local", "optimizer_parts", "parts", "whole"]

Blocks: TypeAlias = tuple[type[nn.Module], ...]

BLOCKS: Blocks = (ResBlock, SpatialTransformer, Downsample, Upsample)
"""The modules of a U-Net that are gathered one at a time; its other weights, once a pass."""

ASKED = "ACCELERATE_USE_FSDP"
"""The variable by which `accelerate launch` says that its configuration asks for FSDP."""


def asked() -> bool:
    """Whether the configuration of `accelerate launch` asks for FSDP."""
    return os.environ.get(ASKED, "false").lower() == "true"


def accelerator(cpu: bool, module: nn.Module, blocks: Blocks = (), **more: Any) -> Any:
    """Accelerate's engine, which shards the blocks of the module if there are any.

    Version and blocks of FSDP are given here; its other options (offloading, activation
    checkpointing) are those of `accelerate launch --config_file`. `more` are its trackers.
    """
    from accelerate import Accelerator, FullyShardedDataParallelPlugin
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    AcceleratorState._reset_state()  # an earlier training's, whose plugin would stay
    os.environ.pop(ASKED, None)  # else it shards without a plugin too
    if not blocks:
        return Accelerator(cpu=cpu, **more)
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=sorted(
            {type(one).__name__ for one in module.modules() if isinstance(one, blocks)}
        ),
        cpu_ram_efficient_loading=False,
    )
    found = Accelerator(cpu=cpu, fsdp_plugin=plugin, **more)
    if found.distributed_type is DistributedType.MULTI_CPU:  # it shards on accelerators alone
        found.state.distributed_type, found.state.fsdp_plugin = DistributedType.FSDP, plugin
    return found


def local(x: Tensor) -> Tensor:
    """The part of a tensor that this process holds."""
    return x.to_local() if isinstance(x, DTensor) else x


def whole(state: Any, keep: bool = True) -> Any:
    """A tree of tensors with each gathered on the CPU; every process must call it.

    A process that does not `keep` them has zeros of shape () in their place.
    """

    def gathered(x: DTensor) -> Tensor:
        found = x.full_tensor()
        return found.cpu() if keep else torch.zeros((), device="cpu")

    with torch.no_grad():
        return tree_map_only(DTensor, gathered, state)


def parts(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `whole`: each tensor sharded as the one of its name is."""
    return {name: _part(x, like[name]) if name in like else x for name, x in state.items()}


def optimizer_parts(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's whole state with the moments of each weight sharded as the weight is."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]

    def part(moments: Mapping[str, Any], weight: Tensor) -> dict[str, Any]:
        return {k: _part(v, weight) if v.shape == weight.shape else v for k, v in moments.items()}

    return {**state, "state": {k: part(v, weights[k]) for k, v in state["state"].items()}}


def _part(x: Tensor, like: Tensor) -> Tensor:
    if not isinstance(like, DTensor):
        return x
    return distribute_tensor(x, like.device_mesh, like.placements, src_data_rank=None)
