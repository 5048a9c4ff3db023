"""The class labels in the config of a transformers model, each at the number of its class."""

from __future__ import annotations

from typing import Any


def labels_of(config: Any, count: int) -> list[str]:
    """Return the labels of ``count`` classes in the order of the logits.

    A config that was read from JSON has texts for numbers. Where the config has labels for another
    number of classes, because the classifier was replaced by hand, transformers' own stand for
    them: ``LABEL_0``, ``LABEL_1``, ...

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from agflow.models.families.labels import labels_of
    >>> labels_of(SimpleNamespace(id2label={"1": "dog", "0": "cat"}), 2)
    ['cat', 'dog']
    """
    by_number = {int(number): str(label) for number, label in config.id2label.items()}
    if len(by_number) != count:
        return [f"LABEL_{number}" for number in range(count)]
    return [by_number[number] for number in range(count)]


def misnumbered(labels: Any) -> str | None:
    """Say why labels do not number the classes; None when they do.

    Examples
    --------
    >>> from agflow.models.families.labels import misnumbered
    >>> misnumbered({"0": "cat", "1": "dog"}) is None, misnumbered({1: "cat", 2: "dog"}) is None
    (True, False)
    """
    try:
        numbers = sorted(map(int, labels))
    except (TypeError, ValueError):
        numbers = None
    if isinstance(labels, dict) and numbers == list(range(len(labels))):
        return None
    found = list(labels)[:3] if isinstance(labels, dict) else f"a {type(labels).__name__}"
    return (
        f"config.id2label has {found}, expected a label for each number from 0 to that of the last "
        "class: set model.config.id2label = {0: ..., 1: ...}"
    )
