"""Entry points of the ``agflow`` command: routing of answers in files of other programs.

Nothing here imports torch.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from agflow.commands.entry import command

if TYPE_CHECKING:
    from agflow.cascade import CascadeCosts, Predictions, Router


@command
def route_answers(options: dict) -> dict:
    """Calibrate a router on answers in files; the router as the core writes it."""
    from dataclasses import asdict

    from agflow.cascade import calibrate_router, curve

    predictions = _predictions(options, None)
    asked = {name: options[name] for name in ("prior", "confidence", "ensemble")}
    limits = {name: options[name] for name in ("tolerance", "charged", "escalation")}
    router = calibrate_router(predictions, **asked, **limits)
    if options.get("curve"):
        found = curve(
            predictions,
            prior=router.prior,
            points=options["points"],
            ensemble=options["ensemble"],
        )
        found.save(options["curve"])
    return {"router": asdict(router)}


@command
def evaluate_answers(options: dict) -> dict:
    """Evaluate a router on answers in files; the evaluation as the core makes it."""
    from dataclasses import asdict

    from agflow._core import arrow
    from agflow._core.loader import core
    from agflow._core.request import request_json
    from agflow.cascade import Router

    router = Router.load(options["router"])
    batch = _predictions(options, router).batch
    found = arrow.call(core().evaluate_router, request_json(asdict(router)), batch)
    return {"evaluation": json.loads(found)}


def _predictions(options: dict, router: Router | None) -> Predictions:
    """The predictions of the files that the options name."""
    from agflow.cascade.prediction_files import predictions_of_files, predictions_of_table

    classes, costs = options.get("classes") or None, _costs(options)
    if not options.get("light"):
        return predictions_of_table(options["predictions"], costs, classes, router)
    files = {role: options.get(role) for role in ("light", "heavy", "labels", "light_prior")}
    return predictions_of_files(files, costs, classes, router)


def _costs(options: dict[str, Any]) -> CascadeCosts | None:
    """The costs that were given."""
    from agflow.cascade import CascadeCosts

    if options.get("light_cost") is None:
        return None
    return CascadeCosts(options["light_cost"], options["heavy_cost"], unit=options["cost_unit"])
