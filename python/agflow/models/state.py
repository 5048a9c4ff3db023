"""What a model is beside its architecture: wrappers, computed weights, shared memory, numbers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils import parametrize

from agflow.models.foreign_layers import foreign

# Hooks that compute a weight before each forward pass, by the module of their class.
_REPARAMETRISED = {
    "torch.nn.utils.prune": ("a mask of torch.nn.utils.prune", "torch.nn.utils.prune.remove"),
    "torch.nn.utils.weight_norm": ("weight_norm", "torch.nn.utils.remove_weight_norm"),
    "torch.nn.utils.spectral_norm": ("spectral_norm", "torch.nn.utils.remove_spectral_norm"),
}
_WEIGHTED = (nn.Linear, nn.Conv2d, nn.LayerNorm)


def state_refusals(model: nn.Module) -> Iterator[str]:
    """Yield every reason in the state of ``model`` against measuring or changing its weights.

    They hold whatever its family is: a cut must find each weight as a parameter of its own memory
    that stays what it is made to be.

    Examples
    --------
    >>> from torch import nn
    >>> from agflow.models.state import state_refusals
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> list(state_refusals(model))
    []
    >>> model[1].weight = nn.Parameter(model[0].weight.data)
    >>> list(state_refusals(model))
    ['0.weight and 1.weight share their memory: give each its own, a clone()']
    """
    for name, module in model.named_modules():
        words = foreign(module) if name else None
        if words is not None:
            yield f"{name} is {words}"
    for name, module in model.named_modules():
        yield from _computed_weights(name, module)
    yield from _unusual_numbers(model)
    yield from _shared(model)


def _computed_weights(name: str, module: nn.Module) -> Iterator[str]:
    place, holder = (f"{name}.", name) if name else ("", "model")
    if parametrize.is_parametrized(module):
        tensor = next(name for name, _ in module.get_submodule("parametrizations").named_children())
        yield (
            f"{place}{tensor} is computed by a parametrization: call "
            f"torch.nn.utils.parametrize.remove_parametrizations({holder}, {tensor!r}) first"
        )
    for hook in module._forward_pre_hooks.values():
        known = _REPARAMETRISED.get(type(hook).__module__)
        if known is not None:
            what, cure = known
            tensor = getattr(hook, "_tensor_name", None) or getattr(hook, "name", "weight")
            yield (
                f"{place}{tensor} is computed before each forward pass by {what}: call "
                f"{cure}({holder}, {tensor!r}) first"
            )
    if isinstance(module, _WEIGHTED) and "weight" not in module._parameters:
        yield f"{place}weight is no parameter of its layer: set it to an nn.Parameter first"


def _unusual_numbers(model: nn.Module) -> Iterator[str]:
    for name, parameter in model.named_parameters():
        kind = type(parameter.data)
        if isinstance(parameter, nn.UninitializedParameter):
            yield f"{name} has no shape yet: run the model once"
        elif kind is not torch.Tensor:
            yield (
                f"{name} is a {kind.__name__}, expected a plain tensor: pass the model before it "
                "was quantised or distributed"
            )
        elif not parameter.is_floating_point():
            yield (
                f"{name} holds {parameter.dtype} numbers, expected floating point: pass the model "
                "before it was quantised"
            )


def _shared(model: nn.Module) -> Iterator[str]:
    """Yield a reason for two tensors that lie in the same memory."""
    named = [*model.named_parameters(), *model.named_buffers()]
    ends: dict[int, tuple[int, str]] = {}  # by storage, where its tensors end so far
    for start, end, storage, name in sorted(_extents(named)):
        before, other = ends.get(storage, (0, ""))
        if start < before:
            yield f"{other} and {name} share their memory: give each its own, a clone()"
            return
        ends[storage] = max((before, other), (end, name))


def _extents(named: list[tuple[str, torch.Tensor]]) -> Iterator[tuple[int, int, int, str]]:
    for name, tensor in named:
        if tensor.numel() and tensor.device.type != "meta":
            start = tensor.data_ptr()
            steps = zip(tensor.shape, tensor.stride(), strict=True)
            last = sum((size - 1) * stride for size, stride in steps)
            end = start + (last + 1) * tensor.element_size()
            yield start, end, tensor.untyped_storage().data_ptr(), name
