"""Finds the adapter for a model, or says why there is none."""

from __future__ import annotations

from typing import Any

from torch import nn

from agflow.errors import CorruptFileError, UnsupportedModelError
from agflow.models.adapter import Adapter
from agflow.models.timm_vit import TimmVisionTransformer

ADAPTERS: tuple[Adapter, ...] = (TimmVisionTransformer(),)


def adapter_for(model: nn.Module) -> Adapter:
    """The adapter that handles ``model``.

    Raises
    ------
    UnsupportedModelError
        None fits; the message names the class and each adapter's reason.
    """
    reasons = []
    for adapter in ADAPTERS:
        reason = adapter.refusal(model)
        if reason is None:
            return adapter
        reasons.append(f"{adapter.family}: {reason}")
    raise UnsupportedModelError(f"{type(model).__name__} is not supported: " + "; ".join(reasons))


def count_macs(model: nn.Module) -> int:
    """Exact multiply-accumulates per image; UnsupportedModelError for a model no adapter handles."""
    return adapter_for(model).macs(model)


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
    for adapter in ADAPTERS:
        if adapter.family == family:
            try:
                return adapter.build(arguments)
            except Exception as error:  # whatever a damaged description provokes in the constructors
                raise CorruptFileError(f"the architecture is not one of {family} ({type(error).__name__}: {error})") from error
    known = ", ".join(adapter.family for adapter in ADAPTERS)
    raise CorruptFileError(f"architecture family {family!r} is unknown, expected one of: {known}; a newer agflow may know it")
