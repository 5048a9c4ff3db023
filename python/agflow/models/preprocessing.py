"""The preprocessing that a model was trained with."""

from __future__ import annotations

from torch import nn

from agflow.data.preprocessing import Preprocessing
from agflow.errors import InvalidValueError
from agflow.models.registry import adapter_for


def preprocessing_of(model: nn.Module) -> Preprocessing:
    """Return the preprocessing timm knows for ``model``; timm's defaults (ImageNet's mean and std)
    for models that timm did not create.

    Raises
    ------
    UnsupportedModelError
        No adapter handles the model.
    InvalidValueError
        The model takes another number of channels than the weights timm describes, so their mean
        and std do not apply.

    Examples
    --------
    >>> import timm
    >>> from agflow.models import preprocessing_of
    >>> preprocessing_of(timm.create_model("vit_tiny_patch16_224")).input_size
    (224, 224)
    """
    import timm.data  # seconds to import

    config = timm.data.resolve_model_data_config(model)
    # timm reports the size of the published weights, even of a model created for another size.
    channels, height, width = adapter_for(model).input_size(model)
    if channels != len(config["mean"]):
        raise InvalidValueError(
            f"timm knows mean and std for {len(config['mean'])} channels, the model takes "
            f"{channels}: give its own Preprocessing(input_size, mean, std)"
        )
    return Preprocessing(
        (height, width),
        tuple(config["mean"]),
        tuple(config["std"]),
        config["interpolation"],
        config["crop_pct"],
    )
