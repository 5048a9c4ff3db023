"""Contenders that prune a Vision Transformer: agflow, its random control, and torch-pruning."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from agflow._utils.devices import first_parameter
from agflow.calibration.calibration import calibrate
from agflow.errors import InvalidValueError
from agflow.models import adapter_for
from agflow.pruning.allocation import Allocation
from agflow.pruning.planning import plan
from agflow.pruning.pruner import prune

GRADIENT_BATCHES = 10
GRADIENT_IMAGES = 8  # a batch

PruneStep = Callable[[Dataset], nn.Module]
"""Calibration images in, pruned model out."""


@dataclass(frozen=True)
class Agflow:
    """Calibrate on the first images, plan, prune, repair on all of them."""

    criterion: str
    groups: tuple[str, ...]

    def step(self, model: nn.Module, macs: int, round_to: int, seed: int) -> PruneStep:
        """A step that prunes ``model`` to ``macs``."""

        def run(images: Dataset) -> nn.Module:
            statistics = calibrate(
                model,
                DataLoader(images, batch_size=GRADIENT_IMAGES),
                batches=GRADIENT_BATCHES,
                groups=self.groups,
            )
            chosen = plan(
                statistics,
                macs=str(macs),
                criterion=self.criterion,
                allocation=Allocation(round_to=round_to),
                seed=seed,
            )
            return prune(model, chosen, DataLoader(images, batch_size=32))

        return run


@dataclass(frozen=True)
class TorchPruning:
    """torch-pruning by its own recipe: local ranking, ``round_to`` 2, one step.

    The recipe is examples/transformers/prune_timm_vit.py of its repository.

    Attributes
    ----------
    taylor : rank by GroupTaylorImportance, on the gradients of all images; else by
        GroupMagnitudeImportance (L2)
    embedding : prune the embedding, too; else only inside of blocks (the example's --bottleneck)
    heads : prune whole ``"heads"`` (--prune_num_heads), ``"dims"`` of every head (the default), or
        ``"none"``
    """

    taylor: bool
    embedding: bool
    heads: str

    def step(self, model: nn.Module, macs: int, round_to: int, seed: int) -> PruneStep:
        """A step that prunes ``model`` nearly to ``macs``.

        torch-pruning's ratio is a share of channels: the one whose MACs are nearest is searched
        here, before the step itself.
        """
        import torch_pruning

        heads = (1 - macs / macs_of(model)) if self.heads == "heads" else 0.0
        chance = torch_pruning.importance.RandomImportance()
        ratio = _nearest(
            lambda ratio: macs_of(self._pruned(model, copy.deepcopy(model), ratio, heads, chance)),
            macs,
        )
        return functools.partial(self._run, model, ratio, heads)

    def _run(self, model: nn.Module, ratio: float, heads: float, images: Dataset) -> nn.Module:
        from torch_pruning import importance

        light = copy.deepcopy(model)
        if self.taylor:
            for x, labels in DataLoader(images, batch_size=GRADIENT_IMAGES):
                F.cross_entropy(light(x), labels).backward()
        ranked = (
            importance.GroupTaylorImportance()
            if self.taylor
            else importance.GroupMagnitudeImportance(p=2)
        )
        return self._pruned(model, light, ratio, heads, ranked)

    def _pruned(
        self, model: nn.Module, light: nn.Module, ratio: float, heads: float, importance: Callable
    ) -> nn.Module:
        import torch_pruning
        from timm.layers import Attention, Mlp

        # Any: torch.jit's Final is for its compiler, not for assignments.
        attentions: list[Any] = [
            module for module in light.modules() if isinstance(module, Attention)
        ]
        hidden = [module.fc2 for module in light.modules() if isinstance(module, Mlp)]
        for attention in attentions:
            attention.fused_attn = False  # the graph can't be traced through it
        count = attentions[0].num_heads
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the class token and the positions it found
            pruner = torch_pruning.pruner.MetaPruner(
                light,
                torch.randn(1, *adapter_for(model).input_size(model)),
                importance=importance,
                pruning_ratio=ratio,
                round_to=2,
                ignored_layers=[cast(nn.Module, light.head), *([] if self.embedding else hidden)],
                num_heads={attention.qkv: attention.num_heads for attention in attentions},
                prune_num_heads=self.heads == "heads",
                prune_head_dims=self.heads == "dims",
                head_pruning_ratio=int(heads * count + 1e-6) / count - 1e-9,
            )
            pruner.step()
        set_attention_sizes(attentions, pruner.num_heads)
        for attention in attentions:
            attention.fused_attn = True
        light.zero_grad(set_to_none=True)
        return light


def set_attention_sizes(attentions: Iterable[Any], heads: Mapping[nn.Module, int]) -> None:
    """Set the sizes that timm's attentions hold beside their weights: torch-pruning leaves them.

    Parameters
    ----------
    attentions : modules with packed queries, keys and values, ``qkv``
    heads : of each ``qkv``, as the pruner has them after its step
    """
    for attention in attentions:
        attention.num_heads = heads[attention.qkv]
        attention.attn_dim = attention.qkv.out_features // 3
        attention.head_dim = attention.attn_dim // attention.num_heads


def _nearest(macs_at: Callable[[float], int], macs: int) -> float:
    """The ratio whose MACs, which fall with it, are nearest to ``macs``."""
    low, high, tried = 0.0, 0.95, {}
    for _ in range(10):
        ratio = (low + high) / 2
        tried[ratio] = macs_at(ratio)
        low, high = (ratio, high) if tried[ratio] > macs else (low, ratio)
    return min(tried, key=lambda ratio: abs(tried[ratio] - macs))


AGFLOW = "agflow mlp+heads"
MLPS_AND_HEADS = ("mlp", "heads")

CONTENDERS: Mapping[str, Agflow | TorchPruning] = {
    AGFLOW: Agflow("agf", MLPS_AND_HEADS),
    "agflow mlp": Agflow("agf", ("mlp",)),
    "random mlp": Agflow("random", ("mlp",)),
    "torch-pruning taylor all": TorchPruning(True, True, "dims"),
    "torch-pruning taylor mlp+heads": TorchPruning(True, False, "heads"),
    "torch-pruning taylor mlp": TorchPruning(True, False, "none"),
    "torch-pruning magnitude all": TorchPruning(False, True, "dims"),
    "torch-pruning magnitude mlp": TorchPruning(False, False, "none"),
}
"""By name and pruned parts. torch-pruning recommends "taylor all" for Vision Transformers."""


def chosen(names: tuple[str, ...]) -> tuple[str, ...]:
    """Check the names of contenders; without names return all that are installed.

    Raises
    ------
    InvalidValueError
        A name is unknown, or its package is not installed.
    """
    unknown = [name for name in names if name not in CONTENDERS]
    if unknown:
        raise InvalidValueError(
            f"there is no contender {unknown[0]!r}, expected some of: {'; '.join(CONTENDERS)}"
        )
    try:
        import torch_pruning  # noqa: F401
    except ImportError:
        missing = [name for name in names if isinstance(CONTENDERS[name], TorchPruning)]
        if missing:
            raise InvalidValueError(
                f"the contender {missing[0]!r} needs torch-pruning, which is not installed: "
                "pip install 'agflow[bench]'"
            ) from None
        return names or tuple(name for name, way in CONTENDERS.items() if isinstance(way, Agflow))
    return names or tuple(CONTENDERS)


@torch.no_grad()
def macs_of(model: nn.Module) -> int:
    """Count multiply-accumulates per image in a forward pass by torch, whoever pruned the model."""
    patches = cast(Any, model.patch_embed)
    image = first_parameter(model).new_zeros(1, patches.proj.in_channels, *patches.img_size)
    with FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops() // 2
