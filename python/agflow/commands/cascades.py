"""Entry points of the ``agflow`` command: the steps on cascades."""

from __future__ import annotations

import pathlib
from dataclasses import asdict

from agflow._utils.files import check_file
from agflow._utils.first_rank import is_first_rank
from agflow.commands.entry import command, computing_of, load_role, loader_of


@command
def predict(options: dict) -> dict:
    """Run both experts over the same images and write their predictions as an Arrow file."""
    from agflow.cascade import predict, tuned_on
    from agflow.models import expert_tuning, load_expert

    check_file(options["output"], "output")
    computing = computing_of(options)
    heavy, preprocessing, _ = load_role(options, "heavy")
    folders = [options["light"]]
    if options["heavy"] != "example" and pathlib.Path(options["heavy"]).is_dir():
        folders.append(options["heavy"])
    loader = loader_of(options, preprocessing, heavy, shared=True)
    with computing.precision():
        predictions = predict(
            computing.move(load_expert(options["light"])),
            computing.move(heavy),
            loader,
            features=options["features"],
            second_view=options["second_view"],
        )
    predictions = tuned_on(predictions, " ".join(map(expert_tuning, folders)).strip())
    pathlib.Path(options["output"]).parent.mkdir(parents=True, exist_ok=True)
    if is_first_rank():
        predictions.save(options["output"])
    light, heavy_accuracy = predictions.light_accuracy, predictions.heavy_accuracy
    return {
        "summary": f"{options['output']}: {len(predictions)} images, light {100 * light:.1f} %, "
        f"heavy {100 * heavy_accuracy:.1f} %, {computing}",
        "output": options["output"],
        **asdict(computing),
        "images": len(predictions),
        "light_accuracy": light,
        "heavy_accuracy": heavy_accuracy,
    }
