"""The report of a run: Markdown for people, JSON for machines, pictures for both."""

from __future__ import annotations

import json
import pathlib
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from agflow._utils.files import atomic_file, write_text
from agflow._utils.json_file import write_json
from agflow.cascade.router_evaluation import percent_text
from agflow.evaluation.timing import Timing
from agflow.recipes.results import SLOWER, CascadeResult, RunResult

STAGES = ("pruned", "repaired", "fine-tuned")
LIBRARIES = ("agflow", "torch", "timm", "pyarrow", "numpy")


def write_report(result: RunResult, folder: pathlib.Path, run: str) -> None:
    """Write five pictures, report.md and, last, report.json into ``folder``.

    The pictures are utilities.png, stages.png, cascade.png, reliability.png and escalated.png.

    Parameters
    ----------
    run : id of the run, kept in report.json

    Raises
    ------
    FileError
        A file cannot be written; the message names it.
    """
    _pictures(result, folder)
    write_text(folder / "report.md", as_markdown(result), "report")
    write_json(folder / "report.json", {"run": run, **as_dict(result)}, "report")


def _pictures(result: RunResult, folder: pathlib.Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    from agflow import plotting

    def axes(width: float, height: float, rows: int = 1):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure.subplots(rows, squeeze=False)[:, 0]

    style: dict[Any, Any] = {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.dpi": 120,
    }
    with matplotlib.rc_context(style):
        groups = sorted({layer.group for layer in result.scores.layers}, reverse=True)
        rows = axes(9, 3.6 * len(groups), len(groups))
        for ax, group in zip(rows, groups, strict=True):
            plotting.plot_utilities(result.scores, group=group, ax=ax)
        predictions, router = result.predictions, result.cascade.router
        drawn = {
            "utilities": rows[0],
            "stages": plotting.plot_stages(result, ax=axes(8, 4)[0]),
            "cascade": plotting.plot_cascade(predictions, router, ax=axes(8, 5)[0]),
            "reliability": plotting.plot_reliability(predictions, ax=axes(5, 4.5)[0]),
            "escalated": plotting.plot_escalated(
                result.test, predictions, router, ax=axes(9.2, 5.8)[0]
            ),
        }
        for name, ax in drawn.items():
            with atomic_file(folder / f"{name}.png", "picture") as made:
                ax.figure.savefig(made)


def environment() -> dict[str, str]:
    """Versions and processor of this run."""
    cpu = platform.processor() or platform.machine()
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        models = (line for line in info.read_text().splitlines() if line.startswith("model name"))
        cpu = next((line.split(":", 1)[1].strip() for line in models), cpu)
    return {
        "python": platform.python_version(),
        "cpu": cpu,
        **{name: version(name) for name in LIBRARIES},
    }


def as_dict(result: RunResult) -> dict:
    """The run as JSON values: every figure of the Markdown report."""
    return {
        "counts": asdict(result.counts),
        "next": result.next,
        "options": asdict(result.options),
        "model": result.name,
        "classes": result.classes,
        "images": dict(result.images),
        "fingerprint": result.fingerprint,
        "environment": environment(),
        "plan": {
            "macs": result.plan.macs,
            "dense_macs": result.plan.model_macs,
            "report": result.plan.report,
            "layers": [asdict(layer) for layer in result.plan.planned],
        },
        "dense": asdict(result.dense),
        "stages": {name: asdict(stages) for name, stages in result.stages.items()},
        "cascade": _cascade_dict(result.cascade),
        "cascade_among_present": _cascade_dict(result.cascade_among_present),
        "images_per_second": {
            name: {"median": t.images_per_second, "slowest": t.spread[0], "fastest": t.spread[1]}
            for name, t in result.timings.items()
        },
        "slower": result.slower,
    }


def _cascade_dict(found: CascadeResult | None) -> dict | None:
    if found is None:
        return None
    return {"router": asdict(found.router), **asdict(found.evaluation)}


def as_markdown(result: RunResult) -> str:
    """The text of report.md: the verdict, the cascade and its picture, then the rest."""
    sections = [
        _verdict(result),
        [*_cascade_table(result.cascade, result.timings), _difference(result)],
        ["![accuracy against expected cost](cascade.png)"],
        ["## What escalates", "", "From low to high confidence of the light expert."],
        ["![images that escalate, and images that do not](escalated.png)"],
    ]
    if result.cascade_among_present:
        sections.append(_among_present(result, result.cascade_among_present))
    sections += [
        ["## The light expert", "", *_light_expert(result), "", *_accuracy_table(result)],
        ["![accuracy after each step](stages.png)"],
        ["![confidence against accuracy](reliability.png)"],
        ["## Speed", "", *as_speed_table(result)],
        ["## Utilities and plan", "", *_plan_table(result)],
        ["![utilities](utilities.png)"],
        ["## Reproduce", "", *_reproduction(result)],
    ]
    return "\n".join(line for section in sections for line in [*section, ""])


def _verdict(result: RunResult) -> list[str]:
    counts, found = result.counts, result.cascade
    return [
        f"# agflow: {result.name}",
        "",
        f"**{counts.line}**",
        "",
        f"{_sentence(counts.meaning)} {_sentence(found.router.rule)}",
        "",
        _sentence(result.next),
    ]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _light_expert(result: RunResult) -> list[str]:
    options, plan = result.options, result.plan
    counts = ", ".join(f"{count} {use}" for use, count in result.images.items())
    return [
        f"Plan: criterion `{options.criterion}`, {plan.macs / 1e6:.1f} M of "
        f"{plan.model_macs / 1e6:.1f} M MACs per image ({plan.macs_share:.3f}x), "
        f"repair `{options.compensate}`, {options.epochs} epochs of distillation, "
        f"seed {options.seed}.",
        f"Images: {counts}; no image serves two of fine-tuning, threshold and test.",
    ]


def _accuracy_table(result: RunResult) -> list[str]:
    partial = result.dense.classes < result.classes
    stages = result.stages[result.options.criterion]
    among = f" In brackets: among the {result.dense.classes} classes of the data."

    def cell(found) -> str:
        return f"{100 * found.top1:.1f}" + (f" ({100 * found.among_present:.1f})" * partial)

    return [
        f"Top-1 % on {result.dense.images} test images; dense {cell(result.dense)}."
        + among * partial,
        "",
        f"Criterion and control are compared after {_epochs(stages.epochs)} of distillation, each "
        f"with a schedule of its own. The light expert of the cascade was trained for "
        f"{_epochs(result.options.epochs)}: {100 * result.cascade.evaluation.light:.1f} %.",
        "",
        "| criterion | " + " | ".join(STAGES) + " |",
        "|---|" + "---|" * len(STAGES),
        *(
            f"| {name} | {cell(found.cut)} | {cell(found.repaired)} | {cell(found.tuned)} |"
            for name, found in result.stages.items()
        ),
    ]


def _epochs(count: int) -> str:
    return f"{count} epoch{'' if count == 1 else 's'}"


def _cascade_table(found: CascadeResult, timings: Mapping[str, Timing] = {}) -> list[str]:
    evaluation, ledger = found.evaluation, found.evaluation.ledger
    light = ledger.light_cost / ledger.heavy_cost
    random = (evaluation.random_low, evaluation.random_high)
    routed = f"{100 * ledger.escalation:.1f} | {ledger.charged:.3f}x"
    rows = (
        ("heavy", "heavy expert", evaluation.heavy, evaluation.heavy_interval, "100 | 1.000x"),
        ("light", "light expert", evaluation.light, evaluation.light_interval, f"0 | {light:.3f}x"),
        ("cascade", "**cascade**", evaluation.cascade, evaluation.cascade_interval, routed),
        ("", "random routing, same share", evaluation.random, random, routed),
    )
    return [
        f"| {evaluation.images} test images | accuracy % (95 % interval) "
        f"| images to the heavy expert % | expected {ledger.cost_unit} per image | images/s |",
        "|---|---|---|---|---|",
        *(
            f"| {label} | {percent_text(accuracy, interval)} | {figures} "
            f"| {f'{timings[name].images_per_second:.0f}' if name in timings else ''} |"
            for name, label, accuracy, interval, figures in rows
        ),
    ]


def _difference(result: RunResult) -> str:
    evaluation, ledger = result.cascade.evaluation, result.cascade.evaluation.ledger
    return (
        f"\nThe cascade against the heavy expert: {evaluation.difference_text}, "
        f"{evaluation.lost} images lost and {evaluation.gained} gained. The expected "
        f"{ledger.cost_unit} per image, a ratio of the heavy expert's, count both passes of an "
        f"image that escalates; without the light one they would be {ledger.uncharged:.3f}x. "
        "Break-even is at "
        f"{100 * ledger.break_even:.1f} % escalated."
    )


def _among_present(result: RunResult, found: CascadeResult) -> list[str]:
    counts = found.evaluation.counts
    return [
        f"## Among the {result.dense.classes} classes of the data",
        "",
        f"Both experts answer only these, and the threshold is another: **{counts.line}**",
        "",
        f"{_sentence(counts.meaning)} {_sentence(found.router.rule)}",
        "",
        *_cascade_table(found),
    ]


def as_speed_table(result: RunResult) -> list[str]:
    """Lines of Markdown: images per second of heavy, light and cascade.

    They say FAILURE where the light expert is the slower one.
    """
    heavy = result.timings["heavy"]
    rounds = len(heavy.seconds)

    def row(name: str, timing: Timing) -> str:
        slowest, fastest = timing.spread
        images = f"{timing.images_per_second:.0f} ({slowest:.0f} to {fastest:.0f})"
        over = timing.speed_over(heavy)
        finding = "" if timing is heavy else f" ({over.slowest:.2f} to {over.fastest:.2f})"
        finding += "" if timing is heavy else f": {over.finding}"
        return f"| {name} | {images} | {over.speed:.2f}x{finding} |"

    return [
        f"Images per second, batch 32, {rounds} interleaved rounds: median (slowest to fastest "
        "round). Rounds that do not agree are too noisy to tell.",
        *([SLOWER] if result.slower else []),
        "",
        "| | images/s | over heavy, round by round |",
        "|---|---|---|",
        *(row(name, timing) for name, timing in result.timings.items()),
    ]


def _plan_table(result: RunResult) -> list[str]:
    rows = ["| layer | group | units | kept |", "|---|---|---|---|"]
    return rows + [f"| {p.name} | {p.group} | {p.units} | {p.kept} |" for p in result.plan.planned]


def _reproduction(result: RunResult) -> list[str]:
    recorded = {
        "options": asdict(result.options),
        "environment": environment(),
        "data": result.fingerprint,
    }
    return ["```json", json.dumps(recorded, indent=2), "```"]
