"""A search whose tensors and experts are steps of a run."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from dataclasses import asdict

import safetensors.torch

from agflow._utils.files import atomic_file
from agflow._utils.json_file import Keys, read_json, write_json
from agflow.cascade.ledger import CascadeCosts
from agflow.data.preprocessing import Preprocessing
from agflow.models.expert import PLAN, load_expert, save_expert
from agflow.pruning.planning import Plan
from agflow.recipes.run_folder import STEPS_FOLDER, RunFolder
from agflow.search.candidates import Candidate
from agflow.search.frontier import EvaluatedCandidate
from agflow.search.keeping import SearchedExpert, SearchSteps, Tensors
from agflow.training.checkpoint_file import remove_if_damaged

_KEYS = {4: Keys((), ("candidate", "evaluated", "costs", "heavy_seconds"))}


class KeptSearch(SearchSteps):
    """Keeps what a search makes in the folder of the step under way, which goes with the step.

    Parameters
    ----------
    outer : name of the step under way
    preprocessing : kept with the experts
    """

    def __init__(self, folder: RunFolder, outer: str, preprocessing: Preprocessing):
        self._folder, self._outer, self._preprocessing = folder, outer, preprocessing
        self._below = f"{STEPS_FOLDER}/{outer}/kept"

    def tensors(self, name: str, make: Callable[[], Tensors]) -> Tensors:
        """Tensors by their names, kept as a safetensors file."""
        file = f"{self._below}/{name}.safetensors"

        def write(_: pathlib.Path) -> None:
            with atomic_file(self._folder.path / file, "tensors") as made:
                safetensors.torch.save_file(
                    {key: tensor.contiguous() for key, tensor in make().items()}, made
                )

        self._folder.step(f"{self._outer}/{name}", "", (file,), write)
        return safetensors.torch.load_file(self._folder.path / file)

    def expert(
        self, name: str, make: Callable[[pathlib.Path | None], SearchedExpert | None]
    ) -> SearchedExpert | None:
        """An expert, kept as an expert folder and a record beside it."""
        place = self._folder.path / self._below / name
        record = place.with_name(f"{name}.json")

        def write(own: pathlib.Path) -> None:
            checkpoint = own / "checkpoint"
            remove_if_damaged(checkpoint)
            found = make(checkpoint)
            if found is not None:
                save_expert(found.model, place, found.plan, self._preprocessing)
            write_json(record, {} if found is None else _as_dict(found), "step file")

        files = (f"{self._below}/{name}/", f"{self._below}/{name}.json")
        self._folder.step(f"{self._outer}/{name}", "", files, write)
        return _read(place, record)


def _as_dict(expert: SearchedExpert) -> dict:
    parts = {name: asdict(getattr(expert, name)) for name in ("candidate", "evaluated", "costs")}
    return {**parts, "heavy_seconds": expert.heavy_seconds}


def _read(place: pathlib.Path, record: pathlib.Path) -> SearchedExpert | None:
    content = read_json(record, "step file", _KEYS)
    if "candidate" not in content:
        return None
    candidate = content["candidate"]
    return SearchedExpert(
        candidate=Candidate(**{**candidate, "image_size": tuple(candidate["image_size"])}),
        model=load_expert(place),
        plan=Plan.load(place / PLAN) if (place / PLAN).exists() else None,
        evaluated=EvaluatedCandidate(**content["evaluated"]),
        costs=CascadeCosts(**content["costs"]),
        heavy_seconds=content["heavy_seconds"],
    )
