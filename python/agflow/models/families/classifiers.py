"""The last layer of a traced model, which gives the logits, cut to some of its classes.

Shape suffixes: B images, K classes kept.
"""

# torch types every submodule as `Tensor | Module`, and the libraries' own objects likewise.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import torch
from torch import nn

from agflow._utils.devices import first_parameter
from agflow._utils.hooks import temporary_hooks
from agflow._utils.modes import evaluating
from agflow.errors import UnsupportedModelError
from agflow.models.families.timm_config import change_config
from agflow.models.outputs import logits_of

_IMAGES = 2
_SIZES = {nn.Linear: "out_features", nn.Conv2d: "out_channels"}


@torch.no_grad()
def keep_classes(model: nn.Module, size: tuple[int, int, int], keep_K: torch.Tensor) -> None:
    """Keep some rows of the layer that gives the logits, in place, and prove that it was that.

    Parameters
    ----------
    size : of the model's images

    Raises
    ------
    UnsupportedModelError
        The logits are not those of one linear layer or convolution, element by element.
    """
    images = torch.randn(_IMAGES, *size, generator=torch.Generator().manual_seed(0))
    images = images.to(first_parameter(model))
    with evaluating(model):
        expected_BK = logits_of(model(images))[:, keep_K]
        layer = _last_layer(model, images, logits_of(model(images)).shape[1])
        if layer is None:
            raise _not_one(model)
        _keep(layer, keep_K)
        _count(model, len(keep_K))
        try:
            found_BK = logits_of(model(images))
        except Exception as error:  # whatever the model's code does with another number of classes
            raise _not_one(model) from error
    tolerance = 1e-3 * float(expected_BK.abs().max())
    same = found_BK.shape == expected_BK.shape
    if not same or not torch.allclose(found_BK, expected_BK, rtol=0, atol=tolerance):
        raise _not_one(model)


def _last_layer(model: nn.Module, images: torch.Tensor, classes: int) -> nn.Module | None:
    """The layer that ran last of those with one output a class."""
    ran: list[nn.Module] = []

    def note(module: nn.Module, _inputs: tuple, _output: object) -> None:
        ran.append(module)

    layers = [
        module
        for module in model.modules()
        if type(module) in _SIZES and len(module.weight) == classes
    ]
    with temporary_hooks(layer.register_forward_hook(note) for layer in layers):
        model(images)
    return ran[-1] if ran else None


def _keep(layer: nn.Module, keep_K: torch.Tensor) -> None:
    for name, parameter in list(layer.named_parameters()):
        kept = nn.Parameter(parameter.detach()[keep_K.to(parameter.device)].clone())
        setattr(layer, name, kept.requires_grad_(parameter.requires_grad))
    setattr(layer, _SIZES[type(layer)], len(keep_K))


def _count(model: nn.Module, classes: int) -> None:
    """Set how many classes the model says that it has."""
    if isinstance(vars(model).get("num_classes"), int):
        model.num_classes = classes
    change_config(model, num_classes=classes, label_names=None, label_descriptions=None)
    if hasattr(getattr(model, "config", None), "id2label"):
        model.config.num_labels = classes


def _not_one(model: nn.Module) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"the classes of {type(model).__name__} cannot be cut: its logits are not the outputs of "
        "one last torch.nn.Linear or Conv2d; keep all classes, and choose among the logits"
    )
