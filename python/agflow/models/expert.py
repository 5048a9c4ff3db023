"""Experts on disk: folders of config.json, model.safetensors, plan.arrow and README.md.

Loading one executes nothing from it.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import nn

from agflow._utils.devices import device_of, first_parameter
from agflow._utils.files import read_bytes
from agflow._utils.folders import FolderKind, atomic_folder
from agflow._utils.json_file import Keys
from agflow._utils.modes import preserve_training_mode
from agflow.data.preprocessing import Preprocessing
from agflow.errors import CorruptFileError, FileError, InvalidValueError, UnsupportedModelError
from agflow.models.account import check_values, examined
from agflow.models.building import registrations_at_most
from agflow.models.callables import unwrapped
from agflow.models.copying import copy_of
from agflow.models.families.answers import check_answers
from agflow.models.families.module_trees import NOTE
from agflow.models.outputs import whole_output
from agflow.models.own_function import call_function
from agflow.models.readme import expert_readme
from agflow.models.registry import (
    adapter_for,
    build,
    count_macs,
    count_params,
    describe,
    model_name,
)
from agflow.models.resizing import resize_of
from agflow.models.resolution import resize_to_own
from agflow.models.sharing import tied_again
from agflow.models.weights_file import saved_tensors, with_versions, without_buffers

if TYPE_CHECKING:
    from agflow.pruning.planning import Plan

CONFIG, WEIGHTS, PLAN, README = "config.json", "model.safetensors", "plan.arrow", "README.md"
EXPERT_FOLDER = FolderKind(
    "an expert folder",
    CONFIG,
    keys={
        4: Keys(
            ("name", "architecture", "resizes", "macs", "params", "preprocessing", "tuning")
            + ("sha256",)
        ),
        1: Keys(
            ("name", "architecture", "weights_sha256", "preprocessing"),
            ("resizes", "macs", "params", "tuning"),
        ),
    },
    earlier=(WEIGHTS, PLAN, README),
)
_TUNING = NOTE + "tuning"
_TYPES = {"name": str, "architecture": dict, "resizes": bool, "tuning": str}


def save_expert(
    model: nn.Module,
    folder: str | os.PathLike,
    plan: Plan | None = None,
    preprocessing: Preprocessing | None = None,
    *,
    tuning: str = "",
) -> None:
    """Save a dense or pruned model as an expert folder, which appears whole or not at all.

    A model that resizes its images (:func:`agflow.models.at_image_size`) does so again when it is
    loaded.

    The folder is loaded back and compared bit for bit on random input before it gets its name. An
    expert folder of that name is replaced, at once and whole; a folder with anything in it that
    :func:`save_expert` did not write is left alone.

    Parameters
    ----------
    plan : the plan the model was cut by, kept as plan.arrow
    preprocessing : what the model's images need, kept in config.json, and for a model of
        transformers in ``preprocessor_config.json``, which its ``AutoImageProcessor`` reads
    tuning : sketch (:func:`agflow.data.sketch_images`) of the images that tuned the model, kept in
        config.json

    Raises
    ------
    UnsupportedModelError
        No adapter can describe the model, or it holds more than its description does.
    FileError
        The folder holds something else or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import agflow
    >>> from agflow.models import load_expert, save_expert
    >>> model, preprocessing, _ = agflow.load_model("example")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_expert(model, f"{folder}/expert", preprocessing=preprocessing)
    ...     again = load_expert(f"{folder}/expert")
    >>> all(bool((a == b).all()) for a, b in zip(model.parameters(), again.parameters()))
    True
    """
    model = unwrapped(model)
    check_values(model)
    examined(model)
    description = describe(model)
    weights = safetensors.torch.save(
        {name: tensor.contiguous() for name, tensor in saved_tensors(model, description).items()}
    )
    config = {
        "name": model_name(model),
        "architecture": description,
        "resizes": resize_of(model) is not None,
        "macs": count_macs(model),
        "params": count_params(model),
        "preprocessing": preprocessing.to_dict() if preprocessing else None,
        "tuning": tuning,
    }
    with atomic_folder(folder, EXPERT_FOLDER) as made:
        (made / WEIGHTS).write_bytes(weights)
        (made / README).write_text(expert_readme(model, config), encoding="utf-8")
        if plan is not None:
            plan.save(made / PLAN)
        if preprocessing is not None:
            for name, text in adapter_for(model).files(preprocessing).items():
                (made / name).write_text(text, encoding="utf-8")
        EXPERT_FOLDER.seal(made, config)
        try:
            rebuilt = load_expert(made)  # models of the user's own are known in this process
        except CorruptFileError as error:  # it names the folder that is about to go
            reason = _first_line(error.__cause__ or error)
            raise UnsupportedModelError(
                f"{type(model).__name__} is not what its architecture's description says, so "
                f"nothing was saved ({reason})"
            ) from error
        _check_same(model, rebuilt)


def load_expert(
    folder: str | os.PathLike, model: nn.Module | Callable[[], nn.Module] | str | None = None
) -> nn.Module:
    """Load the model of an expert folder, in evaluation mode on the CPU.

    Parameters
    ----------
    model : of a model of the user's own, which the folder cannot make: the dense model that the
        expert was cut from, a function without arguments that makes it, or the name of one,
        ``"module:function"``. Where this process has had that model already, it is not needed

    Raises
    ------
    UnsupportedModelError
        The expert is a model of the user's own and ``model`` is missing.
    InvalidValueError
        ``model`` is not what the expert was cut from, or the folder says all of its model.
    FileError
        The folder or one of its files is missing or not readable.
    CorruptFileError
        A file is damaged or was not made by :func:`save_expert`; the message names it.

    Examples
    --------
    >>> from agflow.data.datasets import EXAMPLE
    >>> from agflow.models import load_expert
    >>> model = load_expert(EXAMPLE / "heavy")
    """
    folder = pathlib.Path(folder)
    config = _read_config(folder)
    raw = read_bytes(folder / WEIGHTS, "file")
    if hashlib.sha256(raw).hexdigest() != _weights_sha256(config):
        raise CorruptFileError(
            f"{folder / WEIGHTS} is damaged: its SHA-256 is not the one in {CONFIG}; copy or save "
            "the expert again"
        )
    dense = None if model is None else _given(model)
    expert = _built(folder / CONFIG, config["architecture"], raw, dense)
    if config.get("resizes"):  # not in the experts of older versions
        resize_to_own(expert)
    adapter = adapter_for(expert)
    if not adapter.any_size and model_name(expert) != config["name"]:
        # Of timm, in an older expert, which says no more.
        vars(expert)["pretrained_cfg"] = {"architecture": config["name"]}
    vars(expert)[_TUNING] = config.get("tuning", "")
    if dense is not None:
        saved = config["architecture"]
        check_answers(expert, saved["input_size"], saved["answers"])
    return expert.eval()


def _built(
    file: pathlib.Path, architecture: dict[str, Any], raw: bytes, dense: nn.Module | None
) -> nn.Module:
    """The model that ``file`` describes, with the weights beside it."""
    try:
        tensors = safetensors.torch.load(raw)
        # Shapes are compared before any memory is taken, on the meta device, and no more modules
        # are built than the weights can fill.
        with torch.device("meta"), registrations_at_most(len(tensors)):
            model = build(architecture, dense)
        weights = with_versions(tied_again(without_buffers(tensors, model), model), model)
        model.load_state_dict(weights, strict=True, assign=True)
        return model
    except UnsupportedModelError:  # of the user's own
        raise
    except Exception as error:  # whatever a damaged description provokes in the constructors
        if isinstance(error, InvalidValueError) and dense is not None:
            raise
        if dense is not None:
            raise InvalidValueError(
                f"the {type(dense).__name__} given does not take the expert's weights "
                f"({_first_line(error)}): give the dense model that it was cut from"
            ) from error
        raise CorruptFileError(
            f"{file} does not describe the weights beside it ({_first_line(error)}); "
            "save the expert again"
        ) from error


def _given(model: nn.Module | Callable[[], nn.Module] | str) -> nn.Module:
    """The dense model that the user gives, or has made."""
    if isinstance(model, str):
        module, _, function = model.partition(":")
        return call_function(module, function)
    made = model if isinstance(model, nn.Module) or not callable(model) else model()
    if not isinstance(made, nn.Module):
        raise InvalidValueError(
            f"model is {made!r:.60}, expected the dense torch.nn.Module, a function that makes it, "
            'or the name of one, "module:function"'
        )
    return made


def expert_preprocessing(folder: str | os.PathLike) -> Preprocessing:
    """Load the preprocessing of an expert folder.

    Raises
    ------
    FileError, CorruptFileError
        As :func:`load_expert`; also when the expert was saved without preprocessing.

    Examples
    --------
    >>> from agflow.data.datasets import EXAMPLE
    >>> from agflow.models import expert_preprocessing
    >>> expert_preprocessing(EXAMPLE / "heavy").input_size
    (28, 28)
    """
    folder = pathlib.Path(folder)
    values = _read_config(folder)["preprocessing"]
    if values is None:
        raise FileError(
            f"{folder / CONFIG} holds no preprocessing; save the expert again with preprocessing="
        )
    try:
        return Preprocessing.from_dict(values)
    except (TypeError, KeyError, InvalidValueError) as error:
        raise CorruptFileError(
            f"preprocessing in {folder / CONFIG} is damaged ({_first_line(error)}); save the "
            "expert again"
        ) from error


def noted_tuning(model: nn.Module) -> str:
    """The sketch of the images that tuned a model loaded from an expert folder; else "".

    Examples
    --------
    >>> from torch import nn
    >>> from agflow.models.expert import noted_tuning
    >>> noted_tuning(nn.Linear(2, 2))
    ''
    """
    return vars(model).get(_TUNING, "")


def expert_tuning(folder: str | os.PathLike) -> str:
    """Load the sketch of the images that tuned an expert; "" where none was recorded.

    Raises
    ------
    FileError, CorruptFileError
        As :func:`load_expert`.

    Examples
    --------
    >>> from agflow.data.datasets import EXAMPLE
    >>> from agflow.models import expert_tuning
    >>> sketch = expert_tuning(EXAMPLE / "heavy")
    """
    return str(_read_config(pathlib.Path(folder)).get("tuning", ""))


def _read_config(folder: pathlib.Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise FileError(f"expert folder {folder} is missing; expected a folder made by save_expert")
    config = EXPERT_FOLDER.read(folder)
    for name, kind in _TYPES.items():
        if name in config and not isinstance(config[name], kind):
            raise CorruptFileError(
                f"{name} in {folder / CONFIG} is a {type(config[name]).__name__}, expected a "
                f"{kind.__name__}; save the expert again"
            )
    return config


def _weights_sha256(config: dict[str, Any]) -> str | None:
    if config["format"] == 1:
        return config["weights_sha256"]
    return config["sha256"].get(WEIGHTS)


@torch.no_grad()
def _check_same(model: nn.Module, rebuilt: nn.Module) -> None:
    """Check that the rebuilt model gives the same bits: config.json describes all of it.

    Both run on the CPU: another device rounds otherwise.
    """
    if device_of(model).type != "cpu":
        model = copy_of(model).cpu()
    channels, *size = adapter_for(model).input_size(model)
    if resize_of(model) is not None:
        size = [2 * pixels for pixels in size]
    x = torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(0))
    x = x.to(first_parameter(model).dtype)
    with preserve_training_mode(model):
        own = whole_output(model.eval()(x))
    try:
        found = None if torch.equal(own, whole_output(rebuilt(x))) else "gives other logits"
    except Exception as error:  # of tensors that nobody sets, for one
        found = f"does not run ({_first_line(error)})"
    if found is not None:
        raise UnsupportedModelError(
            f"{type(model).__name__} holds something its architecture's description does not: "
            f"the rebuilt model {found}, so nothing was saved; take hooks and the like off first"
        )


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
