"""Entry points of the ``agflow`` command: the steps on cascades."""

from __future__ import annotations

import pathlib
from dataclasses import asdict

from agflow._utils.files import check_file
from agflow._utils.first_rank import is_first_rank
from agflow.commands.entry import (
    command,
    computing_of,
    load_light,
    load_role,
    loader_of,
    save_table,
)


@command
def predict(options: dict) -> dict:
    """Run both experts over the same images and write their predictions as an Arrow file."""
    from agflow.cascade import predict, tuned_on
    from agflow.cascade.expert_costs import MEASURED
    from agflow.cascade.ledger import cost_text
    from agflow.models.exported import check_normalisation
    from agflow.models.load import tuning_of

    check_file(options["output"], "output")
    computing = computing_of(options)
    heavy, preprocessing, _ = load_role(options, "heavy")
    light, tuning = load_light(options)
    check_normalisation(light, preprocessing)
    tuning = f"{tuning} {tuning_of(options['heavy'], heavy)}".strip()
    loader = loader_of(options, preprocessing, heavy, shared=True)
    with computing.precision():
        predictions = predict(
            computing.move(light),
            computing.move(heavy),
            loader,
            features=options["features"],
            second_view=options["second_view"],
            costs=MEASURED if options.get("costs") == MEASURED else None,
        )
    predictions = tuned_on(predictions, tuning)
    pathlib.Path(options["output"]).parent.mkdir(parents=True, exist_ok=True)
    if is_first_rank():
        save_table(predictions, options)
    light_accuracy, heavy_accuracy = predictions.light_accuracy, predictions.heavy_accuracy
    costs = predictions.costs
    paid = f"{cost_text(costs.light, costs.unit)} and {cost_text(costs.heavy, costs.unit)}"
    return {
        "summary": f"{options['output']}: {len(predictions)} images, "
        f"light {100 * light_accuracy:.1f} %, heavy {100 * heavy_accuracy:.1f} %, {paid} "
        f"an image, {computing}",
        "output": options["output"],
        **asdict(computing),
        "images": len(predictions),
        "light_accuracy": light_accuracy,
        "heavy_accuracy": heavy_accuracy,
        "costs": asdict(costs),
    }
