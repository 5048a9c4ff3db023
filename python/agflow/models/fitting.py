"""Whether what is asked of a model can be had of it, by its architecture alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from torch import nn

from agflow._utils.devices import first_parameter
from agflow._utils.nearest import did_you_mean
from agflow.errors import BudgetError, InvalidValueError
from agflow.models.channel_group import KINDS
from agflow.models.registry import adapter_for, count_macs

_POWERS = {"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def request_check(
    groups: Sequence[str] | None = None, macs: str | float | None = None
) -> Callable[[nn.Module], None]:
    """A check for :func:`agflow.load_model`: the model has the groups, and so many MACs.

    Examples
    --------
    >>> import agflow
    >>> from agflow.models.fitting import request_check
    >>> model, _, _ = agflow.load_model("example", check=request_check(["mlp"], "20M"))
    """

    def check(model: nn.Module) -> None:
        traced = adapter_for(model).family == "traced"
        # A graph is traced with values; load_model asks again when the model has them.
        if groups is not None and not (traced and first_parameter(model).is_meta):
            check_groups(model, groups)
        check_budget(model, macs)

    return check


def check_groups(model: nn.Module, groups: Sequence[str]) -> None:
    """Refuse kinds of groups that nothing has, and those of which a model has none.

    A kind that some models have and this one lacks is skipped as long as it has another one: the
    default names those of Vision Transformers and of convolutional networks.

    Raises
    ------
    InvalidValueError
        A kind is unknown, or the model has none of those that are named.
    UnsupportedModelError
        No adapter handles the model.

    Examples
    --------
    >>> import agflow
    >>> from agflow.models.fitting import check_groups
    >>> check_groups(agflow.load_model("example")[0], ["mlp", "heads"])
    """
    own = sorted({layer.kind for layer in adapter_for(model).layers(model)})
    unknown = [group for group in groups if group not in (*own, *KINDS)]
    if unknown or not present_groups(groups, own):
        raise InvalidValueError(
            f"groups is {list(groups)}, expected some of: {', '.join(own)}, which the model has"
            + (did_you_mean(unknown[0], (*own, *KINDS)) if unknown else "")
        )


def present_groups(groups: Sequence[str], own: Collection[str]) -> list[str]:
    """Those of ``groups`` that are among the kinds ``own`` of a model or of a table.

    Examples
    --------
    >>> from agflow.models.fitting import present_groups
    >>> present_groups(["mlp", "heads", "conv"], {"mlp", "heads", "block"})
    ['mlp', 'heads']
    """
    return [group for group in groups if group in own]


def check_budget(model: nn.Module, macs: str | float | None) -> None:
    """Refuse an amount of MACs that is more than the model has; shares are the planner's.

    Raises
    ------
    BudgetError
        It is more.
    UnsupportedModelError
        No adapter handles the model.

    Examples
    --------
    >>> import agflow
    >>> from agflow.models.fitting import check_budget
    >>> check_budget(agflow.load_model("example")[0], "20M")
    """
    text = str(macs or "")
    power = _POWERS.get(text[-1:], 0)
    try:
        amount = float(text[:-1]) * power if power else float(text)
    except ValueError:
        return  # the planner says what is wrong with it
    dense = count_macs(model)
    if amount > 1 and amount > dense:
        raise BudgetError(
            f"macs is {text}, and the dense model has {dense / 1e6:.1f}M: give less, or a share of "
            "it such as 0.5"
        )
