"""The known model families: the adapter of a model, or why there is none."""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import nn

from agflow.errors import CorruptFileError, InvalidValueError, UnsupportedModelError
from agflow.models.adapter import Adapter
from agflow.models.callables import FunctionModule, function_name, unwrapped
from agflow.models.state import state_refusals

_registered: list[Adapter] = []  # by register(), the last one first
_NOT_YET = {
    "swin": "attention in shifted windows is not supported yet",
    "convnext": "convolutional blocks are not supported yet",
}
"""Families without an adapter, by the beginning of their class names in all libraries.

What their adapters would need beyond those here:

- Swin: every stage has its own tokens and embedding width, so ``unit_macs`` differs by stage and
  q·k, a·v span a window and not the image; cutting heads also cuts the columns of the relative
  position bias table; the patch merging layers count into ``macs``. The MLPs are
  :class:`LinearUnits` as they are (Y is [B, H, W, C] in timm, which is read alike).
- ConvNeXt: no heads; its hidden channels lie between two linear layers as in an MLP, but in
  ``conv_mlp=True`` models these are 1x1 convolutions, whose Y has its channels second; V2's global
  response norm mixes the hidden channels, so that one cut changes the others and the masked model
  is no longer the cut one; the depthwise convolutions count into ``macs``.
"""


def register(adapter: Adapter) -> None:
    """Make an adapter known: it comes before all others and replaces one of the same family.

    Experts of its family can be loaded by processes that registered it before. The example in
    :mod:`agflow.models` shows a complete adapter.

    Raises
    ------
    InvalidValueError
        It is no instance of :class:`Adapter`.

    Examples
    --------
    >>> import agflow
    >>> from agflow.models import adapter_for, register
    >>> model, _, _ = agflow.load_model("example")
    >>> class Renamed(type(adapter_for(model))):
    ...     family = "timm_vit_of_ours"
    >>> register(Renamed())
    >>> adapter_for(model).family
    'timm_vit_of_ours'
    """
    if not isinstance(adapter, Adapter):
        raise InvalidValueError(
            f"register was given {adapter!r}, expected an instance of a subclass of "
            "agflow.models.Adapter"
        )
    _registered[:] = [adapter, *(known for known in _registered if known.family != adapter.family)]


def known_adapters() -> list[Adapter]:
    """All adapters, in the order in which they are tried."""
    families = {adapter.family for adapter in _registered}
    return [*_registered, *(known for known in _own_adapters() if known.family not in families)]


@cache
def _own_adapters() -> tuple[Adapter, ...]:
    """Those of agflow; made at first use, since timm and torchvision take seconds to import."""
    from agflow.models.families.timm_vit import TimmVisionTransformer
    from agflow.models.families.torchvision_vit import TorchvisionVisionTransformer
    from agflow.models.families.transformers_vit import TransformersVit

    return TimmVisionTransformer(), TorchvisionVisionTransformer(), TransformersVit()


def adapter_for(model: nn.Module) -> Adapter:
    """Find the adapter that handles ``model``.

    Raises
    ------
    UnsupportedModelError
        None does; the message names the class and the reason.

    Examples
    --------
    >>> import agflow
    >>> from agflow.models import adapter_for
    >>> model, _, _ = agflow.load_model("example")
    >>> layer = adapter_for(model).layers(model)[1]
    >>> layer.name, layer.kind, layer.units
    ('blocks.0.attn.qk', 'head_dim', 128)
    """
    for adapter in known_adapters():
        if adapter.recognises(model):
            reason = next(state_refusals(model), None) or adapter.refusal(model)
            if reason is None:
                return adapter
            break
    else:
        reason = _why_unknown(model)
    raise UnsupportedModelError(f"{type(model).__name__} is not supported: {reason}")


def count_macs(model: nn.Module) -> int:
    """Count the multiply-accumulates per image, exactly.

    Convolutions, linear layers and both products of attention count; norms and activations do not.

    Raises
    ------
    UnsupportedModelError
        No adapter handles the model.

    Examples
    --------
    >>> import agflow
    >>> agflow.count_macs(agflow.load_model("example")[0])
    62924032
    """
    return adapter_for(model).macs(model)


def split(model: nn.Module, blocks: int) -> tuple[nn.Module, nn.Module]:
    """Split a model in two: its embeddings and first ``blocks`` blocks, and the rest.

    Both halves hold the parameters of ``model`` itself, not copies, and have the modes that its
    modules have now. ``prefix(images)`` gives the tokens [B, T, D] behind the blocks,
    ``rest(tokens)`` the logits [B, K]: the same bits as ``logits_of(model(images))``. Hooks on the
    model as a whole are not run, but that of :func:`agflow.models.at_image_size`.

    Parameters
    ----------
    blocks : from 0 (the embeddings alone) to as many as the model has

    Raises
    ------
    InvalidValueError
        The model has not so many blocks.
    UnsupportedModelError
        No adapter handles the model, or its adapter cannot split.

    Examples
    --------
    >>> import torch
    >>> import agflow
    >>> from agflow.models import split
    >>> model, _, _ = agflow.load_model("example")
    >>> prefix, rest = split(model, 1)
    >>> images = torch.rand(2, 1, 28, 28)
    >>> tokens = prefix(images)
    >>> torch.equal(rest(tokens), model(images))
    True
    """
    return adapter_for(model).split(model, blocks)


def prefix_macs(model: nn.Module, blocks: int) -> int:
    """Count the multiply-accumulates per image of the first part that :func:`split` returns.

    Raises
    ------
    InvalidValueError, UnsupportedModelError
        As :func:`split`.

    Examples
    --------
    >>> import agflow
    >>> from agflow.models import count_macs, prefix_macs
    >>> model, _, _ = agflow.load_model("example")
    >>> 0 < prefix_macs(model, 1) < count_macs(model)
    True
    """
    return adapter_for(model).prefix_macs(model, blocks)


def count_params(model: nn.Module) -> int:
    """Count the parameters.

    Examples
    --------
    >>> from torch import nn
    >>> from agflow.models import count_params
    >>> count_params(nn.Linear(4, 2))
    10
    """
    return sum(parameter.numel() for parameter in model.parameters())


def model_name(model: nn.Module) -> str:
    """The name that timm has for the architecture; of other models that of the class or function.

    Examples
    --------
    >>> from torch import nn
    >>> from agflow.models import model_name
    >>> model_name(nn.Linear(4, 2))
    'Linear'
    """
    if isinstance(model, FunctionModule):
        return function_name(model.function)
    model = unwrapped(model)
    return getattr(model, "pretrained_cfg", {}).get("architecture") or type(model).__name__


def describe(model: nn.Module) -> dict[str, Any]:
    """Describe the architecture, pruned widths included, in JSON-ready values for :func:`build`.

    Raises
    ------
    UnsupportedModelError
        No adapter handles the model.

    Examples
    --------
    >>> import agflow
    >>> from agflow.models import build, count_params, describe
    >>> model, _, _ = agflow.load_model("example")
    >>> count_params(build(describe(model))) == count_params(model)
    True
    """
    adapter = adapter_for(model)
    names = adapter.class_names(model)
    known = {} if names is None or len(names) != adapter.class_count(model) else {"classes": names}
    return {"family": adapter.family, **adapter.describe(model), **known}


def build(description: dict[str, Any]) -> nn.Module:
    """Build a model from :func:`describe`'s values; its weights are not set.

    Raises
    ------
    CorruptFileError
        The description names an unknown family or holds values no model has.

    Examples
    --------
    >>> import agflow
    >>> from agflow.models import build, describe
    >>> model, _, _ = agflow.load_model("example")
    >>> type(build(describe(model))).__name__
    'VisionTransformer'
    """
    arguments = dict(description)
    family, names = arguments.pop("family", None), arguments.pop("classes", None)
    for adapter in known_adapters():
        if adapter.family == family:
            try:
                model = adapter.build(arguments)
                if names is not None:
                    adapter.name_classes(model, [str(name) for name in names])
                return model
            except Exception as error:  # whatever a damaged description provokes
                raise CorruptFileError(
                    f"the architecture is not one of {family} ({type(error).__name__}: {error})"
                ) from error
    known = ", ".join(adapter.family for adapter in known_adapters())
    raise CorruptFileError(
        f"architecture family {family!r} is unknown, expected one of: {known}; register its "
        "adapter first, or take a newer agflow"
    )


def _why_unknown(model: nn.Module) -> str:
    name = type(model).__name__.lower()
    reason = next(
        (reason for beginning, reason in _NOT_YET.items() if name.startswith(beginning)),
        "no adapter knows this class",
    )
    known = "; ".join(adapter.models for adapter in known_adapters())
    return _wrapper(model) or (
        f"{reason}; expected {known} (not a wrapper around one), or a model with an adapter of its "
        "own (agflow.models.register)"
    )


def _wrapper(model: nn.Module) -> str | None:
    """The reason against a wrapper around a model that is known; None for others."""
    inside = next(
        (
            (name, module)
            for name, module in model.named_modules()
            if name and any(adapter.recognises(module) for adapter in known_adapters())
        ),
        None,
    )
    if inside is None:
        traced = type(model).__module__.startswith(("torch.jit", "torch.fx"))
        return "it was traced or scripted: pass the model that it was made from" if traced else None
    name, module = inside
    if hasattr(model, "merge_and_unload"):
        return "it is a wrapper of peft: pass what model.merge_and_unload() returns"
    place = "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in name.split("."))
    beside = (
        "; what normalises its images belongs to its Preprocessing"
        if isinstance(model, nn.Sequential)
        else ""
    )
    return f"it is a wrapper around a {type(module).__name__}: pass model{place}{beside}"
