"""Some logits of a saved model, by which a model that the user gives is known to be the same."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from agflow._utils.devices import first_parameter
from agflow._utils.modes import evaluating
from agflow.errors import InvalidValueError
from agflow.models.outputs import whole_output

_LOGITS = 16
_TOLERANCE = 1e-2  # of the largest: other machines round otherwise, other models differ by more


@torch.no_grad()
def answers_of(model: nn.Module, size: Sequence[int] | None) -> list[float] | None:
    """The first numbers that are put out for one random image, the same for all of that size.

    None for a model without values, or whose size is not known.

    Parameters
    ----------
    size : channels, height and width of the image

    Examples
    --------
    >>> from torch import nn
    >>> from agflow.models.families.answers import answers_of
    >>> len(answers_of(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), (3, 2, 2)))
    3
    """
    weight = first_parameter(model)
    if size is None or weight.device.type == "meta":
        return None
    image = torch.randn(1, *size, generator=torch.Generator().manual_seed(0)).to(weight)
    with evaluating(model):
        return whole_output(model(image))[0].flatten()[:_LOGITS].double().tolist()


def check_answers(
    model: nn.Module, size: Sequence[int] | None, expected: Sequence[float] | None
) -> None:
    """Check that a model built from what the user gave answers as the one that was saved.

    Parameters
    ----------
    size, expected : of the saved one, of :func:`answers_of`; None checks nothing

    Raises
    ------
    InvalidValueError
        It does not.
    """
    found = answers_of(model, size)
    if found is None or expected is None:
        return
    found_K, wanted_K = torch.tensor(found), torch.tensor(expected)
    tolerance = _TOLERANCE * float(wanted_K.abs().max())
    if found_K.shape != wanted_K.shape or not torch.allclose(
        found_K, wanted_K, rtol=0, atol=tolerance, equal_nan=True
    ):
        raise InvalidValueError(
            f"with the weights of the expert the given {type(model).__name__} gives other logits "
            "than the saved one did: give the dense model that it was cut from, made with the same "
            "arguments"
        )
