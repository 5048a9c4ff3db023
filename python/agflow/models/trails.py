"""What lies between the last products with weights and a tensor, noted while a model runs.

Shape suffixes: B images, K channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.hooks import RemovableHandle

from agflow._utils.hooks import temporary_hooks

GATED = "gated"
"""Stands for x f(x): a product, a quotient or a choice of two functions of the same products."""
_PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "linear", "matmul", "einsum", "addbmm"}
_MAPS = {"conv1d", "conv2d", "conv3d", "convolution", "convolution_overrideable"}
_GATES = {"mul", "div", "where", "addcmul", "addcdiv"}
_EMPTY = {"empty", "zeros", "ones", "full", "rand", "randn"}


@dataclass(frozen=True)
class Product:
    """A product with weights.

    Attributes
    ----------
    layer : the module that ran it; None outside of linear layers and 2-d convolutions
    name : of the layer
    is_map : whether it is a convolution
    channels : of its result
    """

    layer: nn.Module | None
    name: str
    is_map: bool
    channels: int


@dataclass(frozen=True)
class Trail:
    """Where a tensor comes from.

    Attributes
    ----------
    products : the last ones before it, by their places in :attr:`Trails.products`
    operators : that ran behind them
    """

    products: frozenset[int] = frozenset()
    operators: frozenset[str] = frozenset()


@dataclass
class Trails:
    """The trails of all tensors that a model computes from its inputs.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from agflow.models.trails import Trails
    >>> model, trails = nn.Sequential(nn.Conv2d(3, 8, 2), nn.ReLU(), nn.Flatten()), Trails()
    >>> with trails.of_passes(model):
    ...     output = model(torch.zeros(1, 3, 4, 4))
    >>> sorted(trails.of(output).operators), trails.products[0].name
    (['detach', 'relu', 'view'], '0')
    """

    products: list[Product] = field(default_factory=list)
    read: set[int] = field(default_factory=set)
    """Products whose results went into other products."""
    _found: dict[int, tuple[Any, Trail]] = field(default_factory=dict)
    _running: list[tuple[str, nn.Module]] = field(default_factory=list)

    def of(self, tensor: torch.Tensor) -> Trail | None:
        """The trail of a tensor; None of one that does not depend on the inputs."""
        _, trail = self._found.get(_key(tensor), (None, None))
        return trail

    def of_passes(self, model: nn.Module) -> _Watching:
        """Note the trails of what the model computes, while open."""
        return _Watching(self, model)

    def hooks(self, model: nn.Module) -> Iterator[RemovableHandle]:
        """Hooks that note the inputs of the model, and which layer runs."""

        def begin(_: nn.Module, inputs: tuple, options: dict) -> None:
            for tensor in _tensors((inputs, options)):
                self._set(tensor, Trail())

        yield model.register_forward_pre_hook(begin, with_kwargs=True)
        for name, module in model.named_modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                enter = lambda layer, _, name=name: self._running.append((name, layer))
                yield module.register_forward_pre_hook(enter)
                yield module.register_forward_hook(lambda *_: self._leave(), always_call=True)

    def _leave(self) -> None:
        self._running.pop()

    def note(self, name: str, given: Any, made: Any) -> None:
        """Note what an operator made of what it was given."""
        trails = [found for x in _tensors(given) if (found := self.of(x)) is not None]
        trail = self._behind(name, trails, made) if trails else None
        for tensor in _tensors(made):
            if trail is None:
                self._found.pop(_key(tensor), None)
            else:
                self._set(tensor, trail)

    def _set(self, tensor: torch.Tensor, trail: Trail) -> None:
        # What is told by its address is held, weakly where it is large: addresses come again.
        strided = tensor.layout is torch.strided
        held = StorageWeakRef(tensor.untyped_storage()) if strided else tensor
        self._found[_key(tensor)] = held, trail

    def _behind(self, name: str, trails: list[Trail], made: Any) -> Trail | None:
        if name.removeprefix("new_").removesuffix("_like") in _EMPTY:
            return None
        products = frozenset[int]().union(*(trail.products for trail in trails))
        operators = frozenset[str]().union(*(trail.operators for trail in trails))
        if name in _PRODUCTS | _MAPS and len(trails) == 1:
            self.read |= products
            self.products.append(self._product(name, made))
            return Trail(frozenset([len(self.products) - 1]))
        same = len(trails) > 1 and all(trail.products == products for trail in trails)
        return Trail(products, operators | {GATED if same and name in _GATES else name})

    def _product(self, name: str, made: torch.Tensor) -> Product:
        layer_name, layer = self._running[-1] if self._running else ("", None)
        is_map = name in _MAPS
        return Product(layer, layer_name, is_map, made.shape[1 if is_map else -1])


class _Watching(TorchDispatchMode):
    """Sees every operator that runs while it is open."""

    def __init__(self, trails: Trails, model: nn.Module):
        super().__init__()
        self._trails = trails
        self._hooks = temporary_hooks(trails.hooks(model))

    def __enter__(self) -> _Watching:
        self._hooks.__enter__()
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self._hooks.__exit__(*raised)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        packet = getattr(func, "overloadpacket", func)
        self._trails.note(packet.__name__.strip("_"), (args, kwargs), made)
        return made


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    """Those of floats: what is picked by a mask or an index comes from where it is picked."""
    return (x for x in tree_iter(values) if isinstance(x, torch.Tensor) and x.is_floating_point())


def _key(tensor: torch.Tensor) -> int:
    """The storage, which views share: autograd may give them other objects."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else id(tensor)
