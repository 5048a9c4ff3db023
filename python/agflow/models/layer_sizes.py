"""Sizes that torch's own layers keep beside their weights, set to what the weights have.

Shape suffixes: S positions along an axis.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from agflow.errors import InvalidValueError

Left = Mapping[str, Mapping[int, torch.Tensor]]
"""By parameter of a module and by axis, which positions a cut has left: bool [S] of the old axis.
"""


def follow_shapes(module: nn.Module, left: Left) -> None:
    """Set the sizes of a layer to those of its parameters, after they were cut.

    Modules of other classes than torch's, and what has no parameters, are left as they are.

    Raises
    ------
    InvalidValueError
        A convolution or norm in groups would keep unequal numbers of channels in them.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from agflow.models.layer_sizes import follow_shapes
    >>> layer = nn.Linear(4, 2)
    >>> layer.weight = nn.Parameter(layer.weight[:, :3])
    >>> follow_shapes(layer, {"weight": {1: torch.tensor([True, True, True, False])}})
    >>> layer
    Linear(in_features=3, out_features=2, bias=True)
    """
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, _ConvNd):
        _follow_convolution(module, left)
    elif isinstance(module, _NormBase):  # batch and instance norms
        kept = module.running_mean if module.weight is None else module.weight
        if kept is not None:
            module.num_features = len(kept)
    elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
        if module.weight is not None:
            module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, nn.GroupNorm):
        if module.weight is not None:
            module.num_groups = _groups_left(module, module.num_groups, left)
            module.num_channels = len(module.weight)
    elif isinstance(module, nn.Embedding | nn.EmbeddingBag):
        module.num_embeddings, module.embedding_dim = module.weight.shape
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)
    elif isinstance(module, nn.Bilinear):
        module.out_features, module.in1_features, module.in2_features = module.weight.shape


def _follow_convolution(module: _ConvNd, left: Left) -> None:
    module.groups = _groups_left(module, module.groups, left)
    first, second = module.weight.shape[0], module.weight.shape[1] * module.groups
    if module.transposed:
        module.in_channels, module.out_channels = first, second
    else:
        module.out_channels, module.in_channels = first, second


def _groups_left(module: nn.Module, groups: int, left: Left) -> int:
    """How many groups of a layer have channels left, which must be as many in each.

    So a depthwise convolution loses groups with its channels, and one in whose groups the same
    channels are cut keeps them all.
    """
    left_S = left.get("weight", {}).get(0)
    if groups == 1 or left_S is None:
        return groups
    counts = left_S.view(groups, -1).sum(1)
    counts = counts[counts > 0]
    if counts.min() != counts.max():
        raise InvalidValueError(
            f"{type(module).__name__} has {groups} groups, and {counts.min()} to {counts.max()} "
            "channels of one would be kept, expected as many in each: cut whole groups, or the "
            "same channels in all of them"
        )
    return len(counts)
