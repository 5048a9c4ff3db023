"""What passes the taps of a model's layers, forward and backward.

Shape suffixes: B images, T tokens of an image, P positions of a map, R rows (those of all images),
C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_iter, tree_map
from torch.utils.hooks import RemovableHandle

from agflow.errors import UnknownLayerError, UnsupportedModelError
from agflow.models import ChannelGroup, Tap

Sink = Callable[[int, int, torch.Tensor, torch.Tensor], None]
"""Takes (layer index, images, Y, G), both [R, C], or [B, P, C] of maps."""


@dataclass(eq=False)
class _Seen:
    """What one call of a module left at a tap; the gradient comes with the backward pass."""

    layer: int
    number: int  # of the tap in its layer
    y_BTC: torch.Tensor | None
    version: int
    g_BTC: torch.Tensor | None = None

    def is_changed(self) -> bool:
        """Whether the model has overwritten what it had at the tap."""
        return self.y_BTC is not None and self.y_BTC._version != self.version

    def take(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Both, which it lets go: hooks outlive the backward pass; what they held need not."""
        y_BTC, g_BTC = self.y_BTC, self.g_BTC
        assert y_BTC is not None and g_BTC is not None
        self.y_BTC = self.g_BTC = None
        return y_BTC, g_BTC


@dataclass(eq=False)
class _Pass:
    """What one forward pass left at the taps, by layer, until the backward pass has come there."""

    seen: list[list[_Seen]] = field(default_factory=list)
    images: int | None = None  # None where a part of the model was called by itself


class Taps:
    """The taps of some layers: joins what a layer carries at all of them, and passes it on.

    A layer is passed on when the gradients of all calls of its tapped modules are there, so once a
    forward pass of the model, however often the model calls a module.

    What the model overwrites after a tap (a ``ReLU(inplace=True)``) has lost its value by the time
    its gradient is known. A pass where that happened is run once more, with copies at these taps,
    and so are all that follow.
    """

    def __init__(self, layers: Sequence[ChannelGroup], sink: Sink):
        self._layers, self._sink = layers, sink
        self._of_maps = any(tap.axis != -1 for layer in layers for tap in layer.seen_at)
        self._overwritten: set[tuple[int, int]] = set()
        self._inputs: tuple[tuple, dict[str, Any]] | None = None
        self._begin()

    def hooks(self, model: nn.Module) -> Iterator[RemovableHandle]:
        """Register the hooks.

        Raises
        ------
        UnknownLayerError
            The model has no module where a layer has its tap.
        """
        modules = dict(model.named_modules())
        yield model.register_forward_pre_hook(self._before, with_kwargs=True)
        for index, layer in enumerate(self._layers):
            for number, tap in enumerate(layer.seen_at):
                if tap.module not in modules:
                    raise UnknownLayerError(
                        f"layer {layer.name} is read by {tap.module}, which the model does not "
                        "have: use the layers of this model's adapter"
                    )
                yield self._watch(modules[tap.module], tap, partial(self._note, index, number))
        yield model.register_forward_hook(self._after)

    def _begin(self) -> None:
        self._pass = _Pass([[] for _ in self._layers])

    def _before(
        self, model: nn.Module, arguments: tuple, named: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]] | None:
        """A forward pass of the model begins."""
        if not torch.is_grad_enabled():
            return None
        self._begin()
        self._inputs = arguments, named
        tensors = (x for x in tree_iter((arguments, named)) if isinstance(x, torch.Tensor))
        self._pass.images = next((len(x) for x in tensors if x.ndim), None)
        if not self._of_maps:
            return None
        return tree_map(_with_gradient, (arguments, named))

    def _after(self, model: nn.Module, inputs: tuple, output: Any) -> Any:
        """A forward pass of the model is over: run it again where it overwrote what was seen."""
        if not torch.is_grad_enabled() or self._inputs is None:
            return None
        (arguments, named), self._inputs = self._inputs, None
        changed = {
            (seen.layer, seen.number)
            for of_layer in self._pass.seen
            for seen in of_layer
            if seen.is_changed()
        }
        if not changed:
            return None
        self._overwritten |= changed
        return model(*arguments, **named)

    def _watch(
        self, module: nn.Module, tap: Tap, note: Callable[[Tap, torch.Tensor], None]
    ) -> RemovableHandle:
        if tap.side == "input":
            return module.register_forward_pre_hook(
                lambda _, arguments, named: note(tap, (*arguments, *named.values())[0]),
                with_kwargs=True,
            )

        def watch_output(_: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            note(tap, output)

        return module.register_forward_hook(watch_output)

    def _note(self, layer: int, number: int, tap: Tap, y: torch.Tensor) -> None:
        """Note what is at a tap, and wait for its gradient."""
        if not torch.is_grad_enabled():
            return  # as in the first of the two passes of a checkpoint
        if not y.requires_grad:
            # With frozen weights, the gradient of the first watched layer ends here.
            y.requires_grad_()
        # It shares y's memory; y itself in its own hook would be a cycle that only gc frees.
        y_BTC = _channels_last(y.detach(), tap)
        if (layer, number) in self._overwritten:
            y_BTC = y_BTC.clone()
        seen = _Seen(layer, number, y_BTC, y_BTC._version)
        current = self._pass
        current.seen[layer].append(seen)
        y.register_hook(lambda g: self._gradient(current, seen, _channels_last(g.detach(), tap)))

    def _gradient(self, of: _Pass, seen: _Seen, g_BTC: torch.Tensor) -> None:
        """Pass a layer on when this was the last gradient that it waited for."""
        layer = self._layers[seen.layer]
        if seen.is_changed():
            raise UnsupportedModelError(
                f"the model overwrote the activations of {layer.name} after they were seen at "
                f"{layer.seen_at[seen.number].module}, outside of a call of the whole model: call "
                "the model itself, or build it without inplace=True"
            )
        seen.g_BTC = g_BTC
        together = of.seen[seen.layer]
        if any(other.g_BTC is None for other in together):
            return
        of.seen[seen.layer] = []
        together.sort(key=lambda other: other.number)
        pairs = [other.take() for other in together]
        join = _beside if layer.side_by_side else _joined
        y_BTC, g_BTC = pairs[0] if len(pairs) == 1 else map(join, zip(*pairs, strict=True))
        # The first axis may be one of windows, of tokens before images, or of a few chosen tokens.
        rows = y_BTC[..., 0].numel()
        images = len(y_BTC) if of.images is None else min(of.images, rows)
        if all(tap.axis == -1 for tap in layer.seen_at):
            y_BTC, g_BTC = _rows(y_BTC), _rows(g_BTC)
        del pairs
        self._sink(seen.layer, images, y_BTC, g_BTC)


def _with_gradient(value: Any) -> Any:
    """An equal tensor that depends on something, so that all that is computed from it does.

    A tensor of maps may be read at several places before it comes to its tap, which would be too
    late to ask for the gradients of all of them.
    """
    if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.requires_grad:
        return value
    return value + value.new_zeros((), requires_grad=True)


def _channels_last(x: torch.Tensor, tap: Tap) -> torch.Tensor:
    """The channels of a tap, along the last axis; those of maps as [B, P, C], wherever they lie."""
    if tap.axis != -1:
        x = x.movedim(tap.axis, -1)
        x = x[:, None] if x.ndim == 2 else x.flatten(1, -2)
    return x[..., tap.channels]


def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Several places of a layer as one: the rows of each image together."""
    return torch.cat([x.unflatten(0, (len(x), -1)) if x.ndim == 2 else x for x in parts], 1)


def _beside(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Several places of a layer, each with channels of its own, as one of all channels."""
    rows = parts[0].shape[:-1]
    return torch.cat([x.reshape(*rows, x.shape[-1]) for x in parts], -1)


def _rows(x_BTC: torch.Tensor) -> torch.Tensor:
    """View as [R, C]; expanded or transposed gradients, which autograd may give, are copied."""
    return x_BTC.contiguous().flatten(0, -2)
