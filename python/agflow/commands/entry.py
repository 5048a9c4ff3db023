"""What the entry points of the command share: JSON in and out, models, images.

Each function imports what it needs, so that a command loads nothing else.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agflow._utils.first_rank import is_first_rank
from agflow._utils.progress import logged_progress
from agflow.errors import InvalidValueError

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.data import DataLoader, Subset

    from agflow._utils.computing import Computing
    from agflow.data.datasets import Dataset
    from agflow.data.preprocessing import Preprocessing
    from agflow.table import Table


def command(function: Callable[[dict], dict]) -> Callable[[str], str]:
    @functools.wraps(function)
    def entry(options: str) -> str:
        with logged_progress(say):
            result = function(json.loads(options))
        return json.dumps(result if is_first_rank() else None)

    return entry


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def given_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options that have a value; lists as tuples."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in options.items()
        if value is not None
    }


def computing_of(options: dict) -> Computing:
    """Where the models of a command compute; a device that is not there is refused first."""
    from agflow._utils.computing import Computing

    return Computing.of_process(options.get("device"), options.get("dtype"))


def load_role(options: dict, role: str) -> tuple[nn.Module, Preprocessing, str]:
    """The model that the option ``role`` names, with the weights and normalisation given."""
    from agflow.models import load_model
    from agflow.models.fitting import request_check
    from agflow.models.load import image_options

    check = request_check(options.get("groups"))
    return load_model(options[role], options.get("weights"), check=check, **image_options(options))


def load_compared(options: dict) -> tuple[nn.Module, Preprocessing, str, nn.Module | None]:
    """The option ``model`` as :func:`load_role` has it, and the dense one where one is named.

    An expert has weights of its own, so that those given are the other's; both get the images that
    the first one takes.
    """
    from agflow.models.exported import ExportedExpert, exported_file
    from agflow.models.load import IMAGE_OPTIONS, expert_folder

    if not options.get("dense"):
        return *load_role(options, "model"), None
    none = dict.fromkeys(("weights", *IMAGE_OPTIONS))
    files = {role: exported_file(options[role]) for role in ("model", "dense")}
    own = {
        role: file is not None or expert_folder(options[role]) is not None
        for role, file in files.items()
    }
    left_out = {"weights": None} if files["model"] is not None else none
    found = load_role({**options, **left_out} if own["model"] else options, "model")
    if files["dense"] is not None:
        return *found, ExportedExpert(files["dense"])
    known = {"mean": found[1].mean, "std": found[1].std}
    of_dense = {**none, **({} if own["dense"] or options["dense"] == "example" else known)}
    if own["model"] and not own["dense"]:
        of_dense["weights"] = options.get("weights")
    return *found, load_role({**options, **of_dense}, "dense")[0]


def load_light(options: dict) -> tuple[nn.Module, str]:
    """The light expert, of a folder or file of any kind, and the sketch of what tuned it.

    Its images are those of the heavy expert.
    """
    from agflow.models import load_expert, load_model
    from agflow.models.exported import ExportedExpert, exported_file
    from agflow.models.load import expert_folder, tuning_of

    spec = options["light"]
    file, folder = exported_file(spec), expert_folder(spec)
    if file is not None:
        light = ExportedExpert(file)
    else:
        light = load_model(spec)[0] if folder is None else load_expert(folder)
    return light, tuning_of(spec, light)


def save_table(table: Table, options: dict) -> None:
    """Save a command's table; that of the default name says which run it is of.

    By that the command knows the file again, and does not replace it by another run's.
    """
    run = options.get("run")
    if run:
        table = type(table)(table.batch, {"agflow.run": run})
    table.save(options["output"])


def dataset_of(options: dict, preprocessing: Preprocessing, labels_of: nn.Module | None) -> Dataset:
    """The images of a command; without a model that has their labels these are not looked at."""
    from agflow.data import DataOptions, load_dataset
    from agflow.models import known_classes

    label, column, class_map = map(options.get, ("label", "image_column", "class_map"))
    return load_dataset(
        options["data"],
        preprocessing=preprocessing,
        limit=options.get("limit"),
        offset=options.get("offset") or 0,
        seed=options["seed"],
        classes=known_classes(labels_of) if labels_of is not None else None,
        options=DataOptions(label, column, class_map),
    )


def loader_of(
    options: dict,
    preprocessing: Preprocessing,
    labels_of: nn.Module | None,
    *,
    shared: bool = False,
) -> DataLoader:
    """A loader of the images of a command, see :func:`dataset_of`."""
    return _loader(options, dataset_of(options, preprocessing, labels_of), shared=shared)


def training_loaders(
    options: dict, preprocessing: Preprocessing, model: nn.Module
) -> tuple[DataLoader, DataLoader | None]:
    """Loaders of the images that train, shuffled, and of those held out by ``held_out``.

    That is a share of the images, other data, or 0 for none.
    """
    from torch.utils.data import Subset

    from agflow.data.held_out_images import hold_out

    images: Dataset | Subset = dataset_of(options, preprocessing, model)
    held, held_out = None, options.get("held_out") or "0"
    if held_out == options["data"]:
        raise InvalidValueError(
            f"--held-out is {held_out}, the data that train: give a share of them, such as 0.1, "
            "or other data"
        )
    share = _number(held_out)
    if share is None:
        others = {**options, "data": held_out, "limit": None, "offset": None}
        held = dataset_of(others, preprocessing, model)
    elif share:
        parts = hold_out(len(images), share, options["seed"])
        images, held = (Subset(images, part) for part in parts)
    train = _loader(options, images, shuffle_seed=options["seed"], shared=True)
    return train, None if held is None else _loader(options, held, shared=True)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _loader(
    options: dict,
    images: Dataset | Subset,
    *,
    shuffle_seed: int | None = None,
    shared: bool = False,
) -> DataLoader:
    from agflow.data import image_loader

    return image_loader(
        images,
        options["batch_size"],
        workers=options.get("workers") or 0,
        shuffle_seed=shuffle_seed,
        shared=shared,
    )
