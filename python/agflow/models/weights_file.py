"""The weights of a model from a safetensors file: every name and shape must fit."""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from agflow.errors import CorruptFileError
from agflow.models.registry import model_name
from agflow.models.sharing import shared_names, tied_again

_FOREIGN = (
    (r"\blora_", "LoRA matrices", "merge them first (peft: model.merge_and_unload())"),
    (r"_orig$|_mask$", "masked weights", "call torch.nn.utils.prune.remove first"),
    (r"\bparametrizations\.", "parametrizations", "call remove_parametrizations first"),
    (r"\bweight_[guv]$", "a weight or spectral norm", "remove it first (remove_weight_norm)"),
    (r"zero_point$|_packed_params|\bSCB$|absmax", "quantised weights", "save the model in float"),
)
"""Patterns of names, what such tensors are, and what to do before the model is saved."""


def fitting_weights(raw: bytes, model: nn.Module, name: str) -> dict[str, torch.Tensor]:
    """Read a safetensors file's tensors for ``model``, by the model's own names.

    A prefix of all of the model's names, such as the ``module.`` of a wrapper, is taken off.

    Parameters
    ----------
    raw : the file
    name : of the file, for errors: ``"weights FILE"``

    Raises
    ------
    CorruptFileError
        The file is damaged or its tensors are not those of the model.

    Examples
    --------
    >>> import safetensors.torch
    >>> from torch import nn
    >>> from agflow.models.weights_file import fitting_weights
    >>> layer = nn.Linear(2, 1)
    >>> wrapped = {f"module.{name}": tensor for name, tensor in layer.state_dict().items()}
    >>> sorted(fitting_weights(safetensors.torch.save(wrapped), layer, "weights"))
    ['bias', 'weight']
    """
    try:
        tensors = safetensors.torch.load(raw)
    except SafetensorError as error:
        raise CorruptFileError(
            f"{name} are not a safetensors file ({error}); convert other formats with "
            "safetensors.torch.save_file"
        ) from error
    expected = model.state_dict()
    prefixes = _prefixes(tensors, expected)
    prefix = prefixes[0] if len(prefixes) == 1 else ""
    own = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
    own = tied_again(own, model)  # files of transformers have tied weights once
    faults = _faults(own, expected)
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise CorruptFileError(
            f"{name} do not fit {model_name(model)}: {'; '.join(faults[:3])}{more}"
            f"{_cure(tensors, prefixes)}"
        )
    return with_versions(own, model)


def with_versions(tensors: Mapping[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors as a state dict of today's modules: some modules read older ones in other ways.

    Examples
    --------
    >>> from torch import nn
    >>> from agflow.models.weights_file import with_versions
    >>> layer = nn.BatchNorm2d(2)
    >>> layer.load_state_dict(with_versions(dict(layer.state_dict()), layer))
    <All keys matched successfully>
    """
    state: Any = OrderedDict(tensors)
    state._metadata = getattr(model.state_dict(), "_metadata", {})
    return state


def saved_tensors(model: nn.Module, description: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The state dict, and the buffers that no constructor makes in the sizes that they have.

    What has several names is there under each, as any loader expects it: each with memory of its
    own, as the file has to have it.

    Examples
    --------
    >>> from torch import nn
    >>> from agflow.models.weights_file import saved_tensors
    >>> sorted(saved_tensors(nn.Linear(2, 2), {}))
    ['bias', 'weight']
    """
    state = dict(model.state_dict())
    again = {name for _, *others in shared_names(model) for name in others}
    state.update((name, state[name].clone()) for name in again & state.keys())
    shapes = description.get("changes", {}).get("shapes", {})
    others = [name for name, shape in shapes.items() if shape is not None and name not in state]
    return {**state, **{name: model.get_buffer(name) for name in others}}


def without_buffers(
    tensors: Mapping[str, torch.Tensor], model: nn.Module
) -> dict[str, torch.Tensor]:
    """The tensors of the state dict; those that are buffers beside it are set on the model.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from agflow.models.weights_file import without_buffers
    >>> layer = nn.Linear(2, 2)
    >>> layer.register_buffer("places", torch.zeros(3), persistent=False)
    >>> without_buffers({"places": torch.ones(3)}, layer), layer.places.sum().item()
    ({}, 3.0)
    """
    state, rest = model.state_dict(), dict(tensors)
    for name, buffer in model.named_buffers():
        if name in rest and name not in state and rest[name].shape == buffer.shape:
            owner, _, key = name.rpartition(".")
            setattr(model.get_submodule(owner), key, rest.pop(name))
    return rest


def _prefixes(tensors: Mapping[str, object], expected: Mapping[str, object]) -> list[str]:
    """The beginnings with which most of the model's names stand in the file."""
    found = Counter(
        key[: len(key) - len(end)] for key in tensors for end in _ends(key) if end in expected
    )
    most = max(found.values(), default=0)
    return sorted(prefix for prefix, count in found.items() if count == most)


def _ends(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[i:]) for i in range(len(parts))]


def _faults(own: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> list[str]:
    faults = [f"{name} is missing" for name in expected.keys() - own.keys()]
    faults += [f"{name} is not in the model" for name in own.keys() - expected.keys()]
    for name in own.keys() & expected.keys():
        tensor, wanted = own[name], expected[name]
        if tensor.shape != wanted.shape:
            shapes = list(tensor.shape), list(wanted.shape)
            faults.append(f"{name} has shape {shapes[0]}, expected {shapes[1]}")
        elif wanted.is_floating_point() and not tensor.is_floating_point():
            faults.append(f"{name} holds {tensor.dtype} numbers, expected floating point")
    return sorted(faults)


def _cure(tensors: Mapping[str, object], prefixes: list[str]) -> str:
    for pattern, what, cure in _FOREIGN:
        if any(re.search(pattern, key) for key in tensors):
            return f"; the file holds {what}: {cure}, then save"
    if len(prefixes) > 1:
        return (
            f"; the model's names stand in the file behind {' and '.join(map(repr, prefixes[:3]))}:"
            " save one of the models alone"
        )
    if prefixes and prefixes[0]:
        return f" (behind {prefixes[0]!r}: save the state_dict of the model inside the wrapper)"
    return ""
