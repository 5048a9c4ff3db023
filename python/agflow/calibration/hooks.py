"""Hooks that pass activations and gradients to a sink while autograd holds them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from agflow._utils.hooks import temporary_hooks
from agflow._utils.modes import preserve_training_mode
from agflow.errors import UnknownLayerError
from agflow.models import (
    ChannelGroup,
    Tap,
    adapter_for,
)
from agflow.models.copying import watched

Sink = Callable[[int, int, torch.Tensor, torch.Tensor], None]
"""Takes (layer index, images, Y [R, C], G [R, C])."""


@contextmanager
def capture(
    model: nn.Module,
    layers: Sequence[ChannelGroup],
    sink: Sink,
    *,
    trainable: Collection[nn.Parameter] = (),
) -> Iterator[None]:
    """Pass the layers' activations and gradients to ``sink`` at every backward pass.

    The sink is called during ``backward()``, once a layer and batch, with [R, C] of the tensors
    autograd works on (views of them where a layer has one tap): it must not keep or change them. An
    error of the sink comes out of ``backward()``. Meanwhile the weights are frozen, those in
    ``trainable`` excepted, and the model is in evaluation mode; on exit requires_grad, modes and
    hooks are as before.

    Parameters
    ----------
    layers : of the model's adapter, such as ``agflow.models.adapter_for(model).layers(model)``
    sink : takes (layer index, images, Y [R, C], G [R, C]) with R = images * tokens
    trainable : parameters that get gradients

    Raises
    ------
    UnknownLayerError
        The model has no module where a layer has its tap; the layers are those of another model.

    Examples
    --------
    >>> import torch
    >>> import agflow
    >>> from agflow.calibration import capture, per_image_loss
    >>> from agflow.models import adapter_for
    >>> model, _, _ = agflow.load_model("example")
    >>> mlps = [layer for layer in adapter_for(model).layers(model) if layer.kind == "mlp"][:2]
    >>> seen = {}
    >>> def sink(index, images, y, g):
    ...     seen[mlps[index].name] = images, tuple(y.shape), tuple(g.shape)
    >>> with capture(model, mlps, sink):
    ...     per_image_loss(model(torch.rand(2, 1, 28, 28)), torch.tensor([0, 1])).backward()
    >>> seen["blocks.0.mlp"]
    (2, (100, 512), (100, 512))
    """
    with (
        torch.enable_grad(),
        preserve_training_mode(model),
        _frozen(model, trainable),
        watched(adapter_for(model), model),
        temporary_hooks(_hooks(model, layers, sink)),
    ):
        model.eval()
        yield


def _hooks(
    model: nn.Module, layers: Sequence[ChannelGroup], sink: Sink
) -> Iterator[RemovableHandle]:
    """Register a hook at every tap of the layers."""
    modules = dict(model.named_modules())
    for index, layer in enumerate(layers):
        collector = _TapCollector(index, len(layer.seen_at), sink)
        for number, tap in enumerate(layer.seen_at):
            if tap.module not in modules:
                raise UnknownLayerError(
                    f"layer {layer.name} is read by {tap.module}, which the model does not have: "
                    "use the layers of this model's adapter"
                )
            yield _watch(modules[tap.module], tap, partial(collector.add, number))


class _TapCollector:
    """Joins what a layer carries at all its taps, token after token, and passes it on."""

    def __init__(self, index: int, count: int, sink: Sink):
        self._index, self._count, self._sink = index, count, sink
        self._seen: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def add(self, tap: int, y_BTC: torch.Tensor, g_BTC: torch.Tensor) -> None:
        self._seen[tap] = y_BTC, g_BTC
        if len(self._seen) < self._count:
            return
        pairs = [self._seen.pop(number) for number in range(self._count)]
        y_BTC, g_BTC = pairs[0]
        if len(pairs) > 1:
            y_BTC, g_BTC = (
                torch.cat([x.unflatten(0, (len(x), -1)) if x.ndim == 2 else x for x in side], 1)
                for side in zip(*pairs, strict=True)
            )
        self._sink(self._index, len(y_BTC), _rows(y_BTC), _rows(g_BTC))


def _watch(
    module: nn.Module, tap: Tap, add: Callable[[torch.Tensor, torch.Tensor], None]
) -> RemovableHandle:
    """Pass what goes through the tap, and its gradient, to ``add`` at every backward pass."""

    def watch(y_BTC: torch.Tensor) -> None:
        if not y_BTC.requires_grad:
            # With frozen weights, the gradient of the first watched layer ends here.
            y_BTC.requires_grad_()
        # It shares y's memory; y itself in its own hook would be a cycle that only gc frees.
        held = [y_BTC.detach()[..., tap.channels]]

        def at_backward(g_BTC: torch.Tensor) -> None:
            # The hook outlives the backward pass; what it held need not.
            add(held.pop(), g_BTC.detach()[..., tap.channels])

        y_BTC.register_hook(at_backward)

    if tap.side == "input":
        return module.register_forward_pre_hook(lambda _, inputs: watch(inputs[0]))

    def watch_output(_: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        watch(output)

    return module.register_forward_hook(watch_output)


def _rows(x_BTC: torch.Tensor) -> torch.Tensor:
    """View as [R, C]; expanded or transposed gradients, which autograd may give, are copied."""
    return x_BTC.contiguous().flatten(0, -2)


@contextmanager
def _frozen(model: nn.Module, trainable: Collection[nn.Parameter]) -> Iterator[None]:
    """Freeze all parameters but ``trainable``; restore their flags on exit."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.requires_grad_(False)
        for parameter in trainable:
            parameter.requires_grad_()
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
