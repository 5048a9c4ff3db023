"""One numbering of the classes for both experts and the labels, by name or by number."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

import numpy as np

from agflow.cascade.answers import Answers
from agflow.errors import InvalidValueError, ShapeError


def number_classes(
    light: Answers, heavy: Answers, labels_N: np.ndarray, classes: Iterable | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number the classes of both experts' answers and of the labels alike.

    Columns of logits with names are put in one order. Names become their place among the classes;
    numbers do where the classes are numbers themselves, and else are the place.

    Parameters
    ----------
    light, heavy : of :func:`agflow.cascade.answers.read_answers`
    labels_N : of :func:`agflow.cascade.answers.read_classes`
    classes : of :meth:`agflow.Predictions.of`

    Returns
    -------
    light, heavy : logits [N, K] or class numbers, int64 [N]
    labels_N : class numbers, int64 [N]

    Raises
    ------
    InvalidValueError, ShapeError
        A name or number is none of the classes, or the columns of both experts differ.
    """
    given = {"light_logits": light, "heavy_logits": heavy}
    texts = [
        values
        for values in (labels_N, *(answers.values for answers in given.values()))
        if values.dtype.kind == "O"
    ]
    named = {name: answers.columns for name, answers in given.items() if answers.columns}
    if classes is not None:
        known = _listed(classes)
        names = {name: _named_as(columns, known, name) for name, columns in named.items()}
    else:
        names = _alike(named, set().union(*(set(values) for values in texts)))
        known = next(iter(names.values()), None)
    if known is None and texts:
        known = _from_texts(given, texts)
    places = {} if known is None else {name: place for place, name in enumerate(known)}
    values = [
        _numbered(answers.values, name, places)
        if answers.values.ndim == 1
        else _ordered(answers.values, names.get(name), known, name)
        for name, answers in given.items()
    ]
    labels_N = _numbered(labels_N, "labels", places)
    _check_range(labels_N, [v.shape[1] for v in values if v.ndim == 2], known)
    return values[0], values[1], labels_N


def _listed(classes: Iterable) -> tuple[str, ...]:
    """The names of the classes that were given."""
    if isinstance(classes, str):
        raise InvalidValueError(f"classes: got {classes!r}, expected a list of names")
    plain = (
        int(name) if isinstance(name, float) and name.is_integer() else name for name in classes
    )
    known = tuple(map(str, plain))
    if len(set(known)) < len(known) or len(known) < 2:
        raise InvalidValueError(
            f"classes: got {', '.join(known)!r:.80}, expected two names or more, all different"
        )
    return known


def _without_prefix(columns: Sequence[str]) -> tuple[str, ...]:
    """Names without what all begin with, up to a separator: light_cat, light_dog."""
    prefix = re.match(r"(?:.*[^0-9A-Za-z])?", os.path.commonprefix(list(columns)), re.DOTALL)
    short = tuple(name[len(prefix.group()) :] for name in columns) if prefix else tuple(columns)
    return short if all(short) else tuple(columns)


def _alike(named: dict[str, tuple[str, ...]], texts: set[str]) -> dict[str, tuple[str, ...]]:
    """The names of the columns, whole or without their prefix, such that all agree."""
    short = {name: _without_prefix(columns) for name, columns in named.items()}
    numbered = not texts and all(_are_numbers(columns) for columns in short.values())
    for names in (short,) if numbered else (named, short):
        sets = [set(columns) for columns in names.values()]
        if all(one == sets[0] and texts <= one for one in sets):
            return names
    if len({frozenset(columns) for columns in short.values()}) > 1:
        light, heavy = (", ".join(columns)[:60] for columns in named.values())
        raise InvalidValueError(
            f"the columns of light_logits are {light} and those of heavy_logits {heavy}, expected "
            "the same classes: name them alike, or pass arrays whose columns are in one order"
        )
    return named


def _are_numbers(names: Iterable[str]) -> bool:
    return all(re.fullmatch(r"-?[0-9]+", name) for name in names)


def _named_as(columns: tuple[str, ...], known: tuple[str, ...], name: str) -> tuple[str, ...]:
    """The names of columns among the classes that were given; of other columns the order counts."""
    for names in (columns, _without_prefix(columns)):
        if set(names) == set(known):
            return names
    if len(columns) == len(known) and not set(columns) & set(known):
        return known
    raise InvalidValueError(
        f"the columns of {name} are {', '.join(columns):.80}, expected the classes "
        f"{', '.join(known):.80}"
    )


def _from_texts(given: dict[str, Answers], texts: list[np.ndarray]) -> tuple[str, ...]:
    """The names that occur, in the order of the alphabet; logits would need theirs."""
    found = sorted(set().union(*(set(values) for values in texts)))
    for name, answers in given.items():
        if answers.values.ndim == 2:
            raise InvalidValueError(
                f"the classes have names ({', '.join(found):.60}), the columns of {name} have "
                "none: pass classes=, the names in the order of the columns"
            )
    return tuple(found)


def _numbered(values_N: np.ndarray, name: str, places: dict[str, int]) -> np.ndarray:
    """Classes as their places; numbers where the classes have other names are places already."""
    if values_N.dtype.kind != "O" and not (places and _are_numbers(places)):
        wrong = np.flatnonzero(values_N < 0)
        if len(wrong):
            raise InvalidValueError(
                f"{name}: row {wrong[0]} is {values_N[wrong[0]]}, expected classes counted from 0: "
                "leave out images without a class"
            )
        return values_N
    unique, inverse = np.unique(values_N, return_inverse=True)
    unknown = [str(one) for one in unique if str(one) not in places]
    if unknown:
        raise InvalidValueError(
            f"{name}: {unknown[0]!r} is none of the classes {', '.join(places):.80}: pass classes= "
            "with all, or arrays without names for class numbers"
        )
    return np.array([places[str(one)] for one in unique], np.int64)[inverse.reshape(-1)]


def _ordered(
    values_NK: np.ndarray,
    names: tuple[str, ...] | None,
    known: tuple[str, ...] | None,
    name: str,
) -> np.ndarray:
    """Logits with their columns in the order of the classes."""
    if known is not None and values_NK.shape[1] != len(known):
        raise ShapeError(
            f"{name}: there are {values_NK.shape[1]} columns and {len(known)} classes "
            f"({', '.join(known):.60}), expected a column for each"
        )
    if names is None or names == known:
        return values_NK
    return np.ascontiguousarray(values_NK[:, [names.index(one) for one in known or ()]])


def _check_range(labels_N: np.ndarray, widths: list[int], known: tuple[str, ...] | None) -> None:
    count = max(widths, default=len(known) if known else 0)
    if count and len(labels_N) and labels_N.max() >= count:
        raise InvalidValueError(
            f"labels run from {labels_N.min()} to {labels_N.max()}, the experts have {count} "
            f"classes (0 to {count - 1}): give class numbers counted from 0, or pass classes="
        )
