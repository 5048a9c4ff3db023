"""Models of other libraries by name or folder: checked by their architecture before their weights.

Each function imports its library, which takes seconds, and builds the model on the meta device
first, where that takes no memory and no weights.
"""

from __future__ import annotations

import json
import os
import pathlib
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from agflow._utils.files import read_bytes
from agflow._utils.json_file import MAX_JSON_BYTES
from agflow._utils.nearest import did_you_mean
from agflow.errors import AgflowError, CorruptFileError, FileError, InvalidValueError

CONFIG = "config.json"
_PATIENCE = 3.0  # seconds for a connection to the publisher of weights
_HUB = "https://huggingface.co"

Build = Callable[[], nn.Module]
Check = Callable[[nn.Module], object]


def timm_model(name: str, *, pretrained: bool, check: Check) -> nn.Module:
    """A timm model, with its published weights if ``pretrained``.

    Raises
    ------
    InvalidValueError
        timm has no model of the name.
    FileError
        The weights cannot be fetched.
    """
    import timm

    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models(), "timm.list_models()")
    _check_skeleton(lambda: timm.create_model(name), check)
    if not pretrained:
        return timm.create_model(name)
    with _fetching(name):
        return timm.create_model(name, pretrained=True)


def torchvision_model(name: str, *, pretrained: bool, check: Check) -> nn.Module:
    """A model of torchvision, with its published weights if ``pretrained``.

    Raises
    ------
    InvalidValueError
        torchvision has no model of the name.
    FileError
        The weights cannot be fetched.
    """
    from torchvision import models

    known = models.list_models()
    if name not in known:
        raise _unknown("torchvision", name, known, "torchvision.models.list_models()")
    _check_skeleton(lambda: models.get_model(name), check)
    if not pretrained:
        return models.get_model(name)
    with _fetching(name):
        return models.get_model(name, weights="DEFAULT")


def config_of(folder: pathlib.Path) -> dict[str, Any] | None:
    """The config.json of a folder that transformers or timm wrote; None for all other folders."""
    path = folder / CONFIG
    if not path.is_file():
        return None
    try:
        values = json.loads(read_bytes(path, "file", MAX_JSON_BYTES))
    except (AgflowError, ValueError, RecursionError):
        return None  # whoever reads the folder as something else says what is wrong
    foreign = isinstance(values, dict) and (
        "model_type" in values or "architectures" in values or _is_timm(values)
    )
    return values if foreign else None


def hugging_face_model(folder: pathlib.Path, *, pretrained: bool, check: Check) -> nn.Module:
    """The classifier of a folder in Hugging Face's layout, with its weights if ``pretrained``.

    Nothing is fetched, and no code of the folder's is run.

    Raises
    ------
    CorruptFileError
        The folder holds no classifier that transformers or timm can build, or not all its weights.
    """
    values = config_of(folder) or {}
    if _is_timm(values):
        return _timm_folder(folder, values["architecture"], pretrained, check)
    try:
        from transformers import AutoConfig, AutoModelForImageClassification
    except ImportError as error:
        raise InvalidValueError(
            f"{folder} is the folder of a Hugging Face model, and transformers cannot be imported "
            f"({error}): pip install transformers"
        ) from error

    own = {"local_files_only": True, "trust_remote_code": False}
    with _reading(folder):
        config = AutoConfig.from_pretrained(folder, **own)
        _check_skeleton(lambda: AutoModelForImageClassification.from_config(config), check)
        if not pretrained:
            return AutoModelForImageClassification.from_config(config)
        model, found = AutoModelForImageClassification.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, **own
        )
    missing = sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]]))
    if missing:  # transformers draws them at random, and warns
        raise CorruptFileError(
            f"the weights in {folder} lack {len(missing)} tensors of a "
            f"{type(model).__name__}, such as {missing[0]}: expected a whole classifier, not the "
            "part of another model"
        )
    return model.float()


def _timm_folder(folder: pathlib.Path, name: str, pretrained: bool, check: Check) -> nn.Module:
    import timm

    if not timm.is_model(name.partition(".")[0]):
        raise CorruptFileError(f"{folder / CONFIG} names the model {name!r}, which timm has not")
    with _reading(folder):
        place = f"local-dir:{folder}"
        _check_skeleton(lambda: timm.create_model(place), check)
        return timm.create_model(place, pretrained=pretrained)


def _is_timm(values: dict[str, Any]) -> bool:
    return isinstance(values.get("architecture"), str) and "pretrained_cfg" in values


def _check_skeleton(build: Build, check: Check) -> None:
    """Check an architecture before its weights are sought."""
    try:
        with torch.device("meta"):
            skeleton = build()
    except Exception:
        return  # some constructors compute with values; then the whole model is checked
    check(skeleton)


def _unknown(library: str, name: str, known: list[str], all_of_them: str) -> InvalidValueError:
    guess = did_you_mean(name, known, 3)
    return InvalidValueError(f"{library} has no model {name!r}{guess or f'; see {all_of_them}'}")


@contextmanager
def _reading(folder: pathlib.Path) -> Iterator[None]:
    """One sentence for whatever a damaged or unknown folder provokes in the library."""
    try:
        yield
    except AgflowError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CorruptFileError(
            f"{folder} is not the folder of a classifier that can be read ({reason}): expected "
            f"{CONFIG} and model.safetensors, as save_pretrained writes them"
        ) from error


@contextmanager
def _fetching(name: str) -> Iterator[None]:
    """Fetch published weights; where there is no network, take them from the cache or say so.

    Without this, huggingface_hub tries again for more than a minute.
    """
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE
    try:
        constants.HF_HUB_OFFLINE = offline or not _reachable()
        yield
    # No network, no published weights, a damaged cache: each raises its own kind.
    except Exception as error:
        reason = "no network" if constants.HF_HUB_OFFLINE else f"{error}".strip().splitlines()[0]
        raise FileError(
            f"the published weights of {name} cannot be fetched ({reason}): name a safetensors "
            "file with weights (--weights)"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = offline


def _reachable() -> bool:
    """Whether the hub, or the proxy on the way to it, takes a connection."""
    hub = os.environ.get("HF_ENDPOINT") or _HUB
    place = urllib.parse.urlsplit(hub)
    proxy = urllib.request.getproxies().get(place.scheme)
    place = urllib.parse.urlsplit(proxy) if proxy else place
    port = place.port or (443 if place.scheme == "https" else 80)
    try:
        socket.create_connection((place.hostname or "", port), _PATIENCE).close()
    except OSError:
        return False
    return True
