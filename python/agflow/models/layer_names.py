"""Modules of a user's model in place of the names of its layers.

What is kept is by module, and gone with it: nothing here keeps a model alive.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from weakref import WeakKeyDictionary

from torch import nn

from agflow.errors import InvalidValueError
from agflow.models.adapter import Adapter

_LAYERS: WeakKeyDictionary[nn.Module, tuple[str, ...]] = WeakKeyDictionary()


def note_layers(adapter: Adapter, model: nn.Module) -> None:
    """Note which prunable layers the modules of ``model`` stand for (:func:`layers_of`).

    A module stands for the layers that it holds and for those that it is a part of: a block for all
    of its layers, ``fc1`` for the MLP around it. The classifier stands for none: its outputs, the
    classes, are never pruned.

    Examples
    --------
    >>> import agflow
    >>> from agflow.models import adapter_for
    >>> from agflow.models.layer_names import layers_of, note_layers
    >>> model, _, _ = agflow.load_model("example")
    >>> note_layers(adapter_for(model), model)
    >>> layers_of([model.blocks[0].mlp.fc1, model.head], measured=["blocks.0.mlp"])
    ['blocks.0.mlp']
    """
    modules = dict(model.named_modules())
    homes = {layer.name: _home(layer.name, modules) for layer in adapter.layers(model)}
    for name, module in modules.items():
        _LAYERS[module] = tuple(
            layer
            for layer, home in homes.items()
            if name == home or _inside(home, name) or (home and _inside(name, home))
        )


def layers_of(ignored: Iterable[str | nn.Module], measured: Collection[str]) -> list[str]:
    """The names or patterns of layers, with modules replaced by the layers that they stand for.

    Parameters
    ----------
    measured : names of the layers that were; a module stands for no other

    Raises
    ------
    InvalidValueError
        A module is of no model that was calibrated in this process.
    """
    found: dict[str, None] = {}
    for item in ignored:
        if isinstance(item, nn.Module) and item not in _LAYERS:
            raise InvalidValueError(
                f"ignored_layers has a {type(item).__name__} of no model that was calibrated in "
                "this process, expected one of the calibrated model itself: give the name of its "
                "layer, such as 'blocks.0.mlp'"
            )
        if isinstance(item, nn.Module):
            found.update(dict.fromkeys(name for name in _LAYERS[item] if name in measured))
        else:
            found[item] = None
    return list(found)


def _home(layer: str, modules: dict[str, nn.Module]) -> str:
    """The module that holds a layer: the longest beginning of its name that is one."""
    while layer and layer not in modules:
        layer = layer.rpartition(".")[0]
    return layer


def _inside(name: str, outer: str) -> bool:
    return name.startswith(f"{outer}." if outer else "")
