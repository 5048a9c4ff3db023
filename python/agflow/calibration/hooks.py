"""Hooks that hand activations and gradients to a sink while autograd holds them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from agflow._utils.modes import preserve_training_mode
from agflow.errors import UnknownLayerError
from agflow.models import (
    PrunableLayer,
    Tap,
    adapter_for,
)

Sink = Callable[[int, int, torch.Tensor, torch.Tensor], None]
"""Takes (layer index, images, Y [R, C], G [R, C])."""


@contextmanager
def capture(
    model: nn.Module,
    layers: Sequence[PrunableLayer],
    sink: Sink,
    *,
    trainable: Collection[nn.Parameter] = (),
) -> Iterator[None]:
    """While open, each forward pass of ``model`` hands its layers' activations and gradients to ``sink`` when it is
    gone through backward.

    The sink is called during backward, once a layer and batch, with [R, C] of the tensors autograd
    works on (views of them where a layer is seen at one place as a whole): it must not keep or
    change them. The weights are frozen, those in ``trainable`` excepted, and the model evaluates;
    on exit requires_grad, modes and hooks are as before. An error of the sink comes out of
    ``backward()``.

    Raises
    ------
    UnknownLayerError
        The model has no module where a layer is seen; the layers are those of another model.
    """
    with (
        torch.enable_grad(),
        preserve_training_mode(model),
        _frozen(model, trainable),
        adapter_for(model).watchable(model),
        ExitStack() as hooks,
    ):
        modules = dict(model.named_modules())
        model.eval()
        for index, layer in enumerate(layers):
            places = _TapCollector(index, len(layer.seen_at), sink)
            for number, tap in enumerate(layer.seen_at):
                if tap.module not in modules:
                    raise UnknownLayerError(
                        f"layer {layer.name} is read by {tap.module}, which the model does not "
                        "have: "
                        "use the layers of this model's adapter"
                    )
                hooks.callback(_watch(modules[tap.module], tap, partial(places.add, number)).remove)
        yield


class _TapCollector:
    """Puts together what a layer carries at all places where it is seen, token after token, and hands it on."""

    def __init__(self, index: int, count: int, sink: Sink):
        self._index, self._sink = index, sink
        self._seen: list[tuple[torch.Tensor, torch.Tensor] | None] = [None] * count

    def add(self, place: int, y_BTC: torch.Tensor, g_BTC: torch.Tensor) -> None:
        self._seen[place] = y_BTC, g_BTC
        if None in self._seen:
            return
        pairs, self._seen = self._seen, [None] * len(self._seen)
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
    """Whenever the module runs, what passes the tap and its gradient are given to ``add`` at backward."""

    def watch(y_BTC: torch.Tensor) -> None:
        if not y_BTC.requires_grad:
            y_BTC.requires_grad_()  # with frozen weights the gradient of the first watched layer has to end somewhere: here
        held = [
            y_BTC.detach()[..., tap.channels]
        ]  # shares y's memory; y itself in its own hook would be a cycle that only gc frees

        def at_backward(g_BTC: torch.Tensor) -> None:
            add(
                held.pop(), g_BTC.detach()[..., tap.channels]
            )  # the hook outlives the backward pass, what it held need not

        y_BTC.register_hook(at_backward)

    if tap.side == "input":
        return module.register_forward_pre_hook(lambda _, inputs: watch(inputs[0]))
    return module.register_forward_hook(lambda _, inputs, output: watch(output))


def _rows(x_BTC: torch.Tensor) -> torch.Tensor:
    """View as [R, C]. Autograd may hand out expanded or transposed gradients: only those are copied."""
    return x_BTC.contiguous().flatten(0, -2)


@contextmanager
def _frozen(model: nn.Module, trainable: Collection[nn.Parameter]) -> Iterator[None]:
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.requires_grad_(False)
        for parameter in trainable:
            parameter.requires_grad_()
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
