"""A model run on images of any floating type, and its logits checked.

Shape suffixes: B images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import torch
from torch import nn

from agflow._utils.devices import first_parameter
from agflow.errors import NonFiniteError, ShapeError, UnsupportedModelError
from agflow.models.outputs import logits_of
from agflow.models.registry import adapter_for
from agflow.models.resizing import resize_of


def model_logits(model: nn.Module, images_BCHW: torch.Tensor) -> torch.Tensor:
    """Run ``model`` on images of any floating dtype and device; returns its logits [B, K].

    The images are brought to the device and dtype of the model's first parameter.

    Raises
    ------
    ShapeError
        The images do not have the model's channels or size, or the output is not [B, K].
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
    try:
        output = model(images_BCHW.to(first_parameter(model)))
    except (AssertionError, RuntimeError, ValueError) as error:
        check_image_shape(model, images_BCHW, error)
        raise
    logits_BK = logits_of(output)
    if logits_BK.ndim != 2 or len(logits_BK) != len(images_BCHW):
        raise ShapeError(
            f"{type(model).__name__} gave logits of the shape {list(logits_BK.shape)} for "
            f"{len(images_BCHW)} images, expected [images, classes]: pass a classifier of images"
        )
    return logits_BK


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
        channels, height, width = adapter_for(model).input_size(model)
    except UnsupportedModelError:
        return
    sizes = images_BCHW.shape[2:], (height, width)
    if images_BCHW.shape[1] == channels and (resize_of(model) or sizes[0] == sizes[1]):
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
