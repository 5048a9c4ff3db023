"""The preprocessing that a model was trained with."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from agflow.data.preprocessing import Preprocessing
from agflow.errors import InvalidValueError
from agflow.models.callables import unwrapped
from agflow.models.registry import adapter_for


def preprocessing_of(
    model: nn.Module,
    *,
    mean: Sequence[float | str] | None = None,
    std: Sequence[float | str] | None = None,
    crop: float | None = None,
    crop_mode: str | None = None,
    interpolation: str | None = None,
    folder: pathlib.Path | None = None,
) -> Preprocessing:
    """Return the preprocessing that the model's library knows for ``model``.

    That is timm's for its weights; of a Hugging Face model the ``preprocessor_config.json`` beside
    its weights, or else the image processor of its class; that of torchvision's first weights for
    its models; ImageNet's mean and std for others.

    Parameters
    ----------
    mean, std : in place of the library's: one number a channel each
    crop, crop_mode, interpolation : of the :class:`agflow.data.Preprocessing`, in place of the
        library's; ``crop`` is its ``crop_pct``
    folder : where the weights are from, if they are from a file

    Raises
    ------
    UnsupportedModelError
        No adapter handles the model.
    InvalidValueError
        The model takes another number of channels than the library knows mean and std for, or than
        the given ones are for; a value that a preprocessing cannot have.

    Examples
    --------
    >>> import timm
    >>> from agflow.models import preprocessing_of
    >>> preprocessing_of(timm.create_model("vit_tiny_patch16_224")).input_size
    (224, 224)
    """
    model = unwrapped(model)
    adapter = adapter_for(model)
    channels = adapter.input_size(model)[0]
    found = adapter.preprocessing(model, folder)
    others = {"crop_pct": crop, "crop_mode": crop_mode, "interpolation": interpolation}
    found = replace(found, **{name: v for name, v in others.items() if v is not None})
    if mean is None and std is None:
        if channels != found.channels:
            raise InvalidValueError(
                f"{adapter.library} knows mean and std for {found.channels} channels, the model "
                f"takes {channels}: give mean and std (--mean and --std), or its own "
                "Preprocessing(input_size, mean, std)"
            )
        return found
    return replace(found, **normalisation(channels, mean, std))


def normalisation(
    channels: int, mean: Sequence[float | str] | None, std: Sequence[float | str] | None
) -> dict[str, tuple[float, ...]]:
    """Mean and std that a user gives, by name, for a model of so many channels.

    Raises
    ------
    InvalidValueError
        They are not a number for each channel.

    Examples
    --------
    >>> from agflow.models.preprocessing import normalisation
    >>> normalisation(1, "0.5", [0.25])
    {'mean': (0.5,), 'std': (0.25,)}
    """
    given = {"mean": _numbers("mean", mean), "std": _numbers("std", std)}
    for name, numbers in given.items():
        if len(numbers) != channels:
            raise InvalidValueError(
                f"{name} is {list(numbers)}, expected one number for each of the model's "
                f"{channels} channels, with mean and std both"
            )
    return given


def _numbers(name: str, values: Sequence[float | str] | None) -> tuple[float, ...]:
    if isinstance(values, (str, float, int)):
        values = (values,)
    try:
        return tuple(map(float, values or ()))
    except (TypeError, ValueError):
        raise InvalidValueError(
            f"{name} is {values!r}, expected numbers, one a channel, such as 0.5"
        ) from None
