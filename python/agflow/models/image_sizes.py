"""The size of the images of a model that runs at many: noted from what it was run on, or known."""

# The libraries' own objects have types that they do not declare.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from agflow.data.processors import preprocessing_like
from agflow.errors import AgflowError, UnsupportedModelError
from agflow.models.families.module_trees import NOTE
from agflow.models.families.origins import origin_of
from agflow.models.families.processor_file import saved_processor
from agflow.models.families.timm_config import config_of
from agflow.models.first_layer import channels_read

Size = tuple[int, int, int]
_SIZE = NOTE + "input_size"
_RGB = 3


def known_size(model: nn.Module) -> Size:
    """Channels, height and width of the images that a model takes.

    In this order: what agflow noted when it ran or changed the model; an attribute ``input_size``
    of the user's; what the model's library says of it.

    Raises
    ------
    UnsupportedModelError
        Nothing says it.

    Examples
    --------
    >>> import timm
    >>> from agflow.models.image_sizes import known_size
    >>> known_size(timm.create_model("resnet18", in_chans=1))
    (1, 224, 224)
    """
    noted = noted_size(model)
    if noted is not None:
        return noted
    published = _of_library(model)
    if published is None:
        raise UnsupportedModelError(
            f"the size of the images of {type(model).__name__} is not known: calibrate it first "
            "with a loader of its images, or set model.input_size = (channels, height, width)"
        )
    return channels_read(model, published), *published[1:]


def noted_size(model: nn.Module) -> Size | None:
    """The size that agflow or the user noted on a model; None where none did."""
    return vars(model).get(_SIZE) or _own(model)


def note_size(model: nn.Module, size: Iterable[int]) -> None:
    """Note the size of a model's images, channels, height and width; its copies keep it.

    Examples
    --------
    >>> import timm
    >>> from agflow.models.image_sizes import known_size, note_size
    >>> model = timm.create_model("resnet18")
    >>> note_size(model, (3, 64, 96))
    >>> known_size(model)
    (3, 64, 96)
    """
    vars(model)[_SIZE] = tuple(map(int, size))


def _own(model: nn.Module) -> Size | None:
    """The size that the user's own class or its maker says."""
    size = vars(model).get("input_size")
    if not isinstance(size, list | tuple) or not all(isinstance(side, int) for side in size):
        return None
    return (size[0], size[1], size[2]) if len(size) == 3 else None


def _of_library(model: nn.Module) -> Size | None:
    """The size that a library knows for its model, as it was published."""
    published = config_of(model).get("input_size", ())
    made_for = _made_for(model)
    if published or made_for:
        height, width = made_for or published[1:]
        return published[0] if published else _RGB, height, width
    if type(model).__module__.startswith("torchvision.models."):
        origin = origin_of(model)
        if origin["library"] == "torchvision":
            (side,) = torchvision_transforms(origin["name"], origin.get("weights")).crop_size
            return _RGB, side, side
    config = getattr(model, "config", None)
    config = getattr(config, "vision_config", config)
    channels = getattr(config, "num_channels", _RGB)
    sides = _sides(getattr(config, "image_size", None)) or _of_processor(model)
    return None if sides is None else (channels, *sides)


def _made_for(model: nn.Module) -> tuple[int, int] | None:
    """Height and width that a model of one size was made for, in its patch embedding or itself."""
    embedding = getattr(model, "patch_embed", None)
    return _sides(getattr(embedding, "img_size", None) or getattr(model, "image_size", None))


def _sides(size: Any) -> tuple[int, int] | None:
    """Height and width of what a config has as the size of its images."""
    if isinstance(size, int):
        return size, size
    return tuple(size) if isinstance(size, list | tuple) and len(size) == 2 else None


def _of_processor(model: nn.Module) -> tuple[int, int] | None:
    """The size in the image processor beside a Hugging Face model, if it has one."""
    if not type(model).__module__.startswith("transformers.models."):
        return None
    try:
        values = saved_processor(model)
        return preprocessing_like(values).input_size if values else None
    except AgflowError:
        return None


def torchvision_transforms(name: str, weights: str | None = None) -> Any:
    """The transforms of torchvision's weights for a model, by default of the first ones."""
    from torchvision import models  # seconds to import

    known = models.get_model_weights(name)
    return (known[weights] if weights in known.__members__ else next(iter(known))).transforms()
