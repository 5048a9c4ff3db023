"""Models by short names: ``timm:NAME``, ``module:function``, folders, ``example``."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from agflow._utils.files import read_bytes
from agflow.data.datasets import EXAMPLE
from agflow.data.opening import missing_file
from agflow.data.preprocessing import Preprocessing
from agflow.errors import FileError, InvalidValueError
from agflow.models.expert import CONFIG, expert_preprocessing, expert_tuning, load_expert
from agflow.models.exported import ExportedExpert, exported_file
from agflow.models.families.origins import note_function, note_origin, torchvision_origin
from agflow.models.libraries import (
    config_of,
    hugging_face_model,
    timm_model,
    torchvision_model,
)
from agflow.models.own_function import call_function
from agflow.models.preprocessing import normalisation, preprocessing_of
from agflow.models.registry import adapter_for, declared_adapter, model_name
from agflow.models.weights_file import fitting_weights

Check = Callable[[nn.Module], object]

IMAGE_OPTIONS = "mean", "std", "crop", "crop_mode", "interpolation"
"""The options of :func:`load_model` that say what images need."""


def load_model(
    spec: str,
    weights: str | os.PathLike | None = None,
    *,
    mean: Sequence[float | str] | None = None,
    std: Sequence[float | str] | None = None,
    crop: float | None = None,
    crop_mode: str | None = None,
    interpolation: str | None = None,
    check: Check = adapter_for,
) -> tuple[nn.Module, Preprocessing, str]:
    """Load a model by a short name.

    ==================== ======================================================================
    ``timm:NAME``        a timm model, with ``weights`` or else its published weights, which timm
                         fetches
    ``torchvision:NAME`` likewise, a model of torchvision
    ``FOLDER``           an expert folder (:func:`agflow.save`), or the folder of a Hugging Face
                         model (``save_pretrained``), which may also be written ``hf:FOLDER``
    ``module:function``  the result of calling the function, with ``weights`` loaded if given. The
                         module is looked for in the working folder, too
    ``FILE.onnx``        an exported expert (:func:`agflow.export`), or another program's ONNX file
                         of a classifier, with ``mean`` and ``std``; also written ``onnx:FILE``.
                         ONNX Runtime runs it; it cannot be calibrated, pruned or trained
    ``example``          the shipped expert, a small Vision Transformer trained on Fashion-MNIST
    ==================== ======================================================================

    Parameters
    ----------
    spec : one of these names
    weights : a safetensors file whose tensors are the model's, by name and shape. Beside those of a
        Hugging Face model, a ``preprocessor_config.json`` says what its images need. Or, with
        ``module:function``, the folder of an expert that was cut from that function's model
    mean, std : what the images are normalised by, in place of what is known of the model: one
        number a channel each
    crop, crop_mode, interpolation : of :class:`agflow.data.Preprocessing` (``crop`` is its
        ``crop_pct``), in place of what is known of the model
    check : is called with the model, and raises where it does not fit: with its architecture before
        weights are fetched or read, where that can be built without them

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
    UnsupportedModelError
        No adapter handles the model.
    FileError, CorruptFileError
        Weights or folder are missing, damaged or belong to another model.

    Examples
    --------
    >>> import agflow
    >>> model, preprocessing, name = agflow.load_model("example")
    >>> name, preprocessing.input_size, agflow.count_macs(model)
    ('example', (28, 28), 62924032)
    """
    given = {
        "mean": mean,
        "std": std,
        "crop": crop,
        "crop_mode": crop_mode,
        "interpolation": interpolation,
    }
    file = exported_file(spec)
    if file is not None:
        model = ExportedExpert(file)
        check(model)
        return model, _file_preprocessing(model, {"weights": weights, **given}), file.stem
    expert = _expert_folder(spec)
    if expert is not None:
        for name, value in {"weights": weights and os.fspath(weights), **given}.items():
            if value is not None:
                raise InvalidValueError(
                    f"{spec} is an expert folder and brings its own {name}: leave {name}={value!r} "
                    "out"
                )
        model = load_expert(expert)
        check(model)
        return model, expert_preprocessing(expert), _folder_name(spec, expert)
    if weights is not None and not pathlib.Path(weights).exists():
        raise missing_file(weights)
    if weights is not None and (pathlib.Path(weights) / CONFIG).is_file():
        model = _own_expert(spec, pathlib.Path(weights))
        check(model)
        return model, expert_preprocessing(weights), _folder_name(spec, pathlib.Path(weights))
    model, name = _named(spec, weights is None, check)
    check(model)
    _note_origin(model, spec, weights is None)
    folder = None
    if weights is not None:
        raw = read_bytes(weights, "weights")
        model.load_state_dict(fitting_weights(raw, model, f"weights {os.fspath(weights)}"))
        folder = pathlib.Path(weights).parent
    return model.eval(), preprocessing_of(model, folder=folder, **given), name


def _file_preprocessing(model: ExportedExpert, given: dict[str, Any]) -> Preprocessing:
    """What the images of an exported expert need: the file's, or of a stranger's what is given."""
    adapter, file = adapter_for(model), model.session.path
    has_own = model.session.metadata.get("preprocessing") is not None
    refused = given if has_own else {"weights": given["weights"]}
    for name, value in refused.items():
        if value is not None:
            raise InvalidValueError(
                f"{file} is an exported expert and brings its own {name}: leave {name}={value!r} "
                "out"
            )
    if has_own or given["mean"] is given["std"] is None:
        return adapter.preprocessing(model)
    channels, *size = adapter.input_size(model)
    others = {"crop_pct": given["crop"], "crop_mode": given["crop_mode"]}
    others |= {"interpolation": given["interpolation"]}
    return Preprocessing(
        (size[0], size[1]),
        **normalisation(channels, given["mean"], given["std"]),
        **{name: value for name, value in others.items() if value is not None},
    )


def tuning_of(spec: str, model: nn.Module) -> str:
    """The sketch of the images that tuned the expert of a name; "" where none was recorded.

    Parameters
    ----------
    model : the expert

    Examples
    --------
    >>> import agflow
    >>> from agflow.models.load import tuning_of
    >>> tuning_of("example", agflow.load_model("example")[0])
    ''
    """
    if isinstance(model, ExportedExpert):
        return str(model.session.metadata.get("tuning") or "")
    folder = expert_folder(spec)
    return "" if folder is None else expert_tuning(folder)


def load_architecture(spec: str) -> nn.Module:
    """A model by a name that :func:`load_model` takes, without fetching published weights.

    Examples
    --------
    >>> from agflow.models.load import load_architecture
    >>> type(load_architecture("torchvision:resnet18")).__name__
    'ResNet'
    """
    file = exported_file(spec)
    if file is not None:
        return ExportedExpert(file)
    expert = _expert_folder(spec)
    if expert is not None:
        return load_expert(expert)
    return _named(spec, False, adapter_for)[0].eval()


def _own_expert(spec: str, folder: pathlib.Path) -> nn.Module:
    """The expert of a folder that was cut from the model of a function of the user's."""
    if spec.partition(":")[0] in ("timm", "torchvision", "hf") or ":" not in spec:
        raise InvalidValueError(
            f"weights {folder} is an expert folder, which brings its own model: give it in place "
            f"of {spec}"
        )
    return load_expert(folder, spec)


def image_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of :func:`load_model` that say what images need, among those of a command."""
    return {name: options.get(name) or None for name in IMAGE_OPTIONS}


def expert_folder(spec: str) -> pathlib.Path | None:
    """The expert folder that ``spec`` names; None for the example and for all other models.

    Examples
    --------
    >>> from agflow.models.load import expert_folder
    >>> expert_folder("timm:deit_tiny_patch16_224")
    """
    return None if spec == "example" else _expert_folder(spec)


def _expert_folder(spec: str) -> pathlib.Path | None:
    if spec == "example":
        return EXAMPLE / "heavy"
    folder = pathlib.Path(spec)
    return folder if folder.is_dir() and config_of(folder) is None else None


def _folder_name(spec: str, folder: pathlib.Path) -> str:
    return "example" if spec == "example" else folder.resolve().name


def _named(spec: str, pretrained: bool, check: Check) -> tuple[nn.Module, str]:
    """The model of every form but an expert folder, and its name."""
    prefix, _, rest = spec.partition(":")
    if prefix == "timm" and rest:
        return timm_model(rest, pretrained=pretrained, check=check), rest
    if prefix == "torchvision" and rest:
        return torchvision_model(rest, pretrained=pretrained, check=check), rest
    if prefix == "hf" and rest or pathlib.Path(spec).is_dir():
        folder = pathlib.Path(rest if prefix == "hf" and rest else spec)
        _check_hugging_face(folder)
        return hugging_face_model(folder, pretrained=pretrained, check=check), _folder_name(
            spec, folder
        )
    if rest and "/" not in spec:
        model = call_function(prefix, rest)
        return model, model_name(model)
    raise InvalidValueError(
        f"model {spec!r} is not understood and is no folder, expected timm:NAME, torchvision:NAME, "
        "module:function, FILE.onnx, example, or the folder of an expert or of a Hugging Face "
        "model"
    )


def _note_origin(model: nn.Module, spec: str, pretrained: bool) -> None:
    """Note on a model that will be traced what it is from: it says less of that than its name."""
    if declared_adapter(model) is None:
        library, _, name = spec.partition(":")
        if library == "torchvision":
            note_origin(model, torchvision_origin(name, pretrained))
        else:
            note_function(model, spec)
            note_origin(model)


def _check_hugging_face(folder: pathlib.Path) -> None:
    if not folder.is_dir():
        raise FileError(
            f"hf:{folder} names no folder: give one that save_pretrained wrote, or fetch a "
            f"published model into one first (hf download {folder} --local-dir DIR)"
        )
    if config_of(folder) is None:
        raise InvalidValueError(
            f"hf:{folder} is not the folder of a Hugging Face model (no config.json with a "
            "model_type or an architecture): give an expert folder without hf:"
        )
