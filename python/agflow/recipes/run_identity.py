"""What a run is known by: a digest of its options and of the content of its inputs."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from torch import nn

from agflow.data.datasets import Dataset
from agflow.data.preprocessing import Preprocessing
from agflow.models.registry import describe
from agflow.training.digests import digest_of

_DECIDES_NOTHING = ("output", "force", "workers")  # of the options


@dataclass(frozen=True)
class RunIdentity:
    """The recipe, options and inputs of a run: equal ones give equal results.

    Attributes
    ----------
    recipe : such as ``"run"``
    options : JSON-ready
    inputs : what the options name, by digests of the contents, and the versions of the libraries
    """

    recipe: str
    options: dict[str, Any]
    inputs: dict[str, Any]

    @classmethod
    def of(
        cls,
        recipe: str,
        options: Any,
        model: nn.Module,
        preprocessing: Preprocessing,
        data: Mapping[str, Dataset],
    ) -> RunIdentity:
        """The identity of a recipe with a dataclass of ``options`` on a model and data sets.

        Where the output lies, and how many processes decode images, decides nothing.

        Raises
        ------
        UnsupportedModelError
            No adapter can describe the model.
        """
        kept = {name: v for name, v in asdict(options).items() if name not in _DECIDES_NOTHING}
        inputs = {
            "model": digest_of(model),
            "architecture": digest_json(describe(model)),
            "preprocessing": preprocessing.to_dict(),
            "data": {name: dataset.digest for name, dataset in data.items()},
            "versions": {name: version(name) for name in ("agflow", "torch")},
        }
        return cls(recipe, *json.loads(json.dumps([kept, inputs])))

    @functools.cached_property
    def run(self) -> str:
        """The run's id: SHA-256 of all of it, hexadecimal."""
        return digest_json([self.recipe, self.options, self.inputs])

    def difference(self, content: Mapping[str, Any]) -> str:
        """The first thing in which the run of a run.json differs from this one, in words."""
        then, now = ({**c["options"], **c["inputs"]} for c in (content, vars(self)))
        for (name, was), (_, is_) in zip(_leaves(then, now), _leaves(now, then), strict=True):
            if was != is_:
                return f"{name}: {_short(was)} then, {_short(is_)} now"
        return f"recipe: {content['recipe']} then, {self.recipe} now"


def digest_json(content: Any) -> str:
    """SHA-256 of JSON-ready values, hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _leaves(one: Any, other: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested dicts by their names, over the names of both ``one`` and ``other``."""
    if not (isinstance(one, dict) or isinstance(other, dict)):
        yield name, one
        return
    one, other = (value if isinstance(value, dict) else {} for value in (one, other))
    for key in sorted({*one, *other}):
        yield from _leaves(one.get(key), other.get(key), f"{name} {key}".strip())


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:12]}...{text[-5:]}"
