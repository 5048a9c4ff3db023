"""Entry points of the ``agflow`` command: whole workflows."""

from __future__ import annotations

from dataclasses import asdict

from agflow.commands.entry import command, given_options, say
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
