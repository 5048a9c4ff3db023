"""Finds the adapter for a model, or says why there is none."""

from __future__ import annotations

from typing import Any

from torch import nn

from agflow.errors import CorruptFileError, InvalidValueError, UnsupportedModelError
from agflow.models.adapter import Adapter
from agflow.models.families.timm_vit import TimmVisionTransformer
from agflow.models.families.torchvision_vit import TorchvisionVisionTransformer
from agflow.models.families.transformers_vit import TransformersVit

_adapters: list[Adapter] = [
    TimmVisionTransformer(),
    TorchvisionVisionTransformer(),
    TransformersVit(),
]

_NOT_YET = {
    "swin": "attention in shifted windows is not supported yet",
    "convnext": "convolutional blocks are not supported yet",
}
"""Families that are asked for, by the beginning of their class names, in timm, torchvision and transformers.

What adapters for them would need beyond those here:

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
    """Make ``adapter`` known: it is asked before those known so far and replaces one of the same family.

    Experts of its family can be loaded by processes that registered it before. The example in
    :mod:`agflow.models` shows an adapter whole.

    Raises
    ------
    InvalidValueError
        It is no instance of :class:`Adapter`.
    """
    if not isinstance(adapter, Adapter):
        raise InvalidValueError(
            f"register was given {adapter!r}, expected an instance of a subclass of "
            "agflow.models.Adapter"
        )
    _adapters[:] = [adapter, *(known for known in _adapters if known.family != adapter.family)]


def adapter_for(model: nn.Module) -> Adapter:
    """The adapter that handles ``model``.

    Raises
    ------
    UnsupportedModelError
        None does; the message names the class and the reason.
    """
    for adapter in _adapters:
        if adapter.recognises(model):
            reason = adapter.refusal(model)
            if reason is None:
                return adapter
            break
    else:
        reason = _why_unknown(model)
    raise UnsupportedModelError(f"{type(model).__name__} is not supported: {reason}")


def count_macs(model: nn.Module) -> int:
    """Exact multiply-accumulates per image; UnsupportedModelError for a model no adapter handles."""
    return adapter_for(model).macs(model)


def split(model: nn.Module, blocks: int) -> tuple[nn.Module, nn.Module]:
    """``model`` in two: its embeddings and first ``blocks`` blocks, and the rest.

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
    """
    return adapter_for(model).split(model, blocks)


def prefix_macs(model: nn.Module, blocks: int) -> int:
    """Multiply-accumulates per image of the first half that :func:`split` gives; raises what it does."""
    return adapter_for(model).prefix_macs(model, blocks)


def count_params(model: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def model_name(model: nn.Module) -> str:
    """timm's name of the architecture, or the class name of a model timm did not create."""
    return getattr(model, "pretrained_cfg", {}).get("architecture") or type(model).__name__


def describe(model: nn.Module) -> dict[str, Any]:
    """JSON-ready description from which :func:`build` makes a model of the same shapes, cut or not."""
    adapter = adapter_for(model)
    return {"family": adapter.family, **adapter.describe(model)}


def build(description: dict[str, Any]) -> nn.Module:
    """A model of the described architecture; its weights are not set.

    Raises
    ------
    CorruptFileError
        The description names an unknown family or holds values no model has.
    """
    arguments = dict(description)
    family = arguments.pop("family", None)
    for adapter in _adapters:
        if adapter.family == family:
            try:
                return adapter.build(arguments)
            except (
                Exception
            ) as error:  # whatever a damaged description provokes in the constructors
                raise CorruptFileError(
                    f"the architecture is not one of {family} ({type(error).__name__}: {error})"
                ) from error
    known = ", ".join(adapter.family for adapter in _adapters)
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
    known = "; ".join(adapter.models for adapter in _adapters)
    return (
        f"{reason}; expected {known} (not a wrapper around one), or a model with an adapter of its "
        "own (agflow.models.register)"
    )
