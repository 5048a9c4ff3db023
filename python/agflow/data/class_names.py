"""From the classes of a data set to the classes of a model.

A class of the data is a folder, a text label, or a number with a name (Hugging Face's ClassLabel).
The first rule that says something about all of them decides:

1. ``class_map``, where it is given.
2. Names that are the model's: as they are, or without regard to case, ``_`` and ``-``; one of
   several names between commas (``tench, Tinca tinca``); the WordNet id of a class of ImageNet,
   alone or before a name (``n02085620-Chihuahua``).
3. Names that are numbers: they are the class's number, ``10`` after ``9``.
4. As many names as the model has classes, whose names are not known: they are its classes in
   order, which is alphabetical for folders and texts, as torchvision's ``ImageFolder`` counts. A
   warning says so.
5. Nothing is known of the model: its classes are the data's in order.

Anything else is refused: the order of some folders says nothing about a model's classes.
"""

from __future__ import annotations

import csv
import difflib
import io
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from agflow._utils.files import read_bytes
from agflow._utils.json_file import parse_object
from agflow.data.opening import readable_name
from agflow.errors import CorruptFileError, InvalidValueError

MAX_MAP_BYTES = 4 << 20  # ImageNet's 21,841 classes, each with a long name, need 1 MiB
ClassMap = Mapping[str | int, str | int] | str | os.PathLike | None
_WORDNET_ID = re.compile(r"(n\d{8})(?!\d)")
_NO_NAME = re.compile(r"LABEL_\d+")  # of a Hugging Face model that was given none
_CURE = (
    "give the class of the model for each of them with class_map ({name: number or name}, or "
    "--class-map FILE.json)"
)


@dataclass(frozen=True)
class ModelClasses:
    """The classes of a model, as far as they are known.

    Attributes
    ----------
    count : None where nothing is known
    names : in the order of the logits; None where they are not known
    """

    count: int | None = None
    names: tuple[str, ...] | None = None

    @classmethod
    def of(cls, classes: int | Sequence[str] | None) -> ModelClasses:
        """From a number of classes or from their names."""
        if classes is None or isinstance(classes, int):
            return cls(classes)
        if isinstance(classes, str):
            raise InvalidValueError(
                f"classes is {classes!r}, expected a number of classes or their names in a list"
            )
        names = tuple(map(str, classes))
        return cls(len(names), None if all(map(_NO_NAME.fullmatch, names)) else names)


def match_classes(
    names: Sequence[str],
    used: Collection[int],
    model: ModelClasses,
    class_map: ClassMap,
    data: str,
) -> dict[int, int]:
    """Find the model's class for every class of the data that occurs, by the rules above.

    Parameters
    ----------
    names : of all classes of the data, in its order
    used : the classes that occur, as numbers of ``names``
    data : its name, for errors

    Returns
    -------
    the model's class by the class of the data, both as numbers

    Raises
    ------
    InvalidValueError
        A name fits no class, or several; or no rule applies. The message says what to do.
    FileError, CorruptFileError
        ``class_map`` is a file that cannot be read, or is no class map.

    Examples
    --------
    >>> from agflow.data.class_names import ModelClasses, match_classes
    >>> model = ModelClasses.of(["dog", "cat, house cat"])
    >>> match_classes(["House_Cat", "dog"], [0, 1], model, None, "photos")
    {0: 1, 1: 0}
    >>> match_classes(["10", "9"], [0, 1], ModelClasses.of(11), None, "photos")
    {0: 10, 1: 9}
    """
    known = _Names(model)
    if class_map is not None:
        given = _read_map(class_map)
        return {own: _mapped(names[own], known, given, data) for own in used}
    found = {own: known.numbers(names[own]) for own in used}
    if not all(found.values()):
        if all(names[own].isdecimal() for own in used):
            return {own: int(names[own]) for own in used}
        if model.names is None and model.count in (None, len(names)):
            if model.count is not None:
                order = ", ".join(f"{name} = {own}" for own, name in enumerate(names[:3]))
                warnings.warn(
                    f"the names of the model's {model.count} classes are not known, so those of "
                    f"{data} are taken for them in order ({order}, …): {_CURE} if that is wrong",
                    stacklevel=5,
                )
            return {own: own for own in used}
        raise InvalidValueError(_unmatched(names, found, model, data))
    if all(own in numbers for own, numbers in found.items()):
        return {own: own for own in used}  # the same list: it may have a name twice, as ImageNet's
    return {own: _only(numbers, names[own], data) for own, numbers in found.items()}


class _Names:
    """A model's classes by all names that they are known by."""

    def __init__(self, model: ModelClasses):
        own = [[name] for name in model.names or ()]
        ids, lemmas = _imagenet(model)
        exact, ignoring_case, synonyms = (defaultdict(set) for _ in range(3))
        for number, some in enumerate(zip(own or ids, ids or own, lemmas or own, strict=True)):
            for name in {name for names in some for name in names}:
                exact[name].add(number)
                ignoring_case[_plain(name)].add(number)
                for part in name.split(","):
                    synonyms[_plain(part)].add(number)
        self._exact, self._ignoring_case, self._synonyms = exact, ignoring_case, synonyms

    def numbers(self, name: str) -> set[int]:
        """The classes that ``name`` fits best."""
        wordnet = _WORDNET_ID.match(name)
        return (
            self._exact.get(name)
            or self._ignoring_case.get(_plain(name))
            or self._synonyms.get(_plain(name))
            or (self._exact.get(wordnet[1]) if wordnet else None)
            or set()
        )


def _imagenet(model: ModelClasses) -> tuple[list[list[str]], list[list[str]]]:
    """WordNet ids and names by class, [] for a model whose classes are not those of ImageNet."""
    if model.count is None:
        return [], []
    import timm.data  # seconds to import

    subset = timm.data.infer_imagenet_subset({"num_classes": model.count})
    if subset is None:
        return [], []
    about = timm.data.ImageNetInfo(subset)
    ids, names = about.label_names(), about.label_descriptions()
    same = sum(own in about for own, *about in zip(model.names or ids, ids, names, strict=True))
    if same < len(ids) / 2:
        return [], []
    return [[id] for id in ids], [[name] for name in names]


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _only(numbers: set[int], name: str, data: str) -> int:
    if len(numbers) > 1:
        raise InvalidValueError(
            f"class {name!r} of {data} fits the model's classes "
            f"{' and '.join(map(str, sorted(numbers)))}: {_CURE}"
        )
    return next(iter(numbers))


def _unmatched(
    names: Sequence[str], found: Mapping[int, set[int]], model: ModelClasses, data: str
) -> str:
    strange = [names[own] for own, numbers in found.items() if not numbers]
    if model.names is None:
        return (
            f"{data} has {len(names)} classes ({_some(names)}) and the model {model.count}, whose "
            f"names are not known, so which is which cannot be told: {_CURE}"
        )
    close = difflib.get_close_matches(strange[0], model.names, 1)
    hint = f"; did you mean {close[0]!r}?" if close else f" (the model's are {_some(model.names)})"
    return (
        f"{len(strange)} of the {len(found)} classes of {data} are none of the model's "
        f"{model.count}, the first {strange[0]!r}{hint}: name them as the model does, or {_CURE}"
    )


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(map(str, listed[:3])) + (", …" if len(listed) > 3 else "")


def _mapped(name: str, known: _Names, given: Mapping[str, str | int], data: str) -> int:
    if name not in given:
        raise InvalidValueError(
            f"class {name!r} of {data} is not in the class map, which has {_some(given)}: add the "
            "class of the model that it is"
        )
    target = given[name]
    if isinstance(target, str):
        numbers = known.numbers(target)
        if not numbers and target.isdecimal():
            numbers = {int(target)}
        if numbers:
            return _only(numbers, target, data)
    elif isinstance(target, int) and not isinstance(target, bool):
        return target
    raise InvalidValueError(
        f"the class map gives {target!r} for {name!r}, expected the number or the name of a class "
        "of the model"
    )


def _read_map(class_map: ClassMap) -> dict[str, str | int]:
    if isinstance(class_map, Mapping):
        return {str(name): target for name, target in class_map.items()}
    assert class_map is not None
    thing = f"class map {readable_name(class_map)}"
    raw = read_bytes(class_map, "class map", MAX_MAP_BYTES)
    if os.fspath(class_map).endswith(".json"):
        return parse_object(raw, thing)
    try:
        rows = list(csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True))
    except (ValueError, csv.Error) as error:
        raise CorruptFileError(f"{thing} is neither JSON (.json) nor CSV ({error})") from error
    found: dict[str, str | int] = {}
    for number, row in enumerate(rows, 1):
        if not row:
            continue
        if len(row) != 2 or row[0] in found:
            raise CorruptFileError(
                f"line {number} of {thing} is {','.join(row)!r:.80}, expected a class of the data, "
                "a comma and the number or the name of the model's class, each class once"
            )
        found[row[0]] = row[1].strip()
    return found
