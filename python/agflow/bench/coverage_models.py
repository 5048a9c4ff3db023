"""The lists of models of ``agflow bench coverage``, and how each model is made.

A model is named ``library:name``: ``torchvision:resnet18``, ``timm:vit_tiny_patch16_224``,
``transformers:ViTForImageClassification``, or ``module:function`` of the user's own.
"""

from __future__ import annotations

import json
import pathlib
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import nn

from agflow._utils.nearest import did_you_mean
from agflow.errors import InvalidValueError
from agflow.models.image_sizes import known_size
from agflow.models.own_function import call_function

Size = tuple[int, int, int]
LIBRARIES = "timm", "torchvision", "transformers"
CLASSES = 7  # of models of transformers, which have as many as one asks for
NOISE = 0.1  # standard deviation
MACS = 0.7  # of the dense model, that a pruned one may have
LISTS = {
    "torchvision": "all classifiers of torchvision, and the backbones of its detectors",
    "timm": "the smallest model of each of timm's modules",
    "transformers": "the classes that transformers calls image classification, small",
    "thirty": "thirty widely used classifiers, at their published sizes",
}
"""What each list holds, by its name."""

# Chosen before any of them was measured.
THIRTY = (
    *(
        f"torchvision:{name}"
        for name in (
            "convnext_tiny densenet121 efficientnet_b0 mobilenet_v2 resnet18 resnet50 swin_t "
            "vgg16 vit_b_16"
        ).split()
    ),
    *(
        f"timm:{name}"
        for name in (
            "beit_base_patch16_224 cait_xxs24_224 convnextv2_tiny deit_small_patch16_224 "
            "eva02_tiny_patch14_224 maxvit_tiny_tf_224 mixer_b16_224 mobilenetv4_conv_small "
            "swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 tf_efficientnetv2_s "
            "vit_base_patch16_clip_224 vit_base_patch16_siglip_224 vit_small_patch14_reg4_dinov2 "
            "vit_small_patch16_dinov3"
        ).split()
    ),
    *(
        f"transformers:{name}"
        for name in (
            "apple/mobilevit-small facebook/dinov2-base google/vit-base-patch16-224 "
            "microsoft/beit-base-patch16-224 microsoft/resnet-50 nvidia/mit-b0"
        ).split()
    ),
)
DETECTOR_SIZE = 320
_SIZES = {"ssd300_vgg16": 300}


class Made(NamedTuple):
    """A model as it is measured.

    Attributes
    ----------
    size : of an image, channels, height and width
    part : of the library's model that it is; empty for all of it
    """

    model: nn.Module
    size: Size
    part: str = ""


def models_of(name: str) -> list[str]:
    """The models of a list, by name.

    Raises
    ------
    InvalidValueError
        There is no such list.
    ImportError
        The list is of a library that is not installed.

    Examples
    --------
    >>> from agflow.bench.coverage_models import models_of
    >>> len(models_of("thirty")), models_of("timm")[0]
    (30, 'timm:beit_base_patch16_224')
    """
    if name not in LISTS:
        raise InvalidValueError(f"there is no list {name!r}, expected some of: {', '.join(LISTS)}")
    if name == "thirty":
        return list(THIRTY)
    if name == "timm":
        return [f"timm:{model}" for model in _data("timm").values()]
    if name == "transformers":
        return [f"transformers:{model}" for model in _data("transformers")["classifiers"]]
    from torchvision import models

    found = [*models.list_models(models), *models.list_models(models.detection)]
    return [f"torchvision:{model}" for model in found]


def made(spec: str) -> Made:
    """Make a model with random weights, always the same ones, in evaluation mode.

    Vectors, and what is zero at the start of a training, get noise: behind zeros a wrong cut would
    not be seen.

    Raises
    ------
    InvalidValueError
        The name has no library, or the library no such model.
    """
    library, colon, name = spec.partition(":")
    if not colon:
        raise InvalidValueError(
            f"the model is {spec!r}, expected library:name, such as timm:{spec}, or module:function"
        )
    torch.manual_seed(0)
    found = _MAKERS.get(library, lambda name: _own(library, name))(name)
    with torch.no_grad():
        for parameter in found.model.parameters():
            if parameter.is_floating_point() and (parameter.ndim < 2 or not parameter.any()):
                parameter.add_(NOISE * torch.randn_like(parameter))
    found.model.eval()
    return found


def _timm(name: str) -> Made:
    import timm

    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    model = timm.create_model(name)
    return Made(model, known_size(model))


def _torchvision(name: str) -> Made:
    from torchvision import models

    if name not in models.list_models():
        raise _unknown("torchvision", name, models.list_models())
    if name in models.list_models(models.detection):
        side = _SIZES.get(name, DETECTOR_SIZE)
        detector: Any = models.get_model(name, weights=None, weights_backbone=None)
        return Made(detector.backbone, (3, side, side), "backbone")
    model = models.get_model(name)
    return Made(model, known_size(model))


def _transformers(name: str) -> Made:
    import transformers

    known = {
        entry: value for part in _data("transformers").values() for entry, value in part.items()
    }
    if name not in known:
        raise _unknown("transformers", name, list(known))
    kind = getattr(transformers, known[name].get("class", name))
    classes = {"num_labels": CLASSES} if "For" in kind.__name__ else {}
    config = kind.config_class(**known[name]["config"], **classes)
    channels, height, width = known[name]["image_size"]
    return Made(kind(config), (channels, height, width))


def _own(module: str, function: str) -> Made:
    model = call_function(module, function)
    return Made(model, known_size(model))


_MAKERS = {"timm": _timm, "torchvision": _torchvision, "transformers": _transformers}


@cache
def _data(library: str) -> dict[str, Any]:
    """The models of a library as a file beside this one names them."""
    return json.loads((pathlib.Path(__file__).parent / f"coverage_{library}.json").read_text())


def _unknown(library: str, name: str, known: list[str]) -> InvalidValueError:
    guess = did_you_mean(name, known, 3)
    return InvalidValueError(f"{library} has no model {name!r} that could be measured{guess}")
