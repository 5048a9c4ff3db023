"""Entry points of the ``agflow`` command: whole workflows."""

from __future__ import annotations

from dataclasses import asdict

from agflow._utils.folders import check_folder
from agflow.commands.entry import (
    command,
    computing_of,
    given_options,
    load_role,
    loader_of,
    say,
)
from agflow.errors import InvalidValueError


@command
def run(options: dict) -> dict:
    """The whole pipeline; see :func:`agflow.recipes.run`."""
    from agflow._utils.defaults import default
    from agflow.recipes import pipeline, report
    from agflow.recipes.results import RunOptions

    known = RunOptions.__dataclass_fields__
    for name in sorted(set(options) - set(known)):
        raise InvalidValueError(f"run does not know the option {name!r}; it knows {[*known]}")
    given = given_options(options)
    if "macs" not in given and "pruning_ratio" not in given:
        given["macs"] = default("run", "macs")
    result = pipeline.run(RunOptions(**given), say=say)
    return {"summary": result.summary, "output": result.options.output, **report.as_dict(result)}


@command
def shrink(options: dict) -> dict:
    """Shrink a model in one step and save the light expert's folder; see :func:`agflow.shrink`."""
    from agflow.models import save_expert
    from agflow.models.expert import EXPERT_FOLDER
    from agflow.pruning import Allocation
    from agflow.recipes import ShrinkOptions, shrink

    check_folder(options["output"], EXPERT_FOLDER)  # before the work, not after it
    computing = computing_of({**options, "dtype": None})  # float32, which a repair needs
    model, preprocessing, _ = load_role(options, "model")
    given = given_options(options)
    budget = {name: given[name] for name in ("macs", "params", "pruning_ratio") if name in given}
    named = ("batches", "batch_size", "groups", "loss", "criterion", "compensate", "held_out")
    allocated = ("round_to", "ignored_layers")
    reports = []
    light = shrink(
        computing.move(model),
        loader_of(options, preprocessing, model),
        **budget,
        options=ShrinkOptions(
            allocation=Allocation(**{name: given[name] for name in allocated if name in given}),
            **{name: given[name] for name in named if name in given},
        ),
        report=reports.append,
        seed=options["seed"],
    )
    (found,) = reports
    about = {"preprocessing": preprocessing, "tuning": found.tuning}
    save_expert(light.cpu(), options["output"], found.plan, **about)
    output, heavy = options["output"], options["model"]
    next_step = f"agflow finetune --light {output} --heavy {heavy} --data {options['data']} …"
    return {
        "summary": f"{output}: {found.text(next_step)}",
        "output": output,
        **asdict(computing),
        **found.as_dict(),
    }


@command
def design(options: dict) -> dict:
    """Design, calibrate and evaluate a cascade; see :func:`agflow.recipes.design`."""
    from agflow.recipes import cascade_design

    given = given_options(options)
    if "macs" in given:
        given["macs"] = tuple(map(float, given["macs"]))  # JSON writes 1.0 as 1
    found = cascade_design.design(cascade_design.DesignOptions(**given), say=say)
    return {
        "summary": found.summary,
        "output": found.options.output,
        "counts": asdict(found.counts),
        "next": found.next,
        "chosen": asdict(found.design.chosen),
        "verdict": found.router.verdict,
        "router": asdict(found.router),
        "evaluated": asdict(found.evaluation),
        "images_per_second": {
            contender: timing.images_per_second for contender, timing in found.timings.items()
        },
    }
