"""Models restricted to some of their classes: 10 of 1,000, for instance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from agflow.errors import InvalidValueError
from agflow.models.account import examined
from agflow.models.callables import unwrapped
from agflow.models.copying import copy_of
from agflow.models.registry import adapter_for


def class_count(model: nn.Module) -> int:
    """Return how many classes ``model`` has: the outputs of its classifier, 0 without one.

    Raises
    ------
    UnsupportedModelError
        No adapter handles the model.

    Examples
    --------
    >>> import agflow
    >>> from agflow.models import class_count
    >>> class_count(agflow.load_model("example")[0])
    10
    """
    model = unwrapped(model)
    return adapter_for(model).class_count(model)


def class_names(model: nn.Module) -> list[str] | None:
    """Return the names of the classes in the order of the logits; None where they are not known.

    They are those of an expert's folder, of a Hugging Face config (``id2label``) or of a timm model
    (WordNet ids for the classes of ImageNet).

    Raises
    ------
    UnsupportedModelError
        No adapter handles the model.

    Examples
    --------
    >>> import timm
    >>> from agflow.models import class_names
    >>> class_names(timm.create_model("vit_tiny_patch16_224"))[:2]
    ['n01440764', 'n01443537']
    """
    model = unwrapped(model)
    adapter = adapter_for(model)
    names = adapter.class_names(model)
    # A classifier that was replaced by hand has other classes than those that were noted.
    return names if names is not None and len(names) == adapter.class_count(model) else None


def known_classes(model: nn.Module) -> list[str] | int | None:
    """Return the names of the classes, or their number where the names are not known.

    None of a model without a classifier, whose features fit any labels. This is what
    :func:`agflow.load_dataset` matches the classes of data with.

    Raises
    ------
    UnsupportedModelError
        No adapter handles the model.

    Examples
    --------
    >>> import torch, timm
    >>> from agflow.models import known_classes
    >>> known_classes(timm.create_model("vit_tiny_patch16_224", num_classes=7))
    7
    """
    return class_names(model) or class_count(model) or None


def only_classes(model: nn.Module, classes: Sequence[int]) -> nn.Module:
    """Copy ``model`` with a classifier for these classes alone, in this order.

    Logit i of the copy is logit ``classes[i]`` of the model, to rounding: the other rows of its
    last linear layer are gone, and nothing else changes. Its label i is class ``classes[i]``.

    Raises
    ------
    InvalidValueError
        Fewer than two classes, or one that is given twice or that the model does not have.
    UnsupportedModelError
        No adapter handles the model, or its adapter cannot drop classes.

    Examples
    --------
    >>> import torch
    >>> import agflow
    >>> from agflow.models import only_classes
    >>> model, _, _ = agflow.load_model("example")
    >>> only_classes(model, [0, 3])(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 2])
    """
    model = unwrapped(model)
    adapter, fewer = examined(model), copy_of(model)
    keep_K = [int(index) for index in classes]
    present = adapter.class_count(fewer)
    if (
        len(keep_K) < 2
        or len(set(keep_K)) < len(keep_K)
        or not all(0 <= index < present for index in keep_K)
    ):
        raise InvalidValueError(
            f"classes are {list(classes)}, expected at least two different ones, each from 0 to "
            f"{present - 1}"
        )
    names = class_names(fewer)
    adapter.keep_classes(fewer, torch.tensor(keep_K))
    if names is not None:
        adapter.name_classes(fewer, [names[index] for index in keep_K])
    return fewer
