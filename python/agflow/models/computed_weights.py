"""Convolutions that compute their weights in each pass, and plain layers with those weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from agflow._utils.modes import evaluating
from agflow._utils.tensors import relative_difference
from agflow.models.copying import copy_of

_TOLERANCE = 1e-5  # of the largest output, in float32
_BEYOND = 5, 8  # pixels of the tried images beyond the kernel: with strides, paddings differ


def plain_weights(model: nn.Module) -> nn.Module:
    """Copy a model; convolutions that standardise their weights become plain ones of these weights.

    Networks without batch norm (NFNet, BiT, the stems of hybrid ViTs) compute the weights of a
    convolution anew in each pass: with mean 0 and variance 1 over its inputs. Such a layer cannot
    lose inputs, for the others would change. The copy holds what is computed: its outputs are the
    same, it loses both, and a fine-tuning moves the weights themselves. Layers whose weights depend
    on the images stay, and so does ``model``.

    Examples
    --------
    >>> import timm, torch
    >>> from agflow.models import plain_weights
    >>> model = timm.create_model("nf_regnet_b0").eval()
    >>> plain = plain_weights(model)
    >>> type(model.stem.conv).__name__, type(plain.stem.conv).__name__
    ('ScaledStdConv2d', 'Conv2d')
    >>> images = torch.randn(1, 3, 64, 64)
    >>> torch.allclose(plain(images), model(images), atol=1e-6)
    True
    """
    copied = copy_of(model)
    others: dict[nn.Module, nn.Module] = {
        layer: plain
        for layer in copied.modules()
        if isinstance(layer, nn.Conv2d) and (plain := _plain(layer)) is not None
    }
    for module in list(copied.modules()):
        for name, child in module._modules.items():
            if child is not None:
                module._modules[name] = others.get(child, child)
    return others.get(copied, copied)


@torch.no_grad()
def _plain(layer: nn.Conv2d) -> nn.Conv2d | None:
    """A layer of plain weights that gives what ``layer`` does; None for one that has them."""
    images = [_image(layer, beyond) for beyond in _BEYOND]
    with evaluating(layer), _Convolutions() as seen:
        outputs = [layer(image) for image in images]
    weights = [weight for weight, _ in seen.found]
    if len(weights) != len(images) or weights[0].data_ptr() == layer.weight.data_ptr():
        return None
    for plain in _candidates(layer, *seen.found[0]):
        if all(_same(plain(x), y) for x, y in zip(images, outputs, strict=True)):
            return plain.train(layer.training)
    return None


def _same(x: torch.Tensor, y: torch.Tensor) -> bool:
    return x.shape == y.shape and relative_difference(x, y) <= _TOLERANCE


def _image(layer: nn.Conv2d, beyond: int) -> torch.Tensor:
    """A random image that is a little larger than the kernel."""
    generator = torch.Generator().manual_seed(beyond)
    spread = (d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
    sides = [1 + reach + beyond for reach in spread]
    return torch.randn(1, layer.in_channels, *sides, generator=generator).to(layer.weight)


def _candidates(
    layer: nn.Conv2d, weight: torch.Tensor, bias: torch.Tensor | None
) -> Iterator[nn.Conv2d]:
    """Plain layers, of fixed padding and of one that follows the size of the images."""
    from timm.layers import Conv2dSame  # seconds to import

    for kind in (nn.Conv2d, Conv2dSame):
        plain: Any = nn.utils.skip_init(
            kind,
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
            bias=bias is not None,
            device="meta",
        )
        for name, tensor in (("weight", weight), ("bias", bias)):
            if tensor is not None:
                trained = layer.weight.requires_grad
                setattr(plain, name, nn.Parameter(tensor.clone(), requires_grad=trained))
        yield plain


class _Convolutions(TorchDispatchMode):
    """Notes the weight and the bias of each convolution that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[torch.Tensor, torch.Tensor | None]] = []

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if operation is torch.ops.aten.convolution.default:
            self.found.append((args[1], args[2]))
        return operation(*args, **(kwargs or {}))
