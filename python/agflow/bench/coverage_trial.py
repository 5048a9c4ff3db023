"""The trial of one model of ``agflow bench coverage``, in a process of its own.

``python -m agflow.bench.coverage_trial REQUEST`` writes what it finds into a file, step by step, so
that the file says how far a process came that was ended.
"""

from __future__ import annotations

import collections
import copy
import json
import pathlib
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from agflow._utils.tensors import relative_difference
from agflow.bench.coverage_models import MACS, Made, made
from agflow.bench.coverage_page import FAILED, NOT_INSTALLED, OK, REFUSED, TOO_LARGE, WRONG
from agflow.bench.coverage_peer import peer_trial
from agflow.calibration.calibration import calibrate
from agflow.errors import AgflowError, InternalError
from agflow.models import adapter_for, count_macs, count_params, head_of, load_expert, save_expert
from agflow.models.noting import note_images
from agflow.models.outputs import whole_output
from agflow.pruning.masks import masked
from agflow.pruning.planning import Plan, plan
from agflow.pruning.pruner import prune

TOLERANCE = 1e-6  # of the largest number that a model puts out; some compute in float32 inside
IMAGES = 2
Report = Callable[[dict[str, Any]], None]


class WrongResult(Exception):
    """A model was pruned, and the result is not what it should be."""


def trial(spec: str, report: Report) -> None:
    """Calibrate, plan, prune, compare, save and load a model.

    Parameters
    ----------
    spec : name of a model, see :mod:`agflow.bench.coverage_models`
    report : gets what is found, as soon as it is, and the step that comes next as ``step``

    Raises
    ------
    AgflowError
        agflow refuses the model.
    WrongResult
        It does not, and what it returned is wrong.
    """
    found = made(spec)
    model, images = found.model, torch.randn(IMAGES, *found.size)
    report(
        {
            "class": type(model).__name__,
            "part": found.part,
            "parameters": count_params(model),
            "step": "trace",
        }
    )
    started = time.process_time()
    note_images(model, images)
    adapter = adapter_for(model)
    groups, kept = adapter.layers(model), adapter.kept(model)
    kinds = collections.Counter(group.kind for group in groups)
    report(
        {
            "family": adapter.family,
            "groups": dict(kinds),
            "barriers": [[one.name, one.reason] for one in kept],
            "trace_s": round(time.process_time() - started, 1),
            "step": "calibrate",
        }
    )
    loss = "self" if head_of(model, images).classes else "features"
    chosen = sorted(kinds.keys() - {"block"} or kinds)  # whole blocks where there is nothing else
    statistics = calibrate(model, [images], groups=chosen, loss=loss)
    report({"loss": loss, "step": "plan"})
    planned = plan(statistics, macs=MACS)
    report({"step": "prune"})
    light = prune(model, planned, [images], compensate="none")  # which it compares on
    share = count_macs(light) / count_macs(model)
    report({"macs": round(share, 3), "step": "compare"})
    difference = _difference(found, light, planned)
    equal = difference <= TOLERANCE
    report({"equal": equal, "step": "save and load"})
    loads = _loads(light, images)
    report({"loads": loads, "step": ""})
    wrong = {
        f"the cut differs from the mask by {difference:.1e}": not equal,
        "the loaded model puts out other numbers than the saved one": not loads,
        f"{share:.3f} of the MACs are left": share > MACS,
    }
    if any(wrong.values()):
        raise WrongResult("; ".join(reason for reason, holds in wrong.items() if holds))


@torch.no_grad()
def _difference(found: Made, light: nn.Module, planned: Plan) -> float:
    """How far the pruned model is from the masked one in float64, of the largest number."""
    adapter = adapter_for(found.model)
    groups = {group.name: group for group in adapter.layers(found.model)}
    cuts = [
        (groups[layer.name], torch.from_numpy(planned.kept(layer.name))) for layer in planned.layers
    ]
    reference, small = copy.deepcopy(found.model).double(), copy.deepcopy(light).double()
    images = torch.randn(IMAGES, *found.size, dtype=torch.float64)
    with masked(adapter, reference, cuts):
        expected = whole_output(reference(images))
    return relative_difference(whole_output(small(images)), expected)


@torch.no_grad()
def _loads(light: nn.Module, images: torch.Tensor) -> bool:
    """Whether a model that was saved and loaded puts out the same bits."""
    with tempfile.TemporaryDirectory() as folder:
        save_expert(light, pathlib.Path(folder) / "light")
        loaded = load_expert(pathlib.Path(folder) / "light")
    return torch.equal(whole_output(loaded(images)), whole_output(light(images)))


SIDES: Mapping[str, Callable[[str, Report], None]] = {"agflow": trial, "peer": peer_trial}


def main(request: str) -> None:
    """Run one trial within its limits, and write its row into a file.

    Parameters
    ----------
    request : JSON object of model, side ("agflow" or "peer"), seconds (CPU time), memory (bytes)
        and file
    """
    asked = json.loads(request)
    # The kernel ends the process: nothing in it could, while a library computes.
    resource.setrlimit(resource.RLIMIT_CPU, (asked["seconds"], asked["seconds"]))
    resource.setrlimit(resource.RLIMIT_DATA, (asked["memory"], asked["memory"]))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    row: dict[str, Any] = {}

    def report(found: dict[str, Any]) -> None:
        row.update(found)
        file = pathlib.Path(asked["file"])
        file.with_suffix(".part").write_text(json.dumps(row))
        file.with_suffix(".part").replace(file)  # whole, whenever the process ends

    report({"step": "make"})
    report(_outcome(SIDES[asked["side"]], asked["model"], report))
    report({"seconds": round(time.process_time(), 1)})


def _outcome(side: Callable[[str, Report], None], spec: str, report: Report) -> dict[str, str]:
    """The outcome of a trial, and its reason where it is not OK."""
    try:
        side(spec, report)
        return {"outcome": OK}
    except WrongResult as error:
        return {"outcome": WRONG, "reason": str(error)}
    except Exception as error:  # of any kind: which it is, is what is measured
        said = str(error).strip() or "without a message"
        if isinstance(error, ImportError):
            return {"outcome": NOT_INSTALLED, "reason": said.splitlines()[0]}
        if isinstance(error, MemoryError) or "can't allocate memory" in said:
            return {"outcome": TOO_LARGE, "reason": "needs more memory than it was given"}
        if isinstance(error, AgflowError) and not isinstance(error, InternalError):
            return {"outcome": REFUSED, "reason": said}
        return {"outcome": FAILED, "reason": f"{type(error).__name__}: {said[:400]}"}


if __name__ == "__main__":
    main(sys.argv[1])
