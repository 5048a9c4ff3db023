"""The results of a run's steps as files below the run folder, from which they are read again."""

from __future__ import annotations

import pathlib
from dataclasses import asdict, fields
from typing import Any

from agflow._utils.json_file import Keys, read_json, write_json
from agflow.cascade.curves import Curve
from agflow.cascade.ledger import Ledger
from agflow.cascade.router import Router
from agflow.cascade.router_evaluation import RouterEvaluation
from agflow.cascade.verdict import Verdict
from agflow.evaluation.accuracy import Accuracy
from agflow.evaluation.timing import Timing
from agflow.recipes.results import CascadeResult, Stages

_STAGES = {4: Keys(("cut", "repaired", "tuned", "epochs"))}
_EVALUATION = {4: Keys(tuple(field.name for field in fields(RouterEvaluation)))}
_TIMINGS = {4: Keys(("seconds", "images"))}


def write_stages(path: pathlib.Path, stages: Stages) -> None:
    """Write the accuracies of a light expert."""
    write_json(path, asdict(stages), "stages")


def read_stages(path: pathlib.Path) -> Stages:
    """The accuracies of a light expert."""
    content = read_json(path, "stages", _STAGES)
    accuracies = (Accuracy(**content[name]) for name in ("cut", "repaired", "tuned"))
    return Stages(*accuracies, epochs=content["epochs"])


def write_evaluation(path: pathlib.Path, evaluation: RouterEvaluation) -> None:
    """Write the evaluation of a router on test images."""
    write_json(path, asdict(evaluation), "evaluation")


def read_evaluation(path: pathlib.Path) -> RouterEvaluation:
    """The evaluation of a router on test images."""
    content = read_json(path, "evaluation", _EVALUATION)
    figures: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in content.items()
        if name in _EVALUATION[4].required
    }
    figures["ledger"] = Ledger(**content["ledger"])
    figures["counts"] = Verdict(**content["counts"])
    return RouterEvaluation(**figures)


def read_cascade_result(
    path: pathlib.Path, router: pathlib.Path, curve: pathlib.Path
) -> CascadeResult:
    """A cascade's evaluation with its router and its curve, which have files of their own."""
    return CascadeResult(Router.load(router), read_evaluation(path), Curve.load(curve))


def write_timings(path: pathlib.Path, timings: dict[str, Timing]) -> None:
    """Write measured times, by the names of the contenders."""
    seconds = {name: timing.seconds for name, timing in timings.items()}
    images = {name: timing.images for name, timing in timings.items()}
    write_json(path, {"seconds": seconds, "images": images}, "timings")


def read_timings(path: pathlib.Path) -> dict[str, Timing]:
    """Measured times, by the names of the contenders."""
    content = read_json(path, "timings", _TIMINGS)
    return {
        name: Timing(tuple(seconds), content["images"][name])
        for name, seconds in content["seconds"].items()
    }
