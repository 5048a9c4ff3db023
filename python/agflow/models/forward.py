"""A model run on images of any floating type, and its logits checked.

Shape suffixes: B images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from agflow._utils.compiling import compiled_inside, outside_graphs
from agflow._utils.devices import first_parameter
from agflow.errors import AgflowError, NonFiniteError, ShapeError, UnsupportedModelError
from agflow.models.callables import FunctionModule
from agflow.models.outputs import logits_of
from agflow.models.registry import adapter_for, model_name
from agflow.models.resizing import resize_of


@compiled_inside
def model_logits(model: nn.Module, images_BCHW: torch.Tensor) -> torch.Tensor:
    """Run ``model`` on images of any floating dtype and device; returns its logits [B, K].

    The images are brought to the device and dtype of the model's first parameter; a function
    (:func:`agflow.models.as_module`) gets them as they come.

    Raises
    ------
    ShapeError
        The model cannot take the images, or its output is not [B, K].
    UnsupportedModelError
        The output holds no logits (:func:`agflow.models.logits_of`).

    Examples
    --------
    >>> import torch
    >>> from agflow.models import model_logits
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 10)).bfloat16()
    >>> model_logits(model, torch.zeros(2, 3, 4, 4)).dtype
    torch.bfloat16
    """
    return checked_logits(model, _output(model, images_BCHW), len(images_BCHW))


@compiled_inside
def model_output(model: nn.Module, images_BCHW: torch.Tensor) -> Any:
    """Run ``model`` as :func:`model_logits` does; returns whatever it puts out.

    Raises
    ------
    ShapeError
        The model cannot take the images.

    Examples
    --------
    >>> import torch
    >>> from agflow.models.forward import model_output
    >>> model_output(torch.nn.Conv2d(3, 8, 2).double(), torch.zeros(1, 3, 4, 4)).shape
    torch.Size([1, 8, 3, 3])
    """
    return _output(model, images_BCHW)


def _output(model: nn.Module, images_BCHW: torch.Tensor) -> Any:
    taken_BCHW = as_taken(model, images_BCHW)
    try:
        return model(taken_BCHW)
    except (AgflowError, torch.OutOfMemoryError):
        raise
    except (AssertionError, RuntimeError, ValueError) as error:
        raise _of_images(model, taken_BCHW, error) from error


@outside_graphs
def as_taken(model: nn.Module, images_BCHW: torch.Tensor) -> torch.Tensor:
    """Bring images to the device and dtype of a model; functions get them as they come.

    Examples
    --------
    >>> import torch
    >>> from agflow.models.forward import as_taken
    >>> as_taken(torch.nn.Conv2d(3, 8, 2).double(), torch.zeros(1, 3, 4, 4)).dtype
    torch.float64
    """
    weight = first_parameter(model)
    if weight.numel():
        return images_BCHW.to(weight)
    # Nothing says where a model without parameters computes.
    return images_BCHW if isinstance(model, FunctionModule) else images_BCHW.float()


@outside_graphs
def checked_logits(model: nn.Module, output: Any, images: int) -> torch.Tensor:
    """The logits [B, K] in what a model put out for ``images`` images.

    Raises
    ------
    ShapeError, UnsupportedModelError
        As :func:`model_logits`.
    """
    logits_BK = logits_of(output)
    if logits_BK.ndim != 2 or len(logits_BK) != images:
        raise ShapeError(
            f"{model_name(model)} gave logits of the shape {list(logits_BK.shape)} for "
            f"{images} images, expected [images, classes]: pass a classifier of images"
        )
    return logits_BK


def _of_images(model: nn.Module, images_BCHW: torch.Tensor, error: Exception) -> ShapeError:
    """What a model's complaint about its images says of them."""
    check_image_shape(model, images_BCHW, error)
    return ShapeError(
        f"{model_name(model)} fails on images {list(images_BCHW.shape)} of {images_BCHW.dtype} "
        f"on {images_BCHW.device} ({_first_line(error)}): give it images of the size, channels and "
        "type that it takes"
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def check_image_shape(
    model: nn.Module, images_BCHW: torch.Tensor, cause: Exception | None = None
) -> None:
    """Check that images have the channels and the size of a model whose adapter knows them.

    Parameters
    ----------
    cause : the model's own complaint about them

    Raises
    ------
    ShapeError
        They have not.

    Examples
    --------
    >>> import agflow, torch
    >>> from agflow.models.forward import check_image_shape
    >>> model, _, _ = agflow.load_model("example")
    >>> check_image_shape(model, torch.zeros(1, 1, 28, 28))
    """
    try:
        adapter = adapter_for(model)
        channels, height, width = adapter.input_size(model)
    except UnsupportedModelError:
        return
    any_size = adapter.any_size or resize_of(model) is not None
    sizes = images_BCHW.shape[2:], (height, width)
    if images_BCHW.shape[1] == channels and (any_size or sizes[0] == sizes[1]):
        return
    raise ShapeError(
        f"the images are {list(images_BCHW.shape)}, {type(model).__name__} takes [images, "
        f"{channels}, {height}, {width}]: load them with the model's own preprocessing"
    ) from cause


def check_finite(logits_BK: torch.Tensor, what: str, first_row: int = 0) -> None:
    """Check that all logits of a model are finite.

    Parameters
    ----------
    what : the model, for the message
    first_row : number of the first image among all that the model has seen

    Raises
    ------
    NonFiniteError
        Some are not; the message names the rows.

    Examples
    --------
    >>> import torch
    >>> from agflow.models.forward import check_finite
    >>> check_finite(torch.zeros(2, 10), "light expert")
    """
    if logits_BK.isfinite().all():
        return
    rows = ((~logits_BK.isfinite().all(1)).nonzero()[:, 0] + first_row).tolist()
    named = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
    raise NonFiniteError(
        f"the {what}'s logits are NaN or infinite for {len(rows)} images (row {named}), expected "
        "finite numbers: check these images and the weights, or run the model in float32 if it "
        "overflows"
    )
