"""The known model families: the adapter of a model, or why there is none."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from torch import nn

from agflow.errors import CorruptFileError, InvalidValueError, UnsupportedModelError
from agflow.models.adapter import Adapter
from agflow.models.callables import FunctionModule, function_name, unwrapped
from agflow.models.families.origins import noted_name
from agflow.models.sharing import shared_names
from agflow.models.state import state_refusals

if TYPE_CHECKING:
    from agflow.models.families.traced import TracedModel

_registered: list[Adapter] = []  # by register(), the last one first


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
    return [*declared_adapters(), _traced()]


def declared_adapters() -> list[Adapter]:
    """Those that say themselves what their models are made of; all others are traced."""
    families = {adapter.family for adapter in _registered}
    return [*_registered, *(known for known in _own_adapters() if known.family not in families)]


def declared_adapter(model: nn.Module) -> Adapter | None:
    """The adapter of the family that declares ``model``; None for one that is traced.

    Families know each tensor in one place: what shares some is traced.
    """
    found = next((known for known in declared_adapters() if known.recognises(model)), None)
    return None if found is None or shared_names(model) else found


@cache
def _own_adapters() -> tuple[Adapter, ...]:
    """Those of agflow; made at first use, since timm and torchvision take seconds to import."""
    from agflow.models.families.exported_file import ExportedFile
    from agflow.models.families.timm_vit import TimmVisionTransformer
    from agflow.models.families.torchvision_vit import TorchvisionVisionTransformer
    from agflow.models.families.transformers_vit import TransformersVit

    return (
        TimmVisionTransformer(),
        TorchvisionVisionTransformer(),
        TransformersVit(),
        ExportedFile(),
    )


@cache
def _traced() -> TracedModel:
    from agflow.models.families.traced import TracedModel

    return TracedModel()


def adapter_for(model: nn.Module) -> Adapter:
    """Find the adapter that handles ``model``.

    A model that no family declares is traced when its layers are asked for, not before.

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
    adapter = declared_adapter(model) or _traced()
    if not isinstance(model, nn.Module):
        reason = "expected a torch.nn.Module"
    elif adapter is _traced():
        reason = adapter.refusal(model) or _wrapper(model) or next(state_refusals(model), None)
    else:
        reason = next(state_refusals(model), None) or adapter.refusal(model)
    if reason is None:
        return adapter
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
    model = unwrapped(model)
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
    model = unwrapped(model)
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
    model = unwrapped(model)
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
    published = getattr(model, "pretrained_cfg", None) or {}
    return published.get("architecture") or noted_name(model) or type(model).__name__


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
    model = unwrapped(model)
    adapter = adapter_for(model)
    names = adapter.class_names(model)
    known = {} if names is None or len(names) != adapter.class_count(model) else {"classes": names}
    return {"family": adapter.family, **adapter.describe(model), **known}


def build(description: dict[str, Any], dense: nn.Module | None = None) -> nn.Module:
    """Build a model from :func:`describe`'s values; its weights are not set.

    Parameters
    ----------
    dense : the dense model, where the description is of one of the user's own

    Raises
    ------
    CorruptFileError
        The description names an unknown family or holds values no model has.
    InvalidValueError, UnsupportedModelError
        It is of a model of the user's own, and ``dense`` is not that or is missing; or it is of
        another, and ``dense`` is given.

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
                model = (
                    adapter.build(arguments)
                    if dense is None
                    else _built_from(adapter, arguments, dense)
                )
                if names is not None:
                    adapter.name_classes(model, [str(name) for name in names])
                return model
            except Exception as error:  # whatever a damaged description provokes
                if dense is not None or isinstance(error, UnsupportedModelError):
                    raise  # it is whole, but of a model of the user's own
                raise CorruptFileError(
                    f"the architecture is not one of {family} ({type(error).__name__}: {error})"
                ) from error
    known = ", ".join(adapter.family for adapter in known_adapters())
    raise CorruptFileError(
        f"architecture family {family!r} is unknown, expected one of: {known}; register its "
        "adapter first, or take a newer agflow"
    )


def _built_from(adapter: Adapter, arguments: dict[str, Any], dense: nn.Module) -> nn.Module:
    """The model, made of the dense one that the user gives."""
    if adapter is not _traced():
        raise InvalidValueError(
            f"the expert is of the family {adapter.family} and says all of its model: leave model "
            "out"
        )
    return _traced().build_from(arguments, dense)


def _wrapper(model: nn.Module) -> str | None:
    """The reason against a wrapper, which whoever takes models looks through; None for others."""
    if hasattr(model, "merge_and_unload"):
        return "it is a wrapper of peft: pass what model.merge_and_unload() returns"
    inside = unwrapped(model)
    if inside is model:
        return None
    name = next(name for name, module in model.named_modules() if module is inside)
    return f"it is a wrapper around a {type(inside).__name__}: pass model.{name}"
