"""Models by short names: ``timm:NAME``, an expert's folder, ``module:function``, ``example``."""

from __future__ import annotations

import difflib
import importlib
import os
import pathlib
from collections.abc import Sequence

from torch import nn

from agflow._utils.files import read_bytes
from agflow.data.datasets import EXAMPLE
from agflow.data.opening import missing_file
from agflow.data.preprocessing import Preprocessing
from agflow.errors import FileError, InvalidValueError
from agflow.models.expert import expert_preprocessing, load_expert
from agflow.models.preprocessing import preprocessing_of
from agflow.models.registry import model_name
from agflow.models.weights_file import fitting_weights


def load_model(
    spec: str,
    weights: str | os.PathLike | None = None,
    *,
    mean: Sequence[float | str] | None = None,
    std: Sequence[float | str] | None = None,
) -> tuple[nn.Module, Preprocessing, str]:
    """Load a model by a short name.

    =================== =======================================================================
    ``timm:NAME``       a timm model, with ``weights`` or else its published weights, which timm
                        fetches
    ``FOLDER``          an expert folder (:func:`agflow.save`)
    ``module:function`` the result of calling the function, with ``weights`` loaded if given
    ``example``         the shipped expert, a small Vision Transformer trained on Fashion-MNIST
    =================== =======================================================================

    Parameters
    ----------
    spec : one of these names
    weights : a safetensors file whose tensors are the model's, by name and shape. Beside those of a
        Hugging Face model, a ``preprocessor_config.json`` says what its images need
    mean, std : what the images are normalised by, in place of what is known of the model: one
        number a channel each

    Returns
    -------
    model : in evaluation mode, on the CPU
    preprocessing : what its images need, for :func:`agflow.load_dataset`
    name : of the architecture or the folder

    Raises
    ------
    InvalidValueError
        Unknown form, unknown timm name, a function that cannot be found or gives no model, weights
        or a mean beside an expert; mean and std that are not those of the model's channels.
    FileError, CorruptFileError
        Weights or folder are missing, damaged or belong to another model.

    Examples
    --------
    >>> import agflow
    >>> model, preprocessing, name = agflow.load_model("example")
    >>> name, preprocessing.input_size, agflow.count_macs(model)
    ('example', (28, 28), 62924032)
    """
    prefix, _, rest = spec.partition(":")
    if spec == "example" or pathlib.Path(spec).is_dir():
        own = {"weights": weights and os.fspath(weights), "mean": mean, "std": std}
        for name, value in own.items():
            if value is not None:
                raise InvalidValueError(
                    f"{spec} is an expert folder and brings its own {name}: leave {name}={value!r} "
                    "out"
                )
        folder = EXAMPLE / "heavy" if spec == "example" else pathlib.Path(spec)
        return (
            load_expert(folder),
            expert_preprocessing(folder),
            "example" if spec == "example" else folder.resolve().name,
        )
    if prefix == "timm" and rest:
        model = _timm_model(rest, pretrained=weights is None)
        name = rest
    elif rest and "/" not in spec:
        model = _call(prefix, rest)
        name = model_name(model)
    else:
        raise InvalidValueError(
            f"model {spec!r} is not understood and is no folder, expected timm:NAME, an expert "
            "folder, module:function or example"
        )
    if weights is not None:
        _load_weights(model, pathlib.Path(weights))
    folder = None if weights is None else pathlib.Path(weights).parent
    preprocessing = preprocessing_of(model, mean=mean, std=std, folder=folder)
    return model.eval(), preprocessing, name


def _timm_model(name: str, *, pretrained: bool) -> nn.Module:
    import timm  # seconds to import, and needed for timm's models only

    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), 3)
        raise InvalidValueError(
            f"timm has no model {name!r}"
            + (f"; did you mean {', '.join(close)}?" if close else "; see timm.list_models()")
        )
    try:
        return timm.create_model(name, pretrained=pretrained)
    # No network, no published weights, a damaged cache: each raises its own kind.
    except Exception as error:
        if not pretrained:
            raise
        raise FileError(
            f"the published weights of {name} cannot be fetched ({error}): name a safetensors file "
            "with weights"
        ) from error


def _call(module: str, function: str) -> nn.Module:
    try:
        model = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError) as error:
        raise InvalidValueError(
            f"model {module}:{function} cannot be made ({error}): expected module:function with "
            "the module on Python's path"
        ) from error
    if not isinstance(model, nn.Module):
        raise InvalidValueError(
            f"{module}:{function} gave a {type(model).__name__}, expected a torch.nn.Module"
        )
    return model


def _load_weights(model: nn.Module, path: pathlib.Path) -> None:
    """Load a safetensors file strictly; the model is not changed when anything does not fit."""
    if not path.exists():
        raise missing_file(path)
    raw = read_bytes(path, "weights")
    model.load_state_dict(fitting_weights(raw, model, f"weights {path}"))
